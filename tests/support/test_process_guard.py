"""A test that starts a process fails without the marker `process`."""

from __future__ import annotations

import pytest

from tests.support.process_guard import ProcessGuard

pytest_plugins = ["pytester"]

STARTS = {
    "subprocess": "subprocess.run([sys.executable, '-S', '-c', ''], check=True)",
    "fork": "os.fork() or os._exit(0); os.wait()",
    "multiprocessing": "multiprocessing.get_context('fork').Process(target=len, args=[[]]).start()",
    "spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "shell": "os.system('true')",
    "the system": "subprocess.run(['uname'], check=True)",
}
HEAD = "import multiprocessing, os, subprocess, sys\nimport pytest\n"


def outcomes(pytester: pytest.Pytester, text: str) -> dict[str, int]:
    pytester.makepyfile(HEAD + text)
    pytester.makeini("[pytest]\nmarkers = process")
    result = pytester.inline_run("-q", "-p", "no:cacheprovider", plugins=[ProcessGuard()])
    passed, _, failed = result.listoutcomes()
    return {"passed": len(passed), "failed": len(failed)}


@pytest.mark.process
@pytest.mark.parametrize("name", STARTS)
def test_an_unmarked_test_that_starts_a_process_fails(name: str, pytester: pytest.Pytester) -> None:
    text = f"def test_a(): {STARTS[name]}\n@pytest.mark.process\ndef test_b(): {STARTS[name]}\n"
    assert outcomes(pytester, text) == {"passed": 2, "failed": int(name != "the system")}


@pytest.mark.process
def test_so_does_each_unmarked_test_whose_fixture_started_one(pytester: pytest.Pytester) -> None:
    fixture = f"@pytest.fixture(scope='module')\ndef server(): {STARTS['subprocess']}\n"
    marked = "@pytest.mark.process\ndef test_first(server): ...\n"
    unmarked = "def test_second(server): ...\ndef test_third(): ...\n"
    assert outcomes(pytester, fixture + marked + unmarked) == {"passed": 3, "failed": 1}


def test_a_test_that_starts_none_needs_no_marker(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "def test_a(): ...\n") == {"passed": 1, "failed": 0}
