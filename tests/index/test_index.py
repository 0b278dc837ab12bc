"""Only vectors that have a direction are indexed; anything else is refused, and leaves nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.errors import RequestError
from score.index import lance
from score.index.build import build_index
from score.index.index import Index
from tests.support import exact_search
from tests.support.exact_search import clustered, nearest
from tests.support.indexes import indexed

NAN, INFINITY = float("nan"), float("inf")
FLOATS = pa.list_(pa.float32())

REFUSED: dict[str, tuple[pa.Array, str]] = {
    "ints": (pa.array([1, 2]), "column image_features: lists of floats are wanted, not int64"),
    "strings": (pa.array(["a"]), "wanted, not string"),
    "structs": (pa.array([{"a": 1.0}]), "wanted, not struct<a: double>"),
    "nulls": (pa.array([None, None]), "wanted, not null"),
    "lists of ints": (pa.array([[1, 2]]), "wanted, not list<"),
    "lists of strings": (pa.array([["1"]]), "wanted, not list<"),
    "lists of lists": (pa.array([[[1.0]]]), "wanted, not list<"),
    "lists of booleans": (pa.array([[True]]), "wanted, not list<"),
    "ragged": (pa.array([None, [1, 2], [1]], FLOATS), "row 2: the vector has 1 numbers, those"),
    # As many numbers as if they were of one length.
    "ragged in all": (pa.array([[1, 2], [1], [1, 2, 3]], FLOATS), "row 1: the vector has 1 numb"),
    "a later one": (
        pa.array([[1, 2]] * 9000 + [[1]], FLOATS),
        "row 9000: the vector has 1 numbers",
    ),
    "a null": (pa.array([[1, 2], [1, None]], FLOATS), "row 1: .* missing, NaN or infinite"),
    "NaN": (pa.array([[1, 2], None, [NAN, 2]], FLOATS), "row 2: .* missing, NaN or infinite"),
    "infinite": (pa.array([[1, INFINITY]], FLOATS), "row 0: .* missing, NaN or infinite"),
    "empty": (pa.array([None, [], []], FLOATS), "row 1: the vector is empty"),
    "an empty one": (pa.array([[1, 2], []], FLOATS), "row 1: the vector has 0 numbers"),
    "zeros": (pa.array([[1, 2], [0, -0.0]], FLOATS), "row 1: .* all zeros"),
    "none": (pa.array([None, None], FLOATS), "has no row with image_features"),
}


def written(file: Path, vectors: pa.Array) -> Path:
    pq.write_table(
        pa.table({"id": list(map(str, range(len(vectors)))), "image_features": vectors}), file
    )
    return file


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_vector_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    vectors, message = REFUSED[case]
    table = written(tmp_path / "in.parquet", vectors)
    with pytest.raises(RequestError, match=rf"in\.parquet.*{message}"):
        build_index(table, tmp_path / "index")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    "kind",
    [FLOATS, pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)],
    ids=str,
)
def test_lists_of_floats_of_any_kind_are_indexed(kind: pa.DataType, tmp_path: Path) -> None:
    table = written(tmp_path / "in.parquet", pa.array([[3e19, 4e19], [-1e-30, 0.0]], kind))
    assert build_index(table, tmp_path / "index") == 2
    index = Index(tmp_path / "index")
    hits = index.search(np.array([1e-30, 0], np.float32))
    assert [(hit.row["id"], hit.score) for hit in hits] == [
        ("0", pytest.approx(0.6)),
        ("1", pytest.approx(-1)),
    ]


def test_of_a_table_of_vectors_alone_the_rows_numbers_are_kept(tmp_path: Path) -> None:
    vectors = pa.array([[1, 0], None, [0, 1]], FLOATS)
    pq.write_table(pa.table({"image_features": vectors}), tmp_path / "in.parquet")
    assert build_index(tmp_path / "in.parquet", tmp_path / "index") == 2
    hits = Index(tmp_path / "index").search(np.array([0, 1], np.float32))
    assert [hit.row for hit in hits] == [{"row": 2}, {"row": 0}]


@pytest.mark.parametrize("width", [2, None])
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()])
def test_rows_without_a_vector_are_left_out(
    number: pa.DataType, width: int | None, tmp_path: Path
) -> None:
    """pyarrow cannot read nulls among lists of a fixed length."""
    kind = pa.list_(number) if width is None else pa.list_(number, width)
    some = [np.float16(1), np.float16(0.5)]
    lists = pa.array([None, some, None] * 3000, pa.list_(pa.float16())).cast(kind)
    zone = pa.array([0] * 9000, pa.timestamp("s", "Europe/Berlin"))
    rows = pa.table({"at": zone, "box": pa.array([None] * 9000, pa.list_(pa.int8(), 4))})
    rows = rows.append_column("image_features", lists)
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=5000)
    assert build_index(tmp_path / "in.parquet", tmp_path / "index") == 3000
    (hit,) = Index(tmp_path / "index").search(np.array([2, 1], np.float32), 1)
    assert hit.score == pytest.approx(1)
    assert hit.row == {"at": zone[0].as_py(), "box": None}


def test_half_floats_are_indexed(tmp_path: Path) -> None:
    half = pa.array([[np.float16(1), np.float16(0)]], pa.list_(pa.float16()))
    assert build_index(written(tmp_path / "in.parquet", half), tmp_path / "index") == 1


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([[1.0]])] * 2, ["image_features"] * 2)
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(RequestError, match="has several columns 'image_features': rename them"):
        build_index(tmp_path / "twice.parquet", tmp_path / "index")
    whole = written(tmp_path / "in.parquet", pa.array([[1.0, 2.0]] * 100, FLOATS)).read_bytes()
    (tmp_path / "damaged.parquet").write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    with pytest.raises(RequestError, match=r"damaged\.parquet"):
        build_index(tmp_path / "damaged.parquet", tmp_path / "index")
    assert not (tmp_path / "index").exists()


# -- searches ----------------------------------------------------------------------------------


PRICES = np.arange(3000) % 100


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(3000, 24, 60)


@pytest.fixture(scope="module", params=["exact", "approximate"])
def searched(
    request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """An index of `vectors`, with the column `price`; one that is small, and one that is large."""
    folder = tmp_path_factory.mktemp(request.param)
    columns = {"id": range(len(vectors)), "price": PRICES, "name": ["it's"] * len(vectors)}
    file = exact_search.written(folder / "in.parquet", exact_search.table(vectors, columns))
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "approximate":
            patch.setattr(lance, "EXACT", 1000)
            patch.setattr(lance, "_FEW", 20)
        build_index(file, folder / "index")
        index = Index(folder / "index")
        assert bool(index._ledger.trained) == (request.param == "approximate")
        yield index


def test_the_nearest_are_those_of_the_reference(searched: Index, vectors: np.ndarray) -> None:
    agreed = 0
    for query in clustered(20, 24, 60, seed=1):
        wanted = dict(nearest(vectors, query, 10))
        hits = searched.search(7 * query, 10)
        assert len(hits) == 10
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        agreed += len(wanted.keys() & {hit.row["id"] for hit in hits})
        for hit in hits:  # cosines are exact, also where vectors are found approximately
            (own,) = nearest(vectors[[hit.row["id"]]], query, 1)
            assert hit.score == pytest.approx(own[1], abs=1e-5)
    # The groups of an approximate index are drawn by chance.
    assert agreed >= (185 if searched._ledger.trained else 200)


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("price < 3", PRICES < 3),
        ("price = 7 AND name = 'it''s'", PRICES == 7),
        ("price IN (1, 99) OR id = 0", (PRICES == 1) | (PRICES == 99) | (np.arange(3000) == 0)),
        ("id = 1234", np.arange(3000) == 1234),  # fewer than are asked for
        ("price > 1000", PRICES > 1000),
        ("price < 50", PRICES < 50),
    ],
)
def test_conditions_keep_recall(
    where: str, allowed: np.ndarray, searched: Index, vectors: np.ndarray
) -> None:
    agreed = wanted = 0
    for query in clustered(10, 24, 60, seed=2):
        reference = {n for n, _ in nearest(vectors, query, 10, allowed)}
        hits = searched.search(query, 10, where=where)
        assert len(hits) == min(10, allowed.sum())
        assert all(allowed[hit.row["id"]] for hit in hits)
        agreed += len(reference & {hit.row["id"] for hit in hits})
        wanted += len(reference)
    assert agreed >= wanted * (0.98 if searched._ledger.trained else 1)


@pytest.mark.parametrize(
    "where",
    [
        *("", " ", "price <", "nope < 3", "price", "price + 1", "1 = 1; DROP TABLE vectors"),
        *("price < 3 -- or", "price < (SELECT 1)", "CAST(name AS INT) = 1", "1 / 0 = price"),
        *("(" * 200, "sleep(1)", "name RLIKE 'a'", "price = \0", "_distance < 1"),
    ],
)
def test_a_condition_that_cannot_be_used_is_one_sentence(where: str, searched: Index) -> None:
    for ask in (
        lambda: searched.search(np.ones(24, np.float32), where=where),
        lambda: searched.check_condition(where),
    ):
        with pytest.raises(RequestError, match=r"the condition .* cannot be used: ") as caught:
            ask()
        message = str(caught.value)
        assert "\n" not in message
        assert ".rs" not in message
        assert len(message) < 500


def test_a_condition_that_takes_text_for_numbers_has_a_hint(tmp_path: Path) -> None:
    columns = {"price": ["9.5", "70", None]}
    index = Index(indexed(tmp_path, np.eye(3), columns))
    with pytest.raises(RequestError, match=r"by CAST\(price AS double\)$"):
        index.check_condition("price < 50")
    (hit,) = index.search(np.ones(3, np.float32), where="CAST(price AS double) < 50")
    assert hit.row["price"] == "9.5"


def test_exact_search_of_a_large_index(searched: Index, vectors: np.ndarray) -> None:
    query = vectors[5]
    hits = searched.search(query, 50, exact=True)
    assert [hit.row["id"] for hit in hits] == [n for n, _ in nearest(vectors, query, 50)]


def test_vectors_that_are_equal_come_in_the_tables_order(tmp_path: Path) -> None:
    rows = exact_search.table(np.ones((40, 3), np.float32), {"id": range(40)})
    build_index(exact_search.written(tmp_path / "in.parquet", rows), tmp_path / "index")
    hits = Index(tmp_path / "index").search(np.ones(3, np.float32), 40)
    assert [hit.row["id"] for hit in hits] == list(range(40))
    assert {hit.score for hit in hits} == {1.0}


def test_an_index_of_one_direction_can_be_approximate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "EXACT", 100)
    rows = exact_search.table(np.ones((500, 1), np.float32), {"id": range(500)})
    build_index(exact_search.written(tmp_path / "in.parquet", rows), tmp_path / "index")
    assert len(Index(tmp_path / "index").search(np.ones(1, np.float32), 500)) == 500


# -- folders -----------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Path:
    table = written(tmp_path / "in.parquet", pa.array([[1, 0], [0, 1], [1, 1]], FLOATS))
    build_index(table, tmp_path / "index")
    return tmp_path / "index"


def said(**changes: Any) -> str:
    """A ledger with changes."""
    ledger = {
        "format": 1,
        "version": 3,
        "column": "image_features",
        "dimension": 2,
        "trained": 0,
        "origin": {"model": "", "fingerprint": ""},
        "sources": [],
    }
    return json.dumps({**ledger, **changes})


LEDGERS = {
    "empty": "",
    "no JSON": "{",
    "nested": "[" * 100_000,
    "a list": "[]",
    "another format": said(format=2),
    "no sources": json.dumps({"format": 1}),
    "a text for a number": said(version="1"),
    "a negative version": said(version=-1),
    "a version that is not there": said(version=99),
    "a huge version": said(version=2**64),
    "another column": said(column="nope"),
    "a column without vectors": said(column="id"),
    "another dimension": said(dimension=3),
    "a number for a text": said(origin={"model": 1, "fingerprint": ""}),
    "an unknown field": said(origin={"model": "", "fingerprint": "", "x": 1}),
    "sources that are none": said(sources=[1]),
}


@pytest.mark.parametrize("case", LEDGERS)
def test_a_ledger_that_is_none_is_refused(case: str, index: Path) -> None:
    (index / "index.json").write_text(LEDGERS[case])
    with pytest.raises(RequestError, match=r"index holds no index: ") as caught:
        Index(index)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\xff" * 5000], ids=["empty", "short", "noise"])
@pytest.mark.parametrize("ending", [".lance", ".manifest"])
def test_a_damaged_table_is_refused(ending: str, damage: bytes, index: Path) -> None:
    files = [file for file in index.rglob(f"*{ending}") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(damage)
    with pytest.raises(RequestError, match=r"holds no index|cannot be searched"):
        Index(index).search(np.ones(2, np.float32))


def test_a_table_that_is_gone_is_refused(index: Path) -> None:
    shutil.rmtree(index / "vectors.lance")
    with pytest.raises(RequestError, match=r"holds no index: there is no vectors\.lance"):
        Index(index)


def test_an_index_of_an_earlier_version_is_to_be_built_again(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    np.save(tmp_path / "index/vectors.npy", np.ones((1, 2), np.float16))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "index/rows.parquet")
    with pytest.raises(RequestError, match=r"earlier version.*build the index again"):
        Index(tmp_path / "index")
    table = written(tmp_path / "in.parquet", pa.array([[1.0, 2.0]], FLOATS))
    with pytest.raises(RequestError, match="is there already"):
        build_index(table, tmp_path / "index")
    assert build_index(table, tmp_path / "index", overwrite=True) == 1
    assert {entry.name for entry in (tmp_path / "index").iterdir()} == {
        "index.json",
        "vectors.lance",
    }


@pytest.mark.parametrize("name", ["a b#c?d%20e", "ü:x", "*[1]", "s3:", "-x"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    table = written(tmp_path / "in.parquet", pa.array([[1.0, 2.0]], FLOATS))
    assert build_index(table, tmp_path / name) == 1
    assert len(Index(tmp_path / name).search(np.ones(2, np.float32))) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.zeros(2), "all zeros"),
        (np.array([np.nan, 1]), "NaN or infinite"),
        (np.array([np.inf, 1]), "NaN or infinite"),
        (np.ones((1, 2)), "one vector, not an array of 2 axes"),
        (np.ones(3), "the query has 3"),
        (["a", "b"], "a vector of numbers"),
        ([[1], [1, 2]], "a vector of numbers"),
    ],
)
def test_a_query_that_is_no_vector_is_refused(query: Any, message: str, index: Path) -> None:
    with pytest.raises(RequestError, match=message):
        Index(index).search(query)


@pytest.mark.parametrize("top", [10**9, 2**63, 2**70])
def test_more_rows_may_be_asked_for_than_there_are(top: int, searched: Index) -> None:
    query = np.ones(24, np.float32)
    assert len(searched.search(query, top)) == 3000
    assert len(searched.search(query, top, where="price < 3")) == 90
    assert len(searched.search(query, top, exact=True)) == 3000


def test_large_answers_keep_recall(searched: Index, vectors: np.ndarray) -> None:
    query = clustered(1, 24, 60, seed=3)[0]
    for top in (100, 300, 1000):
        wanted = {n for n, _ in nearest(vectors, query, top)}
        assert len(wanted & {hit.row["id"] for hit in searched.search(query, top)}) >= 0.98 * top


def test_at_least_one_row_is_asked_for(index: Path) -> None:
    with pytest.raises(RequestError, match="top must be 1 at least, not 0"):
        Index(index).search(np.ones(2, np.float32), 0)
