"""The reference implementation: transformers' own model, tokenizer and image processor.

It runs when a package is built, on the CPU in fp32; its outputs are the package's probes. Serving
does not import it. Where texts are cleaned as OpenCLIP does, OpenCLIP's own tokenizers clean them
and compute their ids.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
)

from score.checkpoints.source import Source, Tensors
from score.errors import ModelError
from score.extras import install, missing
from score.folder.architecture import Architecture
from score.folder.model_folder import image_processor, read_json
from score.folder.weights import FILE, INDEX, Weights
from score.hardware.processor import release_free_memory
from score.images import processors
from score.images.preprocess import Pixels
from score.model.engines.pytorch import DTYPES
from score.texts import siglip
from score.texts.cleaning import OPEN_CLIPS, Cleaning
from score.texts.tokenizer import Ids, no_panics
from score.type_aliases import FloatPrecision, Matrix

NAME = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}, fp32"

_KINDS = {
    "clip": (CLIPConfig, CLIPModel),
    "metaclip_2": (MetaClip2Config, MetaClip2Model),
    "siglip": (SiglipConfig, SiglipModel),
    "chinese_clip": (ChineseCLIPConfig, ChineseCLIPModel),
}


class Reference:
    """A model folder as transformers reads it.

    A context manager: it holds the model in fp32, and leaving it frees that memory.
    """

    def __init__(
        self, source: Source, canonical: Path, precision: FloatPrecision | None = None
    ) -> None:
        """Reads the model.

        `source`: the checkpoint; its weights are read in any layout, its configuration, tokenizer
        and image processor where they are in the transformers layout. `canonical`: the folder
        written from it, for the files that `source` lacks. `precision`: the weights are rounded to
        it first, as the package's are. Raises ModelError.
        """
        self.architecture = source.architecture
        self.name = _name(source.cleaning)
        folder = source.original or canonical
        tokenizer = source.tokenizer_folder or canonical
        processor = source.processor_file or canonical / "preprocessor_config.json"
        config, model = _KINDS[source.architecture.kind]
        had_progress_bar = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about deprecated keys of old checkpoints
                # A configuration may ask transformers to fetch kernels or a quantizer: ignored.
                settings = config.from_pretrained(folder, local_files_only=True)
                settings.__dict__.pop("quantization_config", None)
                self._model = model.from_pretrained(
                    **_weights(source),
                    config=settings,
                    attn_implementation="sdpa",
                    dtype=torch.float32,  # the default is the precision that config.json states
                    local_files_only=True,
                ).eval()
                with no_panics():
                    self._tokenizer = _tokenizer(tokenizer, self.architecture, source.cleaning)
                self._processor = _processor(processor)
        except Exception as error:  # transformers raises many types
            raise ModelError(f"transformers cannot read {folder.name}: {error}") from error
        finally:
            if had_progress_bar:
                transformers.utils.logging.enable_progress_bar()

        # Copied out of the mapped file: the last bits of sums depend on the memory's alignment.
        for parameter in self._model.parameters():
            rounded = parameter.data.to(DTYPES[precision or "fp32"])
            parameter.data = torch.empty(parameter.shape).copy_(rounded)
        _restore_padding(self._model, source, DTYPES[precision or "fp32"])

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        del self._model
        gc.collect()
        release_free_memory()  # before the package's own model is loaded

    def differing(self, written: Tensors) -> Iterator[str]:
        """The names of weights that differ in `written`, even by the last bit."""
        for name, expected in self._model.state_dict().items():
            if not torch.equal(written.read(name).float(), expected):
                yield name

    def ids(self, text: str) -> Ids:
        """A text's token ids, begin and end tokens included, cut to the context."""
        try:
            with no_panics():
                return self._tokenizer.ids(text)
        except Exception as error:
            raise ModelError(
                f"transformers' tokenizer fails on {text[:40]!r}: {str(error)[:200]}"
            ) from error

    def added_tokens(self) -> list[str]:
        """Tokens outside the vocabulary that a text may contain and the model has embeddings for.

        Begin and end tokens are left out: every text has them.
        """
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

    @torch.inference_mode()
    def probabilities(self, texts: Sequence[str], images: Sequence[bytes]) -> Matrix | None:
        """Of each text as an image's label, by the model's own logits: float32 [images, texts].

        SigLIP's are each text's own, the others' sum to one over the texts. None where the logit
        scale is too large for a number.
        """
        ids = [torch.tensor(self.ids(text)) for text in texts]
        # Texts padded to one length: what is masked, and follows the end token, changes no vector.
        logits = self._model(
            input_ids=pad_sequence(ids, batch_first=True),
            attention_mask=pad_sequence([torch.ones_like(text) for text in ids], batch_first=True),
            pixel_values=torch.cat([self._prepared(data) for data in images]),
        ).logits_per_image.double()
        each = logits.sigmoid() if isinstance(self._model, SiglipModel) else logits.softmax(-1)
        probabilities: Matrix = each.float().numpy()
        return probabilities if np.isfinite(probabilities).all() else None

    def _prepared(self, data: bytes, **options: bool) -> torch.Tensor:
        with Image.open(io.BytesIO(data)) as image:
            values: torch.Tensor = self._processor([image], return_tensors="pt", **options)[
                "pixel_values"
            ]
        return values


def _processor(file: Path) -> Any:
    """The image processor that a configuration names, in its PIL version.

    Not by `AutoImageProcessor`, which rejects old files that name a feature extractor. Always
    converts to RGB: otherwise some, such as ViT's, fail on grey, palettes and transparency.
    """
    kind = processors.kind(image_processor(file))
    processor = getattr(transformers, f"{kind}ImageProcessorPil")
    return processor.from_pretrained(file.parent, local_files_only=True, do_convert_rgb=True)


def _weights(source: Source) -> dict[str, Any]:
    """Arguments by which transformers finds the weights: the checkpoint's files, if it reads them.

    Torch files are read by our own restricted loader and passed as tensors, since they are pickles.
    """
    if source.original and isinstance(source.tensors, Weights) and _opens(source.original):
        return {"pretrained_model_name_or_path": source.original, "use_safetensors": True}
    state = {name: _detached(source.read(name).float()) for name in source.parts}
    return {"pretrained_model_name_or_path": None, "state_dict": state}


def _restore_padding(model: torch.nn.Module, source: Source, dtype: torch.dtype) -> None:
    """Puts back the embedding of the padding token, which transformers 5 zeroes when it loads a
    Chinese CLIP.

    Published weights have another there, as the RoBERTa that they were trained from. It changes no
    vector of a text, since padding is masked and the first token is pooled, unless the text itself
    says "[PAD]"; then the checkpoint's own counts.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            row = source.read(f"{name}.weight")[module.padding_idx]
            module.weight.data[module.padding_idx] = row.to(dtype).float()


def _opens(folder: Path) -> bool:
    """Whether transformers can open a folder's safetensors: an index needs the key `metadata`."""
    return (folder / FILE).is_file() or "metadata" in read_json(folder / INDEX)


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it is a slice, such as one of OpenCLIP's `in_proj`.

    A slice would keep the whole tensor in memory.
    """
    is_slice = tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone() if is_slice else tensor


def check_installed(source: Source) -> None:
    """Raises ModelError where a library of the reference's tokenizer is not installed."""
    if source.cleaning.name in OPEN_CLIPS:
        _open_clip(source.cleaning)
    elif source.tokenizer_folder and _has_pieces(source.tokenizer_folder, source.architecture):
        try:
            import google.protobuf  # noqa: F401
            import sentencepiece  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"transformers, which this checkpoint is compared with, reads its "
                f"{siglip.VOCABULARY} by a library that is missing: {missing(error)}"
            ) from error


def _has_pieces(folder: Path, architecture: Architecture) -> bool:
    """Whether transformers reads a tokenizer by sentencepiece."""
    return architecture.text.pads and (folder / siglip.VOCABULARY).is_file()


class _Transformers:
    """transformers' tokenizer of a folder."""

    def __init__(
        self, folder: Path, context: int, kind: Any = AutoTokenizer, padding: str | bool = False
    ) -> None:
        """`kind`: the class that reads it. `padding`: as transformers has it."""
        self._tokenizer = kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if getattr(getattr(backend, "model", None), "dropout", None):
            raise ModelError(
                f"{folder / 'tokenizer.json'} has dropout, by which transformers makes other ids "
                "of a text each time, which cannot be compared: set its model.dropout to null"
            )
        self._context, self._padding = context, padding

    def ids(self, text: str) -> Ids:
        options = {"truncation": True, "max_length": self._context, "padding": self._padding}
        ids: Ids = self._tokenizer([text], **options)["input_ids"][0]
        return ids

    def added_tokens(self) -> dict[str, int]:
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return added


class _OpenClip:
    """OpenCLIP's tokenizers: `SimpleTokenizer` where it lower-cases, else `HFTokenizer` around a
    folder's."""

    def __init__(self, folder: Path, context: int, cleaning: Cleaning) -> None:
        module = _open_clip(cleaning)
        self._padding: int | None = 0
        self._added: dict[str, int] = {}
        if cleaning.lower:
            self._tokenizer = module.SimpleTokenizer(context_length=context)
        else:
            is_siglips = cleaning.name == "canonicalize"
            self._tokenizer = module.HFTokenizer(
                str(folder),
                context,
                clean="canonicalize" if is_siglips else "whitespace",
                local_files_only=True,
                trust_remote_code=False,
            )
            # SigLIP's texts keep theirs.
            self._padding = None if is_siglips else self._tokenizer.tokenizer.pad_token_id
            self._added = self._tokenizer.tokenizer.get_added_vocab()

    def ids(self, text: str) -> Ids:
        ids: Ids = self._tokenizer([text])[0].tolist()
        while ids[-1] == self._padding:  # a text's last token is the end token
            ids.pop()
        return ids

    def added_tokens(self) -> dict[str, int]:
        return self._added


class _Siglip(_Transformers):
    """SigLIP's tokenizer, and SigLIP 2's, padding texts to the context.

    A folder may name a class that leaves out what the models were trained with: SigLIP 2's name
    Gemma's, which keeps case, and this package's an all-purpose one, which keeps punctuation, too.
    """

    def __init__(self, folder: Path, context: int, cleaning: Cleaning) -> None:
        pieces = (folder / siglip.VOCABULARY).is_file()
        kind = SiglipTokenizer if pieces else AutoTokenizer
        if cleaning.name == "transformers":
            kind = Siglip2Tokenizer
        super().__init__(folder, context, kind, padding="max_length")
        self._canonicalizes = cleaning.name == "siglip" and not pieces

    def ids(self, text: str) -> Ids:
        return super().ids(_canonical(text) if self._canonicalizes else text)


def _canonical(text: str) -> str:
    """As `SiglipTokenizer` does, which first cuts special tokens out, and ends a text with one
    only where it has none."""
    parts = _SPECIAL.split(text.replace("▁", " "))
    parts[::2] = (SiglipTokenizer.canonicalize_text(_LowerCasing(), part) for part in parts[::2])
    return "".join(parts).removesuffix("</s>")


_SPECIAL = re.compile(r"\s*(</s>|<unk>)\s*")


class _LowerCasing:
    """What `SiglipTokenizer.canonicalize_text` asks of its tokenizer."""

    do_lower_case = True
    remove_punctuation = SiglipTokenizer.remove_punctuation


def _tokenizer(
    folder: Path, architecture: Architecture, cleaning: Cleaning
) -> _Transformers | _OpenClip:
    context = architecture.text.context
    if cleaning.name in OPEN_CLIPS:
        return _OpenClip(folder, context, cleaning)
    if architecture.text.pads:
        return _Siglip(folder, context, cleaning)
    return _Transformers(folder, context)


@functools.cache
def _open_clip(cleaning: Cleaning) -> ModuleType:
    """`open_clip.tokenizer` alone: importing the whole of OpenCLIP needs torchvision and timm.

    `cleaning`: of the texts that it is for. Raises ModelError where it is not installed.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        optional = cleaning.name == "openclip"
        instead = "; or leave texts as they are with --cleaning transformers" if optional else ""
        raise ModelError(
            "texts of this checkpoint are cleaned as OpenCLIP does, and compared with OpenCLIP's "
            f"own tokenizer, which is missing: {install('open_clip')}{instead}"
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
    """The reference's libraries and versions."""
    if cleaning.name not in OPEN_CLIPS:
        return NAME
    return f"{NAME}; texts: open_clip {version('open_clip_torch')}, ftfy {version('ftfy')}"


def _vector(features: Any) -> Matrix:
    vector: Matrix = features.pooler_output[0].float().numpy()  # projected already
    return vector
