"""The command line: one verb a job. `score VERB --help` tells each one's options.

Exit codes: 0 done, 1 finished with more errors than allowed, 2 unusable arguments or input.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from score.errors import ScoreError
from score.folder import EMBEDDED
from score.settings import PREFIX, Settings, knobs

_METAVARS = {float: "SECONDS", int: "N", bool: "BOOL", str: "TEXT", tuple: "LIST"}

DONE, TOO_MANY_ERRORS, UNUSABLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        return _VERBS[options.verb](options, settings)
    except (ScoreError, OSError) as error:
        print(f"score: {error}", file=sys.stderr)
        return UNUSABLE
    except ImportError as error:
        extras = "evaluate" if options.verb == "evaluate" else "batch,serve"
        print(f"score: {error}; pip install 'clip-endpoints[{extras}]'", file=sys.stderr)
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
    bar = tqdm(
        total=source.stat().st_size,
        disable=True if options.quiet else None,
        bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
    )

    def show(summary: Summary) -> None:
        bar.update(summary.position - bar.n)
        bar.set_description_str(
            f"{summary.rows:,} rows, {summary.rate:.1f} rows/s, {summary.errors:,} errors",
            refresh=False,
        )

    summary = Summary()
    try:
        with bar:
            embed_file(embedder, source, output, params, show, summary)
    except KeyboardInterrupt:
        print(f"score: interrupted, nothing written; {summary}", file=sys.stderr, flush=True)
        os._exit(130)  # downloads under way are threads that would hold the exit up
    print(f"{output}: {summary}", file=sys.stderr)
    allowed = summary.rows - 1 if options.max_errors is None else options.max_errors
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

    print(package(Path(options.checkpoint), Path(options.output), options.name))
    return DONE


_VERBS = {"embed": _embed, "evaluate": _evaluate, "serve": _serve, "package": _package}


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
    embed.add_argument(
        "--max-errors", type=int, metavar="N", help="more failed rows exit with 1; default: all"
    )
    embed.add_argument("--quiet", action="store_true", help="no progress bar")

    serve = verbs.add_parser("serve", help="answer POST /score and GET /ping")
    serve.add_argument("model", nargs="?", default=EMBEDDED, metavar="DIR")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=5001)

    package = verbs.add_parser("package", help="make an MLflow model folder of a checkpoint")
    package.add_argument("checkpoint", help="a folder in the transformers layout")
    package.add_argument("--output", required=True, metavar="DIR", help="a folder to create")
    package.add_argument("--name", help="what the metadata calls the model")

    evaluate = verbs.add_parser("evaluate", help="how right a model is on pictures of yours")
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

    for verb in (embed, serve, zeroshot, retrieval):
        group = verb.add_argument_group("settings", f"each is also a variable {PREFIX}…")
        for knob in knobs():
            default = knob.default if knob.default not in ((), "") else "none"
            group.add_argument(
                "--" + knob.name.replace("_", "-"),
                metavar=_METAVARS[type(knob.default)],
                help=f"{knob.metadata['help']} ({default})",
            )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _settings(options: argparse.Namespace) -> Settings:
    """The environment's settings under those of the command line."""
    given = {knob.name: getattr(options, knob.name, None) for knob in knobs()}
    return Settings.from_env(os.environ).replace(
        {name: value for name, value in given.items() if value is not None}
    )


if __name__ == "__main__":
    sys.exit(main())
