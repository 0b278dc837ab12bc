"""`score status`."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from score.__main__ import main
from score.errors import RequestError
from score.hardware.locks import hold
from score.job_folder import inspection
from score.job_folder.status import Status
from score.job_report.writing import write_report
from score.wording.durations import duration
from tests.job_folder.test_embed import embed
from tests.support.damage import flip
from tests.support.job_folders import entries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job of 60 rows, of which some failed."""
    table = tmp_path / "in.csv"
    lines = [f"{'no image' if n % 10 == 0 else ''},text {n}\n" for n in range(60)]
    table.write_text("image,text\n" + "".join(lines))
    assert embed(table, tmp_path / "job") == 0
    return tmp_path / "job"


def status(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    return capsys.readouterr().out


def test_a_finished_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = status(folder, capsys)
    assert said.startswith("complete: all 60 rows in 3 files\n6 rows failed (10.0%):\n")
    assert "  not_an_image                       6\n" in said
    assert "--retry-failed" not in said
    assert main(["status", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["rows"], told["total"], told["share"]) == ("complete", 60, 60, 1)
    assert told["failed"] == {"not_an_image": 6}
    assert told["seconds_left"] == 0


def test_a_job_that_stopped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    entry = {**json.loads(lines[0]), "seconds": 4, "hosts": {"a.example": 3}, "retryable": 2}
    entry |= {"statuses": {"404": 1, "429": 2}, "slowest": {"a.example": [3, 7.5, 5]}}
    ledger.write_text(json.dumps(entry) + "\n" + '{"cut')
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "rows": None}))
    said = status(folder, capsys)
    share = entry["position"] / manifest["size"]
    left = duration((20 / share - 20) / 5)
    assert said.startswith(
        f"stopped: 20 rows in 1 file, {share:.1%} of the input; 5.0 rows/s, "
        f"about {left} left at that rate\n"
    )
    assert (
        "hosts whose images failed:\n  a.example                                          3\n"
        in said
    )
    assert "by the answer of the image's server:\n  HTTP 429                           2\n" in said
    assert "2 of them may succeed another time: --retry-failed" in said
    assert Status.of(folder).json()["slowest"] == {
        "a.example": {"requests": 3, "seconds": 7.5, "longest": 5.0}
    }
    page = write_report(folder).read_text()
    for cell in ("429 Too Many Requests", "2.50 s", "5.00 s"):
        assert f">{cell}<" in page


def test_a_job_that_has_just_begun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ledger.jsonl").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "rows": None}))
    assert status(folder, capsys) == "stopped: 0 rows in 0 files, 0.0% of the input\n"
    assert Status.of(folder).seconds_left is None


def test_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no job: it has no manifest.json" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "missing")]) == 2
    assert f"no such folder: {tmp_path / 'missing'}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "texts.csv").write_text("text\na\n")
    assert main(["status", str(tmp_path / "texts.csv")]) == 2
    assert "texts.csv is no folder: a job is in one" in capsys.readouterr().err


def test_many_hosts_are_not_all_shown(folder: Path) -> None:
    hosts = Counter({f"{number}.example": 100 - number for number in range(30)})
    status = Status.of(folder)
    shown = str(Status(**{**{n: getattr(status, n) for n in status.__slots__}, "hosts": hosts}))
    assert "0.example" in shown
    assert "and 20 more" in shown
    assert "29.example" not in shown


def test_looking_at_a_job_does_not_keep_another_from_beginning(folder: Path) -> None:
    (folder / "lock").unlink()
    assert Status.of(folder).state == "complete"
    assert not (folder / "lock").exists()  # nothing is written
    held = hold(folder / "lock")
    assert held is not None
    assert Status.of(folder).state == "running"
    os.close(held)
    looking = os.open(folder / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [looking]).start()
    descriptor = hold(folder / "lock")
    assert descriptor is not None
    os.close(descriptor)


def test_what_is_no_status_is_not_told(folder: Path) -> None:
    ledger = folder / "ledger.jsonl"
    entry = {**json.loads(ledger.read_text().splitlines()[0]), "statuses": {"\x1b[2J": 1}}
    ledger.write_text(json.dumps(entry) + "\n")
    with pytest.raises(RequestError, match=r"line 1, is damaged: .* is no HTTP status"):
        Status.of(folder)


def test_a_ledger_without_ends_of_lines_is_damaged(folder: Path) -> None:
    (folder / "ledger.jsonl").write_bytes(b"x" * 2**20)
    with pytest.raises(RequestError, match=r"ledger\.jsonl, line 1, is damaged: it has no end"):
        Status.of(folder)


@pytest.mark.parametrize("how", [flip, Path.unlink])
def test_a_check_names_the_shards_that_are_damaged(
    how: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(folder), "--check"]) == 0
    assert "damaged" not in capsys.readouterr().out
    file = entries(folder)[1].file
    how(folder / file)
    assert main(["status", str(folder)]) == 0
    assert main(["status", str(folder), "--check"]) == 1
    said = capsys.readouterr().out
    assert f"{file} is damaged or missing: the job's command again makes it anew" in said
    assert main(["status", str(folder), "--check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == [file]


def test_a_check_of_a_running_job_goes_by_its_latest_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard is written again while the check reads others."""
    job = entries(folder)
    before = {entry.first: replace(entry, sha256="0" * 64) for entry in job}
    seen = iter([before])
    real = inspection._entries
    monkeypatch.setattr(inspection, "_entries", lambda path: next(seen, None) or real(path))
    assert list(inspection.damaged_files(folder)) == []
