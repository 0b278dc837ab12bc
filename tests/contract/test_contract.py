"""One contract, every surface: the same cases, the same vectors, the same errors."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from score.contract.labels import LONGEST_PROMPT
from score.contract.limits import NUMBER
from score.contract.rows import Row
from score.core import endpoint
from score.core.embedder import Embedder
from score.dialects.base import RED_SQUARE
from tests.support import tables
from tests.support.images import in_base64, random_image
from tests.support.memory import forget_peak, group, memory
from tests.support.surfaces import (
    BIN,
    Azure,
    BatchCsv,
    MlflowServe,
    Outcome,
    OwnServer,
    Pyfunc,
    Served,
    Surface,
)

PNG = random_image(1)
CELL = in_base64(PNG)
LINES = base64.encodebytes(random_image(2, (200, 150))).decode()
# An image whose base64 uses both characters in which the alphabets differ.
URLSAFE = base64.urlsafe_b64encode(PNG).decode()
JPEG_URI = "data:image/jpeg;base64," + in_base64(random_image(3, format="JPEG"))
LONG = "a very long description of a cat " * 40
HTML = in_base64(b"<!DOCTYPE html><html><body>Not found</body></html>")
CUT = in_base64(random_image(4, (300, 300), "JPEG")[:-2000])

IMAGE, TEXT, BOTH = {"image_features"}, {"text_features"}, {"image_features", "text_features"}
NAMED = {*IMAGE, "labels", "probs"}
LABELS = '["a cat", "a dog", "a house"]'
ONTOLOGY = '{"cat": "a photo of a cat", "dog": ["a dog", "a puppy"], "house": "a red house"}'
MANY = json.dumps([f"label {number}" for number in range(2001)])


@dataclass(frozen=True)
class Case:
    """A body and what must come of it: for each row the vectors' names or a row code; or, for a
    request that is refused whole, its code. `{images}` in a cell is the image server."""

    id: str
    body: Any
    expect: list[Any] | str
    # Surfaces on which MLflow itself refuses first, with words of its own.
    mlflow_refuses: bool = False
    # What a bad frame loses before the model sees it (MLflow drops unknown columns).
    skip: tuple[str, ...] = field(default=())


def table(data: list[Any], columns: tuple[str, ...] = ("image", "text"), **params: Any) -> Any:
    body: dict[str, Any] = {"input_data": {"columns": list(columns), "data": data}}
    return {**body, "params": params} if params else body


CASES = [
    Case("image", table([[CELL, ""], [JPEG_URI, ""]]), [IMAGE, IMAGE]),
    Case("text", table([["", "a cat"], ["", "zwei Katzen"]]), [TEXT, TEXT]),
    Case("both", table([[CELL, "a cat"], [CELL, "a dog"]]), [BOTH, BOTH]),
    Case("mixed", table([[CELL, ""], ["", "a cat"], [CELL, "a cat"]]), [IMAGE, TEXT, BOTH]),
    Case(
        "with an index",
        {"input_data": {"columns": ["image", "text"], "index": [7, 9], "data": [["", "a"]] * 2}},
        [TEXT, TEXT],
    ),
    Case("columns in the other order", table([["a cat", CELL]], ("text", "image")), [BOTH]),
    Case("image column alone", table([[CELL]], ("image",)), [IMAGE]),
    Case("text column alone", table([["a cat"]], ("text",)), [TEXT]),
    Case(
        "an index column of a CSV is ignored",
        table([["0", "", "a cat"]], ("Unnamed: 0", "image", "text")),
        [TEXT],
    ),
    Case("no rows", table([]), []),
    Case("URL", table([["{images}/house.jpg", ""]]), [IMAGE]),
    Case("URL with spaces around", table([["  {images}/house.jpg\n", ""]]), [IMAGE]),
    Case(
        "every sample format by URL",
        table(
            [
                [f"{{images}}/{name}", ""]
                for name in ("apple.png", "boat.jpg", "sun.gif", "tree.webp", "moon.png")
            ]
        ),
        [IMAGE] * 5,
    ),
    Case("base64 with line breaks", table([[LINES, ""]]), [IMAGE]),
    Case("base64, url-safe alphabet", table([[URLSAFE, ""]]), [IMAGE]),
    Case("base64 without padding", table([[CELL.rstrip("="), ""]]), [IMAGE]),
    Case("null cells", table([[None, "a cat"], [CELL, None]]), [TEXT, IMAGE]),
    Case("blank cells", table([["  ", "a cat"], [CELL, "\t\n"]]), [TEXT, IMAGE]),
    Case("<NA> cells", table([["<NA>", "a cat"]]), [TEXT]),
    Case("NaN cells", table([[float("nan"), "a cat"], [CELL, float("nan")]]), [TEXT, IMAGE]),
    Case("emoji and right to left", table([["", "🐈 قطة"], ["", "חתול"]]), [TEXT, TEXT]),
    Case("a long text is cut", table([["", LONG]]), [TEXT]),
    Case("normalize", table([[CELL, "a cat"]], normalize=True), [BOTH]),
    Case("truncate=end", table([["", LONG]], truncate="end"), [TEXT]),
    Case(
        "truncate=error",
        table([["", LONG], ["", "a cat"]], truncate="error", on_error="report"),
        ["text_too_long", TEXT],
    ),
    Case(
        "a list of records",
        {"input_data": [{"image": CELL, "text": "a cat"}, {"image": "", "text": "b"}]},
        [BOTH, TEXT],
    ),
    Case(
        "report answers the good rows",
        table(
            [[CELL, ""], ["%%%", ""], ["", ""], [HTML, ""], [CUT, ""], ["", "a cat"]],
            on_error="report",
        ),
        [IMAGE, "bad_base64", "empty_row", "not_an_image", "truncated_image", TEXT],
    ),
    Case(
        "report on URLs",
        table(
            [["{images}/gone.jpg", ""], ["ftp://127.0.0.1/a", ""], ["http://10.0.0.1/a", ""]],
            on_error="report",
        ),
        ["fetch_failed", "bad_url", "blocked_host"],
    ),
    Case("raise names every bad row", table([["", "a"], ["%%%", ""], ["", ""]]), "bad_rows"),
    Case("raise on an empty row", table([["", ""]]), "bad_rows"),
    Case("raise on HTML", table([[HTML, ""]]), "bad_rows"),
    Case("metadata address", table([["http://169.254.169.254/latest", ""]]), "bad_rows"),
    Case("file URL", table([["file:///etc/passwd", ""]]), "bad_rows"),
    Case("numbers", table([["", 3], ["", "a cat"]], on_error="report"), ["bad_type", TEXT]),
    Case(
        "lists and booleans",
        table([[["a"], ""], [True, ""], ["", "a cat"]], on_error="report"),
        ["bad_type", "bad_type", TEXT],
    ),
    Case("labels, a list", table([[CELL, ""], [LINES, ""]], labels=LABELS), [NAMED, NAMED]),
    Case("labels, an ontology", table([[CELL, ""]], labels=ONTOLOGY), [NAMED]),
    Case(
        "labels are for images alone",
        table([["", "a cat"], [CELL, "a cat"], ["", "b"]], labels=LABELS),
        [TEXT, {*NAMED, *TEXT}, TEXT],
    ),
    Case("labels without a row", table([], labels=LABELS), []),
    Case("labels for texts only", table([["", "a cat"]], labels=ONTOLOGY), [TEXT]),
    Case("blank labels ask for none", table([[CELL, ""]], labels=" "), [IMAGE]),
    Case("labels and normalize", table([[CELL, ""]], labels=LABELS, normalize=True), [NAMED]),
    Case(
        "labels by URL",
        table([["{images}/house.jpg", ""], ["{images}/apple.png", ""]], labels=ONTOLOGY),
        [NAMED, NAMED],
    ),
    Case(
        "unicode labels",
        table([[CELL, ""]], labels='{"Straße": "eine Straße", "قطة": "🐈", "\\u732b": "a cat"}'),
        [NAMED],
    ),
    Case("labels that tie", table([[CELL, ""]], labels='{"b": "x", "a": "x", "c": "x"}'), [NAMED]),
    Case("confidence", table([[CELL, ""]], labels=LABELS, confidence=0.33), [NAMED]),
    Case("confidence that is whole", table([[CELL, ""]], labels=LABELS, confidence=1), [NAMED]),
    Case("confidence without labels", table([[CELL, ""]], confidence=0.5), [IMAGE]),
    Case(
        "labels beside failed rows",
        table([[CELL, ""], ["%%%", ""], ["", "a"]], labels=LABELS, on_error="report"),
        [NAMED, "bad_base64", TEXT],
    ),
    Case("labels and a row that fails", table([[CELL, ""], ["", ""]], labels=LABELS), "bad_rows"),
    Case(
        "labels as they are, a list",
        table([[CELL, ""]], labels=["a cat", "a dog"]),
        [NAMED],
        mlflow_refuses=True,  # its signature says string; its server's body is ours to decode
    ),
    Case(
        "labels as they are, an object",
        table([[CELL, ""]], labels={"cat": "a cat", "dog": ["a dog", "a puppy"]}),
        [NAMED],
        mlflow_refuses=True,
    ),
    Case("a long prompt is cut", table([[CELL, ""]], labels=json.dumps([LONG, "a"])), [NAMED]),
    Case(
        "truncate=error and a long prompt",
        table([[CELL, ""]], labels=json.dumps([LONG, "a"]), truncate="error", on_error="report"),
        "bad_params",
    ),
    Case("labels not JSON", table([[CELL, ""]], labels="a cat"), "bad_params"),
    Case("labels half JSON", table([[CELL, ""]], labels='["a cat"'), "bad_params"),
    Case("labels empty", table([[CELL, ""]], labels="[]"), "bad_params"),
    Case("labels an empty object", table([[CELL, ""]], labels="{}"), "bad_params"),
    Case("labels twice", table([[CELL, ""]], labels='["a", "b", "a"]'), "bad_params"),
    Case(
        "labels twice, an object", table([["", "a"]], labels='{"a": "x", "a": "y"}'), "bad_params"
    ),
    Case("labels with a number", table([["", "a"]], labels='["a", 3]'), "bad_params"),
    Case("labels with a blank", table([["", "a"]], labels='["a", " "]'), "bad_params"),
    Case("labels a number", table([["", "a"]], labels="3"), "bad_params"),
    Case("labels of half a character", table([["", "a"]], labels='["\\ud83d"]'), "bad_params"),
    Case("prompt of half a character", table([["", "a"]], labels='{"a": "\\ud83d"}'), "bad_params"),
    Case("too many prompts", table([["", "a"]], labels=MANY), "bad_params"),
    Case("labels even without rows", table([], labels="a cat"), "bad_params"),
    Case("confidence over 1", table([["", "a"]], labels=LABELS, confidence=2), "bad_params"),
    Case("confidence below 0", table([["", "a"]], labels=LABELS, confidence=-0.1), "bad_params"),
    Case(
        "confidence vast", table([["", "a"]], confidence=10**400), "bad_params", mlflow_refuses=True
    ),
    Case(
        "confidence a text", table([["", "a"]], confidence="x"), "bad_params", mlflow_refuses=True
    ),
    Case(
        "confidence a boolean",
        table([["", "a"]], confidence=True),
        "bad_params",
        mlflow_refuses=True,
    ),
    Case("miscased columns", table([[CELL, "a"]], ("Image", "Text")), "bad_columns"),
    Case("unrelated columns", table([["x", "y"]], ("url", "caption")), "bad_columns"),
    Case(
        "one column miscased",
        table([["a cat", CELL]], ("text", "IMAGE")),
        "bad_columns",
        skip=("pyfunc",),
    ),
    Case("repeated column", table([["a", "b"]], ("text", "text")), "bad_columns", skip=("pyfunc",)),
    Case("unknown param", table([["", "a"]], tuncate="end"), "bad_params", skip=("pyfunc",)),
    Case("bad normalize", table([["", "a"]], normalize="yes"), "bad_params", mlflow_refuses=True),
    Case("bad truncate", table([["", "a"]], truncate="middle"), "bad_params"),
    Case("bad on_error", table([["", "a"]], on_error="ignore"), "bad_params", skip=("batch",)),
    Case(
        "params not an object",
        {**table([["", "a"]]), "params": [1]},
        "bad_params",
        skip=("pyfunc", "batch"),
    ),
    Case("ragged data", table([["", "a"], ["", "b", "c"]]), "bad_request"),
    Case("row that is no list", table([["", "a"], "b"]), "bad_request"),
    Case("data missing", {"input_data": {"columns": ["text"]}}, "bad_request"),
    Case("columns missing", {"input_data": {"data": [["a"]]}}, "bad_request"),
    Case(
        "index of another length",
        {"input_data": {"columns": ["text"], "index": [0], "data": []}},
        "bad_request",
        skip=("pyfunc", "batch"),
    ),
    Case("no known key", {"data": [["a"]]}, "bad_request"),
    Case("a body that is a list", [{"text": "a"}], "bad_request"),
    Case("a body that is not JSON", b"{nonsense", "bad_request"),
    Case("a body that is not UTF-8", b'{"input_data": "\xff"}', "bad_request"),
    Case("an empty body", b"", "bad_request"),
    Case("a body nested too deeply", b"[" * 100_000, "bad_request"),
    Case("MLflow's split key", {"dataframe_split": table([["", "a"]])["input_data"]}, [TEXT]),
    Case("MLflow's records key", {"dataframe_records": [{"text": "a"}]}, [TEXT]),
    Case("MLflow's inputs key", {"inputs": {"text": ["a", "b"]}}, [TEXT, TEXT]),
    Case("one row of cells", {"inputs": {"text": "a red apple"}}, [TEXT]),
    Case("one row of both", {"inputs": {"image": CELL, "text": "a"}}, [BOTH]),
    Case("one row, a cell of it null", {"inputs": {"image": None, "text": "a"}}, [TEXT]),
    Case("one row beside another column", {"inputs": {"text": "a", "id": 7}}, [TEXT]),
    Case("one row under Azure's key", {"input_data": {"text": "a"}}, [TEXT]),
    Case("lists of one cell", {"inputs": {"image": [CELL], "text": ["a"]}}, [BOTH]),
    Case("lists beside a null", {"inputs": {"image": None, "text": ["a", "b"]}}, [TEXT, TEXT]),
    Case("lists of no cell", {"inputs": {"text": []}}, []),
    Case("lists with an empty cell", {"inputs": {"text": ["a", ""]}}, "bad_rows"),
    Case(
        "lists with a null",
        {"inputs": {"image": [None, CELL], "text": ["a", "b"]}},
        [TEXT, BOTH],
    ),
    Case("records under inputs", {"inputs": [{"text": "a"}, {"text": "b"}]}, [TEXT, TEXT]),
    Case("strings under inputs", {"inputs": ["a", "b"]}, "bad_request", mlflow_refuses=True),
    Case("a string under inputs", {"inputs": "a"}, "bad_request", mlflow_refuses=True),
    Case("one row without a known column", {"inputs": {"url": "x"}}, "bad_columns"),
    Case("one row, miscased", {"inputs": {"Text": "a"}}, "bad_columns"),
    Case("one row with a number", {"inputs": {"text": 3}}, "bad_rows", mlflow_refuses=True),
    Case(
        "lists of different length", {"inputs": {"image": [""], "text": ["a", "b"]}}, "bad_request"
    ),
    Case(
        "a list beside a cell",
        {"inputs": {"image": CELL, "text": ["a"]}},
        "bad_request",
        mlflow_refuses=True,
    ),
    Case(
        "a column that is an object",
        {"inputs": {"text": {"0": "a"}}},
        "bad_request",
        skip=("pyfunc",),  # which pandas knows how to read
    ),
    Case("a number alone in its column", table([["", 3]]), "bad_rows", mlflow_refuses=True),
    Case("a list alone", table([["", ["a"]]]), "bad_rows"),
    Case(
        "lists alone, in both columns",
        table([[["x"], ["a"]]]),
        "bad_rows",
        skip=("pyfunc",),  # where MLflow makes the same frame of an object of lists
    ),
    Case(
        "missing images, spelled out",
        table([[cell, "a"] for cell in ("nan", "None", " NULL", "N/A")], on_error="report"),
        ["bad_base64"] * 4,
    ),
    Case("missing texts, spelled out", table([["", "nan"], ["", "None"]]), [TEXT, TEXT]),
    Case(
        "a byte order mark before a column",
        table([["x", "a"]], ("\ufeffimage", "text")),
        "bad_columns",
        skip=("pyfunc", "batch"),
    ),
    Case(
        "one record miscased",
        {"input_data": [{"text": "a"}, {"image": CELL, "Text": "b"}]},
        "bad_columns",
        skip=("pyfunc",),
    ),
    Case("a cell twice", b'{"input_data": [{"text": "a", "text": "b"}]}', "bad_request"),
    Case("a column twice", b'{"inputs": {"text": ["a"], "text": ["b"]}}', "bad_request"),
    Case("MLflow's instances key", {"instances": [{"text": "a"}]}, [TEXT]),
]

SURFACES = ("pyfunc", "batch", "mlflow", "azure", "own")


def started(**limits: str) -> dict[str, Served]:
    """The servers, which are not ready yet. Azure's is left out only where that is asked for, as
    `make lowest` does, which installs none: elsewhere a missing one is an error."""
    with_azure = os.environ.get("TESTS_WITHOUT_AZURE_SERVER") != "1"
    assert not with_azure or (BIN / "azmlinfsrv").exists(), "install azureml-inference-server-http"
    servers: dict[str, Served] = {"mlflow": MlflowServe(**limits), "own": OwnServer(**limits)}
    return servers | ({"azure": Azure(**limits)} if with_azure else {})


@pytest.fixture(scope="session")
def surfaces(
    embedder: Embedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Surface]]:
    servers = started()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SCORE_ALLOW_HOSTS", "127.0.0.1")
            pyfunc = Pyfunc()
        for server in servers.values():
            server.wait()
        batch = BatchCsv(embedder, tmp_path_factory.mktemp("batch"))
        yield {"pyfunc": pyfunc, "batch": batch, **servers}
    finally:
        for server in servers.values():
            server.stop()


def test_without_azures_server_the_tests_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.BIN", tmp_path)
    monkeypatch.delenv("TESTS_WITHOUT_AZURE_SERVER", raising=False)
    with pytest.raises(AssertionError, match="install azureml-inference-server-http"):
        started()


@pytest.fixture(scope="session")
def reference(embedder: Embedder, images_url: str) -> dict[str, Outcome]:
    """What the core answers to each case, no process in between."""
    outcomes = {}
    for case in CASES:
        answer = endpoint.score(embedder, _encode(case.body, images_url))
        content = json.loads(answer.body)
        ok = answer.status == 200
        outcomes[case.id] = Outcome(content if ok else None, None if ok else content["error"])
    return outcomes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_core_keeps_the_contract(case: Case, reference: dict[str, Outcome]) -> None:
    outcome = reference[case.id]
    if isinstance(case.expect, str):
        assert outcome.error is not None
        assert outcome.error["code"] == case.expect
        assert outcome.error["message"]
    else:
        assert outcome.records is not None, outcome.error
        assert [_kind(record) for record in outcome.records] == case.expect


@pytest.mark.process
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_surface_answers_alike(
    case: Case,
    surface: str,
    surfaces: dict[str, Surface],
    reference: dict[str, Outcome],
    images_url: str,
) -> None:
    asked, body = surfaces[surface], _placed(case.body, images_url)
    if surface in case.skip or not asked.takes(body):
        pytest.skip("the surface has no way to put this")
    got, wanted = asked.ask(body), reference[case.id]
    if surface == "pyfunc" and case.mlflow_refuses:
        assert got.error is not None
    elif surface == "batch" and case.expect == "bad_rows":
        _same_rows(got, wanted)
    elif wanted.error:
        assert got.error is not None
        assert got.error["code"] == wanted.error["code"]
        if case.expect == "bad_rows":
            assert got.error == wanted.error
    else:
        assert got.records is not None, got.error
        _same_records(got.records, wanted.records or [])


@pytest.mark.process
def test_features_are_those_of_the_rows_asked_alone(
    embedder: Embedder, surfaces: dict[str, Surface]
) -> None:
    rows = [(CELL, ""), ("", "a cat"), (LINES, "b"), ("", LONG), (JPEG_URI, "")]
    alone = [next(embedder.embed([Row(image, text)])) for image, text in rows]
    body = table([list(row) for row in rows])
    for surface in surfaces.values():
        together = surface.ask(body).records or []
        for one, other in zip(alone, together, strict=True):
            for name in ("image_features", "text_features"):
                vector = getattr(one, name)
                assert (vector is not None) == (name in other)
                if vector is not None:
                    _close(other[name], vector)


@pytest.mark.process
def test_vectors_are_not_normalised_unless_asked(surfaces: dict[str, Surface]) -> None:
    for surface in surfaces.values():
        (plain,) = surface.ask(table([[CELL, "a cat"]])).records or []
        (unit,) = surface.ask(table([[CELL, "a cat"]], normalize=True)).records or []
        for name in BOTH:
            vector = np.array(plain[name])
            assert vector.shape == (512,)
            assert abs(np.linalg.norm(vector) - 1) > 0.1
            _close(unit[name], vector / np.linalg.norm(vector))


@pytest.mark.process
def test_labels_are_those_of_classify(embedder: Embedder, surfaces: dict[str, Surface]) -> None:
    body = table([[CELL, ""], ["", "a cat"]], labels=ONTOLOGY, confidence=0.3)
    wanted = embedder.classify(PNG, ONTOLOGY, confidence=0.3)
    assert 0 < len(wanted) < 3
    for surface in surfaces.values():
        if surface.takes(body):
            named, text = surface.ask(body).records or []
            assert named["labels"] == list(wanted)
            np.testing.assert_allclose(named["probs"], list(wanted.values()), atol=1e-5)
            assert set(text) == TEXT


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_statuses(surface: str, surfaces: dict[str, Surface]) -> None:
    server = surfaces[surface]
    assert isinstance(server, Served)
    bad_rows = json.dumps(table([["", ""]])).encode()
    expected = 400 if surface == "mlflow" else 422  # MLflow knows no 422
    assert server.post(bad_rows).status_code == expected
    assert server.post(b"{").status_code == 400


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_a_body_without_a_content_type_is_json(surface: str, surfaces: dict[str, Surface]) -> None:
    server = surfaces[surface]
    assert isinstance(server, Served)
    assert len(server.ask(table([["", "a"]]), kind=None).records or []) == 1
    assert server.ask(b"{", kind=None).error


# -- tables in other formats -------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("case", tables.CSVS, ids=lambda case: case.id)
def test_a_csv_file_is_read_as_it_must_be(case: tables.Case, surfaces: dict[str, Surface]) -> None:
    batch = surfaces["batch"]
    assert isinstance(batch, BatchCsv)
    _assert_comes_of(batch.ask_csv(case.data), case)


@pytest.mark.process
@pytest.mark.parametrize("case", tables.CSVS, ids=lambda case: case.id)
def test_mlflow_reads_a_csv_body_as_batch_jobs_do(
    case: tables.Case, surfaces: dict[str, Surface]
) -> None:
    batch, mlflow = surfaces["batch"], surfaces["mlflow"]
    assert isinstance(batch, BatchCsv)
    assert isinstance(mlflow, Served)
    _assert_comes_of(got := mlflow.ask(case.data, "text/csv"), case)
    if case.expect == [*filter(lambda kind: isinstance(kind, set), case.expect)]:
        _same_records(got.records or [], batch.ask_csv(case.data).records or [])


@pytest.mark.process
@pytest.mark.parametrize("case", tables.PARQUETS, ids=lambda case: case.id)
def test_mlflow_reads_a_parquet_body_as_json(
    case: tables.Case, surfaces: dict[str, Surface]
) -> None:
    mlflow = surfaces["mlflow"]
    assert isinstance(mlflow, Served)
    _assert_comes_of(mlflow.ask(case.data, tables.PARQUET), case)


def _assert_comes_of(got: Outcome, case: tables.Case) -> None:
    """A request that raises names the rows that a file's job reports."""
    if isinstance(case.expect, str):
        assert got.error is not None, got.records
        assert got.error["code"] == case.expect
        messages = [got.error["message"]]
    elif got.records is not None:
        assert [_kind(record) for record in got.records] == case.expect
        messages = [record["error"]["message"] for record in got.records if "error" in record]
    else:
        assert got.error is not None
        bad = {i: code for i, code in enumerate(case.expect) if isinstance(code, str)}
        assert {row["index"]: row["code"] for row in got.error["rows"]} == bad
        messages = [row["message"] for row in got.error["rows"]]
    assert not case.says or case.says in messages[0]


# -- limits ------------------------------------------------------------------------------------

MOST_BYTES, MOST_ROWS = 20_000, 3
MOST_SCORES, MOST_VECTORS = 20, 4
DIMENSION = 512
LIMITS = {
    "SCORE_MAX_REQUEST_BYTES": str(MOST_BYTES),
    "SCORE_MAX_REQUEST_ROWS": str(MOST_ROWS),
    "SCORE_MAX_SCORES": str(MOST_SCORES),
    "SCORE_MAX_ANSWER_BYTES": str(MOST_VECTORS * DIMENSION * NUMBER),
}
SAME = "a" * 10_000  # which three rows of a small parquet file share

JSON = "application/json"
CSV = "text/csv"
FOUR = ["a"] * (MOST_ROWS + 1)
OVER: dict[str, tuple[str, Any]] = {
    "JSON, bytes": (JSON, b" " * (MOST_BYTES + 1)),
    "JSON, bytes of params": (JSON, json.dumps(table([], labels="x" * MOST_BYTES)).encode()),
    "JSON, rows": (JSON, json.dumps({"input_data": [{"text": "a"}] * 4}).encode()),
    "JSON, rows of columns": (JSON, json.dumps({"inputs": {"text": FOUR}}).encode()),
    "CSV, bytes": (CSV, b"text\n" + b"a" * MOST_BYTES),
    "CSV, bytes of nothing": (CSV, b"\n" * (MOST_BYTES + 1)),
    "CSV, rows": (CSV, b"text\n" + b"a\n" * 4),
    "parquet, bytes": (tables.PARQUET, b"x" * (MOST_BYTES + 1)),
    "parquet, rows": (tables.PARQUET, tables.parquet({"text": FOUR})),
    "parquet, one cell unpacked": (tables.PARQUET, tables.parquet({"text": ["a" * 50_000]})),
    "parquet, cells unpacked": (tables.PARQUET, tables.parquet({"text": [SAME] * 3})),
    "parquet, images unpacked": (tables.PARQUET, tables.parquet({"image": [SAME.encode()] * 3})),
}
JUST: dict[str, tuple[str, bytes, int]] = {
    "JSON": (JSON, json.dumps({"inputs": {"text": FOUR[1:]}}).encode().ljust(MOST_BYTES), 3),
    "CSV": (CSV, b"text\n" + b"a\n" * 3, 3),
    "parquet": (tables.PARQUET, tables.parquet({"text": [SAME], "other": [SAME * 9]}), 1),
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[dict[str, Served]]:
    """Servers that take little."""
    servers = started(**LIMITS)
    try:
        for server in servers.values():
            server.wait()
        yield servers
    finally:
        for server in servers.values():
            server.stop()


def test_what_is_over_a_limit_is_so_on_disk_alone() -> None:
    """The packed bodies are small: only what they unpack to is not."""
    assert all(len(body) < MOST_BYTES for name, (_, body) in OVER.items() if "unpacked" in name)


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
@pytest.mark.parametrize("name", OVER)
def test_limits_hold_for_every_format(name: str, surface: str, narrow: dict[str, Served]) -> None:
    kind, body = OVER[name]
    if kind != JSON and surface != "mlflow":
        pytest.skip("takes JSON alone")
    response = narrow[surface].post(body, kind)
    assert response.status_code == 413, response.text
    assert response.json()["error"]["code"] == "too_large"
    assert len(response.text) < 2_000, "a refusal repeats no body"


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
@pytest.mark.parametrize("name", JUST)
def test_what_is_within_the_limits_is_answered(
    name: str, surface: str, narrow: dict[str, Served]
) -> None:
    kind, body, rows = JUST[name]
    if kind != JSON and surface != "mlflow":
        pytest.skip("takes JSON alone")
    assert len(narrow[surface].ask(body, kind).records or []) == rows


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_limits_hold_for_a_body_in_chunks(surface: str, narrow: dict[str, Served]) -> None:
    """Sent without its length, as `requests` sends an iterator."""
    small = json.dumps(table([["", "a"]])).encode()
    assert narrow[surface].post(iter([small[:9], small[9:]])).status_code == 200
    assert narrow[surface].post(iter([b" " * 9_000] * 3)).status_code == 413


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_a_body_is_refused_while_it_arrives(surface: str, narrow: dict[str, Served]) -> None:
    """Not when it has been read: what it would take is the client's to decide."""
    processes = group(narrow[surface].pid)
    for process in processes:
        forget_peak(process)
    before = sum(memory(process, "VmRSS") for process in processes)
    with contextlib.suppress(requests.ConnectionError):  # Azure's server reads no more
        status = narrow[surface].post(iter([bytes(2**20)] * 64)).status_code
        assert status == 413
    grown = sum(memory(process, "VmHWM") for process in processes) - before
    assert grown < 24 * 2**20


LONG_LABEL = "x" * (LONGEST_PROMPT + 1)
IMAGES = [[RED_SQUARE, ""]] * MOST_ROWS
LARGE_ANSWERS: dict[str, tuple[Any, str]] = {
    "a long label": (
        table(IMAGES, labels=[LONG_LABEL]),
        "a label may have 4,000 characters at most",
    ),
    "a long prompt": (
        table(IMAGES, labels={"a": ["b", LONG_LABEL]}),
        "a prompt of 'a' may have 4,000 characters at most",
    ),
    "labels in a text": (
        table(IMAGES, labels=json.dumps([LONG_LABEL])),
        "a label may have 4,000 characters at most",
    ),
    "rows × labels": (
        table(IMAGES, labels=list("abcdefg")),
        "3 rows × 7 labels are more than the 20 probabilities that an answer may have (max_scores)",
    ),
    "characters of labels": (
        table(IMAGES, labels=["a" * 200, "b" * 200]),
        "the labels of 3 rows would be 1,200 characters of the answer; at most 640",
    ),
    "vectors": (
        table([[RED_SQUARE, "a"]] * MOST_ROWS),
        "the vectors of 6 images and texts would be about 73,728 bytes of the answer; at most "
        "49,152 (max_answer_bytes): send fewer rows at a time",
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
@pytest.mark.parametrize("name", LARGE_ANSWERS)
def test_a_request_with_a_large_answer_is_refused_alike(
    name: str, surface: str, narrow: dict[str, Served], embedder: Embedder
) -> None:
    assert embedder.dimension == DIMENSION
    body, said = LARGE_ANSWERS[name]
    response = narrow[surface].post(json.dumps(body).encode())
    assert response.status_code == 413, response.text
    error = response.json()["error"]
    assert (error["code"], error["rows"]) == ("too_large", [])
    assert said in error["message"]


@pytest.mark.process
@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_an_answer_of_as_many_vectors_as_may_be(surface: str, narrow: dict[str, Served]) -> None:
    body = table([["data:,", "a"], ["", "b"], ["", "c"]], on_error="report")
    assert len(narrow[surface].ask(body).records or []) == 3


def test_rows_given_in_python_are_no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    pyfunc = Pyfunc()
    many = 2 * FOUR
    for given in ({"text": many}, [{"text": "a"}] * len(many), pd.DataFrame({"text": many})):
        assert len(pyfunc.predict(given).records or []) == len(many)


# -- Python's own ways to ask ------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    "given",
    [
        {"text": ["a", "b"]},
        {"text": np.array(["a", "b"])},
        [{"text": "a"}, {"text": "b"}],
        pd.DataFrame({"text": ["a", "b"]}),
        pd.DataFrame({"text": ["a", "b"]}, index=["x", "y"]),
        pd.Series(["a", "b"], name="text"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_python_asks_in_many_ways(given: Any, surfaces: dict[str, Surface]) -> None:
    pyfunc = surfaces["pyfunc"]
    assert isinstance(pyfunc, Pyfunc)
    wanted = pyfunc.ask(table([["", "a"], ["", "b"]])).records or []
    _same_records(pyfunc.predict(given).records or [], wanted)


@pytest.mark.process
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (pd.Series({"image": "", "text": "a"}), "a Series is one column"),
        (pd.Series(["a"]), "no column 'image' or 'text'"),
        (["a", "b"], "no column 'image' or 'text'"),
        ("a", "no column 'image' or 'text'"),
        (np.array(["a"]), "no column 'image' or 'text'"),
        ({"image": ["x"], "text": ["a", "b"]}, "different length"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_python_cannot_ask_is_refused(
    given: Any, says: str, surfaces: dict[str, Surface]
) -> None:
    pyfunc = surfaces["pyfunc"]
    assert isinstance(pyfunc, Pyfunc)
    assert says in (pyfunc.predict(given).error or {})["message"]


def _encode(body: Any, images_url: str) -> bytes:
    body = _placed(body, images_url)
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _placed(value: Any, images_url: str) -> Any:
    """The body with the image server's address filled in."""
    if isinstance(value, str):
        return value.replace("{images}", images_url)
    if isinstance(value, list):
        return [_placed(item, images_url) for item in value]
    if isinstance(value, dict):
        return {key: _placed(item, images_url) for key, item in value.items()}
    return value


def _kind(record: dict[str, Any]) -> Any:
    return record["error"]["code"] if "error" in record else set(record)


def _same_records(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert set(one) == set(other)
        if "error" in other:
            assert one["error"] == other["error"]
        for name in BOTH & set(other):
            _close(one[name], other[name])
        if "labels" in other:
            assert one["labels"] == other["labels"]
            np.testing.assert_allclose(one["probs"], other["probs"], atol=1e-5)


def _same_rows(got: Outcome, wanted: Outcome) -> None:
    """A batch job reports what a request raises."""
    assert got.records is not None
    assert wanted.error is not None
    failed = [i for i, record in enumerate(got.records) if "error" in record]
    assert failed == [row["index"] for row in wanted.error["rows"]]
    for row in wanted.error["rows"]:
        error = got.records[row["index"]]["error"]
        assert (error["code"], error["retryable"]) == (row["code"], row["retryable"])
        assert error["message"].endswith(row["message"])


def _close(got: Any, wanted: Any) -> None:
    """Within 1e-5 of the vector's largest component."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
