"""A job's rate as an SVG, in the colours of the page around it. Needs no library."""

from __future__ import annotations

import math
from collections.abc import Sequence

from score.job_report.rate import Rate
from score.wording.durations import duration

_WIDTH, _HEIGHT = 720, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 18, 28  # of the axes
_STEPS = (1, 2, 2.5, 5, 10)
_LINES = 4  # across, at most


def rate_chart(rates: Sequence[Rate]) -> str:
    """The rate over time; nothing where it is not known."""
    if not rates:
        return ""
    step = _step(max(rate.rows_per_second for rate in rates))
    top = step * max(math.ceil(max(rate.rows_per_second for rate in rates) / step), 1)
    end = rates[-1].end

    def x(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / end

    def y(speed: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * speed / top

    line = " ".join(
        f"L{x(rate.begin):.1f} {y(rate.rows_per_second):.1f}H{x(rate.end):.1f}" for rate in rates
    )
    area = f"M{x(0):.1f} {y(0):.1f} {line} V{y(0):.1f}Z"
    across = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y(at) + 4:.1f}" text-anchor="end">{at:,.6g}</text>'
        for at in (step * number for number in range(round(top / step) + 1))
    )
    times = "".join(
        f'<text x="{x(at):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{duration(at)}</text>'
        for at, anchor in ((0.0, "start"), (end / 2, "middle"), (end, "end"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Rows a second, over '
        f'{duration(end)} of work">{across}<path class="area" d="{area}"/>{times}</svg>'
    )


def _step(most: float) -> float:
    """A round distance of lines, of which a few reach up to `most`."""
    if most <= 0:
        return 1.0
    least = most / _LINES
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in _STEPS if power * step >= least * (1 - 1e-9))
