"""Deployments as they are checked in, run by the stand-in for Azure: real processes, real files."""

from __future__ import annotations

import base64
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from score.__main__ import main
from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import ARCHITECTURES
from score.core.embedder import Embedder
from score.deploy.simulate.batch import batch
from score.deploy.simulate.machine import Machine
from score.deploy.simulate.parallel import parallel
from score.deploy.simulate.ports import free_port
from score.deploy.simulate.runner import Job, run
from score.deploy.skus import lookup
from score.errors import AzureError
from score.settings import Settings
from tests.support.images import in_base64, random_image
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

BATCH = ROOT / "components/batch"
ONLINE = ROOT / "components/online"
ROWS = 12  # of a file
Json = dict[str, object]


def write(
    file: Path, rows: list[list[str]], columns: tuple[str, ...] = ("id", "image", "text")
) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six files of rows, one of them poisoned: it is no table. Two rows of each are bad."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("a", "b", "c", "d", "fatal"):
        rows = [[f"{name}{n}", "", f"a thing {n}"] for n in range(ROWS - 4)]
        rows += [[f"{name}{n}", in_base64(random_image(n)), ""] for n in range(ROWS - 4, ROWS - 2)]
        rows += [[f"{name}{ROWS - 2}", "%%%", ""], [f"{name}{ROWS - 1}", "", ""]]
        write(folder / f"{name}.csv", rows)
    (folder / "poisoned.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return folder


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The batch deployment that is checked in, but for a script that loses a process."""
    monkeypatch.setenv("KILL_MARK", str(tmp_path / "killed"))
    text = (BATCH / "deployment-cpu.yml").read_text(encoding="utf-8")
    text = text.replace("code: ../..", f"code: {ROOT}")
    text = text.replace("score/shards.py", "tests/support/killing_script.py")
    file = tmp_path / "deployment.yml"
    file.write_text(text, encoding="utf-8")
    return file


def rows_of(results: Path) -> list[Json]:
    return [
        row for file in sorted(results.glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


# -- batch -------------------------------------------------------------------------------------


def test_every_row_comes_out_once_though_a_process_is_lost_and_a_file_is_poisoned(
    shards: Path, deployment: Path, tmp_path: Path
) -> None:
    deployment.write_text(
        deployment.read_text().replace("error_threshold: 0", "error_threshold: 1")
    )
    output = tmp_path / "out"
    command = ["azure", "simulate", "batch", str(deployment), "--input", str(shards)]
    assert main([*command, "--output", str(output), "--nodes", "3"]) == 0
    assert (tmp_path / "killed").exists()
    rows = rows_of(output)
    expected = {f"{name}{n}" for name in ("a", "b", "c", "d", "fatal") for n in range(ROWS)}
    assert Counter(row["id"] for row in rows) == Counter(expected)
    good = [row for row in rows if row["error_code"] is None]
    assert len(good) == 5 * (ROWS - 2)
    assert all((row["image_features"] is None) != (row["text_features"] is None) for row in good)
    bad = Counter(row["error_code"] for row in rows if row["error_code"])
    assert bad == {"bad_base64": 5, "empty_row": 5}
    (report,) = (output / "unreadable").iterdir()
    assert json.loads(report.read_text())["file"] == "poisoned.csv"
    assert not list(output.rglob("*.part"))


def test_the_report_counts_retries_and_names_what_failed(
    shards: Path, deployment: Path, tmp_path: Path
) -> None:
    deployment.write_text(
        deployment.read_text().replace("error_threshold: 0", "error_threshold: 1")
    )
    report = batch(deployment, shards, tmp_path / "out", model=ROOT, nodes=3)
    assert (report.files, report.succeeded, report.stopped) == (6, 5, False)
    assert report.retried >= 1
    assert (report.failed, report.untried, list(report.reasons)) == (1, 0, ["poisoned.csv"])


LOADING = """
import os
import mlflow.pyfunc
import pandas as pd

def init():
    global model
    folder = os.environ["AZUREML_MODEL_DIR"]
    (name,) = os.listdir(folder)
    model = mlflow.pyfunc.load_model(os.path.join(folder, name))

def run(files):
    answers = [model.predict(pd.DataFrame({"text": ["a cat"]})) for _ in files]
    return [len(answer[0]["text_features"]) for answer in answers]
"""


def test_a_script_finds_the_model_in_a_real_folder(shards: Path, tmp_path: Path) -> None:
    """MLflow refuses a folder that a symbolic link leads out of."""
    (tmp_path / "own.py").write_text(LOADING, encoding="utf-8")
    deployment = tmp_path / "deployment.yml"
    deployment.write_text(
        "name: own\nendpoint_name: clip-batch\ntype: model\nmodel: azureml:clip@latest\n"
        "code_configuration: {code: ., scoring_script: own.py}\n",
        encoding="utf-8",
    )
    report = batch(deployment, shards, tmp_path / "out", model=ROOT, nodes=1)
    assert (report.failed, report.succeeded) == (0, 6), report
    assert (tmp_path / "out/predictions.csv").read_text().split() == ["512"] * 6


def test_more_failures_than_the_threshold_end_the_job(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["azure", "simulate", "batch", str(BATCH / "deployment-cpu.yml")]
    assert main([*command, "--input", str(shards), "--output", str(output)]) == 1
    said = capfd.readouterr().err
    assert "poisoned.csv: run() returned 0 items for 1" in said
    assert "more files failed than error_threshold allows" in said


def test_an_output_that_is_there_already_is_left_alone(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(AzureError, match="is there already"):
        batch(BATCH / "deployment-cpu.yml", shards, tmp_path / "out", model=ROOT)


def test_no_code_appends_what_azure_would(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As Azure's example: frames with their index, ten rows a file, the other column empty."""
    folder = tmp_path / "csvs"
    folder.mkdir()
    wrapped = base64.encodebytes(random_image(1)).decode()  # with line breaks
    assert wrapped.count("\n") > 1
    for part in range(3):
        frame = pd.DataFrame({"image": [wrapped] * 10, "text": [""] * 10})
        frame.to_csv(folder / f"part{part}.csv")
    output = tmp_path / "out"
    command = ["azure", "simulate", "batch", str(BATCH / "deployment-nocode.yml")]
    assert main([*command, "--input", str(folder), "--output", str(output)]) == 0, (
        capfd.readouterr()
    )
    names = ["row", "image_features", "text_features", "file"]
    table = pd.read_csv(output / "predictions.csv", header=None, names=names, keep_default_na=False)
    assert Counter(zip(table["row"], table["file"], strict=True)) == Counter(
        (row, f"part{part}.csv") for part in range(3) for row in range(10)
    )
    assert all(len(json.loads(vector)) == 512 for vector in table["image_features"])
    assert set(table["text_features"]) == {"null"}  # a column in every file, whatever its rows ask


def test_our_script_takes_the_same_files(tmp_path: Path, embedder: Embedder) -> None:
    folder = tmp_path / "csvs"
    folder.mkdir()
    wrapped = base64.encodebytes(random_image(1)).decode()
    pd.DataFrame({"image": [wrapped] * 10, "text": [""] * 10}).to_csv(folder / "one.csv")
    report = batch(BATCH / "deployment-cpu.yml", folder, tmp_path / "out", model=ROOT)
    assert report.succeeded == 1
    rows = rows_of(tmp_path / "out")
    assert [row["Unnamed: 0"] for row in rows] == [str(n) for n in range(10)]
    assert {row["error_code"] for row in rows} == {None}
    vectors = np.array([row["image_features"] for row in rows])
    alone = embedder.embed_image(random_image(1))
    np.testing.assert_allclose(vectors, [alone] * 10, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("mini_batch_size: 1", "mini_batch_size: 0", "mini_batch_size: 0 is less than 1"),
        ("mini_batch_size: 1", "mini_batch_size: two", "mini_batch_size: 'two' is not a whole"),
        ("error_threshold: 0", "error_threshold: lots", "error_threshold: 'lots' is not a whole"),
        ("instance_count: ", "instance_count: -", "instance_count: -1 is less than 1"),
        ("  retry_settings:\n", "  retry_settings: 5\n  x:\n", "retry_settings: 5 is no mapping"),
    ],
)
def test_values_that_cannot_be_are_told(
    right: str, wrong: str, said: str, shards: Path, tmp_path: Path
) -> None:
    text = (BATCH / "deployment-cpu.yml").read_text(encoding="utf-8")
    assert right in text
    file = tmp_path / "deployment.yml"
    file.write_text(text.replace(right, wrong).replace("../..", str(ROOT)), encoding="utf-8")
    with pytest.raises(AzureError, match=said):
        batch(file, shards, tmp_path / "out", model=ROOT)


def test_rows_are_appended_by_our_script(tmp_path: Path) -> None:
    """`score/batch.py` without parquet; and the same table again after one that does not start."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "one.csv", [["1", "", "a cat"], ["2", "%%%", ""]])
    text = (BATCH / "deployment-cpu.yml").read_text(encoding="utf-8").replace("../..", str(ROOT))
    text = text.replace("score/shards.py", "score/batch.py").replace("summary_only", "append_row")
    file = tmp_path / "deployment.yml"
    broken = text.replace('SCORE_BATCH_SIZE: "', 'SCORE_BATCH_SIZE: "-')
    assert broken != text
    file.write_text(broken, encoding="utf-8")
    with pytest.raises(AzureError, match="init"):
        batch(file, folder, tmp_path / "out", model=ROOT)
    file.write_text(text, encoding="utf-8")
    report = batch(file, folder, tmp_path / "out", model=ROOT)
    assert (report.succeeded, report.failed) == (1, 0), report
    with (tmp_path / "out/predictions.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert [(Path(row[0]).name, row[1]) for row in rows] == [("one.csv", "0"), ("one.csv", "1")]
    assert rows[1][4] == "bad_base64"


DYING = """
import os, pathlib
def init():
    mark = pathlib.Path(os.environ["KILL_MARK"])
    if not mark.exists() or {always}:
        mark.touch()
        os.kill(os.getpid(), 9)
def run(files):
    return files
"""


@pytest.mark.parametrize("always", [False, True])
def test_a_process_lost_while_it_starts_is_started_again(
    always: bool, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILL_MARK", str(tmp_path / "mark"))
    script = tmp_path / "script.py"
    script.write_text(DYING.replace("{always}", str(always)))
    job = Job(script, (), {}, 2, 1, 1, 2, 60, -1)
    files = sorted(shards.iterdir())
    if always:
        with pytest.raises(AzureError, match="its process ended with -9"):
            run(job, files)
    else:
        assert run(job, files).succeeded == len(files)


# -- parallel ----------------------------------------------------------------------------------


def test_a_table_is_split_embedded_by_two_nodes_merged_and_searched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The pipeline's steps, one after the other, as its components would run them."""
    names = ["a red apple", "a sailboat", "a violin", "an owl", "a bicycle", "a house", "a cat"]
    table = write(tmp_path / "table.csv", [[str(n), "", name] for n, name in enumerate(names)])
    shards, results = tmp_path / "shards", tmp_path / "results"
    assert main(["split", str(table), "--rows", "2", "--output", str(shards)]) == 0
    assert len(list(shards.iterdir())) == 4
    command = ["azure", "simulate", "parallel", str(ROOT / "components/pipeline/embed.yml")]
    inputs = ["--input", f"shards={shards}", "--input", f"model={ROOT}"]
    assert main([*command, *inputs, "--output", str(results), "--nodes", "2"]) == 0
    lines = (results / "lines").read_text().splitlines()
    assert len(lines) == 4
    merged, report = tmp_path / "vectors.parquet", tmp_path / "report.json"
    arguments = ["merge", str(shards), str(results / "vectors")]
    assert main([*arguments, "--output", str(merged), "--report", str(report)]) == 0
    assert json.loads(report.read_text())["complete"] is True
    assert [row["text"] for row in pq.read_table(merged).to_pylist()] == names
    index = tmp_path / "index"
    column = ["--column", "text_features"]
    assert main(["index", str(merged), "--output", str(index), *column]) == 0
    capfd.readouterr()
    assert main(["search", str(index), "a violin", "--top", "2"]) == 0
    best = json.loads(capfd.readouterr().out.splitlines()[0])
    assert best["text"] == "a violin"
    assert best["score"] == pytest.approx(1, abs=1e-3)


def test_paths_are_seen_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    write(tmp_path / "shards/one.csv", [["0", "", "a cat"]])
    component = ROOT / "components/pipeline/embed.yml"
    inputs = {"shards": "shards", "model": os.path.relpath(ROOT)}
    report = parallel(component, inputs, Path("out"), nodes=1)
    assert report.succeeded == 1
    assert len(rows_of(tmp_path / "out/vectors")) == 1


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        deployment = str(ONLINE / "deployment-cpu.yml")
        assert main(["azure", "simulate", "online", deployment, "--port", port]) == 2
    assert f"port {port}: Address already in use" in capsys.readouterr().err


def test_what_a_lost_shard_leaves_out_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "table.csv", [[str(n), "", f"thing {n}"] for n in range(4)])
    shards, results = tmp_path / "shards", tmp_path / "results"
    main(["split", str(table), "--rows", "2", "--output", str(shards)])
    command = ["azure", "simulate", "parallel", str(ROOT / "components/pipeline/embed.yml")]
    inputs = ["--input", f"shards={shards}", "--input", f"model={ROOT}"]
    main([*command, *inputs, "--output", str(results), "--nodes", "1"])
    next((results / "vectors").glob("table-000001-*")).unlink()
    capfd.readouterr()
    assert main(["merge", str(shards), str(results / "vectors")]) == 1
    assert "no whole result of table-000001.csv" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"shards": "x"}, "input 'model' is missing"),
        ({"shards": "x", "model": "y", "modle": "z"}, "no input 'modle'"),
        ({"shards": "nowhere", "model": "y"}, "nowhere is no folder with files in it"),
    ],
)
def test_inputs_that_are_wrong_are_named(inputs: dict[str, str], said: str, tmp_path: Path) -> None:
    component = ROOT / "components/pipeline/embed.yml"
    with pytest.raises(AzureError, match=said):
        parallel(component, inputs, tmp_path / "out")


# -- scripts that misbehave --------------------------------------------------------------------

SCRIPTS = {
    "sleeps": (
        "def init(): pass\ndef run(files):\n import time; time.sleep(60)",
        "no answer within",
    ),
    "raises": (
        "def init(): pass\ndef run(files): raise ValueError('no luck')",
        "ValueError: no luck",
    ),
    "exits": (
        "def init(): pass\ndef run(files):\n import os; os._exit(3)",
        "its process ended with 3",
    ),
    "returns nothing": ("def init(): pass\ndef run(files): return []", "returned 0 items for 1"),
    "returns a number": (
        "def init(): pass\ndef run(files): return 7",
        "must return a list or a Da",
    ),
}


def job(tmp_path: Path, script: str, **changes: object) -> Job:
    file = tmp_path / "script.py"
    file.write_text(script)
    settings = {
        "script": file, "arguments": (), "environment": {}, "nodes": 1, "processes": 1,
        "mini_batch": 1, "retries": 1, "timeout": 1.0, "error_threshold": -1,
    }  # fmt: skip
    return Job(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_file_is_tried_again_and_then_given_up_with_the_reason(name: str, tmp_path: Path) -> None:
    script, said = SCRIPTS[name]
    report = run(job(tmp_path, script), [tmp_path / "one.csv"])
    assert said in report.reasons["one.csv"]
    assert report.failed == 1
    assert report.succeeded == 0
    assert report.retried == (0 if name == "returns nothing" else 1)


@pytest.mark.parametrize(
    "script", ["def init(): raise OSError('no model')", "import nowhere", "1 +"]
)
def test_a_script_that_does_not_start_ends_the_job(script: str, tmp_path: Path) -> None:
    with pytest.raises(AzureError, match=r"init\(\) failed: \w+"):
        run(job(tmp_path, script), [tmp_path / "one.csv"])


def test_a_process_is_missed_though_its_child_lives_on(tmp_path: Path) -> None:
    script = (
        "import os, subprocess\n"
        "def init(): pass\n"
        "def run(files):\n subprocess.Popen(['sleep', '60'], close_fds=False); os._exit(3)\n"
    )
    report = run(job(tmp_path, script, retries=0, timeout=30.0), [tmp_path / "one.csv"])
    assert report.reasons == {"one.csv": "its process ended with 3"}


def test_a_job_that_is_ended_while_others_begin_has_a_report(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "def init():\n time.sleep(0 if os.environ['AZ_BATCH_NODE_ID'] == 'node-0' else 30)\n"
        "def run(files): return []\n"
    )
    files = [tmp_path / f"{n}.csv" for n in range(9)]
    report = run(job(tmp_path, script, nodes=3, error_threshold=0), files)
    assert report.stopped
    assert (report.failed, report.untried, report.retried) == (1, 8, 0)
    assert "8 not tried to the end" in str(report)


def test_rows_with_line_breaks_are_appended_whole(tmp_path: Path) -> None:
    script = (
        "import pandas as pd\n"
        "def init(): pass\n"
        "def run(files):\n"
        " return pd.DataFrame({'a': files, 'b': ['one\\ntwo\\u2028three'] * len(files)})\n"
    )
    append = tmp_path / "rows.csv"
    made = job(tmp_path, script, mini_batch=2, append_to=append, timeout=30.0)
    report = run(made, [tmp_path / "1.csv", tmp_path / "2.csv"])
    assert report.succeeded == 2
    with append.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert [row[1] for row in rows] == ["one\ntwo\u2028three"] * 2


def test_an_interrupted_job_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yml"
    text = (BATCH / "deployment-cpu.yml").read_text(encoding="utf-8")
    text = text.replace("code: ../..", f"code: {tmp_path}").replace("score/shards.py", "sleeps.py")
    file.write_text(text, encoding="utf-8")
    (tmp_path / "sleeps.py").write_text(
        "import os, time\n"
        f"def init(): open({str(tmp_path)!r} + f'/pid-{{os.getpid()}}', 'x').close()\n"
        "def run(files): time.sleep(600)\n"
    )
    folder = tmp_path / "csvs"
    folder.mkdir()
    write(folder / "one.csv", [["0", "", "a"]])
    command = [sys.executable, "-m", "score", "azure", "simulate", "batch", str(file)]
    command += ["--input", str(folder), "--output", str(tmp_path / "out"), "--model", str(ROOT)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 60
        while not (pids := list(tmp_path.glob("pid-*"))) and time.monotonic() < give_up:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr
        assert "Traceback" not in process.stderr.read()
    pid = int(pids[0].name.removeprefix("pid-"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_init_runs_once_a_process_and_print_is_harmless(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "def init():\n print('{}'); open(f'{os.getpid()}.init', 'x').close()\n"
        "def run(files):\n print('noise'); return [f'{os.getpid()} {file}' for file in files]\n"
    )
    files = [tmp_path / f"{n}.csv" for n in range(9)]
    append = tmp_path / "lines.txt"
    made = job(tmp_path, script, processes=3, mini_batch=2, append_to=append, folder=tmp_path)
    report = run(made, files)
    assert report.succeeded == 9
    lines = append.read_text().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(map(str, files))
    assert 1 <= len(list(tmp_path.glob("*.init"))) <= 3
    assert {line.split()[0] for line in lines} <= {file.stem for file in tmp_path.glob("*.init")}


def test_a_machine_is_no_larger_than_its_size(tmp_path: Path) -> None:
    """Cores and memory are the process's own to see."""
    script = (
        "import os, resource\n"
        "def init(): pass\n"
        "def run(files):\n"
        " cores, limit = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_DATA)\n"
        " return [f'{len(cores)} {limit[0]}']\n"
    )
    machine = Machine.like(lookup("Standard_DS2_v2"))
    append = tmp_path / "lines.txt"
    made = job(tmp_path, script, append_to=append, prefix=machine.command(1, ()), timeout=20.0)
    run(made, [tmp_path / "one.csv"])
    cores, memory = map(int, append.read_text().split())
    assert cores <= 2
    assert memory == 7 * 2**30


# -- real-time ---------------------------------------------------------------------------------


def ask(deployment: str, requests: list[Json], tmp_path: Path, *more: str) -> int:
    files = []
    for number, body in enumerate(requests):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(body))
        files += ["--request", str(file)]
    port = ["--port", str(free_port())]
    return main(["azure", "simulate", "online", str(ONLINE / deployment), *port, *files, *more])


def seeds_requests() -> list[Json]:
    """As the catalog's page of Azure's CLIP prints them, with and without `index`."""
    one, two = in_base64(random_image(1)), in_base64(random_image(2))
    columns, bodies = ["image", "text"], []
    for data in (
        [[one, ""], [two, ""]],
        [["", "sample text 1"], ["", "sample text 2"]],
        [[one, "sample text 1"], [two, "sample text 2"]],
    ):
        bodies.append({"input_data": {"columns": columns, "index": [0, 1], "data": data}})
        bodies.append({"input_data": {"columns": columns, "data": data}})
    return bodies  # type: ignore[return-value]


@pytest.mark.parametrize("deployment", ["deployment-cpu.yml", "deployment-nocode.yml"])
def test_the_catalogs_requests_are_answered(
    deployment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(deployment, seeds_requests(), tmp_path) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if ".json: " in line]
    answers = [json.loads(line.partition(": 200 ")[2]) for line in lines]
    keys = [{"image_features"}, {"text_features"}, {"image_features", "text_features"}]
    for number, answer in enumerate(answers):
        assert [set(record) for record in answer] == [keys[number // 2]] * 2
        assert all(len(vector) == 512 for record in answer for vector in record.values())
    # The same sums, though not bit for bit: their order may depend on where matrices lie in memory.
    for one, again in zip(answers[0], answers[1], strict=True):
        assert one["image_features"] == pytest.approx(again["image_features"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("kind", ["online", "batch"])
def test_deployments_leave_the_precision_to_the_machine(kind: str, device: str) -> None:
    """Else a deployment would compute other vectors than `score serve` on the same machine."""
    content = yaml.safe_load((ROOT / f"components/{kind}/deployment-{device}.yml").read_text())
    variables = content.get("environment_variables") or content["settings"]["environment_variables"]
    assert "SCORE_DEVICE" in variables
    assert "SCORE_PRECISION" not in variables


def test_deployments_compute_in_the_precision_of_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In bf16. That they compute fp32's vectors where that is asked for: see the tests of the
    contract, of a no-code server, and above of a file."""
    monkeypatch.setenv("SCORE_PRECISION", "bf16")
    # What `score serve`, `score embed` and pyfunc load.
    vectors = {
        name: Embedder.load(settings=Settings.from_env({"SCORE_PRECISION": name})).embed_text(
            "a cat"
        )
        for name in ("fp32", "bf16")
    }
    data = {"input_data": {"columns": ["text"], "data": [["a cat"]]}}
    folder = tmp_path / "csvs"
    folder.mkdir()
    write(folder / "one.csv", [["a cat"]], ("text",))
    answers = []
    for deployment in ("deployment-cpu.yml", "deployment-nocode.yml"):
        assert ask(deployment, [data], tmp_path) == 0
        (line,) = (line for line in capfd.readouterr().out.splitlines() if ": 200 " in line)
        answers.append(json.loads(line.partition(": 200 ")[2])[0]["text_features"])
    batch(BATCH / "deployment-cpu.yml", folder, tmp_path / "out", model=ROOT)
    answers.append(rows_of(tmp_path / "out")[0]["text_features"])
    for answer in answers:
        apart = {name: np.abs(np.array(answer) - vector).max() for name, vector in vectors.items()}
        assert apart["bf16"] < apart["fp32"]
        assert apart["bf16"] < 1e-2 * np.abs(vectors["bf16"]).max()


def test_a_bad_request_is_a_bad_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask("deployment-cpu.yml", [{"input_data": {"columns": ["x"], "data": [[""]]}}], tmp_path)
    said = capfd.readouterr().out
    assert "0.json: 424 (the container's 400) {" in said
    assert "bad_columns" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["batch", "nowhere.yml", "--input", ".", "--output", "out"], "cannot be read"),
        (["online", str(BATCH / "deployment-cpu.yml")], "is no managedOnlineDeployment"),
        (["online", str(ONLINE / "deployment-cpu.yml"), "--model", "none"], "no model folder none"),
        (["online", str(ONLINE / "deployment-cpu.yml"), "--sku", "Standard_DS2"], "did you mean"),
    ],
)
def test_what_cannot_be_run_is_a_sentence_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["azure", "simulate", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("script", ["online", "batch", "shards"])
def test_a_fresh_interpreter_imports_entry_scripts_by_their_path(
    script: str, tmp_path: Path
) -> None:
    """Azure's runners know the script's path, and not the project; Azure's libraries work on."""
    site = Path(pd.__file__).parent.parent
    code = (
        "import sys, importlib.util as u\n"
        f"sys.path[:0] = [{str(ROOT / 'score')!r}, {str(site)!r}]\n"
        f"s = u.spec_from_file_location('m', {str(ROOT / f'score/{script}.py')!r})\n"
        "m = sys.modules['m'] = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "import azure.core, score; print(score.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(ROOT / "score/__init__.py"), done.stderr


# -- the smallest size -------------------------------------------------------------------------

SMALLEST = "Standard_DS2_v2"  # 2 vCPUs, 7 GiB


@pytest.fixture(scope="module")
def b32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-B/32 in its full size, random."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    return random_checkpoint.write(folder, ARCHITECTURES["ViT-B-32-quickgelu"])


def test_vit_b_32_answers_a_large_request_on_the_smallest_size(
    b32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = in_base64(random_image(size=(640, 480), format="JPEG"))
    body: Json = {"input_data": {"columns": ["image", "text"], "data": [[photo, "a cat"]] * 64}}
    sku, model = ["--sku", SMALLEST], ["--model", str(b32)]
    assert ask("deployment-cpu.yml", [body], tmp_path, *sku, *model) == 0
    answer = json.loads(capfd.readouterr().out.splitlines()[-1].partition(": 200 ")[2])
    assert [len(record["image_features"]) for record in answer] == [512] * 64


def test_vit_b_32_embeds_a_file_on_the_smallest_size(b32: Path, tmp_path: Path) -> None:
    photo = in_base64(random_image(size=(640, 480), format="JPEG"))
    folder = tmp_path / "csvs"
    folder.mkdir()
    write(folder / "one.csv", [[str(n), photo, "a cat"] for n in range(100)])
    machine = Machine.like(lookup(SMALLEST))
    deployment = BATCH / "deployment-cpu.yml"
    report = batch(deployment, folder, tmp_path / "out", model=b32, machine=machine)
    assert report.succeeded == 1
    assert len([row for row in rows_of(tmp_path / "out") if row["image_features"]]) == 100


def test_memory_is_held_to_the_size(b32: Path, tmp_path: Path) -> None:
    """The limit is one: a machine that is too small for the model does not run it."""
    folder = tmp_path / "csvs"
    folder.mkdir()
    write(folder / "one.csv", [["0", "", "a cat"]])
    tight = Machine(cores=2, memory=200 * 2**20)
    with pytest.raises(AzureError, match=r"init\(\) failed"):
        batch(BATCH / "deployment-cpu.yml", folder, tmp_path / "out", model=b32, machine=tight)
