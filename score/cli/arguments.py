"""Arguments of several verbs, and types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping

from score.console.commands import SETTINGS, Parser, Switch
from score.errors import RequestError
from score.folder.model_folder import EMBEDDED
from score.settings import PREFIX, SERVER, Settings, choices, names, setting_fields
from score.storage.remote import STORES, is_remote
from score.wording.quoting import quoted

_METAVARS = {float: "SECONDS", int: "N", str: "TEXT", tuple: "LIST"}


_ABOUT_SETTINGS = (
    f"each is also an environment variable: --batch-size is {PREFIX}BATCH_SIZE; defaults are in "
    "parentheses"
)


def check_local(options: argparse.Namespace, remote: Collection[str]) -> None:
    """Raises RequestError for the URL of an object store where a verb takes a path.

    remote: the arguments that may be such URLs.
    """
    for name, value in vars(options).items():
        for url in value if isinstance(value, list) else [value]:
            if name in remote or not is_remote(url):
                continue
            if name == "output" or url.lower().startswith(tuple(f"{one}://" for one in STORES)):
                raise RequestError(
                    f"{name}: {quoted(url)} is a URL, and `score {options.verb}` takes a path: "
                    "name one of this machine, or of a disk that is mounted, and copy what is in it"
                )


def add_model(parser: Parser) -> None:
    """`--model DIR`."""
    parser.add_argument(
        "--model",
        default=EMBEDDED,
        metavar="DIR",
        help="model folder; default: the embedded model",
    )


def add_overwrite(parser: Parser) -> None:
    """`--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def add_max_errors(parser: Parser) -> None:
    """`--max-errors N`, for jobs over many rows."""
    parser.add_argument(
        "--max-errors",
        type=int,
        metavar="N",
        help="exit with 1 if more rows fail than this; default: only if all fail",
    )


def add_settings(parser: Parser, only: Collection[str] | None = None) -> None:
    """A flag for each setting in `only`; by default for all but those of the server."""
    chosen = set(names()) - set(SERVER) if only is None else set(only)
    group = parser.add_argument_group(SETTINGS, _ABOUT_SETTINGS)
    for field in setting_fields():
        if field.name not in chosen:
            continue
        if isinstance(field.default, bool):
            flag = _flag(field.name)
            no = flag.replace("--", "--no-", 1)
            group.add_argument(flag, no, action=Switch, help=field.metadata["help"])
            continue
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        default = "none" if default == "" else default
        group.add_argument(
            _flag(field.name),
            metavar="|".join(choices(field)) or _METAVARS[type(field.default)],
            help=f"{field.metadata['help']} ({default})",
        )


def settings(options: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """The environment's settings, overridden by the command line's. Raises SettingError."""
    flags = {field.name: getattr(options, field.name, None) for field in setting_fields()}
    return Settings.from_env(environ).replace(
        {name: value for name, value in flags.items() if value is not None}, spelled=_flag
    )


def _flag(name: str) -> str:
    """How a command line spells a setting."""
    return "--" + name.replace("_", "-")


def probability(text: str) -> float:
    """A flag's value as a number from 0 to 1. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def positive(text: str, most: int = 1000, least: int = 1) -> int:
    """A flag's value as a whole number from `least` to `most`. Raises ArgumentTypeError."""
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)
