"""A job's report as a self-contained page of HTML, without scripts. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from score.fetch.http_status import named
from score.job_report.examples import Example, Failures, printable
from score.job_report.rate_chart import rate_chart
from score.job_report.report import Report, Shown
from score.pages import webpage
from score.pages.parts import STYLE, about, chart, figures, quiet, section, table
from score.wording.durations import duration

_STYLE = """\
.chart line { stroke: var(--line); }
@media (max-width: 40rem) { .chart svg { min-width: 0; }
  .chart svg text { font-size: 22px !important; } }
.chart .area { fill: var(--accent); fill-opacity: .3; stroke: var(--accent); }
.chart svg text { font-size: 12px; fill: var(--quiet) !important; }
section details { margin: .5rem 0 0; padding: .5rem .8rem; border: 1px solid var(--line);
  border-radius: .6rem; }
summary b { float: right; padding-left: 1rem; }
.example { max-width: none; margin: .5rem 0; padding-top: .5rem; border-top: 1px solid var(--faint);
  font-size: .9rem; }
.example b { padding-right: .6rem; }
.wide table { min-width: 36rem; }
"""
_FILES = 10  # of the input, that are named
_MIB = 2**20


def as_html(report: Report) -> str:
    """The page."""
    status, manifest = report.status, report.manifest
    body = [
        _figures(report),
        quiet(_advice(report)),
        chart("Rows a second", rate_chart(report.rates)) if report.rates else "",
        section("Errors", _failures(report.codes)),
        _statuses(report),
        section("Hosts whose images failed", _failures(report.hosts)),
        _slowest(report),
        _copies(report),
        section("Some of the images", _images(report.images)),
        _about(report),
    ]
    names = report.inputs
    title = names[0] if names else "a job"
    if (more := len(manifest.inputs) - 1) > 0:
        title += f" and {more:,} more"
    return webpage.page(
        f"Embeddings of {title}",
        f"{status.state}, {printable(manifest.identity.model)}, {_minute(report.written)}",
        "\n".join(filter(None, body)),
        STYLE + _STYLE,
    )


def _figures(report: Report) -> str:
    status = report.status
    failed = status.failed.total()
    good = status.rows - failed
    values = [(f"{status.rows:,}", "rows"), (f"{good:,}", f"good ({_share(good, status.rows)})")]
    values.append((f"{failed:,}", f"failed ({_share(failed, status.rows)})"))
    if report.seconds:
        values.append((f"{report.rows_per_second:,.1f}", "rows a second"))
        values.append((duration(report.seconds), "of work"))
    return figures(values)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0%"


def _advice(report: Report) -> str:
    """What there is to do."""
    status, sentences = report.status, []
    if status.holder:
        sentences.append(f"{status.share:.1%} of the input is done; the job is running.")
    elif not status.is_complete:
        sentences.append(
            f"{status.share:.1%} of the input is done; the same command goes on with it."
        )
    if status.retryable:
        sentences.append(
            f"{status.retryable:,} of the failed rows may succeed another time: the same command "
            "with --retry-failed tries them again."
        )
    if report.unread:
        sentences.append(
            f"{report.unread:,} files were damaged or not there when this was written: the same "
            "command embeds their rows again."
        )
    return " ".join(sentences)


def _failures(all_of_them: Sequence[Failures]) -> str:
    """Each with its examples, which are shown of the most frequent one until others are opened."""
    return "".join(
        f"<details{'' if number else ' open'}><summary>{escape(printable(failures.name))} "
        f"<b>{failures.rows:,}</b></summary>{''.join(map(_example, failures.examples))}</details>"
        for number, failures in enumerate(all_of_them)
    )


def _example(example: Example) -> str:
    cell, message = escape(example.cell), escape(example.message)
    return (
        f'<p class="example"><b>row {example.row:,}</b> {cell}<br>'
        f'<span class="quiet">{message}</span></p>'
    )


def _statuses(report: Report) -> str:
    """What the servers of images that failed have answered."""
    counts = report.status.statuses.most_common()
    rows = [(named(int(code)), f"{count:,}") for code, count in counts]
    return section("Answers of servers whose images failed", table(("HTTP status", "#rows"), rows))


def _slowest(report: Report) -> str:
    """The hosts that took most of the time of downloads."""
    rows = [
        (
            printable(host),
            f"{time.requests:,}",
            f"{time.seconds / time.requests:.2f} s",
            f"{time.longest:.2f} s",
            duration(time.seconds),
        )
        for host, time in report.status.slowest.items()
        if time.requests
    ]
    heads = ("host", "#requests", "#mean", "#longest", "#in all")
    title = "Hosts that took longest"
    return section(title, webpage.wide(title, table(heads, rows))) if rows else ""


def _copies(report: Report) -> str:
    counter = report.copies
    if not counter.rows:
        return ""
    said = "" if counter.is_exact else "about "
    text = f"Of {counter.rows:,} images, {said}{counter.copies:,} have the same bytes as another."
    if report.files_read < report.status.shards:
        text += (
            f" That is of {report.files_read:,} of the {report.status.shards:,} files, evenly "
            "chosen: images whose copies are in the others are not counted."
        )
    if report.groups and counter.undercount:
        text += f" Groups may be larger than told by at most {counter.undercount:,} rows."
    rows = [
        (
            f"{group.copies.rows:,}",
            f"{group.copies.first:,}",
            group.shown.cell if group.shown else "",
            group.copies.key,
        )
        for group in report.groups
    ]
    heads = ("#rows", "#first row", "cell", "hash begins")
    images = _images(group.shown for group in report.groups if group.shown and group.shown.image)
    groups = webpage.wide("Images that come more than once", table(heads, rows)) if rows else ""
    return section("Images that come more than once", quiet(text) + groups + images)


def _images(images: Iterable[Shown]) -> str:
    shown = "".join(
        f"<figure>{one.image}<figcaption>{escape(one.cell)}, row {one.row:,}</figcaption></figure>"
        for one in images
    )
    return f'<div class="images">{shown}</div>' if shown else ""


def _about(report: Report) -> str:
    manifest = report.manifest
    identity = manifest.identity
    files = [
        f"{name} ({file.bytes:,} bytes)"
        for file, name in zip(manifest.inputs, report.inputs[:_FILES], strict=False)
    ]
    if len(manifest.inputs) > len(files):
        files.append(f"{len(manifest.inputs) - len(files):,} more")
    rows = [
        ("model", identity.model),
        ("fingerprint", identity.fingerprint),
        ("computed in", f"{identity.precision} by {identity.engine} on {identity.device}"),
        ("version", identity.version),
        ("begun", _minute(manifest.created)),
        ("input", ", ".join(files)),
        ("columns", ", ".join(map(printable, manifest.columns))),
        ("output", f"{report.status.shards:,} files, {report.bytes / _MIB:,.1f} MiB"),
        *((name.replace("_", " "), _value(value)) for name, value in manifest.options.items()),
    ]
    cells = [(printable(name), printable(value, 2000)) for name, value in rows]
    return section("How it was computed", about(cells))


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _minute(time: str) -> str:
    """A time in ISO format for people."""
    return f"{time[:16].replace('T', ' ')} UTC"
