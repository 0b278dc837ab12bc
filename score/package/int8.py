"""Towers in int8, calibrated on images, and how far their nearest neighbours agree with fp32's.

NNCF quantises after training: weights per channel, activations by their ranges on calibration
images. How much accuracy that costs depends on the model and the data, so the agreement is measured
on the user's images and stored with the towers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.core.preparation import FetchOptions, Preparer
from score.errors import ModelError, RowError
from score.evaluation import prompts
from score.folder.model_folder import ModelFolder
from score.images.preprocess import Pixels, Preprocessor
from score.jobs.image_source import Folder, open_images
from score.model import zeroshot
from score.model.encoder import Encoder
from score.model.engines.base import Engine
from score.model.engines.openvino import OpenVINO
from score.model.engines.openvino_conversion import convert
from score.model.engines.openvino_towers import INT8, Towers, save
from score.model.engines.pytorch import PyTorch
from score.model.engines.telemetry import no_telemetry
from score.model.probes import Probes, Tolerance
from score.settings import Settings
from score.storage import atomic
from score.texts.packing import Tokens, packed
from score.texts.tokenizer import Ids, Tokenizer
from score.type_aliases import Matrix

Item = TypeVar("Item")

REPORT = "agreement.json"
LEAST = 0.98
"""Lowest accepted share of fp32's ten nearest images that int8 finds too."""

_NEAREST = 10
_FEWEST, _MOST = 50, 2000  # images to measure the agreement on
_CALIBRATED = 128  # images, and texts, to calibrate on
_PROMPTS = 500
_SLACK = 2  # factor between an error of a probe here and the one allowed on other processors


class Agreement(NamedTuple):
    """How far the nearest neighbours of int8's vectors are those of fp32's.

    whole: whether all layers are in int8; otherwise the perceptrons' (MLPs') second layers are not.
    images: number of images measured. top1: share of images whose nearest other image is the same;
    top10: share of the ten nearest that are among fp32's ten. text_top1, text_top10: the same for
    the images nearest to texts. image_cosine, text_cosine: lowest cosine of a vector to fp32's.
    """

    whole: bool
    images: int
    top1: float
    top10: float
    text_top1: float
    text_top10: float
    image_cosine: float
    text_cosine: float

    def __str__(self) -> str:
        return (
            f"int8{'' if self.whole else ' in part'} against fp32 on {self.images} images: the "
            f"nearest is the same for {self.top1:.1%}, and {self.top10:.1%} of the ten nearest; of "
            f"those nearest to texts {self.text_top1:.1%} and {self.text_top10:.1%}; least cosine "
            f"{self.image_cosine:.4f} (images), {self.text_cosine:.4f} (texts)"
        )


def check_images(source: Path) -> None:
    """Checks early what `quantise` needs: NNCF and enough images.

    Raises ImportError, ModelError, RequestError, OSError.
    """
    with no_telemetry():
        import nncf  # noqa: F401

    images = open_images(source)
    if isinstance(images, Folder) and images.size < _FEWEST:
        raise ModelError(f"{source}: {images.size} images; int8 needs {_FEWEST} at least")


def quantise(
    model: Path,
    source: Path,
    *,
    force: bool = False,
    whole: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Agreement:
    """Writes `int8/` into a model folder, calibrated and measured on a folder or CSV of images.

    Where int8 in all layers finds less than 98 % of fp32's ten nearest images, the perceptrons'
    second layers, which lose most accuracy, stay in fp32; not with `whole`. Raises ModelError for
    fewer than 50 images and, without `force`, where the result is below 98 % then as well;
    RequestError and OSError for a `source` that is no folder or CSV of images.
    """
    if (model / INT8).exists():
        raise ModelError(f"{model} has int8 already")
    exact = _exact(ModelFolder.open(model))
    pixels, ids = list(_pixels(exact, source)), _texts(exact)
    if len(pixels) < _FEWEST:
        raise ModelError(f"{source}: {len(pixels)} good images; int8 needs {_FEWEST} at least")
    say(f"calibrating int8 on {min(len(pixels), _CALIBRATED)} of {len(pixels)} images")
    with atomic.folder(model / INT8) as folder:
        agreement = _attempt(exact, pixels, ids, folder, whole=True)
        say(str(agreement))
        if agreement.top10 < LEAST and not whole:
            agreement = _attempt(exact, pixels, ids, folder, whole=False)
            say(str(agreement))
        if agreement.top10 < LEAST and not force:
            raise ModelError(
                f"{agreement.top10:.1%} of the ten nearest images are fewer than "
                f"{LEAST:.0%}: int8 costs this model too much accuracy; --force writes it anyway"
            )
        report = json.dumps(agreement._asdict(), indent=1) + "\n"
        (folder / REPORT).write_text(report, encoding="utf-8")
        _add_tolerance(model, exact, folder)
    return agreement


def _attempt(
    exact: Embedder, pixels: Sequence[Pixels], ids: Sequence[Ids], folder: Path, *, whole: bool
) -> Agreement:
    """Writes int8 towers to `folder`, and compares them with fp32. `whole`: as in `Agreement`."""
    _write(exact, _spread(pixels, _CALIBRATED), _spread(ids, _CALIBRATED), folder, whole)
    return _measure(exact, _engine(exact, folder), pixels, ids, whole)


def _exact(folder: ModelFolder) -> Embedder:
    """The model in fp32, with towers that OpenVINO can convert."""
    settings = Settings(device="cpu", precision="fp32", engine="torch")
    engine = PyTorch.load(folder, settings, plain=True)
    encoder = Encoder(folder.architecture, engine, settings.batch_size)
    preprocessor = Preprocessor.from_config(folder.preprocessor)
    return Embedder(encoder, Tokenizer.load(folder), preprocessor, settings)


def _pixels(embedder: Embedder, source: Path) -> Iterator[Pixels]:
    parts = parts_of(embedder)
    preparer = Preparer(parts.tokenizer, parts.preprocessor, embedder.settings)
    with open_images(source) as images:
        options = FetchOptions(images.root)
        count = 0
        for image in images:
            try:
                inputs = preparer.inputs(Row(image=image.cell), "end", options)
            except RowError:
                continue
            assert inputs.pixels is not None
            yield np.ascontiguousarray(inputs.pixels)
            count += 1
            if count == _MOST:
                return


def _texts(embedder: Embedder) -> list[Ids]:
    """Token ids of prompts of many lengths: ImageNet's classes in OpenAI's templates."""
    names, templates = prompts.imagenet(), prompts.load_templates("openai")
    single = [
        prompt
        for number, name in enumerate(_spread(names, _PROMPTS))
        for prompt in prompts.fill([templates[number % len(templates)]], name)
    ]
    joined = [", ".join(single[start : start + 4]) for start in range(0, _PROMPTS, 10)]
    encoded = parts_of(embedder).tokenizer.encode(single + joined, "end")
    return [ids for ids in encoded if not isinstance(ids, RowError)]


def _write(
    exact: Embedder, pixels: Sequence[Pixels], ids: Sequence[Ids], folder: Path, whole: bool
) -> None:
    encoder = parts_of(exact).encoder
    engine = encoder.engine
    assert isinstance(engine, PyTorch)
    (images,), (tokens,) = convert(engine, encoder.architecture.vision.image)
    image_vectors = [image[None] for image in pixels]
    apart = encoder.architecture.text.pads
    texts = [list(batch) for text in ids for batch, _ in packed([text], apart=apart)]
    head = 2 if encoder.architecture.vision.pooling == "attention" else 1
    quantised = [
        _quantised(tower, examples, _in_fp32(tower, head, whole=whole))
        for tower, examples, head in ((images, image_vectors, head), (tokens, texts, 1))
    ]
    save(quantised, engine, folder)


def _quantised(tower: Any, examples: list[Any], ignored: list[str]) -> Any:
    with no_telemetry():
        import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # On the embedded model and 400 images, of the ten nearest: 92.7 % with NNCF's defaults, 94 %
    # with this share of smoothing, 97 % with ranges from histograms.
    parameters = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=0.5),
    )
    # The command prints its result to stdout, so NNCF's progress and warnings go to stderr.
    nncf.set_log_level(logging.WARNING)
    for handler in logging.getLogger("nncf").handlers:  # its own; others may be of the host
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stdout__:
            handler.setStream(sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):
        return nncf.quantize(
            tower,
            nncf.Dataset(examples),
            subset_size=len(examples),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            # OpenVINO would unpack a token embedding in int8 into memory; in fp32 it maps the file.
            ignored_scope=nncf.IgnoredScope(names=ignored, types=["Gather"]),
            advanced_parameters=parameters,
        )


def _in_fp32(tower: Any, head: int, *, whole: bool) -> list[str]:
    """Names of the layers that are not quantised. `head`: the number of layers of the head.

    Always the head, which is in fp32 with every engine. Unless `whole`, also the perceptrons'
    second layers and the patch embedding: matrices at least twice as wide as high.
    """
    layers = _linear_layers(tower)
    names = [*layers]
    others, last = names[:-head], names[-head:]
    if whole:
        return last
    return [*(name for name in others if layers[name][1] >= 2 * layers[name][0]), *last]


def _linear_layers(tower: Any) -> dict[str, list[int]]:
    """Linear layers in the order of computation: name → shape of the matrix."""
    layers = {}
    for node in tower.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input(1).get_partial_shape().is_static:
            shape = list(node.input(1).get_shape())
            if len(shape) == 2:
                layers[node.get_friendly_name()] = shape
    return layers


def _measure(
    exact: Embedder, engine: Engine, pixels: Sequence[Pixels], ids: Sequence[Ids], whole: bool
) -> Agreement:
    encoders = (parts_of(exact).encoder, _encoder(exact, engine))
    image_vectors = [zeroshot.unit(encoder.images(pixels)) for encoder in encoders]
    texts = [zeroshot.unit(encoder.texts(ids)) for encoder in encoders]
    not_itself = 4 * np.eye(len(pixels), dtype=np.float32)  # more than any difference of cosines
    by_image = [_nearest(vectors @ vectors.T - not_itself) for vectors in image_vectors]
    pairs = zip(texts, image_vectors, strict=True)
    by_text = [_nearest(queries @ vectors.T) for queries, vectors in pairs]
    return Agreement(
        whole,
        len(pixels),
        *_overlaps(*by_image),
        *_overlaps(*by_text),
        *(float((one * two).sum(1).min()) for one, two in (image_vectors, texts)),
    )


def _add_tolerance(model: Path, exact: Embedder, towers: Path) -> None:
    """Writes int8's tolerance into the probes of a model folder, if it has any.

    It is `_SLACK` times the error measured here, because processors that compute int8 in another
    way, as those without VNNI do, may be less accurate.
    """
    probes = Probes.read(model)
    if probes is None:
        return
    encoder = _encoder(exact, _engine(exact, towers))
    anything = replace(probes, tolerances={"int8": Tolerance(-1, float("inf"))})
    findings = anything.check(*parts_of(exact)._replace(encoder=encoder))
    cosine = min(finding.cosine for finding in findings if finding.cosine is not None)
    error = max(finding.error or 0.0 for finding in findings if finding.has_vector)
    expected = Tolerance(1 - _SLACK * (1 - cosine), _SLACK * error)
    replace(probes, tolerances={**probes.tolerances, "int8": expected}).write(model)


def _engine(exact: Embedder, folder: Path) -> OpenVINO:
    side = parts_of(exact).encoder.architecture.vision.image
    return OpenVINO(Towers.of_int8(folder).warmed(side), "int8")


def _encoder(exact: Embedder, engine: Engine) -> Encoder:
    return Encoder(parts_of(exact).encoder.architecture, engine, exact.settings.batch_size)


def _nearest(scores: Matrix) -> Tokens:
    """The columns of each row's ten largest scores, the largest first: [rows, 10]."""
    columns: Tokens = np.argsort(-scores, axis=1, kind="stable")[:, :_NEAREST]
    return columns


def _overlaps(one: Tokens, two: Tokens) -> tuple[float, float]:
    """Shares, from 0 to 1, of equal nearest neighbours and of the ten nearest in common."""
    shared = [len(set(a) & set(b)) for a, b in zip(one, two, strict=True)]
    return float((one[:, 0] == two[:, 0]).mean()), float(np.mean(shared) / _NEAREST)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` items, evenly spaced from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, most)]
