"""The generated pages of docs/reference/: up to date, complete, the same on every machine."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generator import cli_page
from docs.generator.errors_page import below, explanation
from docs.generator.pages import pages
from docs.generator.sources import NAMES, errors, settings
from tests.support.surfaces import ROOT

PAGES = pages()
COMMANDS = dict(cli_page.commands())


def text_of(name: str) -> str:
    return next(text for file, text in PAGES.items() if file.name == name)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_a_page_is_up_to_date(file: Path) -> None:
    written = file.read_text(encoding="utf-8") if file.is_file() else ""
    assert written == PAGES[file], f"{file.name} is out of date: run `make reference`"


def test_every_setting_is_listed_with_its_meaning() -> None:
    rows = [line for line in text_of("settings.md").splitlines() if line.startswith("| <a")]
    assert len(rows) == len(settings.names())
    for field, row in zip(settings.setting_fields(), rows, strict=True):
        assert f"`SCORE_{field.name.upper()}`" in row
        assert f"`--{field.name.replace('_', '-')}`" in row
        assert all(cell.strip() for cell in row.strip("|").split("|"))
        assert len(row.strip("|").split("|")) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_its_parser_takes(command: str) -> None:
    example = cli_page.EXAMPLES[command]
    assert f"```text\n{example}\n```" in text_of("cli.md")
    assert example.startswith(command)
    COMMANDS[command].parse_args(shlex.split(example.removeprefix(command)))


def test_there_is_no_example_of_a_command_that_is_gone() -> None:
    assert set(cli_page.EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_says_what_it_is_for(command: str) -> None:
    for action in cli_page.own_arguments(COMMANDS[command]):
        assert action.help, f"{command}: {cli_page.spelling(action)}"


def test_flags_are_those_of_the_parser() -> None:
    section = text_of("cli.md").partition("### score verify\n")[2].partition("\n### ")[0]
    assert "`--precision`" in section
    assert "--allow-hosts" not in section
    embed = text_of("cli.md").partition("### score embed\n")[2].partition("\n### ")[0]
    assert "- `--output FILE|FOLDER` (required): " in embed
    assert re.search(r"- `--truncate end\|error`: texts longer .* \(end\)", embed)
    assert "[--max-errors N]" in embed


def test_every_error_says_what_to_do() -> None:
    listed = list(below(errors.ScoreError))
    assert set(errors.ROW_CODES.values()) < set(listed)
    for error in listed:
        meaning, advice = explanation(error)
        assert meaning
        assert len(advice) > 30
        section = text_of("errors.md").partition(f"## {error.__name__}\n")[2].partition("\n## ")[0]
        assert "**What to do:**" in section
        if isinstance(code := getattr(error, "code", None), str):
            assert f"- code: `{code}`" in section
    assert "- HTTP status: 413" in text_of("errors.md")


@pytest.mark.parametrize(
    "line",
    [
        "| `too_large` | 413 | no | [RequestTooLarge](#requesttoolarge) |",
        "| `bad_rows` | 422 | as its rows | [RowsFailed](#rowsfailed) |",
        "| `fetch_failed` | 422 | depends | [FetchFailed](#fetchfailed) |",
        "| `fetch_timeout` | 422 | yes | [FetchTimeout](#fetchtimeout) |",
        "| `not_an_image` | 422 | no | [NotAnImage](#notanimage) |",
    ],
)
def test_codes_are_listed_with_their_consequences(line: str) -> None:
    assert line in text_of("errors.md").splitlines()


def test_errors_name_only_settings_that_exist() -> None:
    named = set(re.findall(r"SCORE_[A-Z_]+", text_of("errors.md")))
    assert named
    assert named <= {f"SCORE_{name.upper()}" for name in settings.names()}


def test_an_error_without_advice_is_refused() -> None:
    error = type("Silent", (errors.RowError,), {"__doc__": "Something failed.", "code": "x"})
    with pytest.raises(ValueError, match="needs one paragraph"):
        explanation(error)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_described(name: str) -> None:
    section = text_of("api.md").partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert len(section.split()) > 3
    assert "self" not in re.findall(r"\w+", section)


def test_signatures_are_readable() -> None:
    api = text_of("api.md")
    assert "def load(folder: str | Path = EMBEDDED, settings: Settings | None = None)" in api
    assert "- `Vector` = `npt.NDArray[np.float32]`" in api


@pytest.mark.process
def test_pages_depend_on_no_terminal_and_no_environment() -> None:
    environ = {**os.environ, "COLUMNS": "40", "SCORE_BATCH_SIZE": "7", "FORCE_COLOR": "1"}
    code = "from docs.generator.pages import pages; print(*pages().values(), sep='')"
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True)
    assert there.stdout.decode() == "".join(PAGES.values()) + "\n"
    for text in PAGES.values():
        assert str(ROOT) not in text
        assert str(Path.home()) not in text


def test_a_flag_and_its_value_stay_on_one_line() -> None:
    parser = argparse.ArgumentParser()
    for name in ("first-long-name", "second-long-name", "third-long-name", "fourth-long-name"):
        parser.add_argument(f"--{name}", metavar="A VALUE", help="something")
    lines = cli_page.usage("score something", parser).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 88
    assert all(line.count("[") == line.count("]") for line in lines)
