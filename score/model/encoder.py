"""Model folder → `Encoder`: pixels or token ids in, float32 vectors out.

Makes the batches that an engine computes. Knows nothing of rows, strings or images' bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from score.errors import ModelError
from score.extras import install
from score.folder.architecture import Architecture
from score.folder.model_folder import ModelFolder
from score.folder.weights import Weights
from score.hardware import garbage
from score.hardware.processor import release_free_memory
from score.images.preprocess import Pixels, Preprocessor
from score.model.engines.base import Engine
from score.settings import Settings
from score.texts.packing import Parts, packed, powers, whole
from score.texts.tokenizer import Ids
from score.type_aliases import Matrix


class Encoder:
    """A CLIP model. Safe to share between threads: passes run one after another."""

    def __init__(self, architecture: Architecture, engine: Engine, batch_size: int) -> None:
        """`batch_size`: images in one forward pass; 0: as many as suit the engine."""
        self.architecture = architecture
        self.dimension = architecture.dimension
        self.logit_scale, self.logit_bias = engine.logit_scale, engine.logit_bias
        self.engine = engine
        self.batch_size = batch_size or engine.pass_sizes.images

    @classmethod
    def load(cls, folder: ModelFolder, settings: Settings) -> Encoder:
        """The folder's model, with the device, precision and engine of the settings.

        Raises ModelError for a folder that is not a complete CLIP model in safetensors.
        """
        _check_image_size(folder)
        return cls(folder.architecture, _engine(folder, settings), settings.batch_size)

    def images(self, images: Sequence[Pixels]) -> Matrix:
        """uint8 images of one size [height, width, 3] → vectors [images, dimension]."""
        vectors = self._empty(len(images))
        parts: Parts = powers if self.engine.new_shapes_are_costly else whole
        for part in parts(len(images), self.batch_size):
            vectors[part] = self.engine.images(images[part])
        return _finite(vectors)

    def texts(self, texts: Sequence[Ids]) -> Matrix:
        """Token ids → vectors [texts, dimension].

        Several texts share a row; attention is masked between them, so each vector equals the one
        computed alone, up to rounding.
        """
        vectors = self._empty(len(texts))
        parts: Parts = whole if self.engine.pads_passes else powers
        ended = [self._ended(ids) for ids in texts]
        pads = self.architecture.text.pads
        for batch, rows in packed(ended, self.engine.pass_sizes.rows, parts, apart=pads):
            alone = self.engine.new_shapes_are_costly and len(rows) == 1
            for of_row, row in zip(
                self.engine.texts(batch.roomy() if alone else batch), rows, strict=True
            ):
                vectors[row] = of_row[: len(row)]
        return _finite(vectors)

    def _ended(self, ids: Ids) -> Ids:
        """A text's ids up to the pooled token: the first end token or, where a configuration has
        `eos_token_id` 2 as OpenAI's, the largest id. The causal mask hides what follows it.

        Where a token sees all others of its text, all ids.
        """
        architecture = self.architecture
        if architecture.text.pooling != "end":
            return ids
        end = max(ids) if architecture.pools_largest else architecture.text.end
        return ids[: ids.index(end) + 1] if end in ids else ids[:1]

    def _empty(self, rows: int) -> Matrix:
        return np.empty((rows, self.dimension), dtype=np.float32)


def _engine(folder: ModelFolder, settings: Settings) -> Engine:
    """The engine of the settings; `auto`, where `engine_choice` has not replaced it, is PyTorch,
    except for int8, which only OpenVINO has.
    """
    int8 = settings.precision == "int8"
    if settings.engine == "torch" or (settings.engine == "auto" and not int8):
        from score.model.engines.pytorch import PyTorch

        return PyTorch.load(folder, settings)
    try:
        from score.model.engines import openvino
    except ImportError as error:
        hint = install("openvino")
        raise ModelError(f"OpenVINO cannot be imported ({error}): {hint}") from error
    return openvino.load(folder, settings)


def check(folder: ModelFolder, settings: Settings) -> None:
    """Refuses a damaged folder by what is quick to read: headers of files, not tensors.

    An engine finds the same, but after seconds of imports, and once for each precision and engine
    that `auto` tries. Raises ModelError.
    """
    _check_image_size(folder)
    if settings.precision != "int8":  # which has files of its own
        Weights.open(folder.path).check(folder.architecture.shapes())


def _check_image_size(folder: ModelFolder) -> None:
    wanted = folder.architecture.vision.image
    size = Preprocessor.from_config(folder.preprocessor).size
    if size != (wanted, wanted):
        raise ModelError(
            f"preprocessor_config.json makes images of {size}, config.json wants {wanted}×{wanted}"
        )


def release_memory() -> None:
    """Returns to the system, and to GPUs' drivers, what models have taken that nobody uses now."""
    garbage.collect()  # the parts of a model refer to each other
    if "score.model.engines.pytorch" in sys.modules:  # else it is not worth a second to import
        from score.model.engines import pytorch

        pytorch.release_memory()
    else:
        release_free_memory()


def _finite(vectors: Matrix) -> Matrix:
    if not np.isfinite(vectors).all():
        raise ModelError("the model computed NaN or infinity; try SCORE_PRECISION=fp32 or bf16")
    return vectors
