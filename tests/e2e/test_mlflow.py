"""MLflow's command line and registry, on a package: its environments, its images, its versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.cli import cli

from score.__main__ import main
from score.core.embedder import Embedder
from score.errors import ModelError, RequestError
from score.folder import registry
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.package.export import PARTS, export
from score.package.register import register
from tests.support import env_managers
from tests.support.surfaces import BIN, ROOT, MlflowServe, OwnServer, Served, free_port

REQUEST = ROOT / "samples/requests/text.json"
MLFLOW = str(BIN / "mlflow")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in a folder of its own."""
    return export(EMBEDDED, tmp_path_factory.mktemp("exported") / "emoji")


# --- environments


@pytest.mark.process
def test_mlflow_makes_the_models_environment(package: Path, tmp_path: Path) -> None:
    """And predicts in it, by virtualenv, the default. By uv: tests/e2e/test_spark.py."""
    environ = os.environ | env_managers.install(tmp_path / "tools")
    files = ["-i", str(REQUEST), "-o", "answer.json"]
    done = subprocess.run(
        [MLFLOW, "models", "predict", "-m", str(package), "-t", "json", *files],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Requirement already satisfied: torch==2.13.0 " in done.stdout
    records = json.loads((tmp_path / "answer.json").read_text())["predictions"]
    assert {len(record["text_features"]) for record in records} == {512}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manager", "base"), [(None, "python:3.11-slim"), ("virtualenv", "ubuntu")]
)
def test_the_image_that_mlflow_writes_holds_the_model_alone(
    manager: str | None, base: str, package: Path, tmp_path: Path
) -> None:
    flags = ["--env-manager", manager] if manager else []
    command = ["models", "generate-dockerfile", "-m", str(package), "-d", str(tmp_path / "image")]
    cli.main([*command, *flags], standalone_mode=False)
    text = (tmp_path / "image/Dockerfile").read_text()
    assert f"\nFROM {base}" in text
    (copied,) = (tmp_path / "image/model_dir").iterdir()
    assert f"COPY model_dir/{copied.name} /opt/ml/model" in text
    assert sorted(file.name for file in copied.iterdir()) == sorted(
        file.name for file in package.iterdir()
    )


# --- a package apart


def test_an_export_is_the_package_and_nothing_else(package: Path, tmp_path: Path) -> None:
    (package / "score/__pycache__").mkdir(exist_ok=True)  # as Python leaves it
    mine = export(package, tmp_path / "mine")
    assert {file.name for file in mine.iterdir()} == set(PARTS)
    assert not list(mine.rglob("__pycache__"))
    assert (mine / "model/model.safetensors").read_bytes() == (
        EMBEDDED / "model.safetensors"
    ).read_bytes()
    (record,) = mlflow.pyfunc.load_model(str(mine)).predict(pd.DataFrame({"text": ["a cat"]}))
    assert len(record["text_features"]) == 512


def test_an_export_overwrites_nothing(package: Path, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(RequestError, match="is there already"):
        export(package, tmp_path)
    with pytest.raises(ModelError, match=r"c is a checkpoint, no package .* `score package`"):
        export(tiny, tmp_path / "out")
    with pytest.raises(ModelError, match="inside the model"):
        export(package, package / "score" / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_weights_that_git_has_not_fetched_are_not_exported(package: Path, tmp_path: Path) -> None:
    mine = export(package, tmp_path / "mine")
    (mine / "model/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        export(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the registry


class Tracking(Served):
    """`mlflow server` on SQLite."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        store += ["--artifacts-destination", str(folder / "artifacts")]
        command = [MLFLOW, "server", *store, "--workers", "1", "--port", str(port)]
        # Without the workers of its background jobs, seven processes that no test asks.
        environ = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        super().__init__(command, self.uri, f"{self.uri}/health", **environ)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server that knows version 1 of `clip`, alias `champion`."""
    server = Tracking(tmp_path_factory.mktemp("tracking"))
    try:
        server.wait(300)
        command = [sys.executable, "-m", "score", "register", "--name", "clip"]
        done = subprocess.run(
            [*command, "--alias", "champion", "--tracking-uri", server.uri],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "models:/clip/1\n"
        assert "models:/clip@champion is models:/clip/1" in done.stderr
        yield server.uri
    finally:
        server.stop()


@pytest.fixture
def at(tracking: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process asks that server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking)
    yield
    mlflow.set_tracking_uri(before)
    registry.download.cache_clear()


def run_of(uri: str) -> str:
    version = mlflow.MlflowClient().get_model_version(*uri.removeprefix("models:/").split("/"))
    return f"runs:/{version.run_id}/model"


@pytest.mark.process
@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("uri", ["models:/clip/1", "models:/clip@champion", "runs"])
def test_a_registered_model_is_loaded_by_any_of_its_names(uri: str, embedder: Embedder) -> None:
    uri = run_of("models:/clip/1") if uri == "runs" else uri
    loaded = Embedder.load(uri)
    np.testing.assert_array_equal(loaded.embed_text("a cat"), embedder.embed_text("a cat"))
    (record,) = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"text": ["a cat"]}))
    np.testing.assert_allclose(record["text_features"], embedder.embed_text("a cat"), atol=1e-5)
    assert mlflow.models.get_model_info(uri).signature.inputs.input_names() == ["image", "text"]


@pytest.mark.process
@pytest.mark.usefixtures("at")
def test_what_is_registered_is_the_package_alone() -> None:
    artifacts = mlflow.artifacts.list_artifacts(run_of("models:/clip/1"))
    assert {Path(artifact.path).name for artifact in artifacts} == set(PARTS)


@pytest.mark.process
@pytest.mark.usefixtures("at")
def test_every_verb_takes_a_registered_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, uri = ROOT / "samples", "models:/clip@champion"
    table, ontology = str(tmp_path / "vectors.parquet"), str(samples / "ontology.json")
    labels = ["--ontology", ontology, "--output", str(tmp_path / "labels.csv")]
    for words in (
        ["verify", uri],
        ["embed", str(samples / "paths.csv"), "--model", uri, "--output", table],
        ["index", table, "--output", str(tmp_path / "index")],
        ["search", str(tmp_path / "index"), "a red apple", "--top", "1", "--model", uri],
        ["label", str(samples / "images"), "--model", uri, *labels],
        ["evaluate", "retrieval", str(samples / "paths.csv"), "--model", uri],
        ["export", uri, "--output", str(tmp_path / "copy")],
    ):
        assert main(words) == 0, words
    out = capsys.readouterr().out
    assert "all 26 probes as promised" in out
    assert "apple" in out
    assert "model clip-endpoints-emoji, " in out
    assert {file.name for file in (tmp_path / "copy").iterdir()} == set(PARTS)


@pytest.mark.process
@pytest.mark.parametrize("server", [OwnServer, MlflowServe])
def test_a_registered_model_is_served(
    server: type[OwnServer | MlflowServe], tracking: str, embedder: Embedder
) -> None:
    served = server("models:/clip@champion", MLFLOW_TRACKING_URI=tracking)
    try:
        served.wait(300)
        (record,) = served.ask({"input_data": [{"text": "a cat"}]}).records or []
    finally:
        served.stop()
    np.testing.assert_allclose(record["text_features"], embedder.embed_text("a cat"), atol=1e-5)


@pytest.mark.process
@pytest.mark.usefixtures("at")
def test_an_alias_moves_to_the_next_version(package: Path) -> None:
    before = Path(str(registry.download("models:/clip/1")))
    assert register(package, "other", aliases=["new", "best"]) == "models:/other/1"
    assert register("models:/other@best", "other", aliases=["best"]) == "models:/other/2"
    client = mlflow.MlflowClient()
    assert client.get_model_version_by_alias("other", "best").version == "2"
    assert client.get_model_version_by_alias("other", "new").version == "1"
    assert ModelFolder.open(before).path == before / "model"


@pytest.mark.process
@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("name", "alias", "said"),
    [
        ("a/b", "best", "Names cannot contain"),
        ("", "best", "MLflow refuses: "),
        ("refused", "v1", "'v1' cannot be an alias"),
        ("refused", "Latest", "'Latest' cannot be an alias"),
        ("refused", "the best", "'the best' cannot be an alias"),
        ("refused", "", "'' cannot be an alias"),
    ],
)
def test_what_cannot_be_registered_is_refused_before_it_is_logged(
    name: str, alias: str, said: str
) -> None:
    runs = len(mlflow.search_runs(search_all_experiments=True))
    with pytest.raises(ModelError, match=said):
        register(EMBEDDED, name, aliases=[alias])
    assert len(mlflow.search_runs(search_all_experiments=True)) == runs


@pytest.mark.process
@pytest.mark.usefixtures("at")
def test_a_checkpoint_must_be_packaged_first(tiny: Path) -> None:
    with pytest.raises(ModelError, match="run `score package` on it"):
        register(tiny, "refused")


@pytest.mark.process
@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    "uri",
    [
        "models:/clip/9",
        "models:/clip@nobody",
        "models:/nothing/1",
        "models:/clip",
        "models:/",
        "runs:/0123456789abcdef/model",
        "runs:/x",
    ],
)
def test_a_name_that_mlflow_does_not_know_is_an_error_that_says_so(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", uri]) == 2
    said = capsys.readouterr().err
    assert f"MLflow does not find {uri.rstrip('/')}: " in said
    assert "MLFLOW_TRACKING_URI" in said


@pytest.mark.process
@pytest.mark.usefixtures("at")
def test_a_registered_model_that_is_no_clip_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path), "model")
    with pytest.raises(ModelError, match=r"no config\.json in "):
        Embedder.load(f"runs:/{run.info.run_id}/model")


def test_without_mlflow_it_is_said_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.artifacts", None)
    with pytest.raises(ModelError, match=r"models:/clip/7 .* pip install -e '\.\[mlflow\]'"):
        ModelFolder.open("models:/clip/7")
