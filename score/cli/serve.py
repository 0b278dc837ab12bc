"""`score serve`: a model behind HTTP on this machine."""

from __future__ import annotations

import argparse

from score.cli.arguments import add_settings
from score.console.commands import DONE, UNUSABLE, Parser
from score.console.flags import port
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

HELP = "answer requests as Azure ML, OpenAI, MLflow and others do; GET /docs lists them"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model", nargs="?", default=EMBEDDED, metavar="DIR", help="default: the embedded one"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=5001, help="port (5001)")
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serves until interrupted. The port is bound before the model is loaded."""
    from score.core.embedder import Embedder
    from score.serve.app import bound, serve

    with bound(options.host, options.port) as listener:
        embedder = Embedder.load(options.model, settings)
        try:
            serve(embedder, listener, settings.log_level)
        except SystemExit:  # uvicorn has logged the reason
            return UNUSABLE
    return DONE
