"""Files of class names and templates are read whole, up to a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from score.errors import RequestError
from score.evaluation import prompts
from score.evaluation.prompts import load_templates


def test_a_file_is_read_up_to_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_LARGEST", 1_000)
    file = tmp_path / "templates.json"
    file.write_text('["a {}"]'.ljust(1_000))
    assert load_templates(str(file)) == ("a {}",)
    file.write_text('["a {}"]'.ljust(1_001))
    with pytest.raises(RequestError, match=r"templates\.json is larger than 1,000 bytes"):
        load_templates(str(file))


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(RequestError, match=r"/dev/zero is larger than 33,554,432 bytes"):
        prompts._read(Path("/dev/zero"))


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_bytes(b"\xef\xbb\xbfa {}\n")
    assert load_templates(str(tmp_path / "templates.txt")) == ("a {}",)
