"""`score register`: a package in MLflow's model registry."""

from __future__ import annotations

import argparse

from score.console.commands import DONE, Parser, say
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

HELP = "log a package to MLflow and register it as the next version of a model"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        default=EMBEDDED,
        metavar="DIR",
        help="package; default: the embedded model",
    )
    parser.add_argument("--name", required=True, help="the model's name in the registry")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's server; default: MLFLOW_TRACKING_URI"
    )
    parser.add_argument(
        "--alias", action="append", default=[], help="moved to this version; may be repeated"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints the version's URI, which every verb and MLflow accept as a model."""
    from score.package.register import register

    uri = register(
        options.model, options.name, aliases=options.alias, tracking_uri=options.tracking_uri
    )
    for alias in options.alias:
        say(f"models:/{options.name}@{alias} is {uri}")
    print(uri)
    return DONE
