"""Does a package still compute here what it promised? The table that says so."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.model_folder import ModelFolder
from score.model.probes import FILE, Finding, Probes
from score.settings import Settings

_NAME = 34  # columns of a probe's name


def verify(path: Path, settings: Settings) -> tuple[Probes, str, list[Finding]]:
    """The probes of a package, the precision and engine that computed them here, as text, and what
    they came to.

    Raises ModelError for a folder that does not load, or has no probes.
    """
    folder = ModelFolder.open(path)
    probes = Probes.read(folder.path)
    if probes is None:
        raise ModelError(f"{folder.path} has no {FILE}: it promises nothing; package it first")
    embedder = Embedder.load(folder.path, settings.replace({"verify": "off"}))
    findings = probes.check(*parts_of(embedder))
    engine = parts_of(embedder).encoder.engine
    return probes, f"{engine.precision} ({engine.name})", findings


def table(findings: Sequence[Finding]) -> str:
    """Findings as a table of plain text."""
    lines = [f"{'':7} {_padded('probe')} {'tokens, pixels':14} {'cosine':>10} {'max error':>9}"]
    for finding in findings:
        vector = ("-", "-")
        if finding.cosine is not None and finding.error is not None:
            vector = (f"{finding.cosine:.7f}", f"{finding.error:.1e}")
        equal = "equal" if finding.input else "DIFFERENT"
        mark = "" if finding.passed else "  FAILED"
        lines.append(
            f"{finding.kind:7} {_padded(finding.name)} {equal:14} "
            f"{vector[0]:>10} {vector[1]:>9}{mark}"
        )
    return "\n".join(lines)


def _padded(name: str) -> str:
    """A name cut or filled up to the column's width, as a terminal shows it."""
    shown, width = "", 0
    for character in " ".join(name.split()):
        cells = _cells(character)
        if width + cells > _NAME - 1:
            shown, width = shown + "…", width + 1
            break
        shown, width = shown + character, width + cells
    return shown + " " * (_NAME - width)


def _cells(character: str) -> int:
    """Columns that a terminal gives a character (Unicode's east_asian_width, roughly)."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
