"""README's commands, from top to bottom as a reader would enter them, in one shell.

A block after `<!-- not run: REASON -->` is left out: it holds placeholders, or needs a network.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from score.deploy.simulate.ports import free_port
from tests.processes import started
from tests.surfaces import BIN, ROOT

pytestmark = pytest.mark.process

README = (ROOT / "README.md").read_text(encoding="utf-8")

# A comment on the line before it, if there is one, the language, the content.
_FENCE = re.compile(
    r"^(?:<!-- (?P<why>.+?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
_COMMENT = re.compile(r"(^|\s)#.*")
_OPTED_OUT = re.compile(r"not run: .+")


def blocks(*, run: bool = True) -> list[tuple[str, str]]:
    """Language and content of the shell and Python blocks that are run, or of the others."""
    return [
        (found["kind"], found["text"])
        for found in _FENCE.finditer(README)
        if found["kind"] in ("sh", "python")
        and run != bool(_OPTED_OUT.fullmatch(found["why"] or ""))
    ]


def script() -> str:
    """All of them as one shell script, which stops at the first command that fails."""
    lines = ["set -e -o pipefail -m"]  # -m: jobs have process groups, as in an interactive shell
    # By itself, curl takes a refusal for an answer like any other.
    lines.append('curl() { command curl --fail-with-body "$@"; }')
    lines.append("trap 'kill $(jobs -p) 2> /dev/null || :' EXIT")
    for number, (kind, text) in enumerate(blocks()):
        lines.append(f"echo {shlex.quote(f'# block {number}: {text.splitlines()[0]}')} >&2")
        lines.append(text if kind == "sh" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would clone, with what has changed since."""
    folder = tmp_path_factory.mktemp("readme") / "clip-endpoints"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            shutil.copymode(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def entered(clone: Path) -> subprocess.CompletedProcess[str]:
    """What came of entering them all."""
    text = script()
    for port in ("5001", "5002", "5003"):
        text = text.replace(port, str(free_port()))
    environ = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "SCORE_LOG_LEVEL": "warning",
    }
    file = clone.with_name("entered.sh")
    file.write_text(text, encoding="utf-8")
    # Files, not pipes: what a killed shell has started would hold those open.
    out, err = file.with_suffix(".out"), file.with_suffix(".err")
    with (
        out.open("w") as stdout,
        err.open("w") as stderr,
        started(
            ["bash", str(file)],
            cwd=clone,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        ) as shell,
        suppress(subprocess.TimeoutExpired),  # it takes two minutes where nothing else runs
    ):
        shell.wait(1200)
    return subprocess.CompletedProcess("README", shell.returncode, out.read_text(), err.read_text())


def test_every_command_succeeds(entered: subprocess.CompletedProcess[str]) -> None:
    assert entered.returncode == 0, f"{entered.stdout[-3000:]}\n{entered.stderr[-5000:]}"
    reached = re.findall(r"^# block (\d+): ", entered.stderr, re.MULTILINE)
    assert [*map(int, reached)] == [*range(len(blocks()))]


def test_their_output_is_short(entered: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, entered.stdout.splitlines())) < 300
    assert '"labels": ["apple", "house"]' in entered.stdout
    assert "images/owl.jpg" in entered.stdout


def test_every_server_is_given_its_port() -> None:
    """A default port might be taken where the tests run."""
    for _, text in blocks():
        for line in text.splitlines():
            if re.search(r"score serve|models serve|simulate online", line):
                assert re.search(r" (--port|-p) 500[123]\b", line), line


def test_what_is_not_run_says_that_it_cannot_be() -> None:
    assert len(blocks()) >= 10
    assert len(blocks(run=False)) <= 8
    for _, text in blocks():
        assert not re.search(r"…|\bmy-|path/to|dist/", _COMMENT.sub("", text)), text


def test_a_placeholder_is_called_one() -> None:
    for _, text in blocks(run=False):
        if re.search(r"\bmy-|imagenet/val|group=…", text):
            assert "placeholder" in text or "what is yours" in text, text


def test_what_a_command_reads_has_been_written_by_then() -> None:
    """`out/` and `dist/` do not come with the clone."""
    written: set[str] = set()
    for found in _FENCE.finditer(README):
        for line in _COMMENT.sub("", found["text"]).splitlines() if found["kind"] == "sh" else []:
            made = set(re.findall(r"(?:--output|--report|score\.jobs\.train) (\S+)", line))
            for name in re.findall(r"(?<!\S)(?:out|dist)/\S+", line):
                assert name in made | written, line
            assert not made & written, f"written twice: {line}"
            written |= made | {str(Path(name).parent) for name in made}


if __name__ == "__main__":
    sys.stdout.write(script())
