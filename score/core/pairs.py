"""Items that stand for rows, each beside its record."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.type_aliases import OnFetched

Item = TypeVar("Item")


def embed_pairs(
    embedder: Embedder,
    items: Iterable[tuple[Item, Row]],
    params: Params | None = None,
    *,
    root: Path | None = None,
    on_fetched: OnFetched | None = None,
) -> Generator[tuple[Item, Record], None, None]:
    """Embeds the row of each (item, row), and yields (item, record) in the same order.

    While rows are embedded only their items are kept here: a row may hold an inline image of many
    megabytes. `params`, `root`, `on_fetched`: as `Embedder.embed` has them.
    """
    waiting: deque[Item] = deque()

    def rows() -> Iterator[Row]:
        for item, row in items:
            waiting.append(item)
            yield row

    for record in embedder.embed(rows(), params, root=root, on_fetched=on_fetched):
        yield waiting.popleft(), record
