"""`score label`: images → a class for each, in a table or in a folder for each class."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.cli.arguments import (
    add_max_errors,
    add_model,
    add_overwrite,
    add_settings,
    positive,
    probability,
)
from score.cli.job_progress import add_progress, kind_of, print_summary, row_progress
from score.console.commands import Parser, say
from score.settings import Settings

HELP = "label images with a class each, by zero-shot CLIP"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("input", help="folder of images, or CSV (or .csv.gz) with an image column")
    parser.add_argument(
        "--ontology", required=True, metavar="FILE", help="JSON: labels, or label → prompt(s)"
    )
    parser.add_argument(
        "--output", required=True, help="a .csv file, or a new folder for the sorted images"
    )
    add_overwrite(parser)
    add_model(parser)
    parser.add_argument(
        "--confidence",
        type=probability,
        default=0.0,
        metavar="P",
        help="images whose best label is less probable get none (0)",
    )
    parser.add_argument("--top", type=positive, default=1, metavar="K", help="labels an image (1)")
    add_max_errors(parser)
    add_progress(parser)
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Checks the arguments before the model is loaded; then labels."""
    from score.core.embedder import Embedder
    from score.jobs.image_source import open_images
    from score.jobs.label import (
        LabelSummary,
        check_output,
        columns_of,
        encode_ontology,
        label,
        read_ontology,
    )
    from score.tables.base_writer import replaced

    source, output, ontology = Path(options.input), Path(options.output), Path(options.ontology)
    check_output(output, source, overwrite=options.overwrite)
    if not ontology.exists():
        raise FileNotFoundError(f"no such file: {ontology}")
    labels = read_ontology(ontology, settings.max_prompts)
    summary = LabelSummary()
    with open_images(source) as images:
        if lost := replaced(images.columns, columns_of(output, options.top)):
            say(f"{source.name} is a table of results: its columns {', '.join(lost)} are replaced")
        embedder = Embedder.load(options.model, settings)
        encode_ontology(labels, ontology, embedder)
        with row_progress(summary, images.size, kind_of(options)) as show:
            label(
                embedder,
                images,
                labels,
                output,
                confidence=options.confidence,
                top=options.top,
                overwrite=options.overwrite,
                progress=show,
                summary=summary,
            )
    return print_summary(output, summary, options.max_errors)
