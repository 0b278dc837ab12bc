"""A run of tests kills the processes it started, however it ends, in any kind of shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.processes import started

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]

LEAVES_ONE = """
import pytest, subprocess, sys, time

@pytest.mark.process
def test_leaves_a_process(tmp_path):
    # In a new session, as servers are, so that its signals do not reach its child.
    code = "import subprocess, time; subprocess.Popen(['sleep', '300']); print(); time.sleep(300)"
    command = [sys.executable, "-u", "-c", code]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    process.stdout.readline()
    print("started", process.pid, flush=True)
    {then}
"""
IGNORING = """
import pytest, signal, subprocess, sys

@pytest.mark.process
def test_what_it_starts_can_be_interrupted():
    code = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"True\\n"
"""


def a_run(folder: Path, text: str, *before: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A run of pytest over one file, with these tests' conftest."""
    file = folder / "test_inner.py"
    file.write_text(text, encoding="utf-8")
    options = ["-s", "-c", os.devnull, "--rootdir", str(folder), "-p", "tests.conftest"]
    command = [*before, sys.executable, "-m", "pytest", *options, str(file)]
    return started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def gone(pid: int) -> bool:
    """Whether the process ends, within a minute: a busy machine takes long to end a run."""
    for _ in range(600):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def test_a_test_that_leaves_a_process_fails_the_run(tmp_path: Path) -> None:
    with a_run(tmp_path, LEAVES_ONE.replace("{then}", "assert True")) as run:
        said = run.communicate(timeout=300)[0]
    assert run.returncode == 1
    assert "1 passed" in said
    assert "Left running by the tests, and killed:" in said
    assert "sleep 300" in said
    assert gone(int(said.partition("started ")[2].split()[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with a_run(tmp_path, LEAVES_ONE.replace("{then}", "time.sleep(300)")) as run:
        assert run.stdout
        line = next(line for line in run.stdout if "started " in line)
        run.send_signal(number)
        pid = int(line.partition("started ")[2].split()[0])
        assert gone(pid)
        run.communicate(timeout=60)
    assert run.returncode != 0


def test_a_run_in_the_background_of_a_shell_tests_the_same(tmp_path: Path) -> None:
    """`nohup make test &`: such a shell has SIGINT ignored, and so have all that it starts."""
    with a_run(tmp_path, IGNORING, "sh", "-c", "trap '' INT; exec \"$@\"", "sh") as run:
        said = run.communicate(timeout=300)[0]
    assert run.returncode == 0, said
