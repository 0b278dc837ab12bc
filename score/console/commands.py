"""Shared by all commands (`score` and `python -m …`): parser, error messages and exit codes.

For a mistyped flag or verb the parser suggests the right one. An error ends the command with one
sentence and an exit code, without a traceback.

Exit codes: 0 done, 1 finished with more errors than allowed, 2 unusable arguments or input, 128 and
a signal's number (130 after Ctrl+C) interrupted.
"""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from typing_extensions import override

from score.errors import ScoreError
from score.extras import missing
from score.wording.suggestions import suggestion
from score.wording.system_errors import told

DONE, TOO_MANY_ERRORS, UNUSABLE = 0, 1, 2


class Interrupted(KeyboardInterrupt):
    """By a signal other than Ctrl+C's. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def interrupted_code(error: KeyboardInterrupt) -> int:
    """The exit code of a command that was interrupted, as shells tell signals: 130 after Ctrl+C
    (SIGINT), 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


SETTINGS = "settings"
"""Title of the group of flags that most verbs share; usage lines do not list them."""


class _Formatter(argparse.HelpFormatter):
    @override
    def add_usage(
        self, usage: Any, actions: Iterable[argparse.Action], groups: Any, prefix: Any = None
    ) -> None:
        """As argparse does, but with one flag in place of some thirty settings."""
        shown = [action for action in actions if _group(action) != SETTINGS]
        if len(shown) < len(list(actions)):
            shown.append(argparse.Action(["--SETTING"], "", metavar="VALUE"))
        super().add_usage(usage, shown, groups, prefix)

    @override
    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Switch):
            return "{} [BOOL], {}".format(*action.option_strings)
        return super()._format_action_invocation(action)


def _group(action: argparse.Action) -> str | None:
    """The title of the group of flags that an action is in."""
    return getattr(getattr(action, "container", None), "title", None)


class Switch(argparse._StoreAction):
    """A flag and its opposite, `--flag` and `--no-flag`; `--flag true` and `--flag false`, too."""

    WORDS = ("1", "0", "true", "false", "yes", "no")

    def spelled_out(self, word: str, following: str) -> str:
        """A word of the command line, with the value that it leaves out. `following`: the next."""
        flag, no = self.option_strings
        if word == no:
            return f"{flag}=false"
        return f"{flag}=true" if word == flag and following.lower() not in self.WORDS else word


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the right flag or verb for a mistyped one.

    Flags are not abbreviated: an abbreviation may become ambiguous when a flag is added.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        defaults = {"allow_abbrev": False, "formatter_class": _Formatter}
        super().__init__(*args, **{**defaults, **options})

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but reports unknown words before missing arguments, and reports them
        itself: argparse leaves them to the outermost parser, whose usage is not the verb's."""
        words = list(sys.argv[1:] if args is None else args)
        verbs = self._verbs()
        if verbs is None:
            self._check_flags(words)
            words = self._spelled_out(words)
        else:
            self._check_verb(words, verbs)
        options, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}; see `{self.prog} --help`")
        return options, unknown

    def _verbs(self) -> list[str] | None:
        """The verbs of a parser with subparsers; None for other parsers."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return list(action.choices)
        return None

    def _spelled_out(self, words: Sequence[str]) -> list[str]:
        """The words, with the values of switches: argparse would take the next word for one."""
        end = words.index("--") if "--" in words else len(words)
        flags, spelled = list(words[:end]), list(words)
        for switch in [action for action in self._actions if isinstance(action, Switch)]:
            for at, following in enumerate([*flags[1:], ""][: len(flags)]):
                spelled[at] = switch.spelled_out(spelled[at], following)
        return spelled

    def _check_verb(self, words: Sequence[str], verbs: Sequence[str]) -> None:
        word = next((word for word in words if not word.startswith("-")), None)
        if word is None and not words:
            self.error(f"name one of {', '.join(verbs)}")
        if word is not None and word not in verbs:
            self.error(f"there is no {word!r}, only {', '.join(verbs)}{suggestion(word, verbs)}")

    def _check_flags(self, words: Sequence[str]) -> None:
        flags = [flag for action in self._actions for flag in action.option_strings]
        for word in words:
            if word == "--":
                return
            flag = word.partition("=")[0]
            if flag[:2] != "--" and f"-{flag}" in flags:  # -output
                self.error(f"there is no {flag}; did you mean -{flag}?")
            # As in argparse, a word with a space is a value, not a flag.
            if flag.startswith("--") and flag not in flags and " " not in word:
                self.error(f"there is no {flag}{suggestion(flag, flags, '--')}")


def add_verb(verbs: argparse._SubParsersAction[Parser], name: str, about: str) -> Parser:
    """A parser for a verb. `about`: in the list of verbs, and at the head of the verb's help."""
    return verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's `main` and exits with its code; see `exit_code_of`."""
    sys.exit(exit_code_of(main))


def exit_code_of(main: Callable[[], int | None]) -> int:
    """Runs a command's `main` and returns its exit code; prints an error to stderr."""
    try:
        code = main() or DONE
        sys.stdout.flush()  # else output that cannot be written would be noticed by nobody here
        return code
    except KeyboardInterrupt as error:
        say("interrupted")
        return interrupted_code(error)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        lead_nowhere(sys.stdout.fileno())
        return DONE
    except ScoreError as error:
        say(str(error))
    except OSError as error:
        say(told(error))
        _drop_what_cannot_be_written()
    except ImportError as error:
        say(missing(error))
    return UNUSABLE


def lead_nowhere(descriptor: int) -> None:
    """What is written to an output from now on is dropped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _drop_what_cannot_be_written() -> None:
    """Python would try again at the end, and tell that it could not."""
    try:
        sys.stdout.flush()
    except OSError:
        lead_nowhere(sys.stdout.fileno())


def leave_at_once(code: int) -> NoReturn:
    """Ends the process after its clean-up (`atexit`), without waiting for threads."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@contextmanager
def required_imports(module: str) -> Iterator[None]:
    """A context for the imports of a module that also runs by `python -m`.

    If it runs so, a missing library ends it with a message and exit code 2. `module`: its
    `__name__`. Raises ImportError where it is imported.
    """
    try:
        yield
    except ImportError as error:
        if module != "__main__":
            raise
        say(missing(error))
        sys.exit(UNUSABLE)


def log_to_stderr(level: str) -> None:
    """Sends the log to stderr. level: the lowest of this package's messages."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("score").setLevel(level.upper())


class LogUntilConfigured(logging.Handler):
    """A block whose log is kept until it is known how it is to be written."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self._records.append(record)

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Where the block fails, nobody will say how: the log goes to stderr."""
        logging.getLogger().removeHandler(self)
        if error:
            log_to_stderr("warning")
            self.write()

    def write(self) -> None:
        """Logs what the block has logged, as it is configured now."""
        for record in self._records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        self._records.clear()


def say(line: str) -> None:
    """Prints a line to stderr."""
    print(f"score: {line}", file=sys.stderr, flush=True)
