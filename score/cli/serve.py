"""`score serve`: a model behind HTTP on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from score.cli.arguments import add_settings, positive
from score.console.commands import DONE, UNUSABLE, Parser, exit_code_of, log_to_stderr
from score.console.flags import port
from score.folder.model_folder import EMBEDDED
from score.settings import Settings, names

if TYPE_CHECKING:  # imports NumPy and Pillow, which `--help` does without
    from score.core.embedder import Embedder

HELP = "answer POST /score and GET /ping"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "model", nargs="?", default=EMBEDDED, metavar="DIR", help="default: the embedded one"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=5001, help="port (5001)")
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
    from score.serve.access import access_of
    from score.serve.app import bound, serve
    from score.serve.tls import tls_of
    from score.serve.workers import Supervisor

    with bound(options.host, options.port) as listener:
        address = listener.getsockname()[0]
        access = access_of(address, settings, without_keys=options.without_keys)
        tls_of(settings)
        answer = partial(serve, listener=listener, log_level=settings.log_level, access=access)
        job = partial(_serve, options.model, settings, answer)
        if options.workers == 1:
            return job(lambda: None)
        work = partial(_work, job, settings.log_level)
        return DONE if Supervisor(work, options.workers, listener.close).run() else UNUSABLE


def _serve(
    model: str, settings: Settings, answer: Callable[[Embedder], None], ready: Callable[[], None]
) -> int:
    """answer: serves until interrupted; ready: called when the model is loaded."""
    from score.core.embedder import Embedder

    embedder = Embedder.load(model, settings)
    ready()
    try:
        answer(embedder)
    except SystemExit:  # uvicorn has logged the reason
        return UNUSABLE
    return DONE


def _work(job: Callable[[Callable[[], None]], int], level: str, ready: Callable[[], None]) -> int:
    """One of several worker processes."""
    log_to_stderr(level)
    return exit_code_of(lambda: job(ready))
