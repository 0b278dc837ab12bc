"""The root is the model, and a package is a root."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, validate_serving_input
from mlflow.pyfunc import scoring_server
from packaging.requirements import Requirement

from score.contract import wire
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.entry import mlflow_server
from score.errors import ModelError, RequestError, SettingError
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.hardware.drivers import CPU_INDEX
from score.model.probes import Probes
from score.package import default_model
from score.package.build import REQUIREMENTS, Torch, describe, package
from score.settings import Settings
from tests.support.surfaces import ROOT

BUILT = (
    *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"),
    *("input_example.json", "serving_input_example.json", ".amlignore"),
)


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rebuilt")
    default_model.build(root)
    return root


def test_the_roots_files_are_what_the_builder_writes(rebuilt: Path) -> None:
    files = [*BUILT, *(f"model/{file.name}" for file in (rebuilt / "model").iterdir())]
    assert sorted(path.name for path in (rebuilt / "model").iterdir()) == sorted(
        path.name for path in (ROOT / "model").iterdir()
    )
    for name in files:
        assert _timeless(rebuilt / name) == _timeless(ROOT / name), name
    ours, theirs = (Probes.read(root / "model") for root in (rebuilt, ROOT))
    assert ours
    assert theirs
    for kind in ("texts", "images"):
        pairs = zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
        for vector, wanted in ((one.vector, other.vector) for one, other in pairs):
            np.testing.assert_allclose(vector, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert ours.probabilities is not None
    assert theirs.probabilities is not None
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-3)


def _timeless(file: Path) -> bytes:
    """What does not depend on the time, nor, to its last bits, on the processor."""
    lines = file.read_bytes().split(b"\n")
    changing = {
        "MLmodel": ("model_uuid:", "utc_time_created:"),
        "probes.json": ('   "vector":', '  "values":'),
    }
    starts = tuple(start.encode() for start in changing.get(file.name, ()))
    return b"\n".join(line for line in lines if not (starts and line.startswith(starts)))


def test_mlmodel_says_what_it_must() -> None:
    model = Model.load(str(ROOT))
    assert model.metadata["base_model_task"] == "embeddings"
    assert model.metadata["base_model_name"]
    inputs = {column["name"]: column for column in model.signature.inputs.to_dict()}
    assert set(inputs) == {"image", "text"}
    assert all(c["type"] == "string" and not c["required"] for c in inputs.values())
    params = {param["name"]: param["default"] for param in model.signature.params.to_dict()}
    assert params == {
        "normalize": False,
        "truncate": "end",
        "on_error": "raise",
        "labels": "",
        "confidence": 0.0,
    }
    example = model.load_input_example(str(ROOT))
    assert len(mlflow.pyfunc.load_model(str(ROOT)).predict(example)) == 2


@pytest.mark.filterwarnings("ignore:.*validate_serving_input:FutureWarning")
@pytest.mark.parametrize("body", ['{"input_data": [{"text": "a"}]}', "{"])
def test_mlflow_is_left_as_it_was(body: str) -> None:
    """This process may go on with models of others, whose bodies are not ours to read."""
    before = {name: getattr(scoring_server, name) for name in mlflow_server.READERS}
    for _ in range(2):
        with suppress(MlflowException):
            validate_serving_input(str(ROOT), body)
    assert {name: getattr(scoring_server, name) for name in mlflow_server.READERS} == before


@pytest.mark.filterwarnings("ignore:.*validate_serving_input:FutureWarning")
def test_the_serving_example_is_a_body_that_mlflow_takes(rebuilt: Path) -> None:
    """With the decoders that came with MLflow, which its own check uses, and with ours."""
    folder = str(rebuilt)
    body = Model.load(folder).get_serving_input(folder)
    assert body is not None
    assert [*json.loads(body)] == ["dataframe_split"]
    image, text = validate_serving_input(str(ROOT), body)
    assert image["image_features"]
    assert text["text_features"]
    assert len(wire.parse(body, 10).rows) == 2


@pytest.mark.filterwarnings("ignore:.*validate_serving_input:FutureWarning")
@pytest.mark.parametrize("table", [{"text": "a red apple"}, {"text": ["a", "b"]}])
def test_mlflows_own_check_reads_inputs_as_we_do(table: dict[str, Any]) -> None:
    records = validate_serving_input(str(ROOT), {"inputs": table})
    rows = wire.parse(json.dumps({"inputs": table}), 10).rows
    for record, wanted in zip(records, Embedder.load().embed(rows), strict=True):
        vector = wanted.text_features
        assert vector is not None
        np.testing.assert_allclose(record["text_features"], vector, atol=1e-4)


def test_nothing_is_pickled() -> None:
    names = {path.suffix for path in (ROOT / "model").rglob("*")} | {
        path.suffix for path in ROOT.glob("*")
    }
    assert not names & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}


def test_conda_lists_the_package_and_pins_what_decides_the_vectors() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (lines,) = (item["pip"] for item in conda["dependencies"] if isinstance(item, dict))
    assert lines[0] == f"--extra-index-url {CPU_INDEX}"
    pip = lines[1:]
    assert tuple(pip) == REQUIREMENTS
    wanted = {Requirement(line).name.replace("_", "-"): Requirement(line) for line in pip}
    for name, requirement in wanted.items():
        version = importlib.metadata.version(name).partition("+")[0]
        assert requirement.specifier.contains(version), f"{name} {version}, wants {requirement}"
    metadata = importlib.metadata.metadata("clip-endpoints").get_all("Requires-Dist") or []
    core = {Requirement(line).name.replace("_", "-") for line in metadata if "extra" not in line}
    assert core <= set(wanted), "the core needs what conda.yaml does not install"


def test_every_environment_manager_installs_the_same() -> None:
    env = yaml.safe_load((ROOT / "MLmodel").read_text())["flavors"]["python_function"]["env"]
    assert env == {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    python_env = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    assert f"python={python_env['python']}" in conda
    assert python_env["dependencies"] == ["-r requirements.txt"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (pip,) = (item["pip"] for item in conda if isinstance(item, dict))
    assert [line for line in lines if not line.startswith("#")] == pip[1:]


def wheel(folder: Path, version: str) -> None:
    """A torch of such a version, as an index lists it: nothing but its name and version."""
    folder = folder / "torch"
    folder.mkdir(parents=True)
    info = f"torch-{version}.dist-info"
    name = f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{name.replace("+", "%2B")}">{name}</a>')


@pytest.mark.process
@pytest.mark.parametrize(("torch", "build"), [("cpu", "2.13.0+cpu"), ("cuda", "2.13.0+cu126")])
def test_what_azure_installs_without_an_entry_script_is_the_build_that_was_asked_for(
    torch: Torch, build: str, tmp_path: Path, rebuilt: Path
) -> None:
    """conda.yaml's pip lines, taken by pip, over stand-ins for PyPI and PyTorch's indexes."""
    shutil.copytree(rebuilt / "model", tmp_path / "model")
    describe(tmp_path, "mine", torch=torch)
    conda = yaml.safe_load((tmp_path / "conda.yaml").read_text())["dependencies"]
    (pip,) = (item["pip"] for item in conda if isinstance(item, dict))
    wheel(tmp_path / "pypi", "2.13.0")
    for local in ("cpu", "cu126"):
        wheel(tmp_path / local, f"2.13.0+{local}")
    lines = [line for line in pip if line.startswith(("--", "torch=="))]
    here = [
        line.replace("https://download.pytorch.org/whl", f"file://{tmp_path}") for line in lines
    ]
    assert here != lines
    (tmp_path / "wanted.txt").write_text("\n".join(here))
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--dry-run", "--quiet"]
    index = ["--ignore-installed", "--index-url", f"file://{tmp_path}/pypi", "--report", "-"]
    done = subprocess.run(
        [*command, *index, "-r", str(tmp_path / "wanted.txt")],
        env={name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = json.loads(done.stdout)["install"]
    assert found["metadata"]["version"] == build


@pytest.mark.process
def test_a_package_serves_without_this_project(tmp_path: Path, rebuilt: Path) -> None:
    output = package(rebuilt / "model", tmp_path / "dist" / "mine", "my-clip")
    script = (
        "import json, sys, mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import score; assert score.__file__.startswith(sys.argv[1]), score.__file__\n"
        "print(json.dumps(model.predict(pd.DataFrame({'text': ['a cat']}))))\n"
    )
    # -I: neither this folder nor the environment's editable install come before the package's code.
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-I", "-c", script, str(output)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (record,) = json.loads(result.stdout.splitlines()[-1])
    (own,) = Embedder.load().embed([Row(text="a cat")])
    np.testing.assert_allclose(record["text_features"], own.text_features, rtol=1e-4, atol=1e-5)
    assert Model.load(str(output)).metadata["base_model_name"] == "my-clip"
    assert {file.name for file in output.iterdir()} == {*BUILT, "README.md", "model", "score"}


@pytest.mark.slow
def test_packaging_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (package(ROOT / "model", tmp_path / name, "m") for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for file in files:
        assert _timeless(first / file) == _timeless(second / file), file


def test_a_package_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(RequestError, match="is there already: name another"):
        package(ROOT / "model", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my: model", "off", "1.0", "a #b", 'a "b"'])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    output = package(ROOT / "model", tmp_path / "dist", name)
    assert Model.load(str(output)).metadata["base_model_name"] == name


def test_only_what_the_model_needs_is_packaged(tmp_path: Path, rebuilt: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(rebuilt / "model", checkpoint)
    (checkpoint / "pytorch_model.bin").write_bytes(b"pickle")
    (checkpoint / ".git").mkdir()
    output = package(checkpoint, tmp_path / "dist", "m")
    own = {p.name for p in (rebuilt / "model").iterdir()}
    # A package's card is at its root.
    assert {p.name for p in (output / "model").iterdir()} == own - {"README.md"}


def test_a_checkpoint_that_does_not_load_leaves_nothing(tmp_path: Path, rebuilt: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(rebuilt / "model", checkpoint)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        package(checkpoint, tmp_path / "dist" / "m", "m")
    assert not (tmp_path / "dist").exists()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_packager_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "score", "package", str(EMBEDDED)]
    job = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list(tmp_path.iterdir()):
            assert job.poll() is None
            time.sleep(0.1)
        job.send_signal(number)
        _, errors = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 128 + number
    assert "score: interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [".", "model", "mounted"])
def test_a_model_is_found_as_azure_mounts_it(tmp_path: Path, place: str) -> None:
    parent = tmp_path / "mounted"
    parent.mkdir()
    (parent / "clip").symlink_to(ROOT)
    folder = {".": ROOT, "model": ROOT / "model", "mounted": parent}[place]
    assert ModelFolder.open(folder).path.resolve() == ROOT / "model"


def test_two_models_side_by_side_must_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(ROOT / "model")
    with pytest.raises(ModelError, match=r"several models .*\(a, b\)"):
        ModelFolder.open(tmp_path)


def test_a_models_settings_are_mlflows_model_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCORE_PRECISION")  # it would go before
    config = {"precision": "fp32", "batch_size": 3, "decoding": "fast"}
    model = mlflow.pyfunc.load_model(str(ROOT), model_config=config)
    settings = model._model_impl.embedder.settings
    assert (settings.precision, settings.batch_size, settings.decoding) == ("fp32", 3, "fast")
    with pytest.raises(SettingError, match=r"^precision must be auto, .* not 'int4'"):
        mlflow.pyfunc.load_model(str(ROOT), model_config={"precision": "int4"})


def test_mlmodel_names_the_settings_defaults() -> None:
    flavor = yaml.safe_load((ROOT / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavor["config"] == {name: getattr(Settings(), name) for name in flavor["config"]}
    with pytest.raises(SettingError, match="no setting 'presicion'"):
        Settings.from_env({}, {"presicion": "fp32"})


def test_frames_of_every_kind_are_understood() -> None:
    model = mlflow.pyfunc.load_model(str(ROOT))

    def features(frame: pd.DataFrame, **params: Any) -> list[set[str]]:
        records = model.predict(frame, params=params)
        return [{key for key, value in record.items() if value is not None} for record in records]

    text = pd.Series(["a", None, float("nan"), "b"], dtype=object)
    assert features(pd.DataFrame({"text": text}), on_error="report") == [
        {"text_features"},
        {"error"},
        {"error"},
        {"text_features"},
    ]
    strings = pd.DataFrame({"text": pd.array(["a", pd.NA], dtype="string")})
    assert features(strings, on_error="report") == [{"text_features"}, {"error"}]
    shuffled = pd.DataFrame({"text": ["a", "b"], "image": [None, ""]}, index=[7, 7])
    assert features(shuffled) == [{"text_features"}, {"text_features"}]
    assert features(pd.DataFrame({"text": []}, dtype=str)) == []


EMPTY = {"image_features": None, "text_features": None}


@pytest.mark.parametrize(
    ("params", "more"),
    [
        ({}, set()),
        ({"normalize": True}, set()),
        ({"on_error": "report"}, {"error"}),
        ({"labels": '["a", "b"]'}, {"labels", "probs"}),
        ({"labels": '["a", "b"]', "on_error": "report"}, {"labels", "probs", "error"}),
    ],
)
def test_every_record_has_every_key_outside_http(params: dict[str, Any], more: set[str]) -> None:
    """Whatever the rows of a batch hold: tables are made of such records."""
    model = mlflow.pyfunc.load_model(str(ROOT))
    dot = json.loads((ROOT / "input_example.json").read_text())["data"][0][0]
    batches = [[["", "a"]], [[dot, ""]], [[dot, "a"], ["", "a"]]]
    if "on_error" in params:
        batches += [[["", ""]], [["%%%", ""], ["", "a"]]]
    for rows in batches:
        for record in model.predict(pd.DataFrame(rows, columns=["image", "text"]), params=params):
            assert set(record) == {*EMPTY, *more}
            if record.get("error"):
                assert record | EMPTY == record
