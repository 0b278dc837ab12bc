"""Groups of near-duplicates are the connected components that all cosines give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score.errors import RequestError
from score.index import duplicates, lance
from score.index.build import build_index
from score.index.components import Components
from score.index.duplicates import find_groups
from score.index.index import Index, table_of
from tests.support import exact_search
from tests.support.indexes import indexed, unchecked

DIMENSION = 16


def near(vectors: np.ndarray, cosine: float, random: np.random.Generator) -> np.ndarray:
    """A vector of this cosine with each."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = random.standard_normal(vectors.shape)
    noise -= (noise * unit).sum(axis=1, keepdims=True) * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    made: np.ndarray = cosine * unit + np.sqrt(1 - cosine**2) * noise
    return made


def planted(count: int = 600, seed: int = 0) -> np.ndarray:
    """Random vectors, near-copies, copies of other lengths, chains and equal ones, shuffled."""
    random = np.random.default_rng(seed)
    base = random.standard_normal((count, DIMENSION))
    chain = [base[:20]]
    for _ in range(4):
        chain.append(near(chain[-1], 0.97, random))
    parts = [base, *chain[1:], near(base[30:60], 0.951, random), near(base[30:60], 0.949, random)]
    parts += [3 * base[70:90], np.repeat(base[100:101], 50, axis=0), 1e-3 * base[110:120]]
    vectors = np.concatenate(parts).astype(np.float32)
    return vectors[random.permutation(len(vectors))]


def reference(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Connected components, by walking along all pairs."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    is_near = unit @ unit.T >= threshold - duplicates.ROUNDING
    left, groups = set(range(len(vectors))), []
    for first in range(len(vectors)):
        if first not in left:
            continue
        group, ahead = {first}, [first]
        while ahead:
            for other in np.flatnonzero(is_near[ahead.pop()]).tolist():
                if other not in group:
                    group.add(other)
                    ahead.append(other)
        left -= group
        if len(group) > 1:
            groups.append(sorted(group))
    return sorted(groups, key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("threshold", [0.7, 0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("blocks", ["one", "many"])
def test_groups_are_the_connected_components_of_all_pairs(
    blocks: str, threshold: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocks == "many":
        monkeypatch.setattr(lance, "_BATCH", 64)
        monkeypatch.setattr(duplicates, "_CHUNK", 7)
    vectors = planted()
    index = Index(indexed(tmp_path, vectors))
    groups = index.duplicates(threshold)
    expected = reference(vectors, threshold)
    assert [[hit.row["id"] for hit in group] for group in groups] == expected
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for group in groups:
        assert group[0].score == pytest.approx(1)
        for hit in group:
            cosine = unit[hit.row["id"]] @ unit[group[0].row["id"]]
            assert hit.score == pytest.approx(cosine, abs=1e-6)
    found = find_groups(table_of(index)[0], threshold)
    assert found.left == len(vectors) - sum(len(group) - 1 for group in expected)


def test_in_an_approximate_index_the_groups_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "EXACT", 500)
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 500)
    vectors = planted(1500)
    index = Index(indexed(tmp_path, vectors))
    assert index._ledger.trained
    monkeypatch.setattr(duplicates, "_join_all", lambda *_: pytest.fail("all were compared"))
    found = [[hit.row["id"] for hit in group] for group in index.duplicates()]
    assert found == reference(vectors, 0.95)


def test_a_row_with_more_neighbours_than_are_looked_up_at_first_gets_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "EXACT", 100)
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 100)
    monkeypatch.setattr(duplicates, "_FIRST_TOP", 2)
    random = np.random.default_rng(1)
    one = random.standard_normal((1, DIMENSION))
    vectors = near(np.repeat(one, 150, axis=0), 0.99, random)
    vectors = np.concatenate([vectors, random.standard_normal((150, DIMENSION))])
    index = Index(indexed(tmp_path, vectors))
    assert index._ledger.trained
    (group,) = index.duplicates()
    assert [hit.row["id"] for hit in group] == list(range(150))


def test_a_chain_is_one_group_whose_ends_may_be_apart(tmp_path: Path) -> None:
    angles = np.deg2rad(np.arange(0, 90, 10))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (group,) = Index(indexed(tmp_path, vectors)).duplicates(0.98)  # ten degrees are 0.985
    assert len(group) == 9
    assert group[-1].score == pytest.approx(np.cos(np.deg2rad(80)), abs=1e-6)


def test_rows_of_several_appended_files_are_compared(tmp_path: Path) -> None:
    vectors = planted()
    for number, part in enumerate(np.array_split(np.arange(len(vectors)), 3)):
        rows = exact_search.table(vectors[part], {"id": part})
        file = exact_search.written(tmp_path / f"{number}.parquet", rows)
        build_index(file, tmp_path / "index", append=True)
    found = Index(tmp_path / "index").duplicates()
    assert [[hit.row["id"] for hit in group] for group in found] == reference(vectors, 0.95)


@pytest.mark.parametrize("threshold", [0, -1, 1.0001, 2, float("nan"), float("inf")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float, tmp_path: Path) -> None:
    index = Index(indexed(tmp_path, np.ones((2, 2))))
    with pytest.raises(RequestError, match="must be a cosine above 0, and 1 at most, not"):
        index.duplicates(threshold)


def test_one_row_is_no_group(tmp_path: Path) -> None:
    assert Index(indexed(tmp_path, np.ones((1, 3)))).duplicates() == []


def test_an_empty_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the index holds no vectors"):
        Index(unchecked(tmp_path, [])).duplicates()


@pytest.mark.parametrize("vector", [[float("inf"), 0], [0, 0], None], ids=str)
def test_a_vector_that_is_none_is_refused(vector: list[float] | None, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a vector that is missing, NaN, .*--overwrite"):
        Index(unchecked(tmp_path, [[1, 0], vector])).duplicates()


@pytest.mark.parametrize("number", [float("nan"), float("-inf"), None], ids=str)
def test_a_number_that_is_none_is_refused(number: float | None, tmp_path: Path) -> None:
    """LanceDB itself writes no NaN; another program may."""
    table, _ = table_of(Index(indexed(tmp_path, np.eye(2))))
    lists = pa.array([[1, 0], [number, 1]], pa.list_(pa.float32(), 2))
    with pytest.raises(RequestError, match="a vector that is missing, NaN"):
        table._checked(lists)


def test_rows_without_a_vector_are_in_no_group(tmp_path: Path) -> None:
    vectors = pa.array([[1, 0], None, [1, 0], None], pa.list_(pa.float32()))
    pq.write_table(
        pa.table({"id": [0, 1, 2, 3], "image_features": vectors}), tmp_path / "in.parquet"
    )
    build_index(tmp_path / "in.parquet", tmp_path / "index")
    index = Index(tmp_path / "index")
    (group,) = index.duplicates(1)
    assert [hit.row["id"] for hit in group] == [0, 2]
    assert find_groups(table_of(index)[0], 1).left == 1


def test_components_join_directly_and_by_way_of_others() -> None:
    components = Components(8)
    components.join(np.array([5, 6, 1]), np.array([6, 7, 3]))
    components.join(np.array([7, 0]), np.array([3, 0]))
    assert components.roots(np.arange(8)).tolist() == [0, 1, 2, 1, 4, 1, 1, 1]
