"""A job's rate over time, and its drawing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from score.job_folder.ledger import Entry
from score.job_report.rate import Rate, rates
from score.job_report.rate_chart import rate_chart


def entry(rows: int, seconds: float) -> Entry:
    return Entry(0, rows, "f", 1, (1,), 1, seconds=seconds)


def test_the_rate_of_each_part_of_the_time() -> None:
    found = rates([entry(100, 1), entry(100, 4), entry(400, 1)])
    assert [(rate.begin, rate.end) for rate in found] == [(0, 2), (2, 4), (4, 6)]
    assert [rate.rows_per_second for rate in found] == pytest.approx([62.5, 25, 212.5])


def test_the_parts_are_few_and_hold_all_rows() -> None:
    found = rates([entry(number % 7, 0.5 + number % 3) for number in range(5000)])
    assert len(found) == 120
    done = sum((rate.end - rate.begin) * rate.rows_per_second for rate in found)
    assert done == pytest.approx(sum(number % 7 for number in range(5000)))


@pytest.mark.parametrize("entries", [[], [entry(10, 0)]])
def test_where_the_time_is_not_known_there_is_no_rate(entries: list[Entry]) -> None:
    assert rates(entries) == []
    assert rate_chart([]) == ""


@pytest.mark.parametrize("most", [0, 0.003, 1, 7, 99.9, 100, 123_456])
def test_a_chart_is_drawn_within_its_axes(most: float) -> None:
    svg = rate_chart([Rate(0, 2, most / 3), Rate(2, 4, most), Rate(4, 6, 0)])
    ElementTree.fromstring(svg)
    path = re.search(r'd="([^"]*)"', svg)
    assert path
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", path[1])]
    assert min(heights) >= 10
    assert max(heights) <= 172
    assert 2 <= svg.count("<line") <= 6
    assert ">6 s<" in svg
