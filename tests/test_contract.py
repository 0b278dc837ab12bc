"""One contract, every surface: the same cases, the same vectors, the same errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from score import endpoint
from score.embedder import Embedder
from score.rows import Row
from tests.pictures import in_base64, picture
from tests.surfaces import (
    Azure,
    BatchCsv,
    MlflowServe,
    Outcome,
    OwnServer,
    Pyfunc,
    Served,
    Surface,
)

PNG = picture(1)
PICTURE = in_base64(PNG)
LINES = base64.encodebytes(picture(2, (200, 150))).decode()
# A picture whose base64 uses both characters in which the alphabets differ.
URLSAFE = base64.urlsafe_b64encode(PNG).decode()
JPEG_URI = "data:image/jpeg;base64," + in_base64(picture(3, format="JPEG"))
LONG = "a very long description of a cat " * 40
HTML = in_base64(b"<!DOCTYPE html><html><body>Not found</body></html>")
CUT = in_base64(picture(4, (300, 300), "JPEG")[:-2000])

IMAGE, TEXT, BOTH = {"image_features"}, {"text_features"}, {"image_features", "text_features"}
NAMED = {*IMAGE, "labels", "probs"}
LABELS = '["a cat", "a dog", "a house"]'
ONTOLOGY = '{"cat": "a photo of a cat", "dog": ["a dog", "a puppy"], "house": "a red house"}'
MANY = json.dumps([f"label {number}" for number in range(2001)])


@dataclass(frozen=True)
class Case:
    """A body and what must come of it: for each row the vectors' names or a row code; or, for a
    request that is refused whole, its code. `{pictures}` in a cell is the picture server."""

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
    Case("image", table([[PICTURE, ""], [JPEG_URI, ""]]), [IMAGE, IMAGE]),
    Case("text", table([["", "a cat"], ["", "zwei Katzen"]]), [TEXT, TEXT]),
    Case("both", table([[PICTURE, "a cat"], [PICTURE, "a dog"]]), [BOTH, BOTH]),
    Case("mixed", table([[PICTURE, ""], ["", "a cat"], [PICTURE, "a cat"]]), [IMAGE, TEXT, BOTH]),
    Case(
        "with an index",
        {"input_data": {"columns": ["image", "text"], "index": [7, 9], "data": [["", "a"]] * 2}},
        [TEXT, TEXT],
    ),
    Case("columns in the other order", table([["a cat", PICTURE]], ("text", "image")), [BOTH]),
    Case("image column alone", table([[PICTURE]], ("image",)), [IMAGE]),
    Case("text column alone", table([["a cat"]], ("text",)), [TEXT]),
    Case(
        "an index column of a CSV is ignored",
        table([["0", "", "a cat"]], ("Unnamed: 0", "image", "text")),
        [TEXT],
    ),
    Case("no rows", table([]), []),
    Case("URL", table([["{pictures}/house.jpg", ""]]), [IMAGE]),
    Case("URL with spaces around", table([["  {pictures}/house.jpg\n", ""]]), [IMAGE]),
    Case(
        "every sample format by URL",
        table(
            [
                [f"{{pictures}}/{name}", ""]
                for name in ("apple.png", "boat.jpg", "sun.gif", "tree.webp", "moon.png")
            ]
        ),
        [IMAGE] * 5,
    ),
    Case("base64 with line breaks", table([[LINES, ""]]), [IMAGE]),
    Case("base64, url-safe alphabet", table([[URLSAFE, ""]]), [IMAGE]),
    Case("base64 without padding", table([[PICTURE.rstrip("="), ""]]), [IMAGE]),
    Case("null cells", table([[None, "a cat"], [PICTURE, None]]), [TEXT, IMAGE]),
    Case("blank cells", table([["  ", "a cat"], [PICTURE, "\t\n"]]), [TEXT, IMAGE]),
    Case("<NA> cells", table([["<NA>", "a cat"]]), [TEXT]),
    Case("NaN cells", table([[float("nan"), "a cat"], [PICTURE, float("nan")]]), [TEXT, IMAGE]),
    Case("emoji and right to left", table([["", "🐈 قطة"], ["", "חתול"]]), [TEXT, TEXT]),
    Case("a long text is cut", table([["", LONG]]), [TEXT]),
    Case("normalize", table([[PICTURE, "a cat"]], normalize=True), [BOTH]),
    Case("truncate=end", table([["", LONG]], truncate="end"), [TEXT]),
    Case(
        "truncate=error",
        table([["", LONG], ["", "a cat"]], truncate="error", on_error="report"),
        ["text_too_long", TEXT],
    ),
    Case(
        "a list of records",
        {"input_data": [{"image": PICTURE, "text": "a cat"}, {"image": "", "text": "b"}]},
        [BOTH, TEXT],
    ),
    Case(
        "report answers the good rows",
        table(
            [[PICTURE, ""], ["%%%", ""], ["", ""], [HTML, ""], [CUT, ""], ["", "a cat"]],
            on_error="report",
        ),
        [IMAGE, "bad_base64", "empty_row", "not_an_image", "truncated_image", TEXT],
    ),
    Case(
        "report on URLs",
        table(
            [["{pictures}/gone.jpg", ""], ["ftp://127.0.0.1/a", ""], ["http://10.0.0.1/a", ""]],
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
    Case("labels, a list", table([[PICTURE, ""], [LINES, ""]], labels=LABELS), [NAMED, NAMED]),
    Case("labels, an ontology", table([[PICTURE, ""]], labels=ONTOLOGY), [NAMED]),
    Case(
        "labels are for pictures alone",
        table([["", "a cat"], [PICTURE, "a cat"], ["", "b"]], labels=LABELS),
        [TEXT, {*NAMED, *TEXT}, TEXT],
    ),
    Case("labels without a row", table([], labels=LABELS), []),
    Case("labels for texts only", table([["", "a cat"]], labels=ONTOLOGY), [TEXT]),
    Case("blank labels ask for none", table([[PICTURE, ""]], labels=" "), [IMAGE]),
    Case("labels and normalize", table([[PICTURE, ""]], labels=LABELS, normalize=True), [NAMED]),
    Case(
        "labels by URL",
        table([["{pictures}/house.jpg", ""], ["{pictures}/apple.png", ""]], labels=ONTOLOGY),
        [NAMED, NAMED],
    ),
    Case(
        "unicode labels",
        table([[PICTURE, ""]], labels='{"Straße": "eine Straße", "قطة": "🐈", "\\u732b": "a cat"}'),
        [NAMED],
    ),
    Case(
        "labels that tie", table([[PICTURE, ""]], labels='{"b": "x", "a": "x", "c": "x"}'), [NAMED]
    ),
    Case("confidence", table([[PICTURE, ""]], labels=LABELS, confidence=0.33), [NAMED]),
    Case("confidence that is whole", table([[PICTURE, ""]], labels=LABELS, confidence=1), [NAMED]),
    Case("confidence without labels", table([[PICTURE, ""]], confidence=0.5), [IMAGE]),
    Case(
        "labels beside failed rows",
        table([[PICTURE, ""], ["%%%", ""], ["", "a"]], labels=LABELS, on_error="report"),
        [NAMED, "bad_base64", TEXT],
    ),
    Case(
        "labels and a row that fails", table([[PICTURE, ""], ["", ""]], labels=LABELS), "bad_rows"
    ),
    Case(
        "labels as they are, a list",
        table([[PICTURE, ""]], labels=["a cat", "a dog"]),
        [NAMED],
        mlflow_refuses=True,  # its signature says string; its server's body is ours to decode
    ),
    Case(
        "labels as they are, an object",
        table([[PICTURE, ""]], labels={"cat": "a cat", "dog": ["a dog", "a puppy"]}),
        [NAMED],
        mlflow_refuses=True,
    ),
    Case("a long prompt is cut", table([[PICTURE, ""]], labels=json.dumps([LONG, "a"])), [NAMED]),
    Case(
        "truncate=error and a long prompt",
        table([[PICTURE, ""]], labels=json.dumps([LONG, "a"]), truncate="error", on_error="report"),
        "bad_params",
    ),
    Case("labels not JSON", table([[PICTURE, ""]], labels="a cat"), "bad_params"),
    Case("labels half JSON", table([[PICTURE, ""]], labels='["a cat"'), "bad_params"),
    Case("labels empty", table([[PICTURE, ""]], labels="[]"), "bad_params"),
    Case("labels an empty object", table([[PICTURE, ""]], labels="{}"), "bad_params"),
    Case("labels twice", table([[PICTURE, ""]], labels='["a", "b", "a"]'), "bad_params"),
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
    Case("miscased columns", table([[PICTURE, "a"]], ("Image", "Text")), "bad_columns"),
    Case("unrelated columns", table([["x", "y"]], ("url", "caption")), "bad_columns"),
    Case(
        "one column miscased",
        table([["a cat", PICTURE]], ("text", "IMAGE")),
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
    Case("MLflow's instances key", {"instances": [{"text": "a"}]}, [TEXT]),
]

SURFACES = ("pyfunc", "batch", "mlflow", "azure", "own")


@pytest.fixture(scope="session")
def surfaces(
    embedder: Embedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Surface]]:
    servers: dict[str, Served] = {"mlflow": MlflowServe(), "azure": Azure(), "own": OwnServer()}
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


@pytest.fixture(scope="session")
def reference(embedder: Embedder, pictures_url: str) -> dict[str, Outcome]:
    """What the core answers to each case, no process in between."""
    outcomes = {}
    for case in CASES:
        answer = endpoint.score(embedder, _encode(case.body, pictures_url))
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


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_surface_answers_alike(
    case: Case,
    surface: str,
    surfaces: dict[str, Surface],
    reference: dict[str, Outcome],
    pictures_url: str,
) -> None:
    asked, body = surfaces[surface], _placed(case.body, pictures_url)
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


def test_features_are_those_of_the_rows_asked_alone(
    embedder: Embedder, surfaces: dict[str, Surface]
) -> None:
    rows = [(PICTURE, ""), ("", "a cat"), (LINES, "b"), ("", LONG), (JPEG_URI, "")]
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


def test_vectors_are_not_normalised_unless_asked(surfaces: dict[str, Surface]) -> None:
    for surface in surfaces.values():
        (plain,) = surface.ask(table([[PICTURE, "a cat"]])).records or []
        (unit,) = surface.ask(table([[PICTURE, "a cat"]], normalize=True)).records or []
        for name in BOTH:
            vector = np.array(plain[name])
            assert vector.shape == (512,)
            assert abs(np.linalg.norm(vector) - 1) > 0.1
            _close(unit[name], vector / np.linalg.norm(vector))


def test_labels_are_those_of_classify(embedder: Embedder, surfaces: dict[str, Surface]) -> None:
    body = table([[PICTURE, ""], ["", "a cat"]], labels=ONTOLOGY, confidence=0.3)
    wanted = embedder.classify(PNG, ONTOLOGY, confidence=0.3)
    assert 0 < len(wanted) < 3
    for surface in surfaces.values():
        if surface.takes(body):
            named, text = surface.ask(body).records or []
            assert named["labels"] == list(wanted)
            np.testing.assert_allclose(named["probs"], list(wanted.values()), atol=1e-5)
            assert set(text) == TEXT


@pytest.mark.parametrize("surface", ["mlflow", "azure", "own"])
def test_statuses(surface: str, surfaces: dict[str, Surface]) -> None:
    server = surfaces[surface]
    assert isinstance(server, Served)
    bad_rows = json.dumps(table([["", ""]])).encode()
    expected = 400 if surface == "mlflow" else 422  # MLflow knows no 422
    assert server.post(bad_rows).status_code == expected
    assert server.post(b"{").status_code == 400


def _encode(body: Any, pictures_url: str) -> bytes:
    body = _placed(body, pictures_url)
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _placed(value: Any, pictures_url: str) -> Any:
    """The body with the picture server's address filled in."""
    if isinstance(value, str):
        return value.replace("{pictures}", pictures_url)
    if isinstance(value, list):
        return [_placed(item, pictures_url) for item in value]
    if isinstance(value, dict):
        return {key: _placed(item, pictures_url) for key, item in value.items()}
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
