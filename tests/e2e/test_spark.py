"""A Spark worker's share, and sessions of Spark itself: ours, and MLflow's `spark_udf`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyspark
import pytest
import yaml
from azure.ai.ml.entities._load_functions import load_component
from pyspark import SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

from score import spark
from score.core.embedder import Embedder
from score.errors import SettingError
from score.folder.model_folder import EMBEDDED
from score.package.export import export
from tests.support import env_managers
from tests.support.images import in_base64, random_image
from tests.support.java import java_home
from tests.support.pages import blocks, pages
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

# Programs that end within seconds are not worth compiling well, nor collecting garbage in threads.
BRIEF = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}

IMAGE = in_base64(random_image(1))
VECTORS = "image_features: array<float>, text_features: array<float>"
ERROR = "error: struct<code: string, message: string, retryable: boolean>"


@pytest.fixture
def frames() -> list[pd.DataFrame]:
    one = pd.DataFrame({"id": [1, 2], "image": [IMAGE, "%%%"], "text": ["a", ""]})
    two = pd.DataFrame({"id": [3], "image": [None], "text": ["a cat"]})
    return [one, two]


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(java_home(tmp_path_factory.mktemp("java") / "home"))


@pytest.fixture(scope="module")
def session(java: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session whose workers get one row a batch: a batch lacks what its row did not ask for."""
    tools = env_managers.install(tmp_path_factory.mktemp("tools"))
    search = os.pathsep.join([tools["PATH"], os.environ["PATH"]])
    before = dict(os.environ)  # Spark adds variables of its own, by which a worker is known
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **tools,
            **BRIEF,
            "JAVA_HOME": java,
            "PATH": search,
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "1")
            .getOrCreate()
        )
        try:
            yield session
            session.stop()
            end_gateway()
        finally:
            os.environ.clear()
            os.environ.update(before)


def end_gateway() -> None:
    """Ends Spark's Java process, which else ends with this process."""
    gateway: Any = SparkContext._gateway
    gateway.shutdown()
    gateway.proc.stdin.close()  # at whose end the process does
    gateway.proc.wait(30)
    SparkContext._gateway = SparkContext._jvm = None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow copies a model's folder to its workers, so one without the rest of this repository."""
    return str(export(EMBEDDED, tmp_path_factory.mktemp("exported") / "emoji"))


def predicted(
    session: SparkSession, model: str, rows: list[tuple[Any, Any]], fields: str, **options: Any
) -> list[Any]:
    """What `spark_udf` answers to rows of image and text, each a batch of its own."""
    udf = mlflow.pyfunc.spark_udf(session, model, result_type=f"struct<{fields}>", **options)
    table = session.createDataFrame(rows, "image string, text string")
    answers = table.select(udf(struct("image", "text")).alias("answer"))
    return [row.answer for row in answers.collect()]


def test_a_share_keeps_its_columns_and_gains_vectors_and_errors(
    frames: list[pd.DataFrame], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "_loaded", lambda model: embedder)
    one, two = spark.embed(frames, "any")
    added = ["image_features", "text_features", "error_code", "error_message", "error_retryable"]
    assert list(one) == list(two) == ["id", "image", "text", *added]
    assert one["error_code"].tolist() == [None, "bad_base64"]
    assert one["id"].tolist() == [1, 2]
    np.testing.assert_allclose(two["text_features"][0], embedder.embed_text("a cat"), atol=1e-5)
    assert two["image_features"][0] is None


def test_settings_are_the_executors_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: str(EMBEDDED))
    monkeypatch.setenv("SCORE_PRECISION", "fp33")
    with pytest.raises(SettingError, match="fp33"):
        spark._loaded("any")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the libraries of this environment, which does not find the project in it."""
    libraries = [str(Path(module.__file__ or "").parent.parent) for module in (pyspark, np)]
    program = tmp_path_factory.mktemp("python") / "python"
    program.write_text(
        "#!/bin/sh\n"
        f"export PYTHONPATH=$PYTHONPATH:{':'.join(dict.fromkeys(libraries))}\n"
        f'exec {sys.executable} -S "$@"\n',  # -S: no .pth file is read, which names the project
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that azure-ai-ml uploads for the Spark component."""
    with load_component(ROOT / "components/spark/embed.yml")._build_code() as built:
        yield shutil.copytree(built.path, tmp_path_factory.mktemp("uploaded") / "code")


@pytest.fixture(scope="module")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Spark whose workers write below a folder of the test's, not below the library."""
    home = tmp_path_factory.mktemp("spark")
    for item in Path(pyspark.__file__).parent.iterdir():
        (home / item.name).symlink_to(item)
    return home


def submitted(
    code: Path, python: Path, java: str, home: Path, cwd: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """`spark-submit` on a cluster of one worker, in a process and a folder of its own."""
    arguments = ["--table", "table.parquet", "--model", str(ROOT / "model"), "--output", "out"]
    environment = {
        **os.environ,
        **BRIEF,
        "JAVA_HOME": java,
        "PYSPARK_PYTHON": str(python),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    environment.pop("PYTHONPATH", None)
    cluster = ["--master", "local-cluster[1,1,1024]", "--conf", "spark.executor.memory=512m"]
    cluster += ["--conf", "spark.ui.enabled=false"]
    for setting in ("SCORE_PRECISION=fp32", "SCORE_ENGINE=torch"):  # executors inherit nothing
        cluster += ["--conf", f"spark.executorEnv.{setting}"]
    command = [home / "bin/spark-submit", *cluster, *options, code / "embed.py", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_cluster_gets_the_package_by_what_the_component_ships(
    frames: list[pd.DataFrame],
    embedder: Embedder,
    java: str,
    python: Path,
    spark_home: Path,
    code: Path,
    tmp_path: Path,
) -> None:
    """Neither driver nor executors find the project where they run, nor in their Python."""
    pd.concat(frames).to_parquet(tmp_path / "table.parquet")
    component = yaml.safe_load((ROOT / "components/spark/embed.yml").read_text(encoding="utf-8"))
    shipped = ",".join(str(code / name) for name in component["py_files"])
    done = submitted(code, python, java, spark_home, tmp_path, "--py-files", shipped)
    assert done.returncode == 0, done.stderr[-3000:]
    result = pd.read_parquet(tmp_path / "out").sort_values("id", ignore_index=True)
    assert result["error_code"].tolist() == [None, "bad_base64", None]
    np.testing.assert_allclose(result["text_features"][2], embedder.embed_text("a cat"), atol=1e-4)


def test_executors_install_what_encoding_needs_and_no_cuda() -> None:
    """After 15 minutes of installing Azure ends the session: no MLflow, no server."""

    def pip(name: str) -> dict[str, str]:
        content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        items = next(part["pip"] for part in content["dependencies"] if isinstance(part, dict))
        return {re.split("[=<>]", item)[0]: item for item in items if not item.startswith("--")}

    ours, theirs = pip("conda.yaml"), pip("environment/spark.conda.yaml")
    left_out = {"mlflow", "azureml-inference-server-http"}
    assert theirs.keys() == ours.keys() - left_out
    changed = {name for name in theirs if theirs[name] != ours[name]}
    assert changed <= {"numpy", "torch"}
    assert theirs["torch"].removesuffix("+cpu") == ours["torch"]
    assert theirs["numpy"].endswith("<2")  # Spark 3.5's own bound
    code = "import score.spark, sys; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_without_it_there_is_nothing_to_run(
    java: str, python: Path, spark_home: Path, code: Path, tmp_path: Path
) -> None:
    """That the test above sees what it is there to see."""
    done = submitted(code, python, java, spark_home, tmp_path)
    assert done.returncode != 0
    assert "No module named 'score'" in done.stdout + done.stderr


def test_a_session_embeds_twice(session: SparkSession, model: str) -> None:
    """Spark takes no second file of a name."""
    rows = session.createDataFrame([("a",)], "text string")
    one, two = spark.embed_table(rows, model), spark.embed_table(rows, model)
    assert one.first().text_features == two.first().text_features


def test_spark_udf_answers_batches_without_images_or_texts(
    session: SparkSession, model: str, embedder: Embedder
) -> None:
    rows = [(None, "a cat"), (IMAGE, None), (IMAGE, "a cat"), ("", "b")]
    answers = predicted(session, model, rows, VECTORS)
    assert [answer.image_features is None for answer in answers] == [True, False, False, True]
    assert [answer.text_features is None for answer in answers] == [False, True, False, False]
    text, image = embedder.embed_text("a cat"), embedder.embed_image(random_image(1))
    for number in (0, 2):
        np.testing.assert_allclose(answers[number].text_features, text, rtol=1e-4, atol=1e-5)
    for number in (1, 2):
        np.testing.assert_allclose(answers[number].image_features, image, rtol=1e-4, atol=1e-5)


def test_spark_udf_reports_errors_beside_rows_without_one(
    session: SparkSession, model: str
) -> None:
    rows = [(None, "a cat"), ("%%%", None), (None, None)]
    answers = predicted(session, model, rows, f"{VECTORS}, {ERROR}", params={"on_error": "report"})
    assert [answer.error.code for answer in answers] == [None, "bad_base64", "empty_row"]
    assert [answer.error.retryable for answer in answers] == [None, False, False]
    assert [answer.text_features is None for answer in answers] == [False, True, True]


def test_the_driver_answers_as_any_other_process(session: SparkSession, model: str) -> None:
    frame = pd.DataFrame({"text": ["a cat", ""]})
    answers = mlflow.pyfunc.load_model(model).predict(frame, params={"on_error": "report"})
    assert answers[0]["error"] is None
    assert answers[1]["error"]["code"] == "empty_row"


def test_spark_udf_labels_images_beside_texts(session: SparkSession, model: str) -> None:
    fields = f"{VECTORS}, labels: array<string>, probs: array<double>"
    params = {"labels": '["a cat", "a dog"]'}
    answers = predicted(session, model, [(IMAGE, None), (None, "a")], fields, params=params)
    assert sorted(answers[0].labels) == ["a cat", "a dog"]
    assert sum(answers[0].probs) == pytest.approx(1)
    assert (answers[1].labels, answers[1].probs) == (None, None)


def test_spark_udf_in_an_environment_of_the_models_own(session: SparkSession, model: str) -> None:
    """MLflow then starts its server beside each worker, and asks it over HTTP."""
    rows = [(None, "a cat"), ("%%%", None)]
    options = {"env_manager": "uv", "params": {"on_error": "report"}}
    answers = predicted(session, model, rows, f"{VECTORS}, {ERROR}", **options)
    assert [answer.error.code for answer in answers] == [None, "bad_base64"]
    assert [answer.image_features for answer in answers] == [None, None]
    assert len(answers[0].text_features) == 512


def documented() -> list[str]:
    """The lines of Python that users are shown, for a `spark` and a `table` of theirs."""
    shown = [block for page in pages() for block in blocks(page)]
    return [block.text for block in shown if block.is_sparks]


@pytest.mark.parametrize("number", range(2))
def test_what_the_documents_show_runs(number: int, session: SparkSession, model: str) -> None:
    shown = documented()
    assert len(shown) == 2
    rows = [(1, None, "a cat"), (2, IMAGE, None)]
    table = session.createDataFrame(rows, "id int, image string, text string")
    names: dict[str, Any] = {"spark": session, "table": table, "mlflow": mlflow}
    block = shown[number].replace("out/emoji", model)
    exec(compile(block, "documented", "exec"), names)
    answers = [row.asDict(recursive=True) for row in names["answered"].orderBy("id").collect()]
    text, image = ((answer.get("answer") or answer)["text_features"] for answer in answers)
    assert len(text) == 512
    assert image is None
