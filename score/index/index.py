"""An index of vectors in a folder, and the nearest to a query by cosine.

`vectors.lance`: a table of LanceDB, of unit vectors and the columns beside them. `index.json`:
which version of it counts, which model made the vectors, and the files that they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from score.errors import RequestError
from score.extras import missing
from score.index.duplicates import Groups, find_groups, with_cosines
from score.index.lance import LanceTable
from score.index.ledger import Ledger
from score.index.origin import Origin
from score.model.zeroshot import unit
from score.storage.remote import is_remote
from score.type_aliases import Vector

if TYPE_CHECKING:  # imports scikit-learn, which an index does without
    from score.index.clusters import Clustering


@dataclass(frozen=True, slots=True)
class Hit:
    """A result: a row, and the cosine of its vector with the query's, from -1 to 1; in a group of
    duplicates with the first row's, in a cluster with the centre's."""

    score: float
    row: dict[str, Any]


class Index:
    """An index that `build_index` wrote to a folder, as it is when it is opened."""

    def __init__(self, folder: str | Path) -> None:
        """Opens the index in a folder, or at a URL of an object store. Raises RequestError where
        there is none."""
        folder = str(folder).rstrip("/") if is_remote(folder) else Path(folder)
        self._ledger, self._table = _opened(folder)
        width = self._table.schema.field(self._ledger.column).type
        if getattr(width, "list_size", None) != self.dimension:
            raise RequestError(f"{folder} holds no index: its vectors are {width!s:.80}")

    def __len__(self) -> int:
        return self._ledger.vectors

    @property
    def dimension(self) -> int:
        """The dimension of its vectors."""
        return self._ledger.dimension

    @property
    def fingerprint(self) -> str:
        """Of the model that made its vectors; empty if their files did not name it."""
        return self._ledger.origin.fingerprint

    @property
    def column(self) -> str:
        """What it holds the vectors of: `image_features` or `text_features`."""
        return self._ledger.column

    def check(self, dimension: int, fingerprint: str = "", model: str = "") -> None:
        """Raises RequestError unless a model's vectors can be compared with the index's.

        dimension, fingerprint, model: of the model; of an unknown one only the dimension is
        compared.
        """
        ours, theirs = self._ledger.origin, Origin(model, fingerprint)
        if ours.fingerprint and fingerprint and ours.fingerprint != fingerprint:
            raise RequestError(
                f"the index holds vectors of {ours}, the query is of {theirs}: vectors of two "
                "models cannot be compared"
            )
        if dimension != self.dimension:
            raise RequestError(
                f"the index holds vectors of {self.dimension} numbers, the query has {dimension}: "
                "was the table embedded with another model?"
            )

    def check_condition(self, where: str) -> None:
        """Raises RequestError for a condition that `search` cannot use."""
        self._table.matching(where)

    def search(
        self, query: Vector, top: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """The `top` rows nearest to a vector [D], which need not be normalised, nearest first.

        `where`: only rows that fulfil a condition in SQL, such as `price < 50 AND name LIKE 'a%'`;
        they are chosen first, so that there are `top` of them if so many fulfil it. `exact`: all
        vectors are compared, as they are in any case in an index of 100,000 vectors or fewer.
        Raises RequestError for a vector of another model's dimension, for what is no direction, and
        for a condition that cannot be used.
        """
        if top < 1:
            raise RequestError(f"top must be 1 at least, not {top}")
        trained = 0 if exact else self._ledger.trained
        rows, cosines = self._table.nearest(unit(self._checked(query)), top, where, trained)
        return [Hit(cosine, row) for cosine, row in zip(cosines, rows, strict=True)]

    def duplicates(self, threshold: float = 0.95) -> list[list[Hit]]:
        """Groups of near-duplicates: rows that pairs of a cosine of `threshold` or more connect.

        A chain connects, too: its ends may be less similar. The largest group comes first; in a
        group the rows are in the index's order. All their rows are in memory. Raises RequestError
        for a threshold outside (0, 1], and for an empty index.
        """
        return group_hits(self._table, find_groups(self._table, threshold, self._ledger.trained))

    def clusters(
        self, count: int = 20, *, hdbscan: bool = False, min_size: int = 5
    ) -> list[list[Hit]]:
        """Clusters by spherical k-means, `count` of them or fewer, or by HDBSCAN, of `min_size`
        rows or more; needs scikit-learn.

        The largest cluster comes first; in a cluster the row nearest to its centre. HDBSCAN leaves
        out rows that are in no cluster. All rows are in memory. Raises RequestError for more
        clusters than rows, for more rows than HDBSCAN takes, and for an empty index; ImportError.
        """
        try:
            from score.index import clusters
        except ImportError as error:  # scikit-learn is of an extra of its own
            raise ImportError(missing(error), name=error.name) from error
        if hdbscan:
            clustering = clusters.hdbscan(self._table, min_size)
        else:
            clustering = clusters.k_means(self._table, count)
        return cluster_hits(self._table, clustering)

    def _checked(self, query: Vector) -> Vector:
        try:
            vector = np.asarray(query, np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestError(f"the query must be a vector of numbers: {error!s:.80}") from None
        if vector.ndim != 1:
            raise RequestError(f"the query must be one vector, not an array of {vector.ndim} axes")
        self.check(vector.size)
        if not np.isfinite(vector).all():
            raise RequestError("the query holds a number that is NaN or infinite")
        if not vector.any():
            raise RequestError("the query is all zeros, which is no direction")
        scaled: Vector = (vector / np.abs(vector).max()).astype(np.float32)
        return scaled


def group_hits(
    table: LanceTable, groups: Groups, most: int | None = None, most_rows: int | None = None
) -> list[list[Hit]]:
    """The rows of each group; most, most_rows: as of `with_cosines`."""
    found: list[list[Hit]] = [[] for _ in groups.sizes[:most]]
    for numbers, cosines, rows in with_cosines(table, groups, most, most_rows):
        for number, cosine, row in zip(numbers, cosines, rows.to_pylist(), strict=True):
            found[number].append(Hit(float(cosine), row))
    return found


def cluster_hits(
    table: LanceTable, clustering: Clustering, count: int | None = None
) -> list[list[Hit]]:
    """Of each cluster the rows that are nearest to its centre, with their cosines; all for None."""
    found = []
    for number in range(len(clustering)):
        places = clustering.nearest(number, count)
        rows = table.rows_at(places).to_pylist()
        cosines = clustering.cosines[places].tolist()
        found.append([Hit(c, row) for c, row in zip(cosines, rows, strict=True)])
    return found


def table_of(index: Index) -> tuple[LanceTable, int]:
    """An index's table, and the number of vectors that its approximate index was trained on. For
    this package's own modules, which read rows in batches."""
    return index._table, index._ledger.trained


def _opened(folder: Path | str) -> tuple[Ledger, LanceTable]:
    """The ledger and the version of the table that it names. Raises RequestError."""
    ledger = Ledger.read(folder)
    try:
        return ledger, LanceTable.open(folder, ledger.column, ledger.version)
    except RequestError:  # vectors may have been added meanwhile, and the version be removed
        latest = Ledger.read(folder)
        if latest.version == ledger.version:
            raise
    return latest, LanceTable.open(folder, latest.column, latest.version)
