"""`score serve`: a model behind HTTP on this machine."""

from __future__ import annotations

import argparse

from score.cli.arguments import add_settings
from score.console.commands import DONE, UNUSABLE, Parser
from score.console.flags import port
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.settings import Settings, names

HELP = "answer POST /score and GET /ping"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model", nargs="?", default=EMBEDDED, metavar="DIR", help="default: the embedded one"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=5001, help="port (5001)")
    add_settings(parser, names())


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serves until interrupted; the model is loaded meanwhile."""
    from score.core.embedder import Embedder
    from score.core.identity import Identity
    from score.serve.listener import bound
    from score.serve.running import exit_within, serve

    def load() -> tuple[Embedder, Identity]:
        folder = ModelFolder.open(options.model)
        embedder = Embedder.load(folder.path, settings)
        return embedder, Identity.of(embedder, folder)

    with bound(options.host, options.port) as listener:
        try:
            serve(load, settings, listener)
        except SystemExit:  # uvicorn has logged the reason
            return UNUSABLE
    exit_within(DONE)
    return DONE
