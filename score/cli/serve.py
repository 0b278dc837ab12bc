"""`score serve`: models behind HTTP on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import add_settings, positive
from score.console.commands import DONE, UNUSABLE, Parser, exit_code_of
from score.console.flags import port
from score.errors import ModelError
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.settings import Settings, names

if TYPE_CHECKING:  # imports NumPy and Pillow, which `--help` does without
    from score.core.model_source import Source

    Sources = Callable[[], list[Source]]

HELP = "serve models over HTTP as Azure ML, OpenAI, MLflow and others do; GET /docs lists paths"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="DIR",
        help="model folders, as DIR or NAME=DIR; requests that name no model get the first one; "
        "default: the embedded model",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=5001, help="port to listen on (5001)")
    parser.add_argument(
        "--workers",
        type=partial(positive, most=256),
        default=1,
        metavar="N",
        help="processes, each with the models in its own memory, and a GPU where there are several",
    )
    parser.add_argument(
        "--without-keys",
        action="store_true",
        help="ask nobody for a key: the network or the platform decides who reaches the server",
    )
    add_settings(parser, names())


def configure_log(settings: Settings) -> None:
    """The server's log, also of what comes before it runs."""
    from score.serve import logs

    logs.configure(settings)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serves until interrupted. What can be refused is refused before a model is loaded."""
    from score.serve.access import access_of
    from score.serve.listener import bound
    from score.serve.running import serve
    from score.serve.tls import tls_of
    from score.serve.workers import Supervisor

    with bound(options.host, options.port) as listener:
        address = listener.getsockname()[0]
        access = access_of(address, settings, without_keys=options.without_keys)
        tls_of(settings)
        sources = partial(_sources, folders_of(options.models), settings)
        answer = partial(serve, settings=settings, bound=listener, access=access)
        if options.workers == 1:
            return _serve(sources, answer)
        work = partial(_work, sources, answer, settings)
        return DONE if Supervisor(work, options.workers, listener.close).run() else UNUSABLE


def folders_of(arguments: Sequence[str]) -> dict[str, ModelFolder]:
    """The folders of the models, by name. `arguments`: DIR or NAME=DIR each.

    Raises ModelError for a folder that is no model's, and where two models have one name.
    """
    folders, paths = dict[str, ModelFolder](), dict[str, str]()
    for argument in arguments or [str(EMBEDDED)]:
        name, path = _named(argument)
        folder = ModelFolder.open(path)
        name = name or folder.name
        if name in folders:
            raise ModelError(
                f"two models have the name {name!r}, by which requests choose: name them, as in "
                f"`score serve first={paths[name]} second={path}`"
            )
        folders[name], paths[name] = folder, path
    return folders


def _named(argument: str) -> tuple[str, str]:
    """The name and the folder of NAME=DIR; no name for a DIR, which may hold `=` itself."""
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists() or "/" in name:
        return "", argument
    if not name.strip() or not name.isprintable():
        raise ModelError(f"{argument!r}: a name of printable characters goes before `=`")
    return name.strip(), path


def _sources(folders: Mapping[str, ModelFolder], settings: Settings) -> list[Source]:
    from score.core.model_source import source_of
    from score.core.shared import Shared

    shared = Shared(settings)
    return [source_of(name, folder, settings, shared) for name, folder in folders.items()]


def _serve(sources: Sources, answer: Callable[[Sequence[Source]], bool]) -> int:
    """answer: serves until interrupted, and loads the models meanwhile."""
    from score.serve.running import exit_at_once, exit_within

    try:
        if answer(sources()):
            exit_at_once(DONE)
    except SystemExit:  # uvicorn has logged the reason
        return UNUSABLE
    exit_within(DONE)
    return DONE


def _work(
    sources: Sources, answer: Callable[..., bool], settings: Settings, ready: Callable[[], None]
) -> int:
    """One of several worker processes."""
    from score.serve import logs

    logs.configure(settings)
    return exit_code_of(lambda: _serve(sources, partial(answer, ready=ready)))
