"""A job on a Spark cluster of this machine: each row once, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from score.contract.params import Params
from score.executors import spark
from score.executors.spark import Outcomes, _failure, _Wave
from score.executors.work import Refusal, Task, Work
from score.folder.model_folder import EMBEDDED
from score.job_folder.ranges import Range
from score.settings import Settings
from tests.job_folder.test_embed import embed, long_table, wait_for_rows
from tests.job_folder.test_embed import table as table
from tests.support.java import java_home
from tests.support.job_folders import assert_same, content, entries
from tests.support.processes import started
from tests.support.surfaces import ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]

CLUSTER = "local-cluster[2,1,1024] --conf spark.executor.memory=512m"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a driver with Java, and with a Spark whose workers write below a folder of the test's."""
    home = tmp_path_factory.mktemp("spark")
    for item in Path(pyspark.__file__).parent.iterdir():
        (home / item.name).symlink_to(item)
    return {
        **os.environ,
        "JAVA_HOME": str(java_home(tmp_path_factory.mktemp("java") / "home")),
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def on(master: str, environ: dict[str, str], *settings: str) -> dict[str, str]:
    """The environment of a driver of a cluster."""
    words = ["--master", master, "--conf spark.ui.enabled=false", *settings, "pyspark-shell"]
    return {**environ, "PYSPARK_SUBMIT_ARGS": " ".join(words)}


def command(table: Path, folder: Path, rows: int) -> list[str]:
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows", str(rows)]
    return [sys.executable, "-m", "score", *words, "--on", "spark"]


def executors() -> list[int]:
    """The Java processes of this test run's executors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            mark = (process / "environ").read_bytes()
        except OSError:
            continue
        ours = f"CLIP_ENDPOINTS_TESTS={os.environ['CLIP_ENDPOINTS_TESTS']}".encode()
        if b"CoarseGrainedExecutorBackend" in words and b"java" in words and ours in mark:
            found.append(int(process.name))
    return found


def wait_until_gone() -> None:
    give_up = time.monotonic() + 60
    while executors():
        assert time.monotonic() < give_up
        time.sleep(0.1)


@pytest.mark.minutes
def test_an_executor_and_then_the_driver_are_killed(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    table, folder = long_table(tmp_path, 4_000), tmp_path / "job"
    speculation = (
        "--conf spark.speculation=true --conf spark.speculation.interval=10ms "
        "--conf spark.speculation.multiplier=1.01 --conf spark.speculation.quantile=0.1"
    )
    cluster = on(CLUSTER, environ, speculation)
    job = command(table, folder, 100)
    with started(job, env=cluster, stderr=subprocess.PIPE) as process:
        wait_for_rows(process, folder, 500)
        running = executors()
        os.kill(running[0], signal.SIGKILL)
        wait_for_rows(process, folder, 1200)
        process.kill()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGKILL, said
    assert len(running) == 2
    wait_until_gone()
    before = {entry.first: (folder / entry.file).stat().st_ino for entry in entries(folder)}
    assert len(before) >= 12
    again = subprocess.run(job, cwd=ROOT, env=cluster, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert content(folder)["n"].to_pylist() == [str(number) for number in range(4_000)]
    after = {entry.first: (folder / entry.file).stat().st_ino for entry in entries(folder)}
    assert {first: after[first] for first in before} == before
    left = {"ledger.jsonl", "lock", "manifest.json", "report.html", "report.json", "shards"}
    assert set(os.listdir(folder)) == left


def test_rows_are_as_one_process_embeds_them(
    table: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    folder = tmp_path / "job"
    local = on("local[2]", environ)
    done = subprocess.run(
        command(table, folder, 20), cwd=ROOT, env=local, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert embed(table, tmp_path / "one") == 0
    assert_same(content(folder), content(tmp_path / "one"))


def test_what_no_worker_can_do_is_said_and_other_machines_are_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, params = Settings(device="cuda:9"), Params()
    work = Work(
        "any", "emoji", "f", settings, params, "float32", ("in.csv",), (), tmp_path, tmp_path
    )
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: str(EMBEDDED))
    task = Task(Range(0, 1, None))
    begun = spark._begun(work)
    assert isinstance(begun, Refusal)
    assert begun.why.startswith("no device 'cuda:9' here")
    elsewhere = spark._outcome(work, task)
    assert isinstance(elsewhere, Refusal)
    assert "is not on a Spark executor what it is on the driver" in elsewhere.why

    class Broken:
        def __init__(self, work: Work) -> None:
            raise OSError(28, "No space left on device")

    class Context:
        number = 0

        def attemptNumber(self) -> int:
            return self.number

    (tmp_path / "manifest.json").touch()
    monkeypatch.setattr(spark, "Worker", Broken)
    monkeypatch.setattr(spark.TaskContext, "get", Context)
    for number in (0, 1):
        Context.number = number
        with pytest.raises(OSError, match="No space left"):
            spark._outcome(work, task)
    Context.number = 2
    assert "No space left" in str(spark._outcome(work, task))


def test_a_process_has_one_worker_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    class Noted:
        def __init__(self, work: Work) -> None: ...

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr(spark, "_kept", [])
    monkeypatch.setattr(spark, "Worker", Noted)
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: name)
    one, same, other = (
        Work("any", name, "f", Settings(), Params(), "float32", (), {"a": "b"}, None, tmp_path)
        for name in ("emoji", "emoji", "other")
    )
    first = spark._worker(one)
    assert spark._worker(same) is first
    assert closed == []
    assert spark._worker(other) is not first
    assert closed == [first]


def wave(error: Exception | None) -> _Wave:
    tasks = [Task(Range(first, 10, None)) for first in (0, 10, 20)]
    return _Wave(tasks, None, {task.rows.first: task for task in tasks}, error=error)


def test_a_partition_that_spark_gives_up_is_named() -> None:
    lost = (
        "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.runJob.\n: "
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 3.0 "
        "failed 4 times, most recent failure: Lost task 1.3 in stage 3.0 (TID 9) (executor 1): "
        "ExecutorLostFailure\nDriver stacktrace:\n"
    )
    given_up = wave(RuntimeError(lost))
    failure = _failure(given_up)
    assert failure is not None
    assert failure.task.rows.first == 10
    assert "Lost task 1.3 in stage 3.0 (TID 9) (executor 1): ExecutorLostFailure" in failure.why
    assert list(given_up.open) == [0, 20]
    assert _failure(wave(None)) is None


def test_outcomes_are_gathered() -> None:
    both = Outcomes()
    task = Task(Range(0, 1, None))
    assert both.addInPlace([task], both.addInPlace(both.zero([]), [task])) == [task, task]
