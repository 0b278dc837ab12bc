"""Towers in int8, calibrated on images, and what they still find of what fp32 finds.

NNCF quantises after training: weights by channel, activations by the ranges seen on the images.
What that does to the vectors depends on the model and on what it is asked, so it is measured on
one's own images, and kept with the towers.
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

from score.arrays import Matrix
from score.contract.rows import Row
from score.core.embedder import Embedder
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
from score.model.probes import Probes, Tolerance
from score.settings import Settings
from score.storage import atomic
from score.texts.packing import Tokens, packed
from score.texts.tokenizer import Ids, Tokenizer

Item = TypeVar("Item")

REPORT = "agreement.json"
LEAST = 0.98
"""Of fp32's ten nearest images, the share that int8 must find, too."""

_NEAREST = 10
_FEWEST, _MOST = 50, 2000  # images that the agreement is measured on
_CALIBRATED = 128  # images, and texts, whose ranges are taken
_PROMPTS = 500
_SLACK = 2  # times as far off as here may a vector of a probe be elsewhere


class Agreement(NamedTuple):
    """How far int8 finds what fp32 finds.

    whole: whether all is in int8, or the perceptrons' second layers are not. images: they were
    measured on. top1: share of them whose nearest other image is the same;
    top10: share of the ten nearest that are among the ten. text_top1, text_top10: likewise of the
    images nearest to texts. image_cosine, text_cosine: least similarity of a vector to fp32's.
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


def ready(source: Path) -> None:
    """Raises what `quantise` would raise late: ImportError, ModelError, RequestError, OSError."""
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

    Where int8 throughout finds less than 98 % of what fp32 finds, the perceptrons' second layers,
    which suffer most, stay in fp32, unless it is to be `whole`. Raises ModelError for fewer than 50
    images, and, without `force`, where that finds too little, too; RequestError and OSError for
    what is no folder or CSV of images.
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
                f"{LEAST:.0%}: int8 costs this model too much; --force takes it as it is"
            )
        report = json.dumps(agreement._asdict(), indent=1) + "\n"
        (folder / REPORT).write_text(report, encoding="utf-8")
        _promise(model, exact, folder)
    return agreement


def _attempt(
    exact: Embedder, pixels: Sequence[Pixels], ids: Sequence[Ids], folder: Path, *, whole: bool
) -> Agreement:
    """Writes int8 towers to `folder`, and compares them with fp32. `whole`: as in `Agreement`."""
    _write(exact, _spread(pixels, _CALIBRATED), _spread(ids, _CALIBRATED), folder, whole)
    return _measure(exact, _engine(exact, folder), pixels, ids, whole)


def _exact(folder: ModelFolder) -> Embedder:
    """The model in fp32, as it can be converted, too."""
    settings = Settings(device="cpu", precision="fp32", engine="torch")
    engine = PyTorch.load(folder, settings, plain=True)
    encoder = Encoder(folder.architecture, engine, settings.batch_size)
    preprocessor = Preprocessor.from_config(folder.preprocessor)
    return Embedder(encoder, Tokenizer.load(folder), preprocessor, settings)


def _pixels(embedder: Embedder, source: Path) -> Iterator[Pixels]:
    preparer = Preparer(embedder.tokenizer, embedder.preprocessor, embedder.settings)
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
    """Prompts of many kinds and lengths: ImageNet's classes in OpenAI's templates."""
    names, templates = prompts.imagenet(), prompts.load_templates("openai")
    several = [
        prompt
        for place, name in enumerate(_spread(names, _PROMPTS))
        for prompt in prompts.fill([templates[place % len(templates)]], name)
    ]
    joined = [", ".join(several[place : place + 4]) for place in range(0, _PROMPTS, 10)]
    encoded = embedder.tokenizer.encode(several + joined, "end")
    return [ids for ids in encoded if not isinstance(ids, RowError)]


def _write(
    exact: Embedder, pixels: Sequence[Pixels], ids: Sequence[Ids], folder: Path, whole: bool
) -> None:
    engine = exact.encoder.engine
    assert isinstance(engine, PyTorch)
    (images,), (tokens,) = convert(engine, exact.encoder.architecture.vision.image)
    image_vectors = [image[None] for image in pixels]
    texts = [list(batch) for text in ids for batch, _ in packed([text])]
    quantised = [
        _quantised(tower, examples, _in_fp32(tower, whole=whole))
        for tower, examples in ((images, image_vectors), (tokens, texts))
    ]
    save(quantised, engine.logit_scale, folder)


def _quantised(tower: Any, examples: list[Any], ignored: list[str]) -> Any:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # On the embedded model and 400 images, of the ten nearest: 92.7 % with NNCF's defaults, 94 %
    # with this share of smoothing, 97 % with ranges from histograms.
    parameters = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=0.5),
    )
    # Stdout is for what was made: NNCF's progress and warnings are not.
    nncf.set_log_level(logging.WARNING)
    for handler in logging.getLogger("nncf").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):
        return nncf.quantize(
            tower,
            nncf.Dataset(examples),
            subset_size=len(examples),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            # A table of tokens in int8 would be unpacked, whole, into memory; its file is not.
            ignored_scope=nncf.IgnoredScope(names=ignored, types=["Gather"]),
            advanced_parameters=parameters,
        )


def _in_fp32(tower: Any, *, whole: bool) -> list[str]:
    """The layers that are not quantised: the projection, which is in fp32 with every engine; unless
    it is to be `whole`, also the perceptrons' second layers and the patches', whose matrices are at
    least twice as wide as high.
    """
    layers = _linear_layers(tower)
    *others, projection = layers
    if whole:
        return [projection]
    return [*(name for name in others if layers[name][1] >= 2 * layers[name][0]), projection]


def _linear_layers(tower: Any) -> dict[str, list[int]]:
    """Names of the linear layers, in the order they are computed in, and their matrices' shapes."""
    found = {}
    for node in tower.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input(1).get_partial_shape().is_static:
            shape = list(node.input(1).get_shape())
            if len(shape) == 2:
                found[node.get_friendly_name()] = shape
    return found


def _measure(
    exact: Embedder, engine: Engine, pixels: Sequence[Pixels], ids: Sequence[Ids], whole: bool
) -> Agreement:
    encoders = (exact.encoder, _encoder(exact, engine))
    image_vectors = [zeroshot.unit(encoder.images(pixels)) for encoder in encoders]
    texts = [zeroshot.unit(encoder.texts(ids)) for encoder in encoders]
    itself = 4 * np.eye(len(pixels), dtype=np.float32)
    others = [_nearest(vectors @ vectors.T - itself) for vectors in image_vectors]
    pairs = zip(texts, image_vectors, strict=True)
    found = [_nearest(asked @ vectors.T) for asked, vectors in pairs]
    return Agreement(
        whole,
        len(pixels),
        *_overlaps(*others),
        *_overlaps(*found),
        *(float((one * two).sum(1).min()) for one, two in (image_vectors, texts)),
    )


def _promise(model: Path, exact: Embedder, towers: Path) -> None:
    """Lets the probes of a model folder, if it has any, expect of int8 what it comes to here.

    On a processor that computes int8 otherwise, as those without VNNI do, it may come to less.
    """
    probes = Probes.read(model)
    if probes is None:
        return
    encoder = _encoder(exact, _engine(exact, towers))
    anything = replace(probes, tolerances={"int8": Tolerance(-1, float("inf"))})
    found = anything.check(encoder, exact.tokenizer, exact.preprocessor)
    cosine = min(finding.cosine for finding in found if finding.cosine is not None)
    error = max(finding.error for finding in found if finding.error is not None)
    expected = Tolerance(1 - _SLACK * (1 - cosine), _SLACK * error)
    replace(probes, tolerances={**probes.tolerances, "int8": expected}).write(model)


def _engine(exact: Embedder, folder: Path) -> OpenVINO:
    side = exact.encoder.architecture.vision.image
    return OpenVINO(Towers.of_int8(folder).warmed(side), "int8")


def _encoder(exact: Embedder, engine: Engine) -> Encoder:
    return Encoder(exact.encoder.architecture, engine, exact.settings.batch_size)


def _nearest(scores: Matrix) -> Tokens:
    """The places of each row's ten largest, the largest first."""
    places: Tokens = np.argsort(-scores, axis=1, kind="stable")[:, :_NEAREST]
    return places


def _overlaps(one: Tokens, two: Tokens) -> tuple[float, float]:
    shared = [len(set(a) & set(b)) for a, b in zip(one, two, strict=True)]
    return float((one[:, 0] == two[:, 0]).mean()), float(np.mean(shared) / _NEAREST)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, from all over."""
    if len(items) <= most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most)]
