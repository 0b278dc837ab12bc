"""The plan of large jobs, and the simulation of what they lose; docs/scale.md has their tables."""

from __future__ import annotations

from dataclasses import replace
from urllib.request import urlopen

import pytest

from benchmarks import fixtures, job_simulation, scale
from benchmarks.job_simulation import AHEAD, SCENARIOS, Setting, Simulation, ideal
from benchmarks.scale import Plan, slots
from score.job_folder import embed
from score.settings import Settings
from tests.support.surfaces import ROOT

PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
SMALL = Setting(rows=400_000, machines=8, files=40)
HARD = replace(SMALL, taken_every=0.1, slow=0.25, spread=0.3, away=30)


@pytest.mark.parametrize(
    "line",
    [*scale.machines_table(), *scale.amounts_table(), *scale.slots_table()],
)
def test_the_page_has_the_tables_of_the_plan(line: str) -> None:
    assert line in PAGE.splitlines()


@pytest.mark.slow
def test_the_page_has_the_table_of_the_simulation() -> None:
    for line in job_simulation.table(job_simulation.SEEDS):
        assert line in PAGE.splitlines()


def test_the_rates_are_those_that_were_measured() -> None:
    measured = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    row = next(line for line in measured.splitlines() if line.startswith("| URL, 640×480 |"))
    for rate in scale.RATES.values():
        assert f"| {rate}/s " in row


def test_the_simulation_has_the_rules_of_the_program() -> None:
    assert embed._LONGEST == job_simulation.LONGEST
    assert embed.SHARD_ROWS == Setting().shard_rows == scale.SHARD_ROWS
    assert "AHEAD = 4096" in (ROOT / "fuzz/kills.py").read_text()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("notice", [False, True])
@pytest.mark.parametrize("shard_rows", [100, 10_000])
def test_nothing_is_lost_and_little_repeated(seed: int, notice: bool, shard_rows: int) -> None:
    setting = replace(HARD, notice=notice, shard_rows=shard_rows)
    run = Simulation(setting, seed).run()
    assert (run.written, run.lost, run.twice) == (setting.rows, 0, 0)
    assert run.taken > 10
    assert run.most <= shard_rows
    assert run.repeated <= run.taken * shard_rows
    assert run.fetched <= run.repeated + run.taken * AHEAD
    assert (run.repeated == 0) == notice
    assert run.seconds > ideal(setting)


def test_a_ledger_with_a_gap_or_an_overlap_is_noticed() -> None:
    simulation = Simulation(replace(SMALL, files=1), 0)
    simulation.all[0].ledger = {0: 100_000, 90_000: 20_000, 200_000: 200_000}
    outcome = simulation._counted()
    assert (outcome.lost, outcome.twice) == (90_000, 10_000)


def test_a_simulation_is_repeatable_and_depends_on_its_seed() -> None:
    assert Simulation(HARD, 1).run() == Simulation(HARD, 1).run()
    assert Simulation(HARD, 1).run() != Simulation(HARD, 2).run()


def test_without_trouble_a_job_takes_what_it_takes() -> None:
    even = replace(SMALL, spread=0.0)
    run = Simulation(even, 0).run()
    assert run.seconds == pytest.approx(ideal(even))
    assert (run.taken, run.repeated, run.fetched) == (0, 0, 0)


def test_every_scenario_changes_the_usual_job() -> None:
    settings = list(SCENARIOS.values())
    assert len({repr(setting) for setting in settings}) == len(settings)


def test_the_formulas() -> None:
    plan = Plan(rows=7.2e6, rate=2, image_bytes=1e5, row_bytes=1000, failing=0.5)
    assert plan.hours == 1000
    assert (plan.machines(1), plan.machines(100)) == (42, 1)
    assert plan.received == 3.6e11
    assert plan.written == 7.2e9
    settings = Settings(max_retries=1, connect_timeout=4, retry_wait=2, fetch_workers=100)
    assert slots(settings, 0.5) == 100 / (0.5 * (4 + 4 + 2))
    assert slots(settings, 0) == float("inf")


@pytest.mark.process
def test_a_query_makes_an_image_of_the_benchmarks_another_one() -> None:
    """`benchmarks.jobs` and `benchmarks.scale` need more URLs than the server has images."""
    with (
        fixtures.image_server(thumbnails=True) as urls,
        urlopen(urls[0]) as plain,
        urlopen(f"{urls[0]}?n=7") as other,
    ):
        assert plain.read() == other.read()
