"""Several files, models, columns and appending: what goes together, what a killed job leaves."""

from __future__ import annotations

import datetime
import decimal
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.errors import RequestError
from score.hardware import locks
from score.index import build, lance
from score.index.build import build_index
from score.index.index import Index
from score.index.ledger import Ledger
from score.index.vector_table import VectorTable
from score.tables.parquet_writer import parquet_writer
from tests.support import exact_search
from tests.support.exact_search import nearest, written

RANDOM = np.random.default_rng(0)


def shard(file: Path, count: int = 5, fingerprint: str = "f1", **columns: Any) -> np.ndarray:
    """Writes a file of random vectors; returns them."""
    vectors = RANDOM.standard_normal((count, 8)).astype(np.float32)
    ids = {"id": [f"{file.stem}{n}" for n in range(count)]}
    written(file, exact_search.table(vectors, columns or ids, fingerprint))
    return vectors


def ids(index: Index, query: np.ndarray, top: int = 100) -> list[Any]:
    return [hit.row["id"] for hit in index.search(query, top)]


def assert_as_built_anew(folder: Path, tmp_path: Path) -> list[Any]:
    """That the index below `tmp_path` has the rows of one that is built of a folder now; returns
    their ids."""
    build_index(folder, tmp_path / "anew")
    query = np.ones(8, np.float32)
    found, wanted = (sorted(ids(Index(tmp_path / name), query)) for name in ("index", "anew"))
    assert found == wanted
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of two files, a and b/c."""
    shard(tmp_path / "in/a.parquet", 5)
    shard(tmp_path / "in/b/c.parquet", 4)
    return tmp_path / "in"


# -- inputs ------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_parquet_files_below_it(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    (folder / ".hidden.parquet").write_bytes(b"no table")
    (folder / ".cache").mkdir()
    (folder / ".cache/d.parquet").write_bytes(b"no table")
    assert build_index(folder, tmp_path / "index") == 9
    assert len(Index(tmp_path / "index")) == 9


def test_patterns_and_several_files(folder: Path, tmp_path: Path) -> None:
    shard(folder / "a2.parquet", 3)
    assert build_index(str(folder / "a*.parquet"), tmp_path / "one") == 8
    assert build_index(str(folder / "**/*.parquet"), tmp_path / "two") == 12
    assert build_index([folder / "a2.parquet", folder / "a.parquet"], tmp_path / "three") == 8
    shard(folder / "x[1]*.parquet", 2)  # a name that looks like a pattern
    assert build_index(folder / "x[1]*.parquet", tmp_path / "four") == 2


def test_a_content_counts_once(folder: Path, tmp_path: Path) -> None:
    (folder / "copy.parquet").write_bytes((folder / "a.parquet").read_bytes())
    assert build_index([folder, folder / "a.parquet"], tmp_path / "index") == 9


def test_inputs_without_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no \.parquet file below .*empty"):
        build_index(tmp_path / "empty", tmp_path / "index")
    with pytest.raises(RequestError, match="no file matches"):
        build_index(tmp_path / "x*.parquet", tmp_path / "index")
    with pytest.raises(RequestError, match="no file to index"):
        build_index([], tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        build_index(tmp_path / "gone.parquet", tmp_path / "index")


def test_an_input_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="would replace the input"):
        build_index(folder, folder, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(RequestError, match="what no such job wrote"):
        build_index(folder, tmp_path / "other", overwrite=True)


def test_a_bad_row_in_a_later_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    bad = exact_search.table(np.zeros((1, 8), np.float32), {"id": ["z"]}, "f1")
    written(folder / "z.parquet", bad)
    with pytest.raises(RequestError, match=r"z\.parquet, column image_features, row 0: .* zeros"):
        build_index(folder, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_file_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    """Of the same length, and with its footer: only checksums tell."""
    vectors = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    rows = exact_search.table(vectors, {"n": range(8)}, "f1")
    file = tmp_path / "in.parquet"
    with parquet_writer(file, rows.schema) as writer:
        writer.write_table(rows)
    content = bytearray(file.read_bytes())
    content[content.index(vectors[3, 3:5].tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(RequestError, match=r"in\.parquet .*(CRC|checksum)"):
        build_index(file, tmp_path / "index")


# -- columns -----------------------------------------------------------------------------------

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
TYPES: dict[str, pa.Array] = {
    "bool": pa.array([True, None]),
    "int8": pa.array([1, -2], pa.int8()),
    "uint64": pa.array([1, 2**64 - 1], pa.uint64()),
    "double": pa.array([1.5, float("inf")]),
    "string": pa.array(["ü", None]),
    "large string": pa.array(["a", ""], pa.large_string()),
    "binary": pa.array([b"\0", None]),
    "decimal": pa.array([decimal.Decimal("1.20"), None]),
    "timestamp": pa.array([NOON, None], pa.timestamp("us", "UTC")),
    "date": pa.array([NOON.date(), None]),
    "duration": pa.array([datetime.timedelta(1), None]),
    "struct": pa.array([{"a": 1, "b": "x"}, None]),
    "list": pa.array([["a", None], []]),
    "list of structs": pa.array([[{"a": 1}], None]),
    "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "fixed list": pa.array([[float("inf"), 1.0], None], pa.list_(pa.float32(), 2)),
    "null": pa.nulls(2),
}


@pytest.mark.parametrize("name", ["c", "vector", "embedding", "A b", "select", 'a"b', "Größe"])
@pytest.mark.parametrize("case", TYPES)
def test_columns_keep_their_values(case: str, name: str, tmp_path: Path) -> None:
    rows = exact_search.table(np.eye(2, dtype=np.float32), {name: TYPES[case]})
    build_index(written(tmp_path / "in.parquet", rows), tmp_path / "index")
    hits = Index(tmp_path / "index").search(np.array([1.0, 0.1], np.float32))
    assert [hit.row for hit in hits] == [{name: value} for value in TYPES[case].to_pylist()]


def test_lists_of_floats_are_no_vectors_because_of_their_name(tmp_path: Path) -> None:
    lists = pa.array([[1.0], [float("nan"), 2.0, 3.0]], pa.list_(pa.float32()))
    rows = exact_search.table(np.eye(2, dtype=np.float32), {"vector": lists, "embedding": lists})
    build_index(written(tmp_path / "in.parquet", rows), tmp_path / "index")
    first, second = Index(tmp_path / "index").search(np.array([1.0, 0.1], np.float32))
    assert first.row == {"vector": [1.0], "embedding": [1.0]}
    assert second.row["vector"][1:] == [2.0, 3.0]


@pytest.mark.parametrize("name", ["", "a.b", "a`b", "_distance", "_rowid", "_rowaddr", "_score"])
def test_names_that_an_index_cannot_hold_are_refused(name: str, tmp_path: Path) -> None:
    rows = exact_search.table(np.eye(2, dtype=np.float32), {name: ["x", "y"]})
    with pytest.raises(RequestError, match=r"in\.parquet: an index can hold no column of the name"):
        build_index(written(tmp_path / "in.parquet", rows), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_type_that_lance_lacks_is_one_sentence(tmp_path: Path) -> None:
    kind = pa.decimal32(5, 1)
    rows = exact_search.table(np.eye(2, dtype=np.float32), {"c": pa.nulls(2, kind)})
    with pytest.raises(RequestError, match=r"cannot be written: Unsupported data type") as caught:
        build_index(written(tmp_path / "in.parquet", rows), tmp_path / "index")
    assert ".rs" not in str(caught.value)
    assert not (tmp_path / "index").exists()


def test_columns_of_several_files_are_united(tmp_path: Path) -> None:
    shard(tmp_path / "in/a.parquet", 1, n=pa.array([1], pa.int32()))
    shard(tmp_path / "in/b.parquet", 1, n=pa.array([2**40]), s=["x"])
    shard(tmp_path / "in/c.parquet", 1, s=pa.array(["y"]).dictionary_encode())
    build_index(tmp_path / "in", tmp_path / "index")
    rows = [hit.row for hit in Index(tmp_path / "index").search(np.ones(8, np.float32))]
    wanted = [{"n": 1, "s": None}, {"n": 2**40, "s": "x"}, {"n": None, "s": "y"}]
    assert sorted(rows, key=str) == sorted(wanted, key=str)


def test_columns_that_cannot_be_united_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "in/a.parquet", 1, n=[1])
    shard(tmp_path / "in/b.parquet", 1, n=["x"])
    with pytest.raises(RequestError, match=r"b\.parquet: its columns are not those of the files"):
        build_index(tmp_path / "in", tmp_path / "index")


def test_rows_of_several_files_of_vectors_alone_are_numbered_on(tmp_path: Path) -> None:
    for name in "abc":
        vectors = pa.array([[1.0, 0.0], None, [0.0, 1.0]], pa.list_(pa.float32()))
        about = {"file": name}  # else they would be one content
        written(
            tmp_path / f"in/{name}.parquet",
            pa.table({"image_features": vectors}).replace_schema_metadata(about),
        )
    build_index(tmp_path / "in/a.parquet", tmp_path / "index")
    build_index(tmp_path / "in", tmp_path / "index", append=True)
    hits = Index(tmp_path / "index").search(np.ones(2, np.float32))
    assert sorted(hit.row["row"] for hit in hits) == [0, 2, 3, 5, 6, 8]


# -- models ------------------------------------------------------------------------------------


def test_vectors_of_two_models_are_refused(folder: Path, tmp_path: Path) -> None:
    shard(folder / "d.parquet", 2, "f2")
    both = r"d\.parquet are of the model 'clip' \(fingerprint f2\), .* \(fingerprint f1\)"
    with pytest.raises(RequestError, match=both):
        build_index(folder, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    build_index(folder / "a.parquet", tmp_path / "index")
    with pytest.raises(RequestError, match=both):
        build_index(folder, tmp_path / "index", append=True)
    assert len(Index(tmp_path / "index")) == 5


def test_vectors_of_an_unknown_model_are_no_ones_else(folder: Path, tmp_path: Path) -> None:
    shard(folder / "d.parquet", 2, "")
    with pytest.raises(RequestError, match=r"d\.parquet are of an unknown model"):
        build_index(folder, tmp_path / "index")


def test_a_query_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    build_index(folder, tmp_path / "index")
    index = Index(tmp_path / "index")
    assert index.fingerprint == "f1"
    index.check(8, "f1", "renamed")
    index.check(8)
    with pytest.raises(RequestError, match=r"'clip' \(fingerprint f1\), .*'b' \(fingerprint f2\)"):
        index.check(8, "f2", "b")
    with pytest.raises(RequestError, match="holds vectors of 8 numbers, the query has 9"):
        index.check(9, "f1")


# -- appending ---------------------------------------------------------------------------------


def test_only_new_files_are_added(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    assert build_index(folder, index, append=True) == 9  # there was none
    assert build_index(folder, index, append=True) == 0
    before = Index(index)
    vectors = shard(folder / "d.parquet", 3)
    assert build_index(folder, index, append=True) == 3
    assert build_index(folder, index, append=True) == 0
    assert len(Index(index)) == 12
    assert ids(Index(index), vectors[1], 1) == ["d1"]
    assert len(before.search(vectors[1], 100)) == 9  # as it was when it was opened


def test_a_file_is_known_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    build_index(folder, tmp_path / "index")
    folder.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved/a.parquet", (1, 1))
    assert build_index(tmp_path / "moved", tmp_path / "index", append=True) == 0


def test_a_file_that_has_changed_is_replaced(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "score")
    build_index(folder, tmp_path / "index")
    before = Index(tmp_path / "index")
    old = ids(before, np.ones(8, np.float32), 100)
    vectors = shard(folder / "a.parquet", 6)
    assert build_index(folder, tmp_path / "index", append=True) == 6
    assert "a.parquet has changed: its 5 vectors in the index are replaced" in caplog.text
    assert sorted(ids(before, np.ones(8, np.float32), 100)) == sorted(old)
    index = Index(tmp_path / "index")
    assert len(index) == 10
    found = ids(index, vectors[5], 100)
    assert found[0] == "a5"
    build_index(folder, tmp_path / "anew")
    assert sorted(found) == sorted(ids(Index(tmp_path / "anew"), vectors[5], 100))
    assert build_index(folder, tmp_path / "index", append=True) == 0


def test_files_change_again_and_again(folder: Path, tmp_path: Path) -> None:
    """Also while others come."""
    build_index(folder, tmp_path / "index")
    for number in range(4):
        shard(folder / "a.parquet", 3 + number)
        shard(folder / "b/c.parquet", 7 - number)
        shard(folder / f"new{number}.parquet", 2)
        build_index(folder, tmp_path / "index", append=True)
        build_index(folder, tmp_path / "anew", overwrite=True)
        one, other = Index(tmp_path / "index"), Index(tmp_path / "anew")
        assert len(one) == len(other)
        for query in np.eye(8, dtype=np.float32):
            assert sorted(ids(one, query, 100)) == sorted(ids(other, query, 100))


def test_a_file_that_had_no_rows_takes_no_others_away(folder: Path, tmp_path: Path) -> None:
    """It has the number of the next one's first row."""
    shard(folder / "a.parquet", 0)
    build_index(folder, tmp_path / "index")
    shard(folder / "a.parquet", 3)
    assert build_index(folder, tmp_path / "index", append=True) == 3
    assert_as_built_anew(folder, tmp_path)


def test_a_file_of_two_spellings_is_replaced_once(folder: Path, tmp_path: Path) -> None:
    build_index(folder, tmp_path / "index")
    (tmp_path / "link").symlink_to(folder)
    shard(folder / "a.parquet", 6)
    files = [folder / "a.parquet", tmp_path / "link/a.parquet"]
    assert build_index(files, tmp_path / "index", append=True) == 6
    assert len(Index(tmp_path / "index")) == 10


def test_many_files_are_replaced_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "_DELETED", 2)
    for number in range(5):
        shard(folder / f"{number}.parquet", 3)
    build_index(folder, tmp_path / "index")
    for number in range(5):
        shard(folder / f"{number}.parquet", 2)
    assert build_index(folder, tmp_path / "index", append=True) == 10
    assert_as_built_anew(folder, tmp_path)


def test_a_file_that_has_become_a_copy_of_another_has_changed(folder: Path, tmp_path: Path) -> None:
    """Its old vectors are removed, and its new ones are in the index."""
    build_index(folder, tmp_path / "index")
    (folder / "a.parquet").write_bytes((folder / "b/c.parquet").read_bytes())
    assert build_index(folder, tmp_path / "index", append=True) == 0
    found = assert_as_built_anew(folder, tmp_path)
    assert len(Index(tmp_path / "index")) == len(found)


def test_rows_without_names_keep_their_numbers_when_a_file_changes(tmp_path: Path) -> None:
    """Of tables of vectors alone; one that has become longer has numbers that no row had."""

    def vectors(name: str, count: int, seed: int) -> np.ndarray:
        matrix = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
        written(tmp_path / f"in/{name}.parquet", exact_search.table(matrix, {}, "f1"))
        return matrix

    def number(vector: np.ndarray) -> int:
        found: int = Index(tmp_path / "index").search(vector, 1)[0].row["row"]
        return found

    (tmp_path / "in").mkdir()
    vectors("a", 5, 1), vectors("b", 5, 2)
    build_index(tmp_path / "in", tmp_path / "index")
    changed, longer = vectors("a", 5, 3), vectors("b", 7, 4)
    build_index(tmp_path / "in", tmp_path / "index", append=True)
    assert [number(changed[0]), number(longer[0])] == [0, 10]
    assert number(vectors("a", 5, 5)[0]) != 0
    new = vectors("c", 5, 6)
    build_index(tmp_path / "in", tmp_path / "index", append=True)
    assert number(new[0]) == 17


def test_an_index_of_an_earlier_version_grows_and_refuses_a_file_that_has_changed(
    folder: Path, tmp_path: Path
) -> None:
    """Its table does not tell which rows are of which file, and its ledger has no numbers."""
    build_index(folder, tmp_path / "index")
    said = json.loads((tmp_path / "index/index.json").read_text())
    for source in said["sources"]:
        del source["first"]
    table = lance.LanceTable.open(tmp_path / "index", said["column"], said["version"])
    table._table.checkout_latest()
    table._table.drop_columns(["_row_file"])
    said["version"] = table.version
    (tmp_path / "index/index.json").write_text(json.dumps(said))
    vectors = shard(folder / "d.parquet", 3)
    assert build_index(folder, tmp_path / "index", append=True) == 3
    assert ids(Index(tmp_path / "index"), vectors[1], 1) == ["d1"]
    assert [source.first for source in Ledger.read(tmp_path / "index").sources] == [0, 5, 9]
    shard(folder / "a.parquet", 6)
    with pytest.raises(RequestError, match=r"files have changed .*, of an earlier version"):
        build_index(folder, tmp_path / "index", append=True)
    assert len(ids(Index(tmp_path / "index"), vectors[1], 100)) == 12


def test_rows_that_are_not_there_are_not_replaced(folder: Path, tmp_path: Path) -> None:
    build_index(folder, tmp_path / "index")
    said = (tmp_path / "index/index.json").read_text()
    (tmp_path / "index/index.json").write_text(said.replace('"vectors": 5', '"vectors": 4'))
    shard(folder / "a.parquet", 6)
    with pytest.raises(RequestError, match=r"holds 5 rows of .*, and should hold 4: build it"):
        build_index(folder, tmp_path / "index", append=True)
    assert len(ids(Index(tmp_path / "index"), np.ones(8, np.float32), 100)) == 9


def test_an_index_that_grows_while_it_is_opened_is_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version that its ledger named may be removed before it is opened."""
    monkeypatch.setattr(lance, "_KEPT", datetime.timedelta(milliseconds=1))
    build_index(folder, tmp_path / "index")
    read, ledgers = Ledger.read, []

    def outdated(where: Path) -> Ledger:
        ledgers.append(read(where))
        if len(ledgers) == 1:
            shard(folder / "d.parquet", 50)
            monkeypatch.setattr(Ledger, "read", read)
            build_index(folder, tmp_path / "index", append=True)
            monkeypatch.setattr(Ledger, "read", outdated)
        return ledgers[-1]

    monkeypatch.setattr(Ledger, "read", outdated)
    assert len(Index(tmp_path / "index")) == 59
    assert len(ledgers) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": [1]}, "has a column 'extra', which the index lacks"),
        ({"id": [{"a": 1}]}, "column 'id' cannot be string"),
    ],
)
def test_other_columns_are_refused(
    change: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    build_index(folder, tmp_path / "index")
    shard(folder / "d.parquet", 1, **change)
    with pytest.raises(RequestError, match=message):
        build_index(folder, tmp_path / "index", append=True)
    assert len(ids(Index(tmp_path / "index"), np.ones(8, np.float32))) == 9


def test_vectors_of_another_length_or_column_are_refused(folder: Path, tmp_path: Path) -> None:
    build_index(folder, tmp_path / "index")
    short = exact_search.table(np.eye(3, dtype=np.float32), {"id": list("xyz")}, "f1")
    written(folder / "d.parquet", short)
    with pytest.raises(RequestError, match=r"d\.parquet has vectors of 3 numbers, .* of 8"):
        build_index(folder, tmp_path / "index", append=True)
    with pytest.raises(RequestError, match="indexes image_features, not text_features"):
        build_index(folder, tmp_path / "index", "text_features", append=True)


def test_nothing_is_appended_to_what_is_no_index(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(RequestError, match=r"other holds no index: there is no index\.json"):
        build_index(folder, tmp_path / "other", append=True)


@pytest.mark.parametrize("append", [True, False], ids=["append", "build"])
@pytest.mark.parametrize("is_built", [True, False], ids=["built", "empty"])
def test_two_processes_do_not_write_one_index(
    folder: Path, tmp_path: Path, append: bool, is_built: bool
) -> None:
    index, how = tmp_path / "index", {"append": append, "overwrite": not append}
    index.mkdir()
    if is_built:
        build_index(folder, index)
    lock = locks.lock_folder(index)
    assert lock is not None
    try:
        with pytest.raises(RequestError, match="another process writes an index there"):
            build_index(folder, index, **how)
    finally:
        os.close(lock)
    build_index(folder, index, **how)
    rows = sum(pq.read_metadata(file).num_rows for file in folder.rglob("*.parquet"))
    assert Ledger.read(index).vectors == rows > 0


def test_the_lock_is_of_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, which has failed, may remove the folder before it gives its lock back."""
    hold, index = locks.hold_folder, tmp_path / "index"
    removed: list[Path] = []

    def late(folder: Path) -> int | None:
        lock = hold(folder)
        if not removed:
            index.rmdir()
            removed.append(index)
        return lock

    monkeypatch.setattr(locks, "hold_folder", late)
    with build._held(index):
        monkeypatch.setattr(locks, "_MOMENT", 0.0)
        with pytest.raises(locks.Held):
            hold(index)
    assert removed


def test_a_build_that_fails_leaves_no_folder(folder: Path, tmp_path: Path) -> None:
    vectors = np.ones((3, 7), np.float32)
    written(folder / "other.parquet", exact_search.table(vectors, {"id": ["a", "b", "c"]}, "f1"))
    with pytest.raises(RequestError):
        build_index(folder, tmp_path / "new/index")
    assert not (tmp_path / "new/index").exists()


def test_files_that_are_gone_from_a_folder_are_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = tmp_path / "index"
    build_index(folder, index)
    gone = sorted(folder.glob("*.parquet"))[0]
    gone.unlink()
    shard(folder / "new.parquet", 3)
    assert build_index(folder, index, append=True) == 3
    assert f"1 file of the index is gone from {folder.resolve()}" in caplog.text
    assert "build the index again" in caplog.text
    caplog.clear()
    assert build_index(folder / "new.parquet", index, append=True) == 0
    assert not caplog.text, "single files say nothing of others"


class Killed(BaseException):
    """As if the process ended there."""


@pytest.mark.parametrize("after", ["reading", "adding", "training"])
def test_what_a_killed_append_leaves_does_not_count(
    after: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build_index(folder, index)
    vectors = shard(folder / "d.parquet", 3)

    def killed(*_: object) -> int:
        raise Killed

    def batches(self: VectorTable, first: int = 0) -> Iterator[Any]:
        yield next(reading(self, first))
        raise Killed

    reading = VectorTable.batches
    with monkeypatch.context() as patch:
        if after == "reading":
            patch.setattr(VectorTable, "extent", lambda _: (3, 8))
            patch.setattr(VectorTable, "batches", batches)
        elif after == "adding":
            patch.setattr(lance.LanceTable, "train", killed)
        else:
            patch.setattr(build.Ledger, "write", killed)
        with pytest.raises(Killed):
            build_index(folder, index, append=True)
    assert len(ids(Index(index), vectors[0])) == 9
    assert build_index(folder, index, append=True) == 3
    assert sorted(ids(Index(index), vectors[0]))[-3:] == ["d0", "d1", "d2"]
    assert len(ids(Index(index), vectors[0])) == 12


@pytest.mark.parametrize("after", ["removing", "adding", "training"])
def test_an_append_that_was_killed_replaces_nothing(
    after: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build_index(folder, index)
    old = sorted(ids(Index(index), np.ones(8, np.float32), 100))
    shard(folder / "a.parquet", 6)

    def killed(*_: object) -> int:
        raise Killed

    where = {
        "removing": (lance.LanceTable, "add"),
        "adding": (lance.LanceTable, "train"),
        "training": (build.Ledger, "write"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[after], killed)
        with pytest.raises(Killed):
            build_index(folder, index, append=True)
    assert sorted(ids(Index(index), np.ones(8, np.float32), 100)) == old
    assert build_index(folder, index, append=True) == 6
    assert len(ids(Index(index), np.ones(8, np.float32), 100)) == 10


def test_an_index_grows_from_exact_to_approximate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "EXACT", 400)
    index, parts = tmp_path / "index", []
    for number, trained in enumerate((0, 0, 600, 600, 600, 600, 600, 600, 600, 600, 600, 2400)):
        parts.append(shard(tmp_path / f"in/{number:02}.parquet", 200))
        build_index(tmp_path / "in", index, append=True)
        if number in (0, 1, 2, 3, 11):
            opened = Index(index)
            assert opened._ledger.trained == trained
            vectors = np.concatenate(parts)
            for query in vectors[:: len(vectors) // 10]:
                ((best, _),) = nearest(vectors, query, 1)
                assert ids(opened, query, 1) == [f"{best // 200:02}{best % 200}"]


def test_versions_that_were_replaced_do_not_pile_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "_KEPT", datetime.timedelta(milliseconds=1))
    build_index(folder, tmp_path / "index")
    for number in range(4):
        shard(folder / f"d{number}.parquet", 50)
        build_index(folder, tmp_path / "index", append=True)
    data = list((tmp_path / "index/vectors.lance/data").iterdir())
    assert len(data) == 1
    assert len(ids(Index(tmp_path / "index"), np.ones(8, np.float32), 1000)) == 209


@pytest.mark.parametrize("column", ["image_features", "text_features"])
def test_either_column_is_indexed(column: Any, tmp_path: Path) -> None:
    lists = pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32()))
    rows = pa.table(
        {"id": ["a", "b"], "image_features": lists, "text_features": lists.take([1, 0])}
    )
    pq.write_table(rows, tmp_path / "in.parquet")
    build_index(tmp_path / "in.parquet", tmp_path / "index", column)
    (hit,) = Index(tmp_path / "index").search(np.array([1.0, 0.0]), 1)
    assert hit.row == {"id": "a" if column == "image_features" else "b"}
