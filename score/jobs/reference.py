"""The reference implementation: transformers' own model, tokenizer and image processor.

It runs when a package is built, on the processor and in fp32, and what it computes is what the
package promises. None of it is our code; in serving, none of it is imported.
"""

from __future__ import annotations

import gc
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
)

from score.engine import Matrix
from score.engines.pytorch import DTYPES
from score.errors import ModelError
from score.folder import preprocessor_file, tokenizer_folder
from score.images import Pixels
from score.jobs.canonical import Precision
from score.jobs.source import Source, Tensors
from score.machine import give_back
from score.texts import Ids
from score.weights import Weights

NAME = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}, fp32"

_KINDS = {"clip": (CLIPConfig, CLIPModel), "metaclip_2": (MetaClip2Config, MetaClip2Model)}


class Reference:
    """A model folder as transformers reads it. Use it as a context manager: it is as large as the
    model in fp32, and leaving it frees that."""

    def __init__(self, source: Source, canonical: Path, precision: Precision | None = None) -> None:
        """`source`: the checkpoint, from which all is read that is in the transformers layout, and
        the weights in any layout; `canonical`: what was made of it, for the rest. `precision`: what
        the weights are rounded to, because they are meant to be. Raises ModelError."""
        self.architecture = source.architecture
        told = source.original or canonical
        tokenizer = tokenizer_folder(source.original, source.base) or canonical
        processor = preprocessor_file(source.original, source.base)
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
                self._tokenizer = AutoTokenizer.from_pretrained(
                    tokenizer, local_files_only=True, trust_remote_code=False
                )
                self._processor = CLIPImageProcessorPil.from_pretrained(
                    processor.parent if processor else canonical, local_files_only=True
                )
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
        give_back()  # before the next model comes

    def unlike(self, written: Tensors) -> Iterator[str]:
        """The names of its weights that are others in `written`, if only in their last bit."""
        for name, theirs in self._model.state_dict().items():
            if not torch.equal(written.read(name).float(), theirs):
                yield name

    def ids(self, text: str) -> Ids:
        """A text's token ids, begin and end tokens included, cut to the context."""
        ids: Ids = self._tokenizer(
            [text], truncation=True, max_length=self.architecture.text.context
        )["input_ids"][0]
        return ids

    def pixels(self, data: bytes) -> Pixels:
        """A picture's prepared pixels before they are normalised: uint8 [height, width, 3]."""
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
        with Image.open(io.BytesIO(data)) as picture:
            values: torch.Tensor = self._processor([picture], return_tensors="pt", **options)[
                "pixel_values"
            ]
        return values


def _weights(source: Source) -> dict[str, Any]:
    """Where transformers finds a checkpoint's weights: in its own files, if it can read them.

    A torch file is never given to it, since we alone say how pickles are read.
    """
    if source.original and isinstance(source.tensors, Weights):
        return {"pretrained_model_name_or_path": source.original, "use_safetensors": True}
    state = {name: _alone(source.read(name).float()) for name in source.parts}
    return {"pretrained_model_name_or_path": None, "state_dict": state}


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that keeps no larger one in memory, as one cut out of OpenCLIP's `in_proj` does."""
    part = tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone() if part else tensor


def _vector(features: Any) -> Matrix:
    vector: Matrix = features.pooler_output[0].float().numpy()  # projected already
    return vector
