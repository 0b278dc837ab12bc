"""`probes.json`: texts and images with the reference's results, and their check on this machine.

A handful of texts and small images, with the token ids, pixels and vectors that the reference
implementation computed when the package was built, and the probabilities of some of the texts as
labels. They detect a wrong activation, end token, resize, tokenizer, logit scale or bias on this
machine, with its device and precision.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from score.errors import ModelError, RowError
from score.folder.architecture import Architecture
from score.folder.model_folder import read_json
from score.folder.small_files import TABLE
from score.images import decode
from score.images.preprocess import Pixels, Preprocessor
from score.model import zeroshot
from score.model.encoder import Encoder
from score.texts.tokenizer import Ids, Tokenizer
from score.type_aliases import Matrix, Vector
from score.wording.quoting import quoted

FILE = "probes.json"
_VERSION = 2
_SAMPLES = 256  # pixels of each prepared image that are compared
_MOST_PIXELS = 10**7
_LEAST = 1e-30  # probabilities below it are not told apart
_RATIO = 0.01  # by which a probability may differ: its logarithm by as much
_LEVELS = 2  # of 255: the tolerated difference between versions of decoders and resizers


class Tolerance(NamedTuple):
    """The limits of a precision. cosine: least cosine of a vector to the reference's; error:
    largest difference of an element, divided by the vector's largest absolute value."""

    cosine: float
    error: float


TOLERANCES = {
    "fp32": Tolerance(0.99999, 1e-4),
    "fp16": Tolerance(0.9995, 3e-2),
    "bf16": Tolerance(0.995, 1e-1),
}
"""fp32 differs only by the order of its sums. Half precision rounds each layer's result to 11 or 8
bits; the error grows with the depth, 48 layers at most."""


@dataclass(frozen=True, slots=True)
class TextProbe:
    """A text, and the reference's token ids and vector for it."""

    text: str
    ids: Ids
    vector: Vector

    def check(
        self, encoder: Encoder, tokenizer: Tokenizer, tolerance: Tolerance, *, vectors: bool
    ) -> Finding:
        """The result on this machine; without `vectors` only the ids are compared."""
        (ids,) = tokenizer.encode([self.text], "end")
        same = ids == self.ids
        if not vectors:
            return Finding("text", self.text, same, None, None, same)
        ours = encoder.texts([self.ids if isinstance(ids, RowError) else ids])[0]
        return _judged("text", self.text, same, ours, self.vector, tolerance)


@dataclass(frozen=True, slots=True)
class ImageProbe:
    """An image, and the reference's pixels (`sample`) and vector for it."""

    name: str
    data: bytes
    pixels: Pixels
    vector: Vector

    def check(
        self, encoder: Encoder, preprocessor: Preprocessor, tolerance: Tolerance, *, vectors: bool
    ) -> Finding:
        """The result on this machine; without `vectors` only the pixels are compared."""
        try:
            pixels = preprocessor.pixels(decode.decode(self.data, _MOST_PIXELS), _MOST_PIXELS)
        except RowError:
            return Finding("image", self.name, False, None, None, False)
        near = _near(sample(pixels), self.pixels)
        if not vectors:
            return Finding("image", self.name, near, None, None, near)
        return _judged(
            "image", self.name, near, encoder.images([pixels])[0], self.vector, tolerance
        )


class Finding(NamedTuple):
    """The result of one probe.

    kind: text, image, config, or labels, of probabilities. input: whether its ids, pixels or
    configuration equal the reference's. cosine, error: of its vector, as in `Tolerance`; None where
    it was not computed. error of labels: the largest of a probability's logarithm.
    """

    kind: str
    name: str
    input: bool
    cosine: float | None
    error: float | None
    passed: bool

    @property
    def has_vector(self) -> bool:
        """Whether it is of a vector."""
        return self.kind in ("text", "image")

    def __str__(self) -> str:
        """Why it failed."""
        if self.kind == "config":
            return f"changed since the package was made: {self.name}"
        if self.kind == "labels":
            return (
                "the probabilities of labels are not the reference's: logit_scale, logit_bias, or "
                "softmax in place of sigmoid"
            )
        if not self.input:
            what = "token ids" if self.kind == "text" else "pixels"
            return f"the {what} of {quoted(self.name)} are not the reference's"
        return (
            f"the vector of {quoted(self.name)} is not the reference's: "
            f"cosine {self.cosine:.6f}, error {self.error:.1e}"
        )


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of a model folder.

    `reference`: the library that computed them; `architecture`: of the model; `probabilities`: of
    the first texts as labels of the first images [images, texts]; packages of older releases have
    none.
    """

    reference: str
    architecture: Architecture
    texts: tuple[TextProbe, ...]
    images: tuple[ImageProbe, ...]
    tolerances: Mapping[str, Tolerance]
    probabilities: Matrix | None = None

    @classmethod
    def read(cls, folder: Path) -> Probes | None:
        """The probes in a model folder; None where there are none. Raises ModelError."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content = read_json(file, TABLE)
            version = content["version"]
            if version == _VERSION:
                return cls._parse(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
            raise ModelError(f"cannot read {file}: {error!r}") from error
        raise ModelError(
            f"{file} is of version {quoted(version)}, this release reads version {_VERSION}: "
            "package the checkpoint again with this release"
        )

    @classmethod
    def _parse(cls, content: Any) -> Self:
        probes = cls(
            reference=str(content["reference"]),
            architecture=Architecture.from_config(content["architecture"]),
            texts=tuple(
                TextProbe(str(probe["text"]), list(probe["ids"]), _vector(probe["vector"]))
                for probe in content["texts"]
            ),
            images=tuple(
                ImageProbe(
                    str(probe["name"]),
                    base64.b64decode(probe["data"], validate=True),
                    np.frombuffer(base64.b64decode(probe["pixels"]), np.uint8).reshape(-1, 3),
                    _vector(probe["vector"]),
                )
                for probe in content["images"]
            ),
            tolerances={
                precision: Tolerance(float(limits["cosine"]), float(limits["error"]))
                for precision, limits in content["tolerances"].items()
            },
            probabilities=_matrix(content.get("probabilities")),
        )
        images, texts = (0, 0) if probes.probabilities is None else probes.probabilities.shape
        if images > len(probes.images) or texts > len(probes.texts) or (not images and texts):
            raise ValueError("probabilities of no image, or of more than there are")
        return probes

    def write(self, folder: Path) -> None:
        """Writes `probes.json`."""
        content = {
            "version": _VERSION,
            "reference": self.reference,
            "architecture": self.architecture.config(),
            "tolerances": {name: limits._asdict() for name, limits in self.tolerances.items()},
            "texts": [
                {"text": probe.text, "ids": probe.ids, "vector": _text(probe.vector)}
                for probe in self.texts
            ],
            "images": [
                {
                    "name": probe.name,
                    "data": base64.b64encode(probe.data).decode(),
                    "pixels": base64.b64encode(probe.pixels.tobytes()).decode(),
                    "vector": _text(probe.vector),
                }
                for probe in self.images
            ],
        }
        if self.probabilities is not None:
            content["probabilities"] = {
                "texts": self.probabilities.shape[1],
                "values": _text(self.probabilities),
            }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    def check(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        *,
        quick: bool = False,
    ) -> list[Finding]:
        """Computes the probes again.

        `quick`: every text's ids and every image's pixels, but only the first vector of each
        kind. Raises ModelError for a precision without a tolerance.
        """
        tolerance = self.tolerances.get(encoder.engine.precision)
        if tolerance is None:
            raise ModelError(f"{FILE} states no tolerance for {encoder.engine.precision}")
        return [
            self._check_config(encoder.architecture),
            *(
                probe.check(encoder, tokenizer, tolerance, vectors=not (quick and index))
                for index, probe in enumerate(self.texts)
            ),
            *(
                probe.check(encoder, preprocessor, tolerance, vectors=not (quick and index))
                for index, probe in enumerate(self.images)
            ),
            *self._check_probabilities(encoder),
        ]

    def _check_config(self, architecture: Architecture) -> Finding:
        """Whether the model is the one that was asked.

        Vectors alone would not tell: in half precision, GELU and QuickGELU may be closer to each
        other than rounding is.
        """
        changed = sorted(architecture.differences(self.architecture))
        same = architecture == self.architecture
        return Finding("config", ", ".join(changed) or "config.json", same, None, None, same)

    def _check_probabilities(self, encoder: Encoder) -> Iterator[Finding]:
        """Whether labels get the probabilities that they must have, where any are known.

        They are those of the reference's vectors, which the other probes compare with the vectors
        here: so that precision hides no difference in logit scale, bias or formula.
        """
        if self.probabilities is None:
            return
        most_images, most_texts = self.probabilities.shape
        images = [probe.vector for probe in self.images[:most_images]]
        texts = [probe.vector for probe in self.texts[:most_texts]]
        if len({vector.shape for vector in (*images, *texts)}) > 1:
            yield Finding("labels", "probabilities", False, None, None, False)
            return
        ours = zeroshot.probabilities(
            np.stack(images),
            zeroshot.unit(np.stack(texts)),
            encoder.logit_scale,
            encoder.logit_bias,
        )
        error = float(np.abs(_logarithms(ours) - _logarithms(self.probabilities)).max())
        close = error <= _RATIO
        yield Finding("labels", "probabilities", close, None, error, close)


def sample(pixels: Pixels) -> Pixels:
    """Some pixels of a prepared image [height, width, 3], spread evenly: uint8 [samples, 3]."""
    flat = pixels.reshape(-1, 3)
    some: Pixels = flat[np.linspace(0, len(flat) - 1, _SAMPLES).astype(int)]
    return some


def difference(ours: Matrix, theirs: Matrix) -> tuple[float, float]:
    """Least cosine, and largest difference over the largest value, of vectors [..., dimension]."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    largest = np.maximum(np.abs(b).max(-1), np.finfo(np.float64).tiny)
    return float(np.min(cosines)), float(np.max(np.abs(a - b).max(-1) / largest))


def _judged(
    kind: str, name: str, same: bool, ours: Vector, theirs: Vector, tolerance: Tolerance
) -> Finding:
    if ours.shape != theirs.shape:
        return Finding(kind, name, same, 0.0, 1.0, False)
    cosine, error = difference(ours, theirs)
    close = cosine >= tolerance.cosine and error <= tolerance.error
    return Finding(kind, name, same, cosine, error, same and close)


def _logarithms(probabilities: Matrix) -> Matrix:
    logarithms: Matrix = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    return logarithms


def _near(ours: Pixels, theirs: Pixels) -> bool:
    return ours.shape == theirs.shape and bool(
        (np.abs(ours.astype(int) - theirs.astype(int)) <= _LEVELS).all()
    )


def _text(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _vector(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


def _matrix(content: Any) -> Matrix | None:
    """The probabilities [images, texts], where there are any."""
    if content is None:
        return None
    return _vector(content["values"]).reshape(-1, content["texts"])
