"""`score embed`: the rows of tables, or the images of a folder → a file or a folder of vectors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import (
    add_max_errors,
    add_model,
    add_overwrite,
    add_settings,
    positive,
    probability,
)
from score.cli.job_progress import add_progress, kind_of, print_summary, row_progress
from score.console.commands import TOO_MANY_ERRORS, Parser, say
from score.contract.rows import COLUMNS, NO_COLUMN
from score.errors import BadColumns, RequestError, ScoreError
from score.settings import Settings
from score.wording.quoting import quoted
from score.wording.system_errors import FULL

if TYPE_CHECKING:
    from score.contract.params import Params
    from score.executors.executor import Executor
    from score.executors.work import Work
    from score.job_folder.embed import JobOptions
    from score.storage.remote import Input
    from score.tables.lines import Lines

HELP = "embed the rows of tables, or a folder of images"
REMOTE = ("input",)


_KEPT = "what is done is kept, and the same command goes on"
_MOST_ROWS = 10_000_000  # of a shard
_MOST_GIB = 100_000
_MOST_WORKERS = 256
_OTHER_NAMES = (NO_COLUMN, "column ")  # how errors begin where a table has other columns
_FOLDER_ONLY = (
    *("shard_rows", "vectors", "max_error_rate", "retry_failed", "force_new"),
    *("vector_cache", "vector_cache_size", "workers", "on"),
)
EXECUTORS = ("local", "spark", "ray")


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "input",
        nargs="+",
        help="tables with an image column, a text column or both: CSV, TSV, JSON lines (also .gz "
        "or .zst), parquet, webdataset's .tar; folders and patterns of them; a folder of images",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE|FOLDER",
        help="a .parquet, .csv, .jsonl or .npy file; or a folder, for long jobs: the same command "
        "again goes on where it stopped",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--columns",
        type=_names,
        metavar="image=NAME,text=NAME",
        default={},
        help="the tables' own names of the image and the text column",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder below which image cells may name files; default: the table's folder",
    )
    add_model(parser)
    parser.add_argument("--normalize", action="store_true", help="scale vectors to unit length")
    parser.add_argument(
        "--truncate",
        choices=("end", "error"),
        default="end",
        help="texts longer than the model's context: cut them, or count them as failed (end)",
    )
    _add_folder(parser)
    add_max_errors(parser)
    add_progress(parser)
    add_settings(parser)


def _add_folder(parser: Parser) -> None:
    group = parser.add_argument_group("output folders")
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="try the failed rows of earlier runs again that may succeed another time",
    )
    group.add_argument(
        "--force-new",
        action="store_true",
        help="start anew, and remove what an earlier job left in the folder",
    )
    group.add_argument(
        "--max-error-rate",
        type=probability,
        metavar="RATE",
        help="stop, and exit with 1, when a larger share of the rows fails, from 0 to 1",
    )
    group.add_argument(
        "--vectors",
        choices=("float32", "float16"),
        help="type of the vectors' numbers (float32)",
    )
    group.add_argument(
        "--vector-cache",
        metavar="DIR",
        help="folder in which vectors outlive the job: what is the same, to the same model, is not "
        "encoded again",
    )
    group.add_argument(
        "--vector-cache-size",
        type=partial(positive, most=_MOST_GIB, least=0),
        metavar="GIB",
        help="most of the vectors that are kept, there and during a job; 0: none (4)",
    )
    group.add_argument(
        "--shard-rows",
        type=partial(positive, most=_MOST_ROWS),
        metavar="N",
        help="most rows of a file, which are done again if the job is killed (10000)",
    )
    group.add_argument(
        "--on",
        choices=EXECUTORS,
        help="what runs the job: this machine, the Spark session that spark-submit or Spark's "
        "configuration describes, or the Ray cluster of RAY_ADDRESS (local)",
    )
    group.add_argument(
        "--workers",
        type=_workers,
        metavar="N|auto",
        help="processes with a model each, which share the job and this machine's cores, and have "
        "a GPU each where there are several; auto: one, on GPUs one for four cores; of Ray: actors "
        "(one for each GPU, or each machine)",
    )


def _workers(text: str) -> int | str:
    """Raises ArgumentTypeError."""
    if text == "auto":
        return text
    try:
        return positive(text, _MOST_WORKERS)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Checks the arguments before the model is loaded; then embeds."""
    from score.contract.params import Params

    params = Params(normalize=options.normalize, truncate=options.truncate, on_error="report")
    if _is_folder(options.output):
        return _into_folder(options, settings, params)
    return _into_file(options, settings, params)


def _is_folder(output: str) -> bool:
    """Whether an output is a folder: one that exists, or a name without an ending."""
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix


def _into_file(options: argparse.Namespace, settings: Settings, params: Params) -> int:
    from score.core.embedder import Embedder
    from score.jobs.embed import embed_lines
    from score.jobs.summary import Summary
    from score.storage.outputs import check_files, check_inputs
    from score.storage.remote import is_remote
    from score.tables.writers import writer_for

    for name in _FOLDER_ONLY:
        value = getattr(options, name)
        if value is not None and value is not False:
            flag = "--" + name.replace("_", "-")
            raise RequestError(
                f"{flag} is for an output that is a folder: {options.output} is none, but would be "
                f"with a slash at its end: {options.output}/"
            )
    output = Path(options.output)
    writer = writer_for(output)
    inputs = [Path(source) for source in options.input if not is_remote(source)]
    check_files(writer.files_of(output), overwrite=options.overwrite, inputs=inputs)
    summary = Summary()
    with _opened(options, writer.reserved) as lines:
        check_inputs(writer.files_of(output), _local(lines.files))
        embedder = Embedder.load(options.model, settings)
        with row_progress(summary, lines.size, kind_of(options)) as show:
            embed_lines(embedder, lines, output, params, show, summary)
    return print_summary(output, summary, options.max_errors)


def _into_folder(options: argparse.Namespace, settings: Settings, params: Params) -> int:
    from score.core.embedder import Embedder
    from score.executors.spread import spread_into
    from score.folder.model_folder import ModelFolder
    from score.job_folder.embed import SHARD_ROWS, JobOptions, embed_into
    from score.job_folder.folder import check, check_apart, check_same_job
    from score.job_folder.known import VECTORS_BYTES
    from score.job_folder.ledger import FORCE_NEW
    from score.jobs.summary import Summary, is_above
    from score.tables.shard_writer import ShardWriter

    folder = Path(options.output)
    if options.overwrite:
        raise RequestError(f"--overwrite is for files: of a folder, {FORCE_NEW}")
    check(folder, force_new=options.force_new)
    _check_cache(options)
    size = options.vector_cache_size
    chosen = JobOptions(
        shard_rows=options.shard_rows or SHARD_ROWS,
        vectors=options.vectors or "float32",
        max_error_rate=options.max_error_rate,
        force_new=options.force_new,
        retry_failed=options.retry_failed,
        columns=options.columns,
        vector_cache=Path(options.vector_cache) if options.vector_cache else None,
        vector_cache_bytes=VECTORS_BYTES if size is None else size * 2**30,
    )
    summary, executor = Summary(), _executor(options, settings)
    with _opened(options, ShardWriter.reserved) as lines:
        check_apart(folder, _local(lines.files))
        if not options.force_new:
            model = ModelFolder.open(options.model)
            about = (params, chosen.vectors, lines, options.columns)
            check_same_job(folder, model, settings, *about)
        embedder = None if executor else Embedder.load(options.model, settings)
        with (
            row_progress(summary, lines.size, kind_of(options), left=_KEPT) as show,
            _explained(folder),
            _reported(folder, lines.root),
        ):
            if executor:
                work = _work(options, settings, params, chosen, lines)
                spread_into(executor(), lines, work, chosen, show, summary)
            elif embedder:
                embed_into(embedder, lines, folder, params, chosen, show, summary)
    code = print_summary(folder, summary, options.max_errors)
    if summary.stopped or is_above(summary, options.max_error_rate):
        begins = "stopped" if summary.stopped else f"exit code {TOO_MANY_ERRORS}"
        say(
            f"{begins}: more than {options.max_error_rate:.2%} of the rows failed "
            "(--max-error-rate); what is done is kept"
        )
        return TOO_MANY_ERRORS
    return code


def _check_cache(options: argparse.Namespace) -> None:
    """Raises RequestError for a cache that cannot be used, which a job would do without."""
    from score.storage.outputs import check_folder

    if not options.vector_cache:
        return
    if options.vector_cache_size == 0:
        raise RequestError("--vector-cache-size 0 keeps no vectors: leave out --vector-cache")
    if options.on in ("spark", "ray"):
        raise RequestError(
            "--vector-cache is for one machine: workers of several share no such file"
        )
    check_folder(Path(options.vector_cache), lambda content: True, overwrite=True)


def _executor(options: argparse.Namespace, settings: Settings) -> Callable[[], Executor] | None:
    """What makes the job's workers; None for a job of this process alone."""
    if options.on == "spark":
        from score.executors.spark import Spark

        if options.workers:
            raise RequestError("--workers is for this machine: Spark knows how many it has")
        return Spark
    if options.on == "ray":
        from score.executors.ray import Ray

        return partial(Ray, None if options.workers == "auto" else options.workers)
    from score.executors.local import Local

    workers = _number(options, settings)
    return partial(Local, workers) if workers > 1 else None


def _number(options: argparse.Namespace, settings: Settings) -> int:
    """How many processes a job of this machine has."""
    if options.workers != "auto":
        return int(options.workers or 1)
    from score.executors.local import workers_for
    from score.folder.model_folder import ModelFolder
    from score.model.engines.pytorch import gpus_for

    weights = 4 * ModelFolder.open(options.model).architecture.parameters
    return workers_for(*gpus_for(settings.device), weights)


def _work(
    options: argparse.Namespace,
    settings: Settings,
    params: Params,
    chosen: JobOptions,
    lines: Lines,
) -> Work:
    """What each worker of a job is told. Reads the model's folder. Raises ModelError."""
    from score.executors.work import Work
    from score.folder.model_folder import ModelFolder
    from score.job_folder.input_files import sizes_of
    from score.storage.remote import is_remote

    model = ModelFolder.open(options.model)
    return Work(
        model=str(model.path.absolute()),
        name=model.name,
        fingerprint=model.fingerprint(),
        settings=settings,
        params=params,
        vectors=chosen.vectors,
        sources=tuple(
            source if is_remote(source) else str(Path(source).absolute())
            for source in options.input
        ),
        columns=tuple(options.columns.items()),
        root=lines.root and lines.root.absolute(),
        folder=Path(options.output).absolute(),
        vector_cache=chosen.vector_cache and chosen.vector_cache.absolute(),
        vector_cache_bytes=chosen.vector_cache_bytes,
        is_here=options.on not in ("spark", "ray"),
        sizes=sizes_of(lines),
    )


@contextmanager
def _reported(folder: Path, root: Path | None) -> Iterator[None]:
    """Writes the job's report when it has ended, and a quick one when it is interrupted.

    root: the folder of the input's images.
    """
    from score.job_report.report import FEW_FILES, MOST_FILES

    try:
        yield
    except KeyboardInterrupt:
        _report(folder, root, FEW_FILES)
        raise
    _report(folder, root, MOST_FILES)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raises ScoreError for an error of the system, such as a full disk, once the job has begun."""
    from score.job_folder.manifest import exists

    try:
        yield
    except OSError as error:
        if not exists(folder):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in FULL:
            raise ScoreError(f"{folder}: {reason}; {_KEPT} when there is room") from error
        raise ScoreError(f"{error.filename or folder}: {reason}; {_KEPT}") from error


def _report(folder: Path, root: Path | None, most_files: int) -> None:
    """A report that cannot be written is no failure of the job, whose rows are done."""
    from score.job_folder.manifest import exists
    from score.job_report.writing import write_report

    if not exists(folder):  # interrupted before it began
        return
    try:
        write_report(folder, root, most_files)
    except (ScoreError, OSError) as error:
        say(f"there is no report of this run: {error}")


@contextmanager
def _opened(options: argparse.Namespace, reserved: Sequence[str]) -> Iterator[Lines]:
    """The input. reserved: the columns of the output."""
    from score.tables.base_writer import replaced

    with _lines(options) as lines:
        if options.root:
            lines.root = _root(options.root, lines.files)
        if lost := replaced(lines.columns, reserved):
            name = Path(options.input[0]).name
            say(f"{name} is a table of results: its columns {', '.join(lost)} are replaced")
        yield lines


def _lines(options: argparse.Namespace) -> Lines:
    """Raises BadColumns, which tells how to name the columns of a table that has others."""
    from score.jobs.line_source import open_lines

    try:
        return open_lines(options.input, options.columns)
    except BadColumns as error:
        if options.columns or not str(error).startswith(_OTHER_NAMES):
            raise
        raise BadColumns(
            f"{error}; --columns image=NAME,text=NAME names columns that are called otherwise"
        ) from error


def _names(text: str) -> dict[str, str]:
    """`image=url,text=caption` as a mapping. Raises ArgumentTypeError."""
    names: dict[str, str] = {}
    for part in text.split(","):
        ours, _, theirs = (word.strip() for word in part.partition("="))
        if ours not in COLUMNS or not theirs or ours in names:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} is not of the form image=NAME,text=NAME, or one of the two"
            )
        names[ours] = theirs
    return names


def _local(files: Iterable[Input]) -> list[Path]:
    """Those that are not in an object store."""
    return [file for file in files if isinstance(file, Path)]


def _root(root: str, files: Sequence[Input]) -> Path:
    """The folder of a table's images. Raises RequestError."""
    from score.storage.remote import is_folder

    if any(map(is_folder, files)):
        raise RequestError("--root is for tables: a folder's images are below the folder")
    if not Path(root).is_dir():
        raise RequestError(f"--root: no such folder: {root}")
    return Path(root)
