"""Every code block of README and docs works as written.

Each page is one session: its commands, from top to bottom as a reader would enter them, in a shell
of its own in a copy of the repository. JSON and YAML are parsed. What cannot run here says why.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from score.deploy.simulate.ports import free_port
from tests.support import pages
from tests.support.pages import KINDS, LANGUAGES, ROOT, Block
from tests.support.processes import started
from tests.support.surfaces import BIN

PAGES = pages.pages()
RUN = [page for page in PAGES if any(block.is_run for block in pages.blocks(page))]
_WRITES = r"--output|--html|--report|-d|checkpoint \S+"  # what stands before an output's name
_PORTS = re.compile(r"\b500[123]\b")
# A process that has OpenVINO's compiled model is ready in less than half the time of importing
# PyTorch; compiling a model of full size takes longer.
_ENGINES = {"checkpoint.md": "torch"}


def script(page: Path) -> str:
    """A page's commands as one shell script, which stops at the first one that fails."""
    lines = ["set -e -o pipefail -m"]  # -m: jobs have process groups, as in an interactive shell
    # By itself, curl takes a refusal for an answer like any other.
    lines.append('curl() { command curl --fail-with-body "$@"; }')
    lines.append("trap 'kill $(jobs -p) 2> /dev/null || :' EXIT")
    for number, block in enumerate(runnable(page)):
        first = block.text.splitlines()[0]
        lines.append(f"echo {shlex.quote(f'# block {number}: {first}')} >&2")
        if block.language == "sh":
            lines.append(block.text)
        else:
            lines.append(f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
    text = "\n".join(lines) + "\n"
    ports = {port: str(free_port()) for port in set(_PORTS.findall(text))}
    return _PORTS.sub(lambda port: ports[port[0]], text)


def runnable(page: Path) -> list[Block]:
    """A page's blocks that are run."""
    return [block for block in pages.blocks(page) if block.is_run]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would clone, with what has changed since."""
    folder = tmp_path_factory.mktemp("docs") / "clip-endpoints"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file() and not file.startswith("tests/"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, folder / file)
            shutil.copymode(ROOT / file, folder / file)
    return folder


def entered(page: Path, clone: Path) -> subprocess.CompletedProcess[str]:
    """What comes of entering a page's commands. Outputs of other pages are removed first."""
    shutil.rmtree(clone / "out", ignore_errors=True)
    environ = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "SCORE_LOG_LEVEL": "warning",
        # These take as long as the commands themselves, and have tests of their own.
        "SCORE_PRECISION": "fp32",
        "SCORE_VERIFY": "off",
        "SCORE_ENGINE": _ENGINES.get(page.name, "openvino"),
        "SCORE_CACHE": str(clone.with_name("cache")),
        "OMP_NUM_THREADS": "1",  # the embedded model is fastest with one thread
    }
    file = clone.with_name(f"{page.stem}.sh")
    file.write_text(script(page), encoding="utf-8")
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
        suppress(subprocess.TimeoutExpired),
    ):
        shell.wait(600)
    return subprocess.CompletedProcess("", shell.returncode, out.read_text(), err.read_text())


@pytest.mark.process
@pytest.mark.parametrize("page", RUN, ids=pages.name)
def test_every_command_succeeds(page: Path, clone: Path) -> None:
    came = entered(page, clone)
    assert came.returncode == 0, f"{came.stdout[-3000:]}\n{came.stderr[-5000:]}"
    reached = re.findall(r"^# block (\d+): ", came.stderr, re.MULTILINE)
    assert [*map(int, reached)] == [*range(len(runnable(page)))]
    assert max(map(len, came.stdout.splitlines()), default=0) < 300, "an output nobody can read"
    for expected in _EXPECTED.get(page.name, ()):
        assert expected in came.stdout


_EXPECTED = {
    "zero-shot.md": ['"labels":["apple","house"]'],
    "search.md": ["images/owl.jpg", "(67, 512) float32 [1. 1. 1.]"],
    "checkpoint.md": ["probes as promised"],
    "embed.md": ["0 of 67 rows may be tried again"],
    "README.md": ['{"status":"ok"}', '[{"image_features"'],
}
"""Parts of what a page's commands print, so that doing nothing does not pass."""


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    for block in pages.blocks(page):
        assert block.language in LANGUAGES, block.text
        if block.reason:
            assert block.reason.split()[0].strip(",;:") in KINDS, block.reason


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_no_block_escapes(page: Path) -> None:
    """A fence that is indented, tilded or not closed, or code by indentation, would not be run."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^.*(?:```|~~~).*$", text, re.MULTILINE)
    assert len(fences) == 2 * len(pages.blocks(page)), fences
    assert not re.search(r"\n\n {4,}(score|python|curl|mlflow|az|pip) ", text)


def test_most_blocks_are_run() -> None:
    """Those that are not are few, and of few kinds."""
    shown = [
        block
        for page in PAGES
        for block in pages.blocks(page)
        if block.language in ("sh", "python")
    ]
    left_out = Counter(block.reason.split()[0].strip(",;:") for block in shown if block.reason)
    assert sum(block.is_run for block in shown) >= 35
    assert left_out.keys() <= KINDS.keys()
    assert sum(left_out.values()) <= 60
    assert left_out["placeholder"] <= 5


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_json_and_yaml_are_well_formed(page: Path) -> None:
    for block in pages.blocks(page):
        if block.language == "json":
            json.loads(re.sub(r", …(?=[\]}])", "", block.text))
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)


def test_every_server_is_given_its_port() -> None:
    """A default port might be taken where the tests run."""
    for page in RUN:
        for block in runnable(page):
            for line in block.text.splitlines():
                if re.search(r"score serve|models serve|simulate online", line):
                    assert re.search(r" (--port|-p) 500[123]\b", line), line


def test_what_is_run_has_no_placeholder_and_what_has_says_so() -> None:
    for page in RUN:
        for block in pages.blocks(page):
            code = "\n".join(block.commands)
            if block.is_run:
                assert not re.search(r"…|\bmy-(?!project)|path/to|dist/", code), code
            elif re.search(r"\bmy-|imagenet/val|group=…", code):
                assert re.search("placeholder|Azure", block.reason), code


def test_what_a_command_reads_has_been_written_by_then() -> None:
    """`out/` does not come with the clone, and a page does not need another page's."""
    for page in RUN:
        written: set[str] = set()
        for block in pages.blocks(page):
            for line in block.commands if block.is_run else []:
                outputs = set(re.findall(rf"(?:{_WRITES}) (out/\S+)", line))
                for read in re.findall(r"(?<!\S)out/[^\s\"']+", line):
                    assert read in outputs | written, f"{page.name}: {line}"
                assert not outputs & written, f"written twice: {line}"
                written |= outputs | {str(Path(output).parent) for output in outputs}


if __name__ == "__main__":
    sys.stdout.write(script(Path(sys.argv[1]).resolve()))
