"""A package works by the code that it carries, in an environment that does not see the clone."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from score.cli import VERBS
from score.package.build import package
from score.package.contents import CODE, SERVING
from tests.support.bare_environment import BareEnvironment
from tests.support.surfaces import ROOT, Served, free_port
from tests.test_architecture import MODULES, SHARED, ours, room

FRONT_DOORS = (
    *("pyfunc", "online", "batch", "shards", "spark", "entry.by_path"),
    *("__main__", "cli.embed", "cli.serve", "cli.status", "cli.verify"),
)
BODY = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}

LOADED_BY_PATH = """\
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("entry_module", sys.argv[1])
entry = importlib.util.module_from_spec(spec)
spec.loader.exec_module(entry)
import score
assert score.__file__.startswith(sys.argv[1].rpartition("/score/")[0]), score.__file__
entry.init()
"""

pytestmark = pytest.mark.process


def reached(modules: Iterable[str]) -> set[str]:
    """Modules, and all that they import, and what those do."""
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += ours(module)
    return seen


def carried() -> set[str]:
    """The modules of a package."""
    files = {
        file
        for folder, names in SERVING.items()
        for name in names
        for file in (ROOT / folder).glob(name)
    }
    return {module for module, file in MODULES.items() if file in files}


def test_a_package_carries_what_its_front_doors_import() -> None:
    assert reached(FRONT_DOORS) - carried() == set()


def test_a_package_carries_no_room_that_nothing_of_it_needs() -> None:
    needed = {room(name) for name in (*SHARED, *reached(FRONT_DOORS))}
    assert {room(module) for module in carried()} == needed
    absent = {"checkpoints", "deploy", "evaluation", "index", "package", "training"}
    assert not absent & {room(module) for module in carried()}
    assert set(SERVING) <= set(CODE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(ROOT / "model", tmp_path_factory.mktemp("alone") / "clip", "alone")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> BareEnvironment:
    return BareEnvironment(tmp_path_factory.mktemp("bare") / "venv")


def near(vector: object, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-5)


def output(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_does_not_see_the_clone(bare: BareEnvironment, tmp_path: Path) -> None:
    done = bare.run("-c", "import score", cwd=tmp_path)
    assert "No module named 'score'" in done.stderr


def test_a_package_has_the_code_that_serves_and_no_other(alone: Path) -> None:
    modules = {
        ".".join(file.relative_to(alone / "score").with_suffix("").parts)
        for file in (alone / "score").rglob("*.py")
        if file.name != "__init__.py"
    }
    assert modules == carried()


def test_mlflow_loads_a_package(
    alone: Path, bare: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    code = (
        "import json, sys, mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import score; assert score.__file__.startswith(sys.argv[1]), score.__file__\n"
        "print(json.dumps(model.predict(pd.DataFrame({'text': ['a cat']}))))\n"
    )
    answer = output(bare.run("-c", code, alone, cwd=tmp_path))
    near(json.loads(answer.splitlines()[-1])[0]["text_features"], wanted)


def test_a_model_that_changed_is_refused_when_it_is_loaded(
    alone: Path, bare: BareEnvironment, tmp_path: Path
) -> None:
    broken = package(ROOT / "model", tmp_path / "broken", "broken")
    config = broken / "model/config.json"
    text = config.read_text(encoding="utf-8")
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}
    changed = re.sub(r'"hidden_act": "(\w+)"', lambda m: f'"hidden_act": "{other[m[1]]}"', text)
    assert changed != text
    config.write_text(changed, encoding="utf-8")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from score.core.embedder import Embedder\n"
    done = bare.run("-c", f"{code}Embedder.load(sys.argv[1])", broken, cwd=tmp_path)
    assert "ModelError" in done.stderr
    assert bare.run("-m", "score", "verify", ".", cwd=broken).returncode == 1


def test_a_package_embeds_and_verifies(
    alone: Path, bare: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    table = tmp_path / "in.csv"
    table.write_text("text\na cat\n", encoding="utf-8")
    for name in ("out.parquet", "out.csv", "out.jsonl", "out.npy"):
        words = ["-m", "score", "embed", table, "--output", tmp_path / name]
        output(bare.run(*words, cwd=alone))
    near(pq.read_table(tmp_path / "out.parquet").column("text_features")[0].as_py(), wanted)
    assert "probes as promised" in output(bare.run("-m", "score", "verify", ".", cwd=alone))


def test_a_package_embeds_a_folder_of_images(
    alone: Path, bare: BareEnvironment, tmp_path: Path
) -> None:
    words = ["-m", "score", "embed", ROOT / "samples/photos", "--output", tmp_path / "o.parquet"]
    output(bare.run(*words, cwd=alone))
    assert pq.read_table(tmp_path / "o.parquet").column("image_features").null_count == 0


def test_a_package_goes_on_with_a_job_and_reports_it(
    alone: Path, bare: BareEnvironment, tmp_path: Path
) -> None:
    words = ["-m", "score", "embed", ROOT / "samples/photos", "--output", tmp_path / "job"]
    output(bare.run(*words, cwd=alone))
    output(bare.run(*words, cwd=alone))
    assert output(bare.run("-m", "score", "status", tmp_path / "job", cwd=alone))
    assert json.loads((tmp_path / "job/report.json").read_text())["state"] == "complete"


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"embed", "key", "serve", "status", "verify"}))
def test_a_verb_that_is_absent_is_refused_with_a_sentence(
    verb: str, alone: Path, bare: BareEnvironment
) -> None:
    done = bare.run("-m", "score", verb, "x", "--output", "y", cwd=alone)
    said = f"score: `score {verb}` is not part of a package: install clip-endpoints for it\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_help_lists_the_verbs_that_are_there(alone: Path, bare: BareEnvironment) -> None:
    text = output(bare.run("-m", "score", "--help", cwd=alone))
    verbs = ["embed", "status", "serve", "key", "verify"]
    assert re.findall(r"^    (\w+) ", text, re.MULTILINE) == verbs


def test_a_library_that_is_missing_is_named_as_a_user_installs_it(
    alone: Path, bare: BareEnvironment, tmp_path: Path
) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from score.__main__ import main\n"
    words = ["embed", ROOT / "samples/captions.csv", "--output", tmp_path / "o.parquet"]
    done = bare.run("-c", f"{code}sys.exit(main())", *words, cwd=alone)
    assert done.returncode == 2
    assert done.stderr.endswith(": pip install 'clip-endpoints[batch]'\n")


@pytest.mark.parametrize("server", ["own", "azure"])
def test_a_package_is_served(
    server: str, alone: Path, bare: BareEnvironment, wanted: np.ndarray
) -> None:
    port = free_port()
    url, there = f"http://127.0.0.1:{port}", ["env", f"--chdir={alone}", bare.python]
    if server == "own":
        command, health = ["-m", "score", "serve"], f"{url}/ping"
    else:
        run = "from azureml_inference_server_http.amlserver import run; run()"
        command, health = ["-c", run, "--entry_script", "score/online.py"], f"{url}/"
    environ = bare.environ(AZUREML_MODEL_DIR=str(alone.parent), AML_APP_ROOT=str(alone))
    served = Served([*there, *command, "--port", str(port)], f"{url}/score", health, **environ)
    try:
        served.wait()
        (record,) = served.ask(BODY).records or []
    finally:
        served.stop()
    near(record["text_features"], wanted)


def test_azures_batch_runner_runs_a_packages_scripts(
    alone: Path, bare: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    table = tmp_path / "in.csv"
    table.write_text("text\na cat\n", encoding="utf-8")
    code = f"{LOADED_BY_PATH}result = entry.run([sys.argv[2]])\n"
    model, out = {"AZUREML_MODEL_DIR": str(alone.parent)}, tmp_path / "out"
    words = [alone / "score/batch.py", table]
    shown = output(bare.run("-c", f"{code}print(result.to_json())", *words, cwd=tmp_path, **model))
    near(json.loads(json.loads(shown.splitlines()[-1])["text_features"]["0"]), wanted)
    words = [alone / "score/shards.py", table]
    output(bare.run("-c", code, *words, cwd=tmp_path, AZUREML_BI_OUTPUT_PATH=str(out), **model))
    (file,) = out.glob("*.parquet")
    near(pq.read_table(file).column("text_features")[0].as_py(), wanted)


def test_sparks_workers_run_the_zip_of_a_packages_code(
    alone: Path, bare: BareEnvironment, tmp_path: Path, wanted: np.ndarray
) -> None:
    """What `embed_table` sends them, as Python imports it from there: as a zip."""
    code = "import shutil, sys; sys.path.insert(0, sys.argv[1]); from score import spark\n"
    start = code
    archive = tmp_path / "score.zip"
    output(
        bare.run("-c", f"{code}shutil.copy(spark._zipped(), {str(archive)!r})", alone, cwd=tmp_path)
    )
    assert "score/spark.py" in zipfile.ZipFile(archive).namelist()
    work = (
        "import pandas as pd, pyspark\n"
        "pyspark.SparkFiles.get = lambda name: name\n"
        "frames = [pd.DataFrame({'text': ['a cat']})]\n"
        "(frame,) = spark.embed(frames, sys.argv[2])\n"
        "print(frame.to_json())\n"
    )
    shown = output(bare.run("-c", start + work, archive, alone, cwd=tmp_path))
    near(json.loads(shown.splitlines()[-1])["text_features"]["0"], wanted)
