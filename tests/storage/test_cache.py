"""A cached folder is used while its files are what was written, and made anew otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from score.storage.cache import cached_folder
from tests.support.damage import cut, empty, flip

CONTENT = {"facts.json": b'{"scale": 1}', "images.blob": bytes(3 * 2**20), "texts.blob": b"text"}


def make(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", [*CONTENT, "sums.json"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink, empty])
def test_a_damaged_folder_is_made_anew(
    harm: Callable[[Path], object], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = cached_folder(tmp_path / "engines/kept", make)
    written = {file.name: file.read_bytes() for file in kept.iterdir()}
    assert cached_folder(kept, lambda _: pytest.fail("it was intact")) == kept
    harm(kept / name)
    assert cached_folder(kept, make) == kept
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == written
    assert [*kept.parent.iterdir()] == [kept]
    assert f"{kept} is damaged; creating it again" in caplog.text


def test_a_folder_that_cannot_be_made_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        cached_folder(tmp_path / "kept", lambda _: {}["gone"])
    assert not [*tmp_path.iterdir()]
