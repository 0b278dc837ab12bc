"""KerasHub presets: placeholder until the module lands."""

from pathlib import Path

from score.jobs.source import Source


def is_preset(path: Path) -> bool:
    return False


def folder(path: Path) -> Source:
    raise NotImplementedError
