"""docs/reference/cli.md: every command, from its argument parser.

argparse's help text differs between Python versions and terminals, so usage lines and flags are
written from the parser's actions.
"""

from __future__ import annotations

import argparse
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from docs.generator.markdown import page, sentence
from docs.generator.sources import COMMANDS, settings

EXAMPLES: dict[str, str] = tomllib.loads(
    Path(__file__).with_name("examples.toml").read_text(encoding="utf-8")
)
"""An example of each command."""

Parser = argparse.ArgumentParser


class _ParserReached(Exception):
    """Raised in a command's `main` to return its parser."""


def parser_of(main: Callable[[], Any]) -> Parser:
    """The parser that a command's `main` uses."""

    def reached(parser: Parser, *_: object) -> None:
        raise _ParserReached(parser)

    with mock.patch.object(Parser, "parse_args", reached):
        try:
            main()
        except _ParserReached as caught:
            parser: Parser = caught.args[0]
            return parser
    raise AssertionError(f"{main} parses no arguments")


def verbs_of(parser: Parser) -> dict[str, tuple[Parser, str]]:
    """The verbs of a command, in its order: name → parser and help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (verb, helps[name]) for name, verb in action.choices.items()}
    return {}


def commands() -> Iterator[tuple[str, Parser]]:
    """Every command without verbs, such as `score azure plan`."""
    for name, main in COMMANDS.items():
        yield from _commands(name, parser_of(main))


def _commands(name: str, parser: Parser) -> Iterator[tuple[str, Parser]]:
    verbs = verbs_of(parser)
    for verb, (child, _) in verbs.items():
        yield from _commands(f"{name} {verb}", child)
    if not verbs:
        yield name, parser


def cli_page() -> str:
    """Every command with its usage, an example and its flags."""
    sections = []
    for name, main in COMMANDS.items():
        parser = parser_of(main)
        sections += command_sections(name, parser, parser.description or "", level=2)
    return page(
        "the argument parsers of score/cli, score/deploy and the modules that run by `python -m`",
        "Command line",
        "`python -m score` is the same as `score`. Exit codes: 0 done; 1 finished, with more errors"
        " than allowed or a check that failed; 2 unusable arguments or input; 130 interrupted. "
        "Flags cannot be abbreviated. `--help` after any command prints its flags, "
        "`score --version` the version.",
        *sections,
    )


def command_sections(name: str, parser: Parser, help_text: str, level: int) -> list[str]:
    """The sections of a command and of its verbs."""
    verbs = verbs_of(parser)
    shown = [f"{'#' * min(level, 5)} {name}", sentence(help_text)]
    if verbs:
        shown.append("\n".join(f"- `{name} {verb}`: {line}" for verb, (_, line) in verbs.items()))
    else:
        shown += [
            f"```text\n{usage(name, parser)}\n```",
            f"For example:\n\n```text\n{EXAMPLES[name]}\n```",
        ]
    shown.append("\n".join(arguments(parser)))
    for verb, (child, line) in verbs.items():
        shown += command_sections(f"{name} {verb}", child, line, level + 1)
    return [part for part in shown if part]


def usage(name: str, parser: Parser) -> str:
    """The usage in lines of at most 88 characters: arguments, required flags, other flags."""
    own = own_arguments(parser)
    spelled = [spelling(action) for action in own if not action.option_strings]
    flags = sorted((a for a in own if a.option_strings), key=lambda action: not action.required)
    spelled += [spelling(action) for action in flags]
    if any(setting_flags(parser)):
        spelled.append("[SETTINGS]")
    words = [word.replace(" ", "\0") for word in spelled]  # a flag and its value stay together
    lines = textwrap.wrap(
        " ".join([name, *words]), 88, subsequent_indent="    ", break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0", " ")


def own_arguments(parser: Parser) -> list[argparse.Action]:
    """A command's arguments except `--help`, `--version`, verbs and settings."""
    ours = set(setting_flags(parser))
    skipped = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
    return [
        action
        for action in parser._actions
        if not isinstance(action, skipped) and not ours & set(action.option_strings)
    ]


def spelling(action: argparse.Action) -> str:
    """An argument in a usage line: `INPUT`, `--output FILE`, `[--top K]`."""
    choices = action.choices if action.option_strings else None
    metavar = "|".join(map(str, choices or ())) or action.metavar or action.dest.upper()
    value = "" if action.nargs == 0 else str(metavar)
    value = {"*": f"{value} …"}.get(str(action.nargs), value)
    words = f"{action.option_strings[0]} {value}".strip() if action.option_strings else value
    optional = not action.required or action.nargs in ("?", "*")
    return f"[{words}]" if optional else words


def arguments(parser: Parser) -> Iterator[str]:
    """A line for each argument, and one for the settings."""
    for action in own_arguments(parser):
        required = " (required)" if action.option_strings and action.required else ""
        notes = "; ".join(filter(None, [action.help, choices_of(action), default_note(action)]))
        yield f"- `{spelling(action).strip('[]')}`{required}" + (f": {notes}" if notes else "")
    if flags := list(setting_flags(parser)):
        yield f"- settings: {_settings(flags)}; see [Settings](settings.md)"


def _settings(flags: list[str]) -> str:
    left_out = len(settings.names()) - len(flags)
    if left_out == 0:
        return "a flag for every setting"
    if left_out == len(settings.SERVER):
        return "a flag for every setting but the server's"
    return ", ".join(f"`{name}`" for name in flags)


def choices_of(action: argparse.Action) -> str:
    """The choices of an argument, unless its spelling shows them."""
    if not action.choices or action.option_strings:
        return ""
    return "one of " + ", ".join(f"`{choice}`" for choice in action.choices)


def default_note(action: argparse.Action) -> str:
    """An argument's default, unless its help states it."""
    value = action.default
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    spelled = f"{value:g}" if isinstance(value, float) else str(value)
    is_stated = not plain or value == argparse.SUPPRESS or spelled in (action.help or "")
    return "" if is_stated else f"default: `{spelled}`"


def setting_flags(parser: Parser) -> Iterator[str]:
    """The flags of a command that are settings."""
    for group in parser._action_groups:
        if group.title == "settings":
            yield from (action.option_strings[0] for action in group._group_actions)
