"""The reference implementation: transformers' own model, tokenizer and image processor.

It runs when a package is built, on the processor and in fp32, and what it computes is what the
package promises. None of it is our code; in serving, none of it is imported. Where texts are
cleaned as OpenCLIP does, OpenCLIP's own tokenizers clean them and make their ids.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import io
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
)

from score.arrays import FloatPrecision, Matrix
from score.checkpoints.source import Source, Tensors
from score.errors import ModelError
from score.extras import install
from score.folder.model_folder import image_processor, read_json
from score.folder.weights import FILE, INDEX, Weights
from score.hardware.processor import release_free_memory
from score.images import processors
from score.images.preprocess import Pixels
from score.model.engines.pytorch import DTYPES
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Ids

NAME = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}, fp32"

_KINDS = {"clip": (CLIPConfig, CLIPModel), "metaclip_2": (MetaClip2Config, MetaClip2Model)}


class Reference:
    """A model folder as transformers reads it. Use it as a context manager: it is as large as the
    model in fp32, and leaving it frees that."""

    def __init__(
        self, source: Source, canonical: Path, precision: FloatPrecision | None = None
    ) -> None:
        """`source`: the checkpoint, from which all is read that is in the transformers layout, and
        the weights in any layout; `canonical`: what was made of it, for the rest. `precision`: what
        the weights are rounded to, because they are meant to be. Raises ModelError."""
        self.architecture = source.architecture
        self.name = _name(source.cleaning)
        told = source.original or canonical
        tokenizer = source.tokenizer_folder or canonical
        processor = source.processor_file or canonical / "preprocessor_config.json"
        config, model = _KINDS[source.architecture.kind]
        shown = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what old checkpoints spell in old ways
                # A checkpoint may ask for kernels and quantizers to be fetched; it gets neither.
                asked = config.from_pretrained(told, local_files_only=True)
                asked.__dict__.pop("quantization_config", None)
                self._model = model.from_pretrained(
                    **_weights(source),
                    config=asked,
                    attn_implementation="sdpa",
                    dtype=torch.float32,  # its default narrows all to what config.json states
                    local_files_only=True,
                ).eval()
                context = self.architecture.text.context
                self._tokenizer = _tokenizer(tokenizer, context, source.cleaning)
                self._processor = _processor(processor)
        except Exception as error:  # whatever transformers makes of a folder it cannot read
            raise ModelError(f"transformers cannot read {told.name}: {error}") from error
        finally:
            if shown:
                transformers.utils.logging.enable_progress_bar()

        # In memory of their own: the last bits of sums depend on where in a file numbers lie.
        for parameter in self._model.parameters():
            rounded = parameter.data.to(DTYPES[precision or "fp32"])
            parameter.data = torch.empty(parameter.shape).copy_(rounded)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        del self._model
        gc.collect()
        release_free_memory()  # before the next model comes

    def unlike(self, written: Tensors) -> Iterator[str]:
        """The names of its weights that are others in `written`, if only in their last bit."""
        for name, theirs in self._model.state_dict().items():
            if not torch.equal(written.read(name).float(), theirs):
                yield name

    def ids(self, text: str) -> Ids:
        """A text's token ids, begin and end tokens included, cut to the context."""
        return self._tokenizer.ids(text)

    def added_tokens(self) -> list[str]:
        """Tokens beside the vocabulary that texts may spell out and the model has embeddings for,
        without those that begin and end every text."""
        usual, most = set(self.ids("")), self.architecture.text.vocabulary
        added = self._tokenizer.added_tokens()
        return [token for token, id in added.items() if id not in usual and id < most]

    def pixels(self, data: bytes) -> Pixels:
        """An image's prepared pixels before they are normalised: uint8 [height, width, 3]."""
        plain = {"do_rescale": False, "do_normalize": False}
        values = self._prepared(data, **plain)[0].numpy()
        return np.moveaxis(values, 0, -1).astype(np.uint8)

    @torch.inference_mode()
    def text_vector(self, text: str) -> Matrix:
        """float32 [dimension]."""
        ids = torch.tensor([self.ids(text)])
        return _vector(self._model.get_text_features(input_ids=ids))

    @torch.inference_mode()
    def image_vector(self, data: bytes) -> Matrix:
        """float32 [dimension]."""
        return _vector(self._model.get_image_features(pixel_values=self._prepared(data)))

    def _prepared(self, data: bytes, **options: bool) -> torch.Tensor:
        with Image.open(io.BytesIO(data)) as image:
            values: torch.Tensor = self._processor([image], return_tensors="pt", **options)[
                "pixel_values"
            ]
        return values


def _processor(file: Path) -> Any:
    """The image processor that a configuration names, in its PIL form.

    `AutoImageProcessor` would do, but for old files that write a feature extractor's name where the
    image processor's belongs. It converts to RGB whether or not it is told to: otherwise ViT's, for
    one, fails on grey, palettes and transparency.
    """
    kind = processors.kind(image_processor(file))
    made = getattr(transformers, f"{kind}ImageProcessorPil")
    return made.from_pretrained(file.parent, local_files_only=True, do_convert_rgb=True)


def _weights(source: Source) -> dict[str, Any]:
    """Where transformers finds a checkpoint's weights: in its own files, if it can read them.

    A torch file is never given to it, since we alone say how pickles are read.
    """
    if source.original and isinstance(source.tensors, Weights) and _opens(source.original):
        return {"pretrained_model_name_or_path": source.original, "use_safetensors": True}
    state = {name: _alone(source.read(name).float()) for name in source.parts}
    return {"pretrained_model_name_or_path": None, "state_dict": state}


def _opens(folder: Path) -> bool:
    """Whether transformers opens a folder's safetensors: of an index it wants `metadata`, too."""
    return (folder / FILE).is_file() or "metadata" in read_json(folder / INDEX)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that keeps no larger one in memory, as one cut out of OpenCLIP's `in_proj` does."""
    part = tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone() if part else tensor


def check_installed(cleaning: Cleaning) -> None:
    """Raises ModelError where the reference of a cleaning is not installed."""
    if cleaning.name == "openclip":
        _open_clip()


class _Transformers:
    """transformers' tokenizer of a folder."""

    def __init__(self, folder: Path, context: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._context = context

    def ids(self, text: str) -> Ids:
        options = {"truncation": True, "max_length": self._context}
        ids: Ids = self._tokenizer([text], **options)["input_ids"][0]
        return ids

    def added_tokens(self) -> dict[str, int]:
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return added


class _OpenClip:
    """OpenCLIP's tokenizers: its own for CLIP's byte pairs, and what it wraps around others."""

    def __init__(self, folder: Path, context: int, *, own: bool) -> None:
        module = _open_clip()
        self._padding, self._added = 0, {}
        if own:
            self._tokenizer = module.SimpleTokenizer(context_length=context)
        else:
            self._tokenizer = module.HFTokenizer(
                str(folder), context, local_files_only=True, trust_remote_code=False
            )
            self._padding = self._tokenizer.tokenizer.pad_token_id
            self._added = self._tokenizer.tokenizer.get_added_vocab()

    def ids(self, text: str) -> Ids:
        ids: Ids = self._tokenizer([text])[0].tolist()
        while ids[-1] == self._padding:  # never a text's own last, which is the end token
            ids.pop()
        return ids

    def added_tokens(self) -> dict[str, int]:
        return self._added


def _tokenizer(folder: Path, context: int, cleaning: Cleaning) -> _Transformers | _OpenClip:
    if cleaning.name == "transformers":
        return _Transformers(folder, context)
    return _OpenClip(folder, context, own=cleaning.lower)


@functools.cache
def _open_clip() -> ModuleType:
    """`open_clip.tokenizer` by itself: importing all of OpenCLIP needs torchvision and timm."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ModelError(
            "texts of this checkpoint are cleaned as OpenCLIP does, and proven against OpenCLIP's "
            f"own tokenizer, which is missing: {install('open_clip')}; or "
            "leave texts as they are with --cleaning transformers"
        )
    file = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", file)
    assert spec, "a file of Python code has a loader"
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ModelError(f"OpenCLIP's tokenizer cannot be imported: {error}") from error
    return module


def _name(cleaning: Cleaning) -> str:
    """Who computes: libraries and their versions."""
    if cleaning.name == "transformers":
        return NAME
    return f"{NAME}; texts: open_clip {version('open_clip_torch')}, ftfy {version('ftfy')}"


def _vector(features: Any) -> Matrix:
    vector: Matrix = features.pooler_output[0].float().numpy()  # projected already
    return vector
