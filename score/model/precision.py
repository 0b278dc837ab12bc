"""Precision `auto`: the fastest precision that passes the model's own probes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.hardware.processor import cpu_flags, supports
from score.images.preprocess import Preprocessor
from score.model.encoder import Encoder
from score.model.probes import Finding, Probes
from score.settings import Settings
from score.texts.tokenizer import Tokenizer

log = logging.getLogger(__name__)

LEAST_COSINE = 0.9999
"""Cosine of each probe's vector to the reference's in fp32 that a faster precision must reach."""


def fastest(
    folder: ModelFolder, tokenizer: Tokenizer, preprocessor: Preprocessor, settings: Settings
) -> Encoder:
    """The folder's model in the precision of the settings, or in the one that `auto` chooses.

    `auto` tries the precisions that this machine computes faster than fp32, and uses the first one
    with which every probe reaches `LEAST_COSINE`; never int8, which needs calibration. Without
    probes it is fp32. Raises ModelError.
    """
    if settings.precision != "auto":
        return _as_set(folder, settings)
    probes = Probes.read(folder.path)
    for precision in _faster(settings) if probes else ():
        assert probes is not None
        asked = settings.replace({"precision": precision})
        try:
            encoder = _proven(folder, probes, tokenizer, preprocessor, asked)
        except (ModelError, RuntimeError, TypeError) as error:  # fp16 overflows; no bf16 there; …
            log.info("precision auto: not %s: %s", precision, error)
            continue
        if encoder:
            return encoder
    log.debug("precision auto: fp32")
    return Encoder.load(folder, settings.replace({"precision": "fp32"}))


def _as_set(folder: ModelFolder, settings: Settings) -> Encoder:
    encoder = Encoder.load(folder, settings)
    asked = encoder.engine.precision
    if encoder.engine.device == "cpu" and cpu_flags() and not supports(asked):
        log.warning("this CPU does not compute %s by itself; fp32 is likely no slower", asked)
    return encoder


def _proven(
    folder: ModelFolder,
    probes: Probes,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    settings: Settings,
) -> Encoder | None:
    """The model if it passes its probes; else None, its memory free for the next attempt."""
    encoder = Encoder.load(folder, settings)
    cosine = least_cosine(probes.check(encoder, tokenizer, preprocessor))
    passes = cosine >= LEAST_COSINE
    verdict = "" if passes else "not "
    log.info(
        "precision auto: %s%s (least cosine to fp32 %.6f)", verdict, settings.precision, cosine
    )
    return encoder if passes else None


def _faster(settings: Settings) -> tuple[str, ...]:
    """Precisions that are faster than fp32 on this machine, the fastest first."""
    if settings.engine != "openvino":
        from score.model.engines.pytorch import Placement  # a second to import

        if Placement.of(settings).device.type != "cpu":
            return ("fp16", "bf16")
    return ("bf16",) if supports("bf16") else ()


def least_cosine(findings: Sequence[Finding]) -> float:
    """The least cosine of the findings; 0 where a vector is missing, or there are no vectors."""
    cosines = (finding.cosine or 0.0 for finding in findings if finding.has_vector)
    return min(cosines, default=0.0)
