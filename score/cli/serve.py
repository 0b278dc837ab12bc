"""`score serve`: a model behind HTTP on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from score.cli.arguments import add_settings, positive
from score.console.commands import DONE, UNUSABLE, Parser, exit_code_of
from score.console.flags import port
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.settings import Settings, names

if TYPE_CHECKING:  # imports NumPy and Pillow, which `--help` does without
    from score.core.embedder import Embedder
    from score.core.identity import Identity

    Load = Callable[[], tuple[Embedder, Callable[[], Identity]]]

HELP = "serve a model over HTTP as Azure ML, OpenAI, MLflow and others do; GET /docs lists paths"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        default=EMBEDDED,
        metavar="DIR",
        help="model folder; default: the embedded model",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=5001, help="port to listen on (5001)")
    parser.add_argument(
        "--workers",
        type=partial(positive, most=256),
        default=1,
        metavar="N",
        help="processes, each with the model in its own memory, and a GPU where there are several",
    )
    parser.add_argument(
        "--without-keys",
        action="store_true",
        help="ask nobody for a key: the network or the platform decides who reaches the server",
    )
    add_settings(parser, names())


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serves until interrupted. What can be refused is refused before a model is loaded."""
    from score.serve import logs
    from score.serve.access import access_of
    from score.serve.listener import bound
    from score.serve.running import serve
    from score.serve.tls import tls_of
    from score.serve.workers import Supervisor

    with bound(options.host, options.port) as listener:
        address = listener.getsockname()[0]
        access = access_of(address, settings, without_keys=options.without_keys)
        tls_of(settings)
        load = partial(_load, options.model, settings)
        answer = partial(serve, settings=settings, bound=listener, access=access)
        if options.workers == 1:
            return _serve(load, answer)
        logs.configure(settings)
        work = partial(_work, load, answer, settings)
        return DONE if Supervisor(work, options.workers, listener.close).run() else UNUSABLE


def _load(model: str, settings: Settings) -> tuple[Embedder, Callable[[], Identity]]:
    from score.core.embedder import Embedder
    from score.core.identity import Identity

    folder = ModelFolder.open(model)
    embedder = Embedder.load(folder.path, settings)
    return embedder, partial(Identity.of, embedder, folder)


def _serve(load: Load, answer: Callable[[Load], None]) -> int:
    """answer: serves until interrupted, and loads the model meanwhile."""
    from score.serve.running import exit_within

    try:
        answer(load)
    except SystemExit:  # uvicorn has logged the reason
        return UNUSABLE
    exit_within(DONE)
    return DONE


def _work(
    load: Load, answer: Callable[..., None], settings: Settings, ready: Callable[[], None]
) -> int:
    """One of several worker processes."""
    from score.serve import logs

    logs.configure(settings)
    return exit_code_of(lambda: _serve(load, partial(answer, ready=ready)))
