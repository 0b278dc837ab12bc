"""`score package`: a checkpoint → an MLflow model folder, checked against the reference."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.checkpoints import family
from score.cli.arguments import add_overwrite
from score.console.commands import DONE, Parser, say
from score.console.progress import signals_interrupt
from score.errors import SettingError
from score.settings import Settings

HELP = "turn a checkpoint into an MLflow model folder, checked against the reference"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "checkpoint",
        help="a folder (transformers, OpenCLIP, KerasHub), a file of weights, a Hub id, or a name "
        "of the catalog",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a folder to create")
    add_overwrite(parser)
    parser.add_argument("--name", help="what the metadata calls the model")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the weights; default: as they come",
    )
    parser.add_argument(
        "--int8",
        metavar="IMAGES",
        help="a folder or CSV of images: also writes the model in int8, calibrated on them",
    )
    parser.add_argument(
        "--force", action="store_true", help="write int8 even if it costs too much accuracy"
    )
    parser.add_argument(
        "--torch",
        choices=("cpu", "cuda"),
        default="cpu",
        help="which build of PyTorch the package's conda.yaml asks for, which Azure installs where "
        "it serves the package without an entry script (cpu)",
    )
    parser.add_argument(
        "--architecture", metavar="NAME", help="of a file of weights alone: ViT-B-32, …"
    )
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="a folder with the tokenizer.json to use"
    )
    parser.add_argument(
        "--base",
        metavar="ID|DIR",
        help="what it was fine-tuned from: source of a missing tokenizer and image processor",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="which of several models in a file of weights: state_dict, ema, …",
    )
    parser.add_argument(
        "--cleaning",
        choices=("openclip", "transformers"),
        help="of texts: as in OpenCLIP (ftfy, html.unescape), or none, as in transformers; "
        "default: by the checkpoint's layout",
    )
    parser.add_argument("--source", metavar="ID", help="Hub id or catalog name of a local folder")
    parser.add_argument("--revision", help="commit of the Hub's repository; default: the catalog's")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Writes the package, and prints its path."""
    if options.force and not options.int8:
        raise SettingError("--force is for --int8")
    family.check(Path(options.checkpoint))  # before what takes seconds to import
    from score.package.build import package

    with signals_interrupt():
        folder = package(
            options.checkpoint,
            Path(options.output),
            options.name,
            source=options.source,
            architecture=options.architecture,
            tokenizer=Path(options.tokenizer) if options.tokenizer else None,
            revision=options.revision,
            precision=options.precision,
            weights=options.weights,
            base=options.base,
            cleaning=options.cleaning,
            int8=Path(options.int8) if options.int8 else None,
            force=options.force,
            torch=options.torch,
            overwrite=options.overwrite,
            say=say,
        )
    print(folder)
    return DONE
