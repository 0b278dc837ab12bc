"""The code of this clone."""

from __future__ import annotations

from score.package.contents import CODE
from tests.support.surfaces import ROOT


def code() -> set[str]:
    """The files of the clone's `score/`, by `contents.CODE`."""
    return {
        file.relative_to(ROOT).as_posix()
        for folder, names in CODE.items()
        for name in names
        for file in (ROOT / folder).glob(name)
    }
