"""The command line: one verb a job. `score VERB --help` tells each one's options.

Exit codes: 0 done, 1 finished with more errors than allowed, 2 unusable arguments or input.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from score.cli import export, register
from score.deploy import cli
from score.errors import ScoreError, SettingError
from score.folder import EMBEDDED
from score.settings import PREFIX, Settings, choices, knobs

if TYPE_CHECKING:  # it brings pandas, which only some verbs need
    from score.batch import Summary

_METAVARS = {float: "SECONDS", int: "N", bool: "BOOL", str: "TEXT", tuple: "LIST"}

_VERIFY_KNOBS = ("device", "precision", "engine", "cache", "batch_size", "log_level")

DONE, TOO_MANY_ERRORS, UNUSABLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("score").setLevel(settings.log_level.upper())
        return _VERBS[options.verb](options, settings)
    except KeyboardInterrupt:
        print("score: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ScoreError, OSError) as error:
        print(f"score: {error}", file=sys.stderr)
        return UNUSABLE
    except ImportError as error:
        extras = options.verb if options.verb in ("package", "evaluate", "azure") else "batch,serve"
        if options.verb == "register":
            extras = "mlflow"
        if options.verb == "package" and options.int8:
            extras = "package,int8"
        print(f"score: {error}: pip install -e '.[{extras}]' in the clone", file=sys.stderr)
        return UNUSABLE


def _embed(options: argparse.Namespace, settings: Settings) -> int:
    from score.batch import Summary, embed_file
    from score.embedder import Embedder
    from score.params import Params
    from score.tables import writer_for

    source, output = Path(options.input), Path(options.output)
    writer_for(output)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    params = Params(normalize=options.normalize, truncate=options.truncate, on_error="report")
    embedder = Embedder.load(options.model, settings)
    summary = Summary()
    with _watched(summary, source.stat().st_size, quiet=options.quiet) as show:
        embed_file(embedder, source, output, params, show, summary)
    return _done(output, summary, options.max_errors)


def _label(options: argparse.Namespace, settings: Settings) -> int:
    from score.embedder import Embedder
    from score.jobs.label import LabelSummary, check_output, label, read_ontology
    from score.jobs.pictures import open_pictures

    source, output, ontology = Path(options.input), Path(options.output), Path(options.ontology)
    check_output(output, source)
    if not ontology.exists():
        raise FileNotFoundError(f"no such file: {ontology}")
    summary = LabelSummary()
    with open_pictures(source) as pictures:
        embedder = Embedder.load(options.model, settings)
        labels = read_ontology(ontology, embedder)
        choice = {"confidence": options.confidence, "top": options.top}
        with _watched(summary, pictures.size, quiet=options.quiet) as show:
            label(embedder, pictures, labels, output, **choice, progress=show, summary=summary)
    return _done(output, summary, options.max_errors)


@contextmanager
def _watched(summary: Summary, size: int, *, quiet: bool) -> Iterator[Callable[[Summary], None]]:
    """A progress bar of `size` steps over a job. A job that is stopped ends the process."""
    bar = tqdm(
        total=size,
        disable=True if quiet else None,
        bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
    )

    def show(summary: Summary) -> None:
        bar.update(summary.position - bar.n)
        bar.set_description_str(
            f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors",
            refresh=False,
        )

    try:
        with bar, _stopping():
            yield show
    except KeyboardInterrupt:
        print(f"score: interrupted, nothing written; {summary}", file=sys.stderr, flush=True)
        os._exit(130)  # downloads under way are threads that would hold the exit up


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM is an interrupt, so that a job which its scheduler ends removes what it began."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _done(output: Path, summary: Summary, max_errors: int | None) -> int:
    """Says how a job went, and returns its exit code."""
    print(f"{output}: {summary}", file=sys.stderr)
    allowed = summary.rows - 1 if max_errors is None else max_errors
    return TOO_MANY_ERRORS if summary.errors > max(allowed, 0) else DONE


def _evaluate(options: argparse.Namespace, settings: Settings) -> int:
    from score.embedder import Embedder
    from score.jobs import prompts
    from score.jobs.classfolders import ClassFolders
    from score.jobs.evaluate import retrieval, zeroshot
    from score.jobs.report import Model, as_text

    source = Path(options.data)
    output = Path(options.output) if options.output else None
    if output:
        from score.jobs.page import check_output, page_of, write

        texts = [getattr(options, name, None) for name in ("templates", "classnames")]
        check_output(output, [Path(file) for file in texts if file])
    # Whatever can be refused is refused before the model is loaded.
    if options.task == "zeroshot":
        folder = ClassFolders.open(source)
        names = prompts.class_names(options.classnames, folder.classes)
        templates = prompts.load_templates(options.templates)
    elif not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    embedder = Embedder.load(options.model, settings)
    bar = tqdm(
        disable=True if options.quiet else None,
        bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
    )

    stage = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal stage
        if what != stage:
            stage = what
            bar.reset(total)
            bar.set_description_str(what, refresh=False)
        bar.update(done - bar.n)

    try:
        with bar:
            evaluation = (
                zeroshot(embedder, folder, names, templates, show)
                if options.task == "zeroshot"
                else retrieval(embedder, source, show)
            )
    except KeyboardInterrupt:
        print("score: interrupted, nothing written", file=sys.stderr, flush=True)
        os._exit(130)  # downloads under way are threads that would hold the exit up
    model = Model.of(embedder, options.model)
    print(as_text(evaluation, model))
    if output:
        write(evaluation, model, output)
        print(f"{output}, {page_of(output)}", file=sys.stderr)
    failed, allowed = evaluation.failures.total, options.max_errors
    too_many = evaluation.empty or (allowed is not None and failed > max(allowed, 0))
    return TOO_MANY_ERRORS if too_many else DONE


def _split(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs.split import split

    source = Path(options.input)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    made = split(source, Path(options.output), options.rows)
    print(f"{options.output}: {len(made):,} shards of up to {options.rows:,} rows", file=sys.stderr)
    return DONE


def _merge(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs import merge

    table = Path(options.output) if options.output else None
    account = merge.merge(Path(options.shards), Path(options.results), table)
    if options.report:
        merge.write(account, Path(options.report))
    print(account)
    return DONE if account.complete else TOO_MANY_ERRORS


def _index(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs.index import build

    count = build(Path(options.table), Path(options.output), options.column)
    print(f"{options.output}: {count:,} vectors", file=sys.stderr)
    return DONE


def _search(options: argparse.Namespace, settings: Settings) -> int:
    from score.embedder import Embedder
    from score.jobs.index import Index

    index = Index(Path(options.index))
    embedder = Embedder.load(options.model, settings)
    embed = embedder.embed_image if options.image else embedder.embed_text
    for hit in index.search(embed(options.query), options.top):
        print(json.dumps({"score": round(hit.score, 4), **hit.row}, ensure_ascii=False))
    return DONE


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    from score.embedder import Embedder
    from score.server import serve

    embedder = Embedder.load(options.model, settings)
    try:
        serve(embedder, options.host, options.port, settings.log_level)
    except SystemExit:  # uvicorn has said why: a port that is taken, say
        return UNUSABLE
    return DONE


def _package(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs.package import package

    if options.force and not options.int8:
        raise SettingError("--force is for --int8")
    with _stopping():
        made = package(
            options.checkpoint,
            Path(options.output),
            options.name,
            source=options.source,
            architecture=options.architecture,
            tokenizer=Path(options.tokenizer) if options.tokenizer else None,
            revision=options.revision,
            precision=options.precision,
            int8=Path(options.int8) if options.int8 else None,
            force=options.force,
            say=lambda line: print(f"score: {line}", file=sys.stderr),
        )
    print(made)
    return DONE


def _catalog(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs import catalog

    if options.name is None:
        print(catalog.table())
        return DONE
    entry = catalog.lookup(options.name)
    if entry is None:
        known = ", ".join(catalog.CATALOG)
        print(f"score: {options.name!r} is not in the catalog: {known}", file=sys.stderr)
        return UNUSABLE
    print(catalog.describe(entry))
    return DONE


def _verify(options: argparse.Namespace, settings: Settings) -> int:
    from score.jobs.verify import table, verify

    probes, precision, findings = verify(Path(options.model), settings)
    print(table(findings))
    broken = [finding for finding in findings if not finding.passed]
    against = f"{precision} here against {probes.reference}"
    if broken:
        print(f"score: {len(broken)} of {len(findings)} probes FAILED; {against}", file=sys.stderr)
        return TOO_MANY_ERRORS
    print(f"all {len(findings)} probes as promised; {against}")
    return DONE


def _azure(options: argparse.Namespace, settings: Settings) -> int:
    with _stopping():  # what it starts is ended with it
        return cli.run(options)


_VERBS: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
    "embed": _embed,
    "evaluate": _evaluate,
    "label": _label,
    "split": _split,
    "merge": _merge,
    "index": _index,
    "search": _search,
    "serve": _serve,
    "catalog": _catalog,
    "package": _package,
    "verify": _verify,
    "azure": _azure,
    "export": export.run,
    "register": register.run,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score", description="CLIP embeddings of pictures and texts."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    embed = verbs.add_parser("embed", help="embed the rows of a CSV file")
    embed.add_argument("input", help="CSV (or .csv.gz) with an image column, a text column or both")
    embed.add_argument("--output", required=True, help="a .parquet, .csv, .jsonl or .npy file")
    embed.add_argument("--model", default=EMBEDDED, metavar="DIR", help="default: the embedded one")
    embed.add_argument("--normalize", action="store_true", help="unit length vectors")
    embed.add_argument("--truncate", choices=("end", "error"), default="end", help="long texts")

    label = verbs.add_parser("label", help="label pictures with a class each, by zero-shot CLIP")
    label.add_argument("input", help="folder of pictures, or CSV (or .csv.gz) with an image column")
    label.add_argument(
        "--ontology", required=True, metavar="FILE", help="JSON: labels, or label → prompt(s)"
    )
    label.add_argument(
        "--output", required=True, help="a .csv file, or a new folder for the sorted pictures"
    )
    label.add_argument("--model", default=EMBEDDED, metavar="DIR", help="default: the embedded one")
    label.add_argument(
        "--confidence",
        type=_probability,
        default=0.0,
        metavar="P",
        help="pictures whose best label is less probable get none (0)",
    )
    label.add_argument("--top", type=_positive, default=1, metavar="K", help="labels a picture (1)")
    for job in (embed, label):
        job.add_argument(
            "--max-errors", type=int, metavar="N", help="more failed rows exit with 1; default: all"
        )
        job.add_argument("--quiet", action="store_true", help="no progress bar")

    split = verbs.add_parser("split", help="cut a CSV into shards, for several machines to share")
    split.add_argument("input", help="CSV (or .csv.gz) with an image column, a text column or both")
    split.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    split.add_argument("--rows", type=_rows, default=1000, metavar="N", help="of a shard (1000)")

    merge = verbs.add_parser("merge", help="account for every row of a divided job")
    merge.add_argument("shards", metavar="SHARDS", help="the folder that `score split` wrote")
    merge.add_argument("results", metavar="RESULTS", help="the folder that the job wrote")
    merge.add_argument("--output", metavar="FILE.parquet", help="all rows in one table, in order")
    merge.add_argument("--report", metavar="FILE.json", help="what became of them")

    index = verbs.add_parser("index", help="make a table of vectors searchable")
    index.add_argument("table", help="a .parquet file of `score embed` or `score merge`")
    index.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    index.add_argument(
        "--column", choices=("image_features", "text_features"), default="image_features"
    )

    search = verbs.add_parser("search", help="the rows of an index nearest to a text or picture")
    search.add_argument("index", metavar="DIR", help="what `score index` wrote")
    search.add_argument("query", help="a text; with --image, a URL or base64")
    search.add_argument("--image", action="store_true", help="the query is a picture")
    search.add_argument("--top", type=_positive, default=10, metavar="K", help="rows (10)")
    search.add_argument("--model", default=EMBEDDED, metavar="DIR", help="that made the vectors")

    serve = verbs.add_parser("serve", help="answer POST /score and GET /ping")
    serve.add_argument("model", nargs="?", default=EMBEDDED, metavar="DIR")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=cli.port, default=5001)

    package = verbs.add_parser("package", help="turn a checkpoint into a proven MLflow folder")
    package.add_argument(
        "checkpoint",
        help="a folder (transformers, OpenCLIP, KerasHub), a file of weights, a Hub id, or a name "
        "of the catalog",
    )
    package.add_argument("--output", required=True, metavar="DIR", help="a folder to create")
    package.add_argument("--name", help="what the metadata calls the model")
    package.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the weights; default: as they come",
    )
    package.add_argument(
        "--int8",
        metavar="PICTURES",
        help="a folder or CSV of pictures: puts the model into int8, too, calibrated on them",
    )
    package.add_argument(
        "--force", action="store_true", help="int8 even where it finds other pictures than fp32"
    )
    package.add_argument("--architecture", metavar="NAME", help="of bare weights: ViT-B-32, …")
    package.add_argument(
        "--tokenizer", metavar="DIR", help="a folder with the tokenizer.json to use"
    )
    package.add_argument("--source", metavar="ID", help="what a folder here was downloaded as")
    package.add_argument("--revision", help="of the Hub's repository; default: the catalog's")

    catalog = verbs.add_parser("catalog", help="list the checkpoints known by name")
    catalog.add_argument("name", nargs="?", help="tell all about this one")

    verify = verbs.add_parser("verify", help="compute a package's probes here, and compare")
    verify.add_argument("model", metavar="DIR", help="a folder that `score package` wrote")

    export.add(verbs.add_parser("export", help=export.HELP))
    register.add(verbs.add_parser("register", help=register.HELP))
    cli.add(verbs.add_parser("azure", help="plan and write deployments at Azure ML"))

    evaluate = verbs.add_parser("evaluate", help="measure zero-shot accuracy or retrieval recall")
    tasks = evaluate.add_subparsers(dest="task", required=True, metavar="TASK")
    zeroshot = tasks.add_parser("zeroshot", help="classify a folder of class folders")
    zeroshot.add_argument("data", help="a folder with a folder of pictures for each class")
    zeroshot.add_argument(
        "--templates",
        default="openai",
        metavar="openai|simple|FILE",
        help="texts around a name: OpenAI's 80 or 7, or one a line; default: openai",
    )
    zeroshot.add_argument(
        "--classnames",
        metavar="imagenet|FILE",
        help="OpenAI's names for ImageNet, or JSON or lines of names; default: the folders' names",
    )
    retrieval = tasks.add_parser("retrieval", help="find captions' pictures, pictures' captions")
    retrieval.add_argument("data", help="CSV with an image and a text column, one caption a row")
    for task in (zeroshot, retrieval):
        task.add_argument("--output", metavar="FILE.json", help="and FILE.html beside it")
        task.add_argument("--model", default=EMBEDDED, metavar="DIR", help="default: the embedded")
        task.add_argument(
            "--max-errors", type=int, metavar="N", help="more failures exit with 1; default: all"
        )
        task.add_argument("--quiet", action="store_true", help="no progress bar")

    for verb in (embed, label, search, serve, verify, zeroshot, retrieval):
        group = verb.add_argument_group("settings", f"each is also a variable {PREFIX}…")
        for knob in knobs():
            if verb is verify and knob.name not in _VERIFY_KNOBS:
                continue
            default = knob.default if knob.default not in ((), "") else "none"
            group.add_argument(
                _flag(knob.name),
                metavar="|".join(choices(knob)) or _METAVARS[type(knob.default)],
                help=f"{knob.metadata['help']} ({default})",
            )
    return parser


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def _positive(text: str, most: int = 1000) -> int:
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
    return int(text)


def _rows(text: str) -> int:
    return _positive(text, 10_000_000)


def _settings(options: argparse.Namespace) -> Settings:
    """The environment's settings under those of the command line."""
    given = {knob.name: getattr(options, knob.name, None) for knob in knobs()}
    return Settings.from_env(os.environ).replace(
        {name: value for name, value in given.items() if value is not None}, spelled=_flag
    )


def _flag(name: str) -> str:
    """How a command line spells a setting."""
    return "--" + name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
