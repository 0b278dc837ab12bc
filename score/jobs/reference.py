"""The reference implementation: transformers' own model, tokenizer and image processor.

It runs when a package is built, on the processor and in fp32, and what it computes is what the
package promises. None of it is our code; in serving, none of it is imported.
"""

from __future__ import annotations

import gc
import io
import warnings
from pathlib import Path
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

from score import processors
from score.architecture import Architecture
from score.engine import Matrix
from score.errors import ModelError
from score.folder import ModelFolder
from score.images import Pixels
from score.machine import give_back
from score.texts import Ids

NAME = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}, fp32"

_KINDS = {"clip": (CLIPConfig, CLIPModel), "metaclip_2": (MetaClip2Config, MetaClip2Model)}


class Reference:
    """A model folder as transformers reads it. Use it as a context manager: it is as large as the
    model in fp32, and leaving it frees that."""

    def __init__(self, canonical: Path, original: Path | None, made: Architecture) -> None:
        """`canonical`: where the weights are; `original`: where configuration, tokenizer and
        preprocessor are read instead, if the checkpoint came in that layout. Raises ModelError."""
        self.architecture = made
        told = original or canonical
        config, model = _KINDS[made.kind]
        shown = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what old checkpoints spell in old ways
                # A checkpoint may ask for kernels and quantizers to be fetched; it gets neither.
                asked = config.from_pretrained(told, local_files_only=True)
                asked.__dict__.pop("quantization_config", None)
                self._model = model.from_pretrained(
                    canonical,
                    config=asked,
                    attn_implementation="sdpa",
                    dtype=torch.float32,
                    local_files_only=True,
                    use_safetensors=True,
                ).eval()
                self._tokenizer = AutoTokenizer.from_pretrained(
                    told, local_files_only=True, trust_remote_code=False
                )
                self._processor = _processor(told)
        except Exception as error:  # whatever transformers makes of a folder it cannot read
            raise ModelError(f"transformers cannot read {told.name}: {error}") from error
        finally:
            if shown:
                transformers.utils.logging.enable_progress_bar()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        del self._model
        gc.collect()
        give_back()  # before the next model comes

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


def _processor(folder: Path) -> Any:
    """The image processor that a folder names, in its PIL form.

    `AutoImageProcessor` would do, but for old files that write a feature extractor's name where the
    image processor's belongs. It converts to RGB whether or not it is told to: otherwise ViT's, for
    one, fails on grey, palettes and transparency.
    """
    kind = processors.kind(ModelFolder.open(folder).preprocessor)
    made = getattr(transformers, f"{kind}ImageProcessorPil")
    return made.from_pretrained(folder, local_files_only=True, do_convert_rgb=True)


def _vector(features: Any) -> Matrix:
    vector: Matrix = features.pooler_output[0].float().numpy()  # projected already
    return vector
