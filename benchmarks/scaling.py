"""Whether a hundred times the rows take a hundred times as long, and no more memory.

    python -m benchmarks.scaling [--model DIR]

One long stream of distinct texts, a thousand at a time; after each thousand the same texts again,
as a stream of their own, so that other load on the machine affects both. The embedded model by
default, since this measures the pipeline.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice

from benchmarks import fixtures
from score.console import commands
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.folder.model_folder import EMBEDDED

SHORT, LONG = 1_000, 100_000


def stream(embedder: Embedder, texts: list[str]) -> Iterator[object]:
    return embedder.embed(Row(text=text) for text in texts)


def seconds(records: Iterator[object]) -> float:
    """Of the next thousand."""
    began = time.perf_counter()
    deque(islice(records, SHORT), maxlen=0)
    return time.perf_counter() - began


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = commands.Parser(description=__doc__)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--rows", type=int, default=LONG)
    options = parser.parse_args()
    if options.rows < SHORT:
        parser.error(f"--rows must be {SHORT:,} at least")
    embedder = Embedder.load(options.model)
    texts = fixtures.texts(options.rows)
    seconds(stream(embedder, texts[:SHORT]))
    before, long = peak(), stream(embedder, texts)
    pairs = []
    for start in range(0, len(texts), SHORT):
        pairs.append((seconds(long), seconds(stream(embedder, texts[start : start + SHORT]))))
        if len(pairs) % 10 == 0:
            rates = [SHORT / statistics.median(times) for times in zip(*pairs[-10:], strict=True)]
            share = statistics.median(short / own for own, short in pairs[-10:])
            print(
                f"to {start + SHORT:7,}: {rates[0]:,.0f} texts/s, in streams of their own "
                f"{rates[1]:,.0f}/s, ratio {share:.1%}; peak {peak():.0f} MiB",
                flush=True,
            )
    share = statistics.median(short / own for own, short in pairs)
    print(
        f"the long stream came at {share:.1%} of the short ones' rate (median of {len(pairs)} "
        f"pairs; few are noise); peak {before:.0f} → {peak():.0f} MiB"
    )


if __name__ == "__main__":
    commands.run(main)
