"""`score evaluate`: zero-shot accuracy and retrieval recall on your own data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import add_max_errors, add_model, add_overwrite, add_settings
from score.cli.job_progress import stage_progress
from score.console.commands import DONE, TOO_MANY_ERRORS, Parser, add_verb
from score.settings import Settings

if TYPE_CHECKING:  # imports NumPy and Pillow, which `--help` does without
    from score.core.embedder import Embedder
    from score.evaluation.results import Evaluation, Progress

HELP = "measure zero-shot accuracy or retrieval recall"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    zeroshot = add_verb(tasks, "zeroshot", "accuracy of classifying a folder of class folders")
    zeroshot.add_argument("data", help="a folder with a folder of images for each class")
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
    retrieval = add_verb(tasks, "retrieval", "recall of captions' images and images' captions")
    retrieval.add_argument("data", help="CSV with an image and a text column, one caption a row")
    for task in (zeroshot, retrieval):
        task.add_argument("--output", metavar="FILE.json", help="and FILE.html beside it")
        add_overwrite(task)
        add_model(task)
        add_max_errors(task)
        task.add_argument("--quiet", action="store_true", help="no progress bar")
        add_settings(task)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Checks the arguments before the model is loaded; then evaluates."""
    from score.core.embedder import Embedder
    from score.evaluation.report import Model, as_text

    output = _checked_output(options)
    evaluate = (_zeroshot if options.task == "zeroshot" else _retrieval)(options)
    embedder = Embedder.load(options.model, settings)
    with stage_progress(quiet=options.quiet) as show:
        evaluation = evaluate(embedder, show)
    model = Model.of(embedder, options.model)
    print(as_text(evaluation, model))
    if output:
        from score.evaluation.page import page_of, write

        write(evaluation, model, output)
        print(f"{output}, {page_of(output)}", file=sys.stderr)
    failed, allowed = evaluation.failures.total, options.max_errors
    too_many = evaluation.empty or (allowed is not None and failed > max(allowed, 0))
    return TOO_MANY_ERRORS if too_many else DONE


def _checked_output(options: argparse.Namespace) -> Path | None:
    if not options.output:
        return None
    from score.evaluation.page import check_output

    names = [getattr(options, name, None) for name in ("data", "templates", "classnames")]
    inputs = [Path(name) for name in names if name]
    check_output(Path(options.output), inputs, overwrite=options.overwrite)
    return Path(options.output)


def _zeroshot(options: argparse.Namespace) -> Callable[[Embedder, Progress], Evaluation]:
    from score.evaluation import prompts
    from score.evaluation.zeroshot import zeroshot
    from score.jobs.image_folder_reader import ClassFolders

    folder = ClassFolders.open(Path(options.data))
    names = prompts.class_names(options.classnames, folder.classes)
    templates = prompts.load_templates(options.templates)
    return lambda embedder, show: zeroshot(embedder, folder, names, templates, show)


def _retrieval(options: argparse.Namespace) -> Callable[[Embedder, Progress], Evaluation]:
    from score.evaluation.retrieval import open_captions, retrieval

    source = Path(options.data)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    with open_captions(source):  # checks its columns
        pass
    return lambda embedder, show: retrieval(embedder, source, show)
