"""A job by actors of Ray's, on this machine: each row once, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from score.contract.params import Params
from score.errors import ScoreError
from score.executors.work import Refusal, Task, Work
from score.folder.model_folder import EMBEDDED
from score.job_folder.ranges import Range
from score.settings import Settings
from tests.job_folder.test_embed import long_table, wait_for_rows
from tests.support.job_folders import content, entries
from tests.support.processes import started
from tests.support.surfaces import ROOT

pytest.importorskip("ray")

from score.executors.ray import Actor, _check_places

pytestmark = [pytest.mark.process, pytest.mark.slow]


def actors_of(driver: int) -> list[int]:
    """The processes of a driver's actors, below those that Ray started for it."""
    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(
                (process / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (process / "cmdline").read_bytes().startswith(b"ray::Actor"):
                found.append(int(process.name))
        except OSError:  # it has just ended
            continue

    def is_below(pid: int) -> bool:
        return pid == driver or (pid in parents and is_below(parents[pid]))

    return list(filter(is_below, found))


@pytest.mark.minutes
def test_an_actor_is_killed_and_then_the_driver_is_stopped(tmp_path: Path) -> None:
    table, folder = long_table(tmp_path, 6_000), tmp_path / "job"
    job = [sys.executable, "-m", "score", "embed", str(table), "--output", str(folder), "--quiet"]
    job += ["--shard-rows", "100", "--on", "ray", "--workers", "2"]
    with started(job, stderr=subprocess.PIPE) as process:
        wait_for_rows(process, folder, 500)
        actors = actors_of(process.pid)
        os.kill(actors[0], signal.SIGKILL)
        wait_for_rows(process, folder, 1500)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "an actor of Ray's died; its rows are given to another" in said
    assert "interrupted, what is done is kept, and the same command goes" in said
    before = {entry.first: (folder / entry.file).stat().st_ino for entry in entries(folder)}
    assert len(before) >= 15
    again = subprocess.run(job, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert content(folder)["n"].to_pylist() == [str(number) for number in range(6_000)]
    after = {entry.first: (folder / entry.file).stat().st_ino for entry in entries(folder)}
    assert {first: after[first] for first in before} == before


@pytest.mark.parametrize(
    ("kind", "nodes", "each", "places"),
    [
        ("CPU", [{"CPU": 2.0}], 1, 2),
        ("CPU", [{"CPU": 3.0}, {"CPU": 8.0}], 2, 5),
        ("CPU", [{"CPU": 0.0}, {}], 1, 0),
        ("GPU", [{"GPU": 4.0, "CPU": 1.0}, {"CPU": 64.0}], 1, 4),
    ],
)
def test_more_actors_than_the_cluster_has_places_for_are_refused(
    kind: str, nodes: list[dict[str, float]], each: int, places: int
) -> None:
    if places:
        _check_places(nodes, kind, places, each)
    with pytest.raises(ScoreError, match=f"place for {places} workers of {each} {kind} each"):
        _check_places(nodes, kind, places + 1, each)


def test_an_actor_without_a_place_gets_no_rows(tmp_path: Path) -> None:
    """Of two actors one never comes: the other does all, and the job ends."""
    table, folder = long_table(tmp_path, 300), tmp_path / "job"
    code = "import score.executors.ray as r, sys\n"
    code += "r._check_places = lambda *_: None\n"
    code += "from score.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    words = ["embed", str(table), "--output", str(folder), "--quiet", "--shard-rows", "20"]
    job = [sys.executable, "-c", code, *words, "--on", "ray", "--workers", "64"]
    done = subprocess.run(job, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(content(folder)) == 300


def test_what_no_actor_can_do_is_said(tmp_path: Path) -> None:
    def work(**settings: Any) -> Work:
        table = tmp_path / "in.csv"
        table.write_text("text\na\n")
        chosen, params = Settings(**settings), Params()
        where = ((str(table),), (), tmp_path, tmp_path)
        return Work(str(EMBEDDED), "emoji", "f", chosen, params, "float32", *where)

    begun = Actor(work(device="cuda:9")).begun()
    assert isinstance(begun, Refusal)
    assert begun.why.startswith("no device 'cuda:9' here")
    actor = Actor(work())
    elsewhere = actor.result(Task(Range(0, 1, None)))
    assert isinstance(elsewhere, Refusal)
    assert "is not on a machine of Ray's what it is on the driver" in elsewhere.why
    assert actor._worker
    actor._worker.close()
