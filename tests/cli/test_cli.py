"""The command line as a whole: what it refuses and when, what it says of mistyped words, and its
one rule for outputs that are there already. What the verbs do has tests of its own."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.__main__ import main
from score.cli import VERBS
from score.core.embedder import Embedder
from score.errors import RequestError
from score.index.build import build_index
from score.jobs.merge import JobReport
from score.settings import Settings, names
from score.storage import atomic
from score.storage.outputs import EXISTS, check_folder
from tests.support.images import ALBUM, random_image
from tests.support.surfaces import ROOT

PNG = random_image(3)
ONTOLOGY = str(ALBUM / "ontology.json")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an input for each verb."""
    monkeypatch.chdir(tmp_path)
    write("in.csv", ["id", "text"], ["1", "a cat"], ["2", "an owl"])
    write("images.csv", ["image", "text"], ["images/a.png", "a"])
    write("nothing.csv", ["url"], ["x"])
    Path("images").mkdir()
    Path("images/a.png").write_bytes(PNG)
    Path("empty").mkdir()
    vectors = pa.array([[1.0] * 512, [2.0] * 512], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["1", "2"], "image_features": vectors}), "vectors.parquet")
    build_index(Path("vectors.parquet"), Path("index"))
    Path("bad.json").write_text("{")
    Path("many.json").write_text(json.dumps([f"label {n}" for n in range(20)]))
    return tmp_path


def write(name: str, *lines: list[Any]) -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    capsys.readouterr()
    try:
        code: Any = main(arguments)
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err


# -- before the model is loaded ----------------------------------------------------------------

LABEL = ["label", "images", "--ontology", ONTOLOGY]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["embed", "gone.csv", "--output", "x.csv"], "no such file or folder"),
        (["embed", "nothing.csv", "--output", "x.csv"], "no column"),
        (["embed", "index", "--output", "x.csv"], "no image below index"),
        (["embed", "empty", "--output", "x.csv"], "no image below"),
        (["embed", "in.csv", "--output", "x.xlsx"], "must end in .parquet"),
        (["embed", "in.csv", "--output", "run.v2"], "where a slash follows it: run.v2/"),
        (["embed", "in.csv", "--output", "in.csv"], "would replace the input"),
        (["embed", "in.csv", "--output", "vectors.parquet"], EXISTS),
        (["embed", "in.csv", "--output", "in.csv/x.csv"], "in.csv is not a folder"),
        (["label", "gone", "--ontology", ONTOLOGY, "--output", "x"], "no such file or folder"),
        (["label", "in.csv", "--ontology", ONTOLOGY, "--output", "x"], "no column 'image'"),
        (["label", "images", "--ontology", "gone", "--output", "x"], "no such file"),
        (["label", "images", "--ontology", "bad.json", "--output", "x"], "is not JSON"),
        (
            ["label", "images", "--ontology", "many.json", "--output", "x", "--max-prompts", "9"],
            "many.json has 20 prompts; at most 9",
        ),
        ([*LABEL, "--output", "index"], EXISTS),
        ([*LABEL, "--output", "in.csv"], EXISTS),
        ([*LABEL, "--output", "in.csv/x"], "in.csv is not a folder"),
        ([*LABEL, "--output", "x", "--top", "0"], "not a whole number from 1"),
        (["evaluate", "retrieval", "in.csv"], "no column 'image'"),
        (["evaluate", "retrieval", "gone.csv"], "no such file"),
        (["evaluate", "zeroshot", "images"], "no class folders"),
        (["evaluate", "retrieval", "images.csv", "--output", "bad.json"], EXISTS),
        (["search", "gone", "a cat"], "gone holds no index"),
        (["search", "index"], "a text or --image IMAGE"),
        (["search", "index", "a cat", "--image", "images/a.png"], "a text or --image IMAGE"),
        (["search", "index", "--image", "gone.png"], "no such file: gone.png"),
        (["search", "index", "gone.png"], "no such file: gone.png"),
        (["search", "index", "a cat", "--where", "price <"], "the condition 'price <' cannot be"),
        (["search", "index", "a cat", "--output", "in.csv"], EXISTS),
        (["search", "index", "a cat", "--output", "images"], "images is a folder"),
        (["index", "vectors.parquet", "--output", "x", "--append", "--export", "npy"], "neither"),
        (["index", "vectors.parquet", "--output", "index", "--append", "--overwrite"], "neither"),
        (["index", "images", "--output", "x"], "no .parquet file below images"),
        (["index", "gone.parquet", "--output", "x"], "no such file or folder"),
        (["search", "index", "a cat", "--top", "x"], "not a whole number from 1"),
        (["search", "index", "a cat", "--model", "gone"], "no model folder at gone"),
        (["serve", "--port", "70000"], "not a port from 1 to 65535"),
        (["serve", "--host", "host.invalid"], "host.invalid, port 5001: "),
        (["package", str(ROOT / "model"), "--output", "index"], EXISTS),
        (["package", str(ROOT / "model"), "--output", "in.csv"], "is a file"),
        (["package", str(ROOT / "model"), "--output", "in.csv/x"], "in.csv is not a folder"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_model_is_loaded(
    arguments: list[str],
    says: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Embedder, "load", load)
    monkeypatch.setattr("score.package.build.find", load)
    before = sorted(path.name for path in here.rglob("*"))
    code, message = said(capsys, *arguments)
    assert code == 2
    assert says in message
    assert "Traceback" not in message
    assert sorted(path.name for path in here.rglob("*")) == before


def test_a_folder_that_cannot_be_written_to_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as tests may be, can write anywhere
    code, message = said(capsys, "embed", "in.csv", "--output", "deep/x.csv")
    assert (code, "is not writable" in message) == (2, True)


def test_a_port_that_is_in_use_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = said(capsys, "serve", "--port", str(port))
    assert code == 2
    assert f"127.0.0.1, port {port}: Address already in use; choose another with --port" in message


def test_an_address_of_another_machine_is_told_which_flag_it_is_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, message = said(capsys, "serve", "--host", "192.0.2.1")
    assert code == 2
    assert message.endswith("; --host must be an address of this machine\n")


def test_vectors_of_another_model_are_refused_before_it_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    short = pa.array([[1.0, 2.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"image_features": short}), "short.parquet")
    build_index(Path("short.parquet"), Path("short"))
    code, message = said(capsys, "search", "short", "a cat")
    assert (code, "holds vectors of 2 numbers, the query has 512" in message) == (2, True)


def test_an_index_of_another_model_is_refused_before_it_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    about = {"score.model": "other", "score.fingerprint": "0123456789ab"}
    rows = pq.read_table("vectors.parquet").replace_schema_metadata(about)
    pq.write_table(rows, "other.parquet")
    build_index(Path("other.parquet"), Path("other"))
    code, message = said(capsys, "search", "other", "a cat")
    assert code == 2
    assert "vectors of the model 'other' (fingerprint 0123456789ab), the query is of" in message
    assert message.count("\n") == 1


# -- outputs that are there already ------------------------------------------------------------


def shards() -> None:
    assert main(["split", "in.csv", "--output", "shards"]) == 0
    from score import shards as script

    os.environ["AZUREML_BI_OUTPUT_PATH"] = "results"
    sys.argv = ["shards.py"]
    script.init()
    script.run([str(file) for file in Path("shards").iterdir()])


OUTPUTS = {
    "embed parquet": (["embed", "in.csv", "--output", "o.parquet"], ["o.parquet"]),
    "embed csv": (["embed", "in.csv", "--output", "o.csv"], ["o.csv"]),
    "embed jsonl": (["embed", "in.csv", "--output", "o.jsonl"], ["o.jsonl"]),
    "embed npy": (
        ["embed", "in.csv", "--output", "o.npy"],
        ["o.text_features.npy", "o.rows.csv"],
    ),
    "embed folder": (["embed", "images", "--output", "o.csv"], ["o.csv"]),
    "label csv": ([*LABEL, "--output", "o.csv"], ["o.csv"]),
    "label folder": ([*LABEL, "--output", "o"], ["o/labels.csv"]),
    "evaluate": (
        ["evaluate", "retrieval", "images.csv", "--output", "o.json"],
        ["o.json", "o.html"],
    ),
    "split": (["split", "in.csv", "--output", "o"], ["o/in-000000.csv"]),
    "merge": (
        ["merge", "shards", "results", "--output", "o.parquet", "--report", "o.json"],
        ["o.parquet", "o.json"],
    ),
    "index": (["index", "vectors.parquet", "--output", "o"], ["o/index.json"]),
    "index export": (
        ["index", "vectors.parquet", "--output", "o", "--export", "npy"],
        ["o/vectors.npy", "o/rows.parquet"],
    ),
    "search": (["search", "index", "a cat", "--output", "o.json"], ["o.json"]),
    "package": (["package", str(ROOT / "model"), "--output", "o"], ["o/MLmodel"]),
    "azure render": (
        ["azure", "render", "online", "--sku", "Standard_D4as_v4", "--output", "o.yml"],
        ["o.yml"],
    ),
}


_PACKAGE = pytest.param("package", marks=pytest.mark.slow)


@pytest.mark.parametrize("verb", [*(verb for verb in OUTPUTS if verb != "package"), _PACKAGE])
def test_an_output_that_is_there_is_refused_and_overwritten_when_asked(
    verb: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, written = OUTPUTS[verb]
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("AZUREML_BI_OUTPUT_PATH", "results")
    if verb == "merge":
        shards()
    assert main(arguments) == 0
    for name in written:  # any one of several is enough
        kept = {other: Path(other).read_bytes() for other in written if other != name}
        older = Path(name).read_bytes() + b"older"
        Path(name).write_bytes(older)
        for other in kept:
            if Path(other).parent == Path():
                Path(other).unlink()
        code, message = said(capsys, *arguments)
        assert code == 2
        assert EXISTS in message
        assert message.count("\n") == 1
        assert Path(name).read_bytes() == older
        for other, content in kept.items():
            Path(other).write_bytes(content)
        assert main([*arguments, "--overwrite"]) == 0
        assert Path(name).read_bytes() != older
    left = {path.name for path in here.rglob(".*")}
    assert left <= {".pytest_cache", ".amlignore"}, "the latter is of a package"
    assert not [*here.rglob("*.part")]


@pytest.mark.parametrize(
    "verb", ["label folder", "split", "index", _PACKAGE], ids=lambda verb: verb.split()[0]
)
@pytest.mark.parametrize("more", ["letter.txt", ".git/config"])
def test_only_what_such_a_job_wrote_is_overwritten(
    verb: str, more: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, _ = OUTPUTS[verb]
    assert main(arguments) == 0
    Path("o", more).parent.mkdir(exist_ok=True)
    Path("o", more).write_text("mine")
    code, message = said(capsys, *arguments, "--overwrite")
    assert (code, "holds what no such job wrote" in message) == (2, True)
    assert Path("o", more).read_text() == "mine"


@pytest.mark.parametrize(
    ("verb", "files"),
    [
        ("label folder", {"labels.csv": "image,label\na.png,cat\n", "cat/a.png": ""}),
        ("label folder", {"labels.csv": "\0", "cat/a.png": ""}),
        ("split", {"sales-20240101.csv": "", "sales-20240102.csv": ""}),
        ("split", {"in-000000.csv": "", "other-000001.csv": ""}),
        ("index", {"vectors.npy": ""}),
        ("index", {"rows.parquet": ""}),
    ],
)
def test_a_folder_that_only_looks_like_ours_is_not_overwritten(
    verb: str, files: dict[str, str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        Path("o", name).parent.mkdir(parents=True, exist_ok=True)
        Path("o", name).write_text(text)
    code, message = said(capsys, *OUTPUTS[verb][0], "--overwrite")
    assert (code, "holds what no such job wrote" in message) == (2, True)
    assert {name: Path("o", name).read_text() for name in files} == files


def test_many_shards_are_overwritten(here: Path) -> None:
    arguments = ["split", "in.csv", "--output", "o", "--rows", "1"]
    assert main(arguments) == 0
    assert main([*arguments[:-1], "9", "--overwrite"]) == 0
    assert [path.name for path in Path("o").iterdir()] == ["in-000000.csv"]


def test_what_comes_to_a_place_meanwhile_is_not_lost(here: Path) -> None:
    """A job may take hours, and its folder was empty when it began."""
    with atomic.contents(Path("o")) as begun:
        Path(begun, "new").write_text("")
        Path("o/mine").write_text("mine")
    assert sorted(path.name for path in Path("o").iterdir()) == ["mine", "new"]
    check = partial(check_folder, Path("o"), lambda content: True)
    with pytest.raises(RequestError, match="is there already"), atomic.folder(Path("o"), check):
        pass
    assert Path("o/mine").read_text() == "mine"


def test_what_is_overwritten_comes_back_where_the_new_cannot_be_put(here: Path) -> None:
    Path("o").mkdir()
    Path("o/old").write_text("old")
    with pytest.raises(FileNotFoundError), atomic.folder(Path("o")) as new:
        new.rmdir()
    assert Path("o/old").read_text() == "old"
    assert not [*here.glob(".o*")]


def test_an_older_kind_of_vector_does_not_outlive_its_output(here: Path) -> None:
    """`--overwrite` leaves no array of another table beside the new ones."""
    assert main(["embed", "images.csv", "--output", "o.npy"]) == 0
    assert Path("o.image_features.npy").exists()
    assert main(["embed", "in.csv", "--output", "o.npy", "--overwrite"]) == 0
    assert not Path("o.image_features.npy").exists()
    assert np.load("o.text_features.npy").shape == (2, 512)


def test_what_is_overwritten_stays_where_the_new_fails(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", "in.csv", "--output", "o"]) == 0
    before = Path("o/in-000000.csv").read_bytes()
    Path("in.csv").write_text('text\n"open')
    assert said(capsys, "split", "in.csv", "--output", "o", "--overwrite")[0] == 2
    assert [path.name for path in Path("o").iterdir()] == ["in-000000.csv"]
    assert Path("o/in-000000.csv").read_bytes() == before


def test_what_a_killed_job_left_is_no_hindrance(here: Path) -> None:
    Path("o/.vectors.npy.0123abcd-1-0123abcd.part").mkdir(parents=True)
    assert main(["index", "vectors.parquet", "--output", "o"]) == 0


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_an_input_is_never_overwritten(
    more: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("o").mkdir()
    Path("o/in.csv").write_bytes(Path("in.csv").read_bytes())
    for arguments in (
        ["embed", "in.csv", "--output", "in.csv"],
        ["label", "images.csv", "--ontology", ONTOLOGY, "--output", "images.csv"],
        ["split", "o/in.csv", "--output", "o"],
        ["merge", "o", "o", "--report", "o/in.csv"],
    ):
        code, message = said(capsys, *arguments, *more)
        assert code == 2
        assert "would replace the input" in message or (not more and EXISTS in message)
    assert Path("o/in.csv").read_bytes() == Path("in.csv").read_bytes()


# -- what goes in ------------------------------------------------------------------------------


def test_a_folder_of_images_is_embedded(here: Path, embedder: Embedder) -> None:
    Path("images/deep").mkdir()
    Path("images/deep/b.jpg").write_bytes(random_image(4, format="JPEG"))
    Path("images/bad.png").write_bytes(b"no image")
    Path("images/notes.txt").write_text("passed over")
    assert main(["embed", "images", "--output", "o.parquet"]) == 0
    rows = pq.read_table("o.parquet").to_pylist()
    assert [row["image"] for row in rows] == ["a.png", "bad.png", "deep/b.jpg"]
    assert [row["error_code"] for row in rows] == [None, "not_an_image", None]
    for row in (rows[0], rows[2]):
        alone = embedder.embed_image(Path("images") / row["image"])
        np.testing.assert_allclose(row["image_features"], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "npy"])
def test_a_table_that_we_wrote_may_go_in_again(
    ending: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "in.csv", "--output", "first.csv"]) == 0
    code, message = said(capsys, "embed", "first.csv", "--output", f"second.{ending}")
    assert code == 0
    gone = "image_features, text_features, error_code, error_message, error_retryable"
    assert f"first.csv is a table of results: its columns {gone} are replaced" in message
    assert main(["embed", "in.csv", "--output", f"fresh.{ending}"]) == 0
    for name in Path().glob("fresh.*"):
        other = Path(name.name.replace("fresh", "second"))
        assert other.read_bytes() == name.read_bytes(), name


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_results_of_a_folder_may_go_in_again_with_its_root(
    ending: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "images", "--output", "first.parquet"]) == 0
    assert main(["embed", "images", "--output", "first.csv"]) == 0
    command = ["embed", f"first.{ending}", "--output", "second.parquet"]
    code, message = said(capsys, *command, "--root", "images")
    assert code == 0, message
    assert f"first.{ending} is a table of results" in message
    assert Path("second.parquet").read_bytes() == Path("first.parquet").read_bytes()
    code, message = said(capsys, "embed", "images", "--output", "o.csv", "--root", "images")
    assert (code, "--root is for tables" in message) == (2, True)
    code, message = said(capsys, "embed", "first.csv", "--output", "o.csv", "--root", "nowhere")
    assert (code, "no such folder: nowhere" in message) == (2, True)


def test_parquet_tables_are_embedded_as_csv_ones(here: Path) -> None:
    kept = {"n": [1, 2], "tags": [["a", "b"], None], "text": ["a red apple", None]}
    pq.write_table(pa.table(kept), "in.parquet")
    assert main(["embed", "in.parquet", "--output", "o.jsonl"]) == 0
    first, second = (json.loads(line) for line in Path("o.jsonl").read_text().splitlines())
    assert (first["n"], first["tags"], len(first["text_features"])) == (1, '["a", "b"]', 512)
    assert (second["tags"], second["error"]["code"]) == (None, "empty_row")


def test_columns_of_one_name_are_all_kept_from_parquet(here: Path) -> None:
    columns = [["a red apple"], ["first"], ["second"]]
    pq.write_table(pa.table(columns, names=["text", "id", "id"]), "in.parquet")
    assert main(["embed", "in.parquet", "--output", "o.jsonl"]) == 0
    (line,) = map(json.loads, Path("o.jsonl").read_text().splitlines())
    assert (line["id"], line["id.1"], len(line["text_features"])) == ("first", "second", 512)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"Text": ["a"]}, "'Text' must be spelled 'text'"),
        ({"n": [1]}, "no column 'image' or 'text'"),
        (None, "is no readable parquet table"),
    ],
)
def test_parquet_that_cannot_be_embedded_is_refused(
    table: dict[str, list[object]] | None,
    says: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if table:
        pq.write_table(pa.table(table), "in.parquet")
    else:
        Path("in.parquet").write_bytes(b"PAR1 nonsense")
    code, message = said(capsys, "embed", "in.parquet", "--output", "o.csv")
    assert (code, says in message) == (2, True), message


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("url,caption", "the columns are 'url', 'caption'; --columns image=NAME,text=NAME names "),
        ("Text,n", "'Text' must be spelled 'text'; --columns image=NAME,text=NAME names columns "),
        ("text,text", "score: the column 'text' appears 2 times: one must remain\n"),
        ("image;text", "is 'image;text': columns are separated by commas, not by ';'"),
        ("image\ttext", "columns are separated by commas, not by '\\t'"),
    ],
)
def test_tables_of_others_are_refused_with_a_way_on(
    header: str, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text(f"{header}\na,b\n")
    code, message = said(capsys, "embed", "in.csv", "--output", "o.csv")
    assert (code, says in message) == (2, True), message


def test_the_exit_code_of_failed_rows_is_explained(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("image,text\n,a\nno image,\n")
    code, message = said(capsys, "embed", "in.csv", "--output", "o.csv", "--max-errors", "0")
    assert (code, "exit code 1: 1 failed; --max-errors allows 0" in message) == (1, True)
    Path("in.csv").write_text("image\nno image\n")
    code, message = said(capsys, "embed", "in.csv", "--output", "p.csv")
    assert (code, "exit code 1: 1 failed; no row succeeded" in message) == (1, True)
    assert main(["embed", "in.csv", "--output", "p.csv", "--overwrite", "--max-errors", "1"]) == 0


@pytest.mark.parametrize("name", ["in.json", "in.npy"])
def test_other_formats_are_refused_by_name(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text('{"text": "a"}\n')
    code, message = said(capsys, "embed", name, "--output", "o.csv")
    assert (code, f"{name} is no CSV" in message) == (2, True)


def test_a_labelled_table_may_be_labelled_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["label", "images.csv", "--ontology", ONTOLOGY, "--output"]
    assert main([*arguments, "first.csv"]) == 0
    arguments[1] = "first.csv"
    code, message = said(capsys, *arguments, "second.csv")
    assert code == 0
    assert "first.csv is a table of results: its columns label, confidence, error_code" in message
    assert Path("second.csv").read_bytes() == Path("first.csv").read_bytes()


def test_a_column_of_the_users_own_is_not_dropped(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("own.csv", ["text", "error_code"], ["a", "mine"])
    code, message = said(capsys, "embed", "own.csv", "--output", "o.csv")
    assert (code, "already has a column 'error_code'" in message) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "web.csv", "--output", "o.csv"],
        ["label", "web.csv", "--ontology", ONTOLOGY, "--output", "o.csv"],
        ["evaluate", "retrieval", "web.csv"],
    ],
)
def test_images_that_are_all_on_private_addresses_are_told_how_to_allow(
    arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("web.csv", ["image", "text"], *[[f"http://127.0.0.1:1/{n}.png", "a"] for n in range(3)])
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "--allow-hosts NAME|ADDRESS|RANGE (SCORE_ALLOW_HOSTS)" in captured.out + captured.err
    write("web.csv", ["image", "text"], ["http://127.0.0.1:1/a.png", "a"], ["images/a.png", "b"])
    main([*arguments, *(["--overwrite"] if arguments[0] != "evaluate" else [])])
    captured = capsys.readouterr()
    assert "--allow-hosts" not in captured.out + captured.err


def test_a_divided_job_tells_it_too() -> None:
    blocked = JobReport(shards=1, rows=3, failed={"blocked_host": 2, "empty_row": 1})
    assert "--allow-hosts" in str(blocked)
    assert "--allow-hosts" not in str(JobReport(shards=1, rows=3, good=1, failed=blocked.failed))
    assert "--allow-hosts" not in str(JobReport(shards=1, rows=1, failed={"empty_row": 1}))


# -- mistyped words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["embde"], "there is no 'embde'"),
        (["embde"], "did you mean embed?"),
        (["xyz"], "only embed, label, "),
        (["azure", "pln"], "did you mean plan?"),
        (["evaluate", "retreival", "x.csv"], "did you mean retrieval?"),
        (["azure", "simulate", "onlin", "x.yml"], "did you mean online?"),
        (["embed", "in.csv", "--ouptut", "x.csv"], "no --ouptut; did you mean --output?"),
        (["embed", "in.csv", "-output", "x.csv"], "no -output; did you mean --output?"),
        (["embed", "in.csv", "--output", "x.csv", "--allow-host", "a"], "--allow-hosts?"),
        (["embed", "in.csv", "--output", "x.csv", "--BATCH-SIZE=4"], "--batch-size?"),
        (["label", "images", "--ontolgy", "x", "--output", "x"], "did you mean --ontology?"),
        (["evaluate", "retrieval", "x.csv", "--quite"], "did you mean --quiet?"),
        (["merge", "a", "b", "--rapport", "x"], "did you mean --report?"),
        (["azure", "plan", "--skus", "x"], "did you mean --sku?"),
        (["serve", "--prot", "80"], "did you mean --port?"),
        (["search", "index", "--zzz"], "there is no --zzz\n"),
        (["catalog", "openai-vit-b32"], "did you mean openai-vit-b-32?"),
        (["azure", "plan", "--model", "openai-vit-b32"], "did you mean openai-vit-b-32?"),
    ],
)
def test_a_mistyped_word_is_named_with_what_was_meant(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = said(capsys, *arguments)
    assert code == 2
    assert says in message


def test_values_are_not_taken_for_flags(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "index", "--", "--a cat"]) == 0
    assert main(["search", "index", "--a red cat"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"score {version('clip-endpoints')}\n"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SCORE_ALLOW_HOST", "SCORE_ALLOW_HOSTS"),
        ("SCORE_PRECISON", "SCORE_PRECISION"),
        ("SCORE_Batch_Size", "SCORE_BATCH_SIZE"),
        ("SCORE_OF_THE_MATCH", None),
    ],
)
def test_an_unknown_variable_is_warned_of(
    variable: str, meant: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.from_env({variable: "x", "SCORE_BATCH_SIZE": "7"}).batch_size == 7
    hint = f"; did you mean {meant}?" if meant else ""
    assert caplog.messages == [f"{variable} is no setting, and is ignored{hint}"]
    caplog.clear()
    Settings.from_env({f"SCORE_{name.upper()}": "" for name in names()} | {"SCORES": "1"})
    assert not caplog.messages


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--help", "embed"], ["-h", "embed"], ["-h", "azure", "plan"]]
)
def test_help_without_a_verb_before_it_lists_all_verbs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    listed = re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert listed == list(VERBS)


def test_a_library_that_a_verb_imports_and_is_missing_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr("score.__main__.importlib.import_module", missing)
    assert said(capsys, "azure", "plan") == (
        2,
        "score: No module named 'yaml': pip install -e '.[plan]' in the clone\n",
    )


@contextmanager
def own_log() -> Iterator[None]:
    """The process's log, which commands configure, is as it was afterwards."""
    loggers = [logging.getLogger(name) for name in ("", "score", "uvicorn.error")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    logging.getLogger().handlers = []
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers


NO_SERVER = ["serve", "--host", "203.0.113.1", "--port", "5001"]
"""Listens nowhere: no machine has this address (RFC 5737)."""


def warned(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What a command that fails at once says of an unknown variable."""
    with own_log():
        assert main([*arguments]) == 2
    return [line for line in capsys.readouterr().err.splitlines() if "is no setting" in line]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_unknown_variable_is_logged_as_a_server_logs(
    log_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCORE_BATCHSIZE", "4")
    (line,) = warned(capsys, *NO_SERVER, "--log-format", log_format)
    if log_format == "json":
        logged = json.loads(line)
        assert (logged["level"], logged["logger"]) == ("warning", "score.settings")
        line = logged["message"]
    assert "SCORE_BATCHSIZE is no setting, and is ignored; did you mean SCORE_BATCH_SIZE?" in line


def test_the_level_of_the_log_is_that_of_its_first_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCORE_BATCHSIZE", "4")
    assert not warned(capsys, *NO_SERVER, "--log-level", "error")


def test_an_unknown_variable_is_told_beside_a_setting_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCORE_BATCHSIZE", "4")
    assert len(warned(capsys, "serve", "--log-format", "xml")) == 1


SURFACES = {
    "score": "from score.__main__ import main; main(['catalog'])",
    "online": "from score import online; online.init()",
    "batch": "from score import batch; batch.init()",
    "shards": "sys.argv[1:] = ['--output', 'o']; from score import shards; shards.init()",
    "pyfunc": "import mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])",
}


@pytest.mark.process
@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_warns_where_people_look(surface: str, tmp_path: Path) -> None:
    environ = {**os.environ, "SCORE_BATCHSIZE": "4", "PYTHONPATH": str(ROOT)}
    code = f"import sys; {SURFACES[surface]}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "SCORE_BATCHSIZE is no setting, and is ignored; did you mean SCORE_BATCH_SIZE?" in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("words", "argument"),
    [
        (["embed", "in.csv", "--output", "s3://bucket/job"], "output"),
        (["embed", "in.csv", "--output", "https://host/job"], "output"),
        (["embed", "in.csv", "--output", "o", "--root", "az://container"], "root"),
        (["index", "s3://bucket/in.parquet", "--output", "o"], "table"),
        (["label", "gs://bucket/in.csv", "--ontology", "o.json", "--output", "o"], "input"),
        (["status", "abfs://container/job"], "folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:2]),
)
def test_a_url_is_refused_where_a_path_is_meant(
    words: list[str], argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"score: {argument}: '")
    assert "is a URL, and `score" in said
    assert "Traceback" not in said
