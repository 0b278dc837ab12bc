"""`--progress`: a bar, lines, events, nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from score.__main__ import main
from score.cli import job_progress
from score.console.progress import repeatedly
from score.jobs import embed as file_module
from tests.support.job_folders import entries
from tests.support.processes import started
from tests.support.surfaces import ROOT

ROWS = 40
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Texts, and some rows that fail."""
    file = tmp_path / "in.csv"
    lines = [f"{'no image' if n % 10 == 3 else ''},text {n}\n" for n in range(ROWS)]
    file.write_text("image,text\n" + "".join(lines))
    return file


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows take longer than what lies between two lines."""
    monkeypatch.setattr(job_progress, "LINES", 0.02)
    monkeypatch.setattr(job_progress, "EVENTS", 0.02)
    count = file_module.count

    def counting(summary: Any, *others: Any) -> None:
        count(summary, *others)
        if summary.rows == ROWS // 2:
            time.sleep(0.3)

    monkeypatch.setattr(file_module, "count", counting)


def embed(table: Path, *flags: str, output: str = "out.jsonl") -> int:
    return main(["embed", str(table), "--output", str(table.parent / output), *flags])


def progress_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "of the input)" in line]


@pytest.mark.usefixtures("slow")
def test_where_stderr_is_no_terminal_there_are_lines(table: Path, capsys: Capture) -> None:
    assert embed(table) == 0
    said = capsys.readouterr()
    lines = progress_lines(said.err)
    assert len(lines) >= 2
    waiting = [line for line in lines if line.startswith(f"score: {ROWS // 2} rows (")]
    assert waiting, lines
    assert " 0.0 rows/s, 2 failed, about " in waiting[-1]  # while a row takes long, too
    assert said.out == ""
    assert "\r" not in said.err


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("flags", [["--quiet"], ["--progress", "none"]])
def test_no_progress(flags: list[str], table: Path, capsys: Capture) -> None:
    assert embed(table, *flags) == 0
    said = capsys.readouterr()
    assert progress_lines(said.err) == []
    assert "out.jsonl: 40 rows: 36 good, 4 failed" in said.err
    assert said.out == ""


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("output", ["out.jsonl", "job"])
def test_events(output: str, table: Path, capsys: Capture) -> None:
    assert embed(table, "--progress", "json", output=output) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert set(kinds[1:-1]) <= {"progress"}
    assert output == "job" or len(kinds) > 3
    end = events[-1]
    assert (end["state"], end["rows"], end["failed"], end["share"]) == ("done", ROWS, 4, 1)
    assert end["errors"] == {"bad_base64": 4} or end["failed"] == sum(end["errors"].values())
    assert end["seconds_left"] == 0
    assert events[0]["rows"] == 0
    assert [event["rows"] for event in events] == sorted(event["rows"] for event in events)


def test_the_last_event_of_a_job_that_goes_on(table: Path, capsys: Capture) -> None:
    embed(table, "--quiet", output="job")
    capsys.readouterr()
    embed(table, "--progress", "json", output="job")
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (end["rows"], end["earlier"]) == (ROWS, ROWS)


def test_the_last_event_of_a_job_that_fails(
    table: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(file_module, "count", full)
    assert embed(table, "--progress", "json") == 2
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (end["event"], end["state"]) == ("end", "failed")


@pytest.mark.parametrize("kind", ["lines", "json", "none", "bar"])
def test_an_interrupted_job_says_what_is_left(
    kind: str, table: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    class Exit(BaseException): ...

    def leave(code: int) -> None:
        assert code == 130
        raise Exit

    monkeypatch.setattr(file_module, "count", interrupt)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Exit):
        embed(table, "--progress", kind)
    said = capsys.readouterr()
    assert "score: interrupted, nothing written; 0 rows" in said.err
    if kind == "json":
        assert json.loads(said.out.splitlines()[-1])["state"] == "interrupted"


def test_a_bar_that_is_asked_for_is_shown_everywhere(table: Path, capsys: Capture) -> None:
    assert embed(table, "--progress", "bar") == 0
    assert "100%|" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Options:
        quiet, progress = False, None

    for is_terminal, wanted in ((True, "bar"), (False, "lines")):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert job_progress.kind_of(Options) == wanted  # type: ignore[arg-type]


def test_quiet_and_progress_do_not_go_together(table: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        embed(table, "--quiet", "--progress", "json")
    assert end.value.code == 2
    assert "not allowed with argument --quiet" in capsys.readouterr().err


def test_an_action_is_repeated_until_the_block_ends() -> None:
    called = threading.Event()
    times: list[int] = []

    def action() -> None:
        times.append(1)
        if len(times) == 3:
            called.set()

    with repeatedly(0.001, action):
        assert called.wait(10)
    done = len(times)
    time.sleep(0.02)
    assert len(times) == done
    with pytest.raises(OSError, match="ours"), repeatedly(60, action):
        raise OSError("ours")


@pytest.mark.process
def test_a_job_whose_events_nobody_reads_goes_on(table: Path) -> None:
    """The pipe's reader ends after the first line."""
    output = table.parent / "job"
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(output)]
    with started(
        [*command, "--progress", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(60) == 0, said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert f"{ROWS} rows" in said
    assert (output / "report.json").is_file()


@pytest.mark.process
def test_sigterm_ends_a_job_with_an_event(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("text\n" + "".join(f"text number {n}\n" for n in range(100_000)))
    command = [sys.executable, "-m", "score", "embed", str(table), "--progress", "json"]
    output = tmp_path / "job"
    with started(
        [*command, "--output", str(output), "--shard-rows", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        for _ in range(1200):
            if entries(output):
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["state"]) == ("end", "interrupted")
    assert "what is done is kept, and the same command goes on" in said
    report = json.loads((output / "report.json").read_text())
    assert report["state"] == "stopped"
    assert 0 < report["rows"] == sum(entry.rows for entry in entries(output)) <= end["rows"]


CLOSING = """
import os, pty, subprocess, sys, time
from pathlib import Path
from tests.support.job_folders import entries
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.executable, [sys.executable, "-m", "score", *sys.argv[2:]])
for _ in range(1200):
    if entries(Path(sys.argv[1])):
        break
    time.sleep(0.05)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["bar", "lines"])
def test_a_job_whose_terminal_is_closed_keeps_its_open_file(kind: str, tmp_path: Path) -> None:
    """Writing to that terminal fails. A file is not kept where the signal comes in the middle of a
    row's writing, so there are a few tries."""
    table = tmp_path / "in.csv"
    table.write_text("text\n" + "".join(f"text number {n}\n" for n in range(100_000)))
    latest = 97
    for number in range(6):
        output = tmp_path / f"job{number}"
        words = ["embed", str(table), "--output", str(output), "--shard-rows", "97"]
        command = [sys.executable, "-c", CLOSING, str(output), *words, "--progress", kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 129, done.stderr
        assert not list(output.glob("shards/.*"))
        latest = [entry.rows for entry in entries(output)][-1]
        if latest < 97:
            break
    assert latest < 97


@pytest.mark.process
def test_a_job_under_nohup_goes_on(tmp_path: Path) -> None:
    table, output = tmp_path / "in.csv", tmp_path / "job"
    table.write_text("text\n" + "".join(f"text number {n}\n" for n in range(3_000)))
    words = ["embed", str(table), "--output", str(output), "--shard-rows", "100", "--quiet"]
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", sys.executable, "-m", "score", *words]
    with started(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
        for _ in range(1200):
            if entries(output):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert sum(entry.rows for entry in entries(output)) == 3_000
