"""Clusters that were planted are found again; names are the nearest texts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from score.errors import RequestError
from score.index import clusters, lance
from score.index.clusters import hdbscan, k_means
from score.index.index import Index, table_of
from score.index.lance import LanceTable
from score.index.naming import names_of
from tests.support.indexes import indexed, unchecked

SIZES = (90, 60, 40, 25)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of any length around four directions, in no order, and the direction of each."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.standard_normal((12, 12)))[0][: len(SIZES)]
    owners = random.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    vectors = directions[owners] + 0.05 * random.standard_normal((len(owners), 12))
    return vectors * random.uniform(0.1, 9, (len(owners), 1)), owners


def table(folder: Path, vectors: np.ndarray) -> LanceTable:
    return table_of(Index(indexed(folder, vectors)))[0]


@pytest.mark.parametrize("kind", ["whole", "batches", "hdbscan"])
def test_clusters_that_were_planted_are_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, owners = planted()
    rows = table(tmp_path, vectors)
    if kind == "batches":
        monkeypatch.setattr(clusters, "_WHOLE", 0)
        monkeypatch.setattr(clusters, "_DRAWN", 50)
        monkeypatch.setattr(clusters, "_COMPARED", 40)
        monkeypatch.setattr(lance, "_BATCH", 32)
        monkeypatch.setattr(clusters, "KMeans", lambda *_, **__: pytest.fail("not in batches"))
    found = hdbscan(rows, 10) if kind == "hdbscan" else k_means(rows, 4)
    assert found.numbers.tolist() == owners.tolist()  # the largest is the first
    assert found.sizes.tolist() == list(SIZES)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, centre in enumerate(found.centres):
        mean = unit[owners == number].sum(axis=0)
        assert centre == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
        cosines = unit[owners == number] @ centre
        assert found.cosines[owners == number] == pytest.approx(cosines, abs=1e-5)


def test_rows_between_clusters_are_in_none_of_hdbscan(tmp_path: Path) -> None:
    vectors, owners = planted()
    lonely = -sum(vectors[owners == owner].mean(axis=0) for owner in range(len(SIZES)))
    found = hdbscan(table(tmp_path, np.concatenate([vectors, [lonely]])), 10)
    assert found.numbers[-1] == -1
    is_in = found.numbers[:-1] >= 0
    assert is_in.mean() > 0.95
    assert found.numbers[:-1][is_in].tolist() == owners[is_in].tolist()
    assert np.isnan(found.cosines[found.numbers < 0]).all()
    assert not np.isnan(found.cosines[found.numbers >= 0]).any()


def test_the_same_index_gives_the_same_clusters(tmp_path: Path) -> None:
    rows = table(tmp_path, np.random.default_rng(5).standard_normal((300, 8)))
    one, other = k_means(rows, 12), k_means(rows, 12)
    assert one.numbers.tolist() == other.numbers.tolist()
    assert one.centres.tolist() == other.centres.tolist()


def test_each_row_is_with_its_nearest_centre_by_cosine(tmp_path: Path) -> None:
    vectors = np.random.default_rng(6).standard_normal((400, 6))
    found = k_means(table(tmp_path, vectors), 9)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ found.centres.T
    own = cosines[np.arange(400), found.numbers]
    assert own == pytest.approx(cosines.max(axis=1), abs=1e-5)
    assert np.linalg.norm(found.centres, axis=1) == pytest.approx(1, abs=1e-5)


def test_fewer_directions_than_clusters_are_fewer_clusters(tmp_path: Path) -> None:
    vectors = np.repeat(np.eye(3), 5, axis=0)
    assert k_means(table(tmp_path, vectors), 10).sizes.tolist() == [5, 5, 5]


def test_rows_of_python_clusters_come_nearest_first(tmp_path: Path) -> None:
    vectors, owners = planted()
    found = Index(indexed(tmp_path, vectors)).clusters(4)
    assert [len(cluster) for cluster in found] == list(SIZES)
    for number, cluster in enumerate(found):
        scores = [hit.score for hit in cluster]
        assert scores == sorted(scores, reverse=True)
        assert {owners[hit.row["id"]] for hit in cluster} == {number}
    dense = Index(tmp_path / "index").clusters(hdbscan=True, min_size=10)
    assert [len(cluster) for cluster in dense] == list(SIZES)


REFUSED = {
    "more clusters than rows": (3, lambda t: k_means(t, 4), "4 clusters of 3 rows cannot be made"),
    "of one row": (1, lambda t: k_means(t, 2), "2 clusters of 1 row cannot be made: ask for 1 at"),
    "none": (3, lambda t: k_means(t, 0), "from 1 to 4,096 clusters can be made, not 0"),
    "too many": (3, lambda t: k_means(t, 9999), "from 1 to 4,096 clusters can be made, not 9,999"),
    "fewer rows than a cluster": (3, lambda t: hdbscan(t, 5), "holds 3 rows: fewer than the 5 of"),
    "clusters of one": (3, lambda t: hdbscan(t, 1), "a cluster has two rows at least, not 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_numbers_that_do_not_go_together_are_refused(case: str, tmp_path: Path) -> None:
    rows, make, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        make(table(tmp_path, np.eye(4)[:rows]))


def test_too_many_rows_for_hdbscan_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "MOST_FOR_HDBSCAN", 2)
    with pytest.raises(RequestError, match="HDBSCAN takes 2 rows at most, and the index holds 3"):
        hdbscan(table(tmp_path, np.eye(3)), 2)


@pytest.mark.parametrize("kind", ["k-means", "hdbscan"])
def test_an_empty_index_and_vectors_that_are_none_are_refused(kind: str, tmp_path: Path) -> None:
    options = {"hdbscan": True, "min_size": 2} if kind == "hdbscan" else {"count": 1}
    (tmp_path / "a").mkdir()
    with pytest.raises(RequestError, match="the index holds no vectors"):
        Index(unchecked(tmp_path / "a", [])).clusters(**options)
    with pytest.raises(RequestError, match="a vector that is missing, NaN"):
        Index(unchecked(tmp_path, [[1, 0], None])).clusters(**options)


def test_one_row_is_one_cluster(tmp_path: Path) -> None:
    ((hit,),) = Index(indexed(tmp_path, np.ones((1, 3)))).clusters(1)
    assert hit.score == pytest.approx(1)


def test_without_scikit_learn_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(indexed(tmp_path, np.eye(3)))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    monkeypatch.delitem(sys.modules, "score.index.clusters")
    monkeypatch.delattr("score.index.clusters", raising=False)
    with pytest.raises(ImportError, match=r"pip install .*\[cluster\]"):
        index.clusters(1)
    assert len(index.duplicates(1)) == 0


def test_names_are_the_nearest_texts() -> None:
    texts = np.array([[2, 0.1], [0, 3], [1, 1], [1, 1]])
    names = names_of(np.array([[1, 0], [0.5, 0.5]]), ["right", "up", "both", "both again"], texts)
    assert names == [("right", "both", "both again"), ("both", "both again", "right")]
