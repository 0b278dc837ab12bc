"""Recall, time and memory of `score index` and `score search`, on random vectors around centres.

    python -m benchmarks.search [--vectors 1000000] [--dimension 512] [--queries 50]
    python -m benchmarks.search --vectors 50000 --kinds    # of approximate indexes, beside ours

Each vector is a random centre plus three quarters as much noise, in all dimensions: harder than
vectors of images, whose neighbours lie in far fewer. The index is built by a process of its own,
whose peak memory is shown; answers are compared with those of all vectors, computed by NumPy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lancedb.index import HnswSq, IvfPq, IvfRq, IvfSq

from benchmarks.machine import described
from benchmarks.memory import measured
from score.console import commands
from score.index.index import Index

BATCH = 8192
TOP = 10
FILTERS = {"none": 100, "price < 50": 50, "price < 5": 5, "price < 1": 1}
"""Condition → per cent of the rows that fulfil it."""


class Vectors:
    """Reproducible vectors, made a batch at a time."""

    def __init__(self, count: int, dimension: int, clusters: int) -> None:
        self.count, self.dimension = count, dimension
        self.centres = self._normal(np.random.default_rng(0), clusters)

    def _normal(self, random: np.random.Generator, count: int) -> np.ndarray:
        return random.standard_normal((count, self.dimension), np.float32)

    def some(self, count: int, seed: int) -> np.ndarray:
        """Unit vectors, float32 [count, dimension]."""
        random = np.random.default_rng(seed)
        noise = 0.75 * self._normal(random, count)
        vectors = self.centres[random.integers(0, len(self.centres), count)] + noise
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers and vectors."""
        for start in range(0, self.count, BATCH):
            size = min(BATCH, self.count - start)
            yield np.arange(start, start + size), self.some(size, start + 1)

    def write(self, file: Path) -> None:
        kind = pa.list_(pa.float32(), self.dimension)
        schema = pa.schema([("id", pa.int64()), ("price", pa.int64()), ("image_features", kind)])
        with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
            for numbers, vectors in self.batches():
                lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
                writer.write_batch(
                    pa.record_batch([pa.array(numbers), pa.array(price(numbers)), lists], schema)
                )

    def nearest(self, queries: np.ndarray) -> dict[str, list[set[int]]]:
        """For each filter, the numbers of the rows nearest to each query, by all cosines."""
        best = {
            name: (np.empty((len(queries), 0)), np.empty((len(queries), 0), int))
            for name in FILTERS
        }
        for numbers, vectors in self.batches():
            cosines = queries @ vectors.T
            for name, percent in FILTERS.items():
                allowed = price(numbers) < percent
                shown = np.broadcast_to(numbers[allowed], (len(queries), allowed.sum()))
                scores = np.concatenate([best[name][0], cosines[:, allowed]], axis=1)
                ids = np.concatenate([best[name][1], shown], axis=1)
                order = np.argsort(-scores, axis=1)[:, :TOP]
                best[name] = (
                    np.take_along_axis(scores, order, 1),
                    np.take_along_axis(ids, order, 1),
                )
        return {name: [set(row.tolist()) for row in ids] for name, (_, ids) in best.items()}


def price(numbers: np.ndarray) -> np.ndarray:
    """From 0 to 99, each about as often, in no order."""
    spread: np.ndarray = numbers * 7919 // 13 % 100
    return spread


def compared(index: Index, queries: np.ndarray, best: dict[str, list[set[int]]]) -> None:
    """Prints recall and time of each filter, and of the exact search."""
    for name in [*FILTERS, "exact"]:
        where = None if name in ("none", "exact") else name
        exact, times, found = name == "exact", [], 0
        cpu = time.process_time()
        truth = best["none" if exact else name]
        for query in queries[:3]:  # warm
            index.search(query, TOP, where=where, exact=exact)
        for query, wanted in zip(queries, truth, strict=True):
            began = time.perf_counter()
            hits = index.search(query, TOP, where=where, exact=exact)
            times.append(time.perf_counter() - began)
            found += len({hit.row["id"] for hit in hits} & wanted)
        cpu = (time.process_time() - cpu) / (len(queries) + 3)
        recall = found / sum(map(len, truth))
        slow = sorted(times)[int(0.95 * len(times))]
        print(
            f"{name:>12}: recall@{TOP} {recall:.3f}, median {1000 * statistics.median(times):.1f} "
            f"ms, 95 % within {1000 * slow:.1f} ms; {1000 * cpu:.1f} ms of processor time",
            flush=True,
        )


KINDS = {
    "IVF-SQ": IvfSq(distance_type="cosine", num_partitions=224),
    "IVF-RQ": IvfRq(distance_type="cosine", num_partitions=224),
    "IVF-PQ": IvfPq(distance_type="cosine", num_partitions=224, num_sub_vectors=64),
    "IVF-HNSW-SQ": HnswSq(distance_type="cosine"),
}


def kinds(folder: Path, queries: np.ndarray, best: dict[str, list[set[int]]]) -> None:
    """Prints what each kind takes to build, and finds, with ten times as many rows refined."""
    table = lancedb.connect(str(folder)).open_table("vectors")
    for name, config in KINDS.items():
        began = time.perf_counter()
        table.create_index("image_features", config=config, name="other", replace=True)
        seconds = time.perf_counter() - began
        recalls = []
        for condition in ("none", "price < 5"):
            found = 0
            for query, wanted in zip(queries, best[condition], strict=True):
                search = table.search(query, vector_column_name="image_features")
                search = search.distance_type("cosine").limit(TOP).nprobes(45).refine_factor(10)
                search = search if condition == "none" else search.where(condition)
                found += len(wanted & set(search.to_arrow()["id"].to_pylist()))
            recalls.append(found / TOP / len(queries))
        print(
            f"{name:>12}: built in {seconds:.0f} s, recall@{TOP} {recalls[0]:.3f}, with price < 5 "
            f"{recalls[1]:.3f}",
            flush=True,
        )


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--per-cluster", type=int, default=100)
    parser.add_argument("--kinds", action="store_true")
    options = parser.parse_args()
    machine = described()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}")
    clusters = max(1, options.vectors // options.per_cluster)
    vectors = Vectors(options.vectors, options.dimension, clusters)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        vectors.write(folder / "in.parquet")
        command = [sys.executable, "-m", "score", "index", str(folder / "in.parquet")]
        peak, seconds = measured([*command, "--output", str(folder / "index")])
        size = sum(file.stat().st_size for file in (folder / "index").rglob("*") if file.is_file())
        mib = [f"{count / 2**20:,.0f} MiB" for count in (peak, size)]
        print(f"built in {seconds:.0f} s, peak {mib[0]}; {mib[1]} on disk", flush=True)
        queries = vectors.some(options.queries, 2**40)
        best = vectors.nearest(queries)
        if options.kinds:
            kinds(folder / "index", queries, best)
        else:
            compared(Index(folder / "index"), queries, best)


if __name__ == "__main__":
    commands.run(main)
