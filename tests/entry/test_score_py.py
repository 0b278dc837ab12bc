"""A user's score.py, Azure's usual name of an entry script, beside a package of the same name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from score.deploy.simulate.ports import free_port
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

USERS = "def init(): ...\ndef run(data): return 'the users'\n"

# As in Azure's images, the project is not installed: it is the code of a deployment alone.
UNINSTALLED = (
    "import sys\n"
    f"sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in f.__module__]\n"
)
LOAD = (
    "import sys, importlib.util as u\n"
    "s = u.spec_from_file_location('entry_module', {script!r})\n"
    "sys.modules[s.name] = m = u.module_from_spec(s); s.loader.exec_module(m)\n"
    "print(m.run.__module__)\n"
)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder with a user's score.py."""
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "score.py").write_text(USERS)
    return folder


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["online", "batch", "shards"])
@pytest.mark.parametrize("ahead", [True, False])
def test_an_entry_script_is_loaded_by_its_path(script: str, ahead: bool, users: Path) -> None:
    load = LOAD.format(script=str(ROOT / f"score/{script}.py"))
    done = python(UNINSTALLED + load, *[users] * ahead)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "entry_module"


@pytest.mark.parametrize("script", ["online", "batch", "shards"])
def test_a_score_py_that_is_loaded_already_is_told_in_a_sentence(script: str, users: Path) -> None:
    load = LOAD.format(script=str(ROOT / f"score/{script}.py"))
    done = python(f"import score\n{load}", users)
    assert done.returncode
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {users / 'score.py'} is loaded under the name of this project's package, "
        "score: rename that file"
    )


def test_mlflow_loads_the_model_where_a_score_py_lies(users: Path) -> None:
    code = f"import mlflow.pyfunc; mlflow.pyfunc.load_model({str(ROOT)!r}); print('loaded')"
    done = python(UNINSTALLED + code, users)
    assert done.stdout.splitlines()[-1:] == ["loaded"], done.stderr
    # Nothing of ours is run where the name is taken: what Python says is what a user sees.
    done = python(f"import score\n{code}", users)
    assert "No module named 'score.pyfunc'; 'score' is not a package" in done.stderr


def test_azures_server_answers_beside_a_score_py(users: Path) -> None:
    """In the folder that it starts in, and in that of its code."""
    port = free_port()
    server = "from azureml_inference_server_http.amlserver import run; run()"
    command = [sys.executable, "-c", UNINSTALLED + server, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--entry_script", str(ROOT / "score/online.py")],
        cwd=users,
        env={**os.environ, "AML_APP_ROOT": str(users), "AZUREML_MODEL_DIR": str(ROOT / "model")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = None
        while answer is None:
            assert process.poll() is None
            body = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}
            try:
                answer = requests.post(f"http://127.0.0.1:{port}/score", json=body, timeout=60)
            except requests.ConnectionError:
                continue
        assert set(answer.json()[0]) == {"text_features"}
    finally:
        process.terminate()
        process.wait()
