"""Charts as SVG, to embed in a page of HTML. The only module that imports matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

COLOURS = ("#2f6fb0", "#e08a2c", "#4a9a5b", "#8a5fb0", "#b0413e", "#5b6770")

_MOST_BARS = 40  # more classes are drawn as a curve
_WIDTH = 9.0  # inches
_GREY = "#57606a"
_STYLE: Any = {
    "svg.fonttype": "none",  # text instead of paths: the browser's fonts have more characters
    "svg.hashsalt": "score",  # makes ids, hence the file, reproducible
    "font.size": 10,
    "axes.edgecolor": "#d0d7de",
    "axes.labelcolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}


def class_recalls(names: Sequence[str], recalls: Sequence[float]) -> str:
    """The recall of each class (0 to 1) as bars, or for many classes as a curve; best first."""
    order = sorted(range(len(names)), key=lambda index: -recalls[index])
    values = [recalls[index] for index in order]
    mean = sum(values) / len(values)
    if len(names) > _MOST_BARS:
        with mpl.rc_context(_STYLE):
            figure, axes = _axes(3.4)
            axes.fill_between(range(len(values)), values, step="mid", color=COLOURS[0], alpha=0.85)
            axes.axhline(mean, color=COLOURS[1], label=f"mean {mean:.1%}")
            axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, 1), xlabel="classes, best first")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            _legend(axes)
            return _svg(figure)
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(1.0 + 0.26 * len(names))
        bars = axes.barh(range(len(values)), values, height=0.7, color=COLOURS[0])
        axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=4, color=_GREY)
        axes.axvline(mean, color=COLOURS[1], label=f"mean {mean:.1%}")
        labels = [names[index] for index in order]
        axes.set_yticks(range(len(values)), labels, parse_math=False)
        axes.set(xlim=(0, 1.08), ylim=(len(values) - 0.4, -0.6))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="y", length=0)
        _legend(axes)
        return _svg(figure)


def grouped(groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Shares (0 to 1) as vertical bars: a group for each name, with a bar for each series."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.2)
        for name, values, positions, width, colour in _side_by_side(series):
            drawn = axes.bar(positions, values, width, color=colour, label=name)
            axes.bar_label(drawn, [f"{value:.1%}" for value in values], padding=3, color=_GREY)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set(ylim=(0, 1.08))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="x", length=0)
        _legend(axes)
        return _svg(figure)


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], label: str) -> str:
    """Numbers from 0 as horizontal bars: a group for each name, with a bar for each series."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(1.0 + 0.22 * len(groups) * (len(series) + 1))
        for name, values, positions, height, colour in _side_by_side(series):
            drawn = axes.barh(positions, values, height, color=colour, label=name)
            axes.bar_label(drawn, [f"{value:.2f}" for value in values], padding=4, color=_GREY)
        axes.set_yticks(range(len(groups)), list(groups), parse_math=False)
        axes.set(ylim=(len(groups) - 0.5, -0.5), xlabel=label)
        axes.margins(x=0.1)
        axes.tick_params(axis="y", length=0)
        _legend(axes)
        return _svg(figure)


def _side_by_side(
    series: Mapping[str, Sequence[float]],
) -> Iterator[tuple[str, Sequence[float], list[float], float, str]]:
    """For each series: name, values, positions of the bars, their width and colour."""
    share = 0.8 / len(series)
    for index, ((name, values), colour) in enumerate(
        zip(series.items(), cycle(COLOURS), strict=False)
    ):
        offset = (index - (len(series) - 1) / 2) * share
        yield name, values, [group + offset for group in range(len(values))], 0.92 * share, colour


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, labelcolor=_GREY)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # The browser draws characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :]  # without the prolog, which contains a URL
