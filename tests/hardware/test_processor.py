"""What the operating system says of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from score.hardware import processor

V2 = {"memory.max": "{limit}", "memory.current": "600", "memory.stat": "anon 1\ninactive_file 50\n"}
V1 = {
    "memory/memory.limit_in_bytes": "{limit}",
    "memory/memory.usage_in_bytes": "600",
    "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 50\n",
}


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    ("limit", "free"), [("1000", 450), ("max", 2048), ("9223372036854771712", 2048), ("", 2048)]
)
def test_free_memory_is_what_system_and_container_leave(
    limit: str,
    free: int,
    version: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "meminfo").write_text("MemFree:  1 kB\nMemAvailable:    2 kB\n")
    (tmp_path / "memory").mkdir()
    for name, content in version.items():
        (tmp_path / name).write_text(content.format(limit=limit))
    monkeypatch.setattr(processor, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(processor, "_CGROUPS", tmp_path)
    assert processor.free_memory() == free


def test_free_memory_is_unknown_where_the_system_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "_MEMINFO", tmp_path / "missing")
    assert processor.free_memory() is None
