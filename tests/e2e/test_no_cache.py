"""Where no cache can be kept, commands and MLflow go on without one, and say so in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from score.settings import Settings
from score.storage import cache
from tests.support.surfaces import ROOT, OwnServer

pytestmark = pytest.mark.process

NOWHERE = "/dev/null/home"  # which not even root can create
_PREDICT = """
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(".")
print(len(model.predict(pandas.DataFrame({"text": ["a cat"]}))[0]["text_features"]))
"""


def _no_entry() -> None:
    """The real user has no passwd entry from here on; the effective one may read these files."""
    os.setresuid(54321, 0, 0)


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that every user may write to; pytest's own are of one user alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def run(command: list[str], environ: dict[str, str], *, has_entry: bool = True) -> str:
    """What a command with nothing but these variables prints. It must end well."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={"SCORE_PRECISION": "fp32", "OMP_NUM_THREADS": "1", **environ},
        preexec_fn=None if has_entry else _no_entry,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino", "auto"])
@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, "~/.cache/clip-endpoints"),
        ({"HOME": NOWHERE}, NOWHERE),
        ({"HOME": NOWHERE, "SCORE_CACHE": "/dev/null"}, "/dev/null"),
        ({"HOME": NOWHERE, "XDG_CACHE_HOME": "relative"}, NOWHERE),
    ],
)
def test_rows_are_embedded_without_a_cache(
    environ: dict[str, str], names: str, engine: str, anyones: Path
) -> None:
    if engine == "openvino" and not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    has_entry = bool(environ)
    if not has_entry and (not hasattr(os, "setresuid") or os.geteuid() != 0):
        pytest.skip("only root can become a user without an entry")
    output = anyones / "out.jsonl"
    command = ["-m", "score", "embed", "samples/captions.csv", "--output", str(output)]
    said = run(command, {**environ, "SCORE_ENGINE": engine}, has_entry=has_entry)
    assert "error" not in json.loads(output.read_text().splitlines()[0])
    about = [line for line in said.splitlines() if names in line]
    assert len(about) == (engine != "torch" and find_spec("openvino") is not None), said
    assert not (ROOT / "relative").exists()
    assert not (ROOT / "~").exists()


@pytest.mark.slow
def test_mlflow_predicts_without_a_cache() -> None:
    assert "512" in run(["-c", _PREDICT], {"HOME": NOWHERE, "SCORE_ENGINE": "auto"})


@pytest.mark.slow
def test_the_server_answers_without_a_cache() -> None:
    server = OwnServer(HOME=NOWHERE, SCORE_ENGINE="auto")
    try:
        server.wait()
        body = {"input_data": [{"text": "a cat"}]}
        assert server.post(json.dumps(body).encode()).status_code == 200
    finally:
        server.stop()


def test_a_relative_folder_of_caches_is_none() -> None:
    """As the XDG specification wants it."""
    assert Settings.from_env({"XDG_CACHE_HOME": "relative"}).cache == Settings().cache
    assert Settings.from_env({"XDG_CACHE_HOME": "/c"}).cache == "/c/clip-endpoints"


def test_a_cache_without_a_home_is_an_error_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(OSError, match="no home folder for ~/x; SCORE_CACHE"):
        cache.location("~/x")
