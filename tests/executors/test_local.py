"""Worker processes of one machine: each row once, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from score.__main__ import main
from score.errors import ScoreError
from score.executors.local import Local, workers_for
from score.executors.work import Begun
from score.model.engines import pytorch
from tests.job_folder.test_embed import LIMITED, ROWS, embed, long_table, wait_for_rows
from tests.job_folder.test_embed import table as table
from tests.support.images import SAMPLES
from tests.support.job_folders import assert_same, content, entries
from tests.support.processes import started
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

DYING = ROOT / "tests/support/dying_worker.py"
TWO = ("--workers", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "job"


def texts(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "in.csv"
    file.write_text("text\n" + "".join(f"{line}\n" for line in lines))
    return file


def dying(
    table: Path, folder: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`score embed` in shards of 10 rows, whose workers die of a fatal row."""
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows", "10", *TWO]
    environment = {**os.environ, **(environ or {})}
    command = [sys.executable, str(DYING), *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes of a job, without multiprocessing's own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def wait_for_end(pids: list[int]) -> None:
    give_up = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def whole(table: Path, tmp_path: Path) -> Path:
    assert embed(table, tmp_path / "one") == 0
    return tmp_path / "one"


def test_several_processes_give_the_rows_that_one_gives(
    table: Path, folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(table, folder, *TWO) == 0
    assert_same(content(folder), content(whole))
    assert f"{ROWS} rows: " in capsys.readouterr().err
    before = (folder / "ledger.jsonl").read_bytes()
    assert embed(table, folder, *TWO) == 0
    assert f"{ROWS} rows ({ROWS} of earlier runs)" in capsys.readouterr().err
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_inputs_of_every_kind_are_read_by_workers(tmp_path: Path, folder: Path) -> None:
    """A folder of images; a link whose name alone tells that it is a parquet file."""
    assert embed(SAMPLES / "images", folder, *TWO) == 0
    found = content(folder)
    assert found["image"].to_pylist() == sorted(found["image"].to_pylist())
    assert set(found["row_status"].to_pylist()) == {"ok"}
    assert len(found) > 60
    data, link = tmp_path / "data", tmp_path / "in.parquet"
    pd.DataFrame({"image": [f"images/{name}" for name in found["image"].to_pylist()]}).to_parquet(
        data
    )
    link.symlink_to(data)
    assert embed(link, tmp_path / "other", *TWO, "--root", str(SAMPLES)) == 0
    assert set(content(tmp_path / "other")["row_status"].to_pylist()) == {"ok"}


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, folder: Path) -> None:
    table = texts(tmp_path, *(f"text {n}" for n in range(43)), "a fatal text", "the last")
    done = dying(table, folder, {"DYING_ONCE": str(tmp_path / "mark")})
    assert done.returncode == 0, done.stderr
    assert "was killed, as the system does where memory is short; its rows are given" in done.stderr
    assert (tmp_path / "mark").exists()
    assert content(folder)["row_id"].to_pylist() == list(range(45))
    assert content(folder)["text"].to_pylist()[43] == "a fatal text"
    left = {"ledger.jsonl", "lock", "manifest.json", "report.html", "report.json", "shards"}
    assert set(os.listdir(folder)) == left


def test_rows_that_kill_every_worker_are_named(tmp_path: Path, folder: Path) -> None:
    table = texts(tmp_path, *(f"text {n}" for n in range(13)), "a fatal text", *"abcdefghijkl")
    done = dying(table, folder)
    assert done.returncode == 2
    rows = "rows 10 to 19 (as row_id counts them) cannot be embedded"
    assert f"{rows}: 3 workers that had them died, the last one so" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("its rows are given to another") == 3
    found = content(folder)["row_id"].to_pylist()
    assert found == [*range(10), *range(20, 26)]
    assert main(["embed", str(table), "--output", str(folder), "--quiet"]) == 0
    assert content(folder)["row_id"].to_pylist() == list(range(26))


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_cost_no_row(tmp_path: Path, folder: Path) -> None:
    table = long_table(tmp_path, 8_000)
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(folder)]
    command += ["--quiet", "--shard-rows", "200", *TWO]
    choice = random.Random(7)
    with started(command, stderr=subprocess.PIPE) as process:
        for rows in (1_000, 3_000):  # each of the two workers that have their models by then
            wait_for_rows(process, folder, rows)
            time.sleep(choice.random() / 4)
            if workers := workers_of(process):
                os.kill(min(workers), signal.SIGKILL)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "its rows are given to another" in said
    assert content(folder)["n"].to_pylist() == [str(number) for number in range(8_000)]
    assert sum(entry.rows for entry in entries(folder)) == 8_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_a_job_that_is_ended_ends_its_workers(
    number: signal.Signals, code: int, tmp_path: Path, folder: Path
) -> None:
    """SIGINT and SIGHUP go to all processes, as from a terminal."""
    table = long_table(tmp_path, 8_000)
    command = [sys.executable, "-m", "score", "embed", str(table), "--output", str(folder)]
    command += ["--quiet", "--shard-rows", "200", *TWO]
    with started(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_for_rows(process, folder, 1000)
        workers = workers_of(process)
        if number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert workers
    wait_for_end(workers)
    assert "Traceback" not in said
    assert code < 0 or "interrupted, what is done is kept, and the same command goes" in said
    before = {entry.first for entry in entries(folder)}
    assert len(before) >= 5
    written = {file: file.stat().st_ino for file in (folder / "shards").iterdir()}
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert content(folder)["n"].to_pylist() == [str(number) for number in range(8_000)]
    kept = {f"part-{first:012}.parquet" for first in before}
    for file, inode in written.items():
        assert file.name not in kept or file.stat().st_ino == inode


def test_what_no_worker_can_do_ends_the_job_by_a_sentence(tmp_path: Path, folder: Path) -> None:
    table = long_table(tmp_path, 600)
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows", "300", *TWO]
    command = [sys.executable, "-m", "score", *words, "--device", "cuda:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("score: no device 'cuda:9' here")
    full = [sys.executable, "-c", LIMITED, *words]
    done = subprocess.run(full, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((folder / "shards").iterdir())


class Nothing:
    """What no worker can begin with."""

    def shared_by(self, number: int) -> None:
        return None


def test_a_worker_that_dies_before_it_has_a_model_is_not_started_for_ever() -> None:
    executor = Local(2)
    with pytest.raises(ScoreError, match="before it had loaded the model: are fewer workers"):
        executor.begin(Nothing())  # type: ignore[arg-type]
    executor.close()


def test_as_many_workers_as_gpus(
    table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Noted(Local):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

        def begin(self, work: object) -> Begun:
            raise ScoreError("enough")

    monkeypatch.setattr("score.executors.local.Local", Noted)
    assert embed(table, folder, "--workers", "auto") == 0  # there is none: no other process
    monkeypatch.setattr(pytorch.torch.cuda, "device_count", lambda: 3)
    large = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(pytorch.torch.cuda, "get_device_properties", lambda _: large)
    assert embed(table, folder, "--workers", "auto") == 2
    assert asked == [3]
    for device in ("cpu", "cuda:1"):
        embed(table, folder, "--workers", "auto", "--device", device, "--force-new")
    assert asked == [3], "none, or one, and few cores"


@pytest.mark.parametrize(
    ("gpus", "cores", "gib", "weights", "wanted"),
    [
        (0, 64, 0, 1, 1),
        (1, 2, 80, 1, 1),
        (1, 16, 80, 1, 4),
        (8, 16, 80, 1, 8),
        (1, 200, 80, 1, 8),
        (1, 36, 24, 10, 1),
        (2, 96, 40, 10, 6),
        (1, 16, 4, 10, 1),
    ],
)
def test_workers_share_a_gpu_as_far_as_cores_and_memory_go(
    gpus: int, cores: int, gib: int, weights: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score.executors.local.cores", lambda: cores)
    assert workers_for(gpus, gib * 2**30, weights * 2**30) == wanted


@pytest.mark.parametrize("value", ["0", "257", "many", "-1", "1.5"])
def test_numbers_of_workers(
    value: str, table: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        embed(table, folder, f"--workers={value}")
    assert f"{value!r} is not a whole number from 1 to 256, or auto" in capsys.readouterr().err
    assert main(["embed", str(table), "--output", f"{folder}.parquet", *TWO]) == 2
    assert "--workers is for an output that is a folder" in capsys.readouterr().err
