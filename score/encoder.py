"""Model folder → `Encoder`: pixels or token ids in, float32 vectors out.

Reads whatever CLIP the folder's `config.json` declares; activation, pooling, widths and projection
come from there. Knows devices and precisions; knows nothing of rows, strings or pictures' bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import CLIPModel, MetaClip2Model
from transformers.modeling_outputs import BaseModelOutputWithPooling as ModelOutput

from score.errors import ModelError
from score.folder import ModelFolder
from score.images import Pixels, Preprocessor
from score.settings import Settings
from score.texts import Ids

Matrix = npt.NDArray[np.float32]

_ARCHITECTURES = {"clip": CLIPModel, "metaclip_2": MetaClip2Model}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PAD = 0  # any id but the end token's: what stands after the end token is never looked at
_TEXT_TOKENS = 2560  # token ids, padding included, in one forward pass: about 32 full contexts


class Encoder:
    """A CLIP model on a device. Safe to share between threads: passes run one after another."""

    def __init__(self, model: torch.nn.Module, lookup: Matrix, batch_size: int) -> None:
        """`lookup`: `Preprocessor.lookup`; `batch_size`: pictures in one forward pass."""
        self._model = model.eval()
        weight = next(model.parameters())
        self.device, self._dtype = weight.device, weight.dtype
        self.dimension: int = int(model.config.projection_dim)  # type: ignore[union-attr, arg-type]
        self._lookup = torch.from_numpy(lookup).to(self.device).flatten()
        self._channels = torch.arange(3, dtype=torch.int32, device=self.device).view(3, 1, 1) * 256
        self._batch_size = batch_size
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: ModelFolder, settings: Settings) -> Encoder:
        """The folder's model, on the device and in the precision the settings ask for.

        Raises ModelError for a folder that is not, or not wholly, a CLIP model in safetensors.
        """
        device = _device(settings.device)
        model = _load(folder, _dtype(settings.precision, device)).to(device)
        preprocessor = Preprocessor.from_config(folder.preprocessor)
        wanted = int(folder.config.get("vision_config", {}).get("image_size", 224))
        if preprocessor.size != (wanted, wanted):
            raise ModelError(
                f"preprocessor_config.json makes pictures of {preprocessor.size}, "
                f"config.json wants {wanted}×{wanted}"
            )
        return cls(model, preprocessor.lookup(), settings.batch_size)

    def images(self, pictures: Sequence[Pixels]) -> Matrix:
        """uint8 pictures of one size [height, width, 3] → vectors [pictures, dimension]."""
        vectors = self._empty(len(pictures))
        for start in range(0, len(pictures), self._batch_size):
            part = slice(start, start + self._batch_size)
            vectors[part] = self._images(np.stack(pictures[part]))
        return _finite(vectors)

    def texts(self, texts: Sequence[Ids]) -> Matrix:
        """Token ids → vectors [texts, dimension].

        Texts of like length share a pass, so that little padding is computed. Padding stands after
        the end token, where a causal model does not see it: the company a text keeps is immaterial.
        """
        vectors = self._empty(len(texts))
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for part in _passes(by_length, [len(texts[index]) for index in by_length]):
            vectors[part] = self._texts([texts[index] for index in part])
        return _finite(vectors)

    def _empty(self, rows: int) -> Matrix:
        return np.empty((rows, self.dimension), dtype=np.float32)

    @torch.inference_mode()
    def _images(self, pixels: Pixels) -> Matrix:
        with self._turn:
            values = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
            indices = (values + self._channels).flatten()
            normalised = self._lookup.index_select(0, indices).view(values.shape).to(self._dtype)
            return _vectors(self._model.get_image_features(pixel_values=normalised))  # type: ignore[operator]

    @torch.inference_mode()
    def _texts(self, texts: Sequence[Ids]) -> Matrix:
        width = max(len(ids) for ids in texts)
        padded = np.full((len(texts), width), _PAD, dtype=np.int64)
        for row, ids in zip(padded, texts, strict=True):
            row[: len(ids)] = ids
        with self._turn:
            batch = torch.from_numpy(padded).to(self.device)
            return _vectors(self._model.get_text_features(input_ids=batch))  # type: ignore[operator]


def _passes(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Indices in order, grouped so that no group holds more than `_TEXT_TOKENS` padded ids."""
    groups: list[list[int]] = []
    for index, length in zip(order, lengths, strict=True):
        if not groups or (len(groups[-1]) + 1) * length > _TEXT_TOKENS:
            groups.append([])
        groups[-1].append(index)
    return groups


def _vectors(output: ModelOutput) -> Matrix:
    """transformers 5 answers with an object whose `pooler_output` is projected already."""
    vectors: Matrix = output.pooler_output.float().cpu().numpy()
    return vectors


def _finite(vectors: Matrix) -> Matrix:
    if not np.isfinite(vectors).all():
        raise ModelError("the model computed NaN or infinity; try SCORE_PRECISION=fp32 or bf16")
    return vectors


def _load(folder: ModelFolder, dtype: torch.dtype) -> torch.nn.Module:
    kind = folder.config.get("model_type")
    if kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ModelError(f"{folder.path}: model_type {kind!r} is not one of {known}")
    try:
        with _quietly():
            model, loaded = _ARCHITECTURES[kind].from_pretrained(
                folder.path,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
    except Exception as error:  # whatever transformers makes of a broken folder
        raise ModelError(f"cannot load the model in {folder.path}: {error}") from error
    missing = sorted([*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])])
    if missing:
        raise ModelError(
            f"the weights in {folder.path} do not fit its config.json: "
            f"{len(missing)} missing or misshapen, such as {missing[0]}"
        )
    return model  # type: ignore[no-any-return]


class _quietly:
    """transformers draws a progress bar while it loads; a server's log is no place for it."""

    def __enter__(self) -> None:
        self._shown = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            transformers.utils.logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(_best() if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"no device {name!r} here: {str(error).splitlines()[0]}") from error
    return device


def _best() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto`: exact on a CPU, where half precision gains little; fp16 on a GPU."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return _DTYPES[precision]
