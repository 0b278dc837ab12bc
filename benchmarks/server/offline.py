"""Rows a second of one stream, and what one row takes alone; run by its path, in any checkout.

    python -P offline.py MODEL ROWS.json    → {"rate": …, "alone": seconds}

`alone` is the median of a lone pass; of images in base64 with their decoding; of URLs 0.
"""

import base64
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.settings import Settings


def compute(embedder: Embedder, row: dict[str, str]) -> Callable[[], Any] | None:
    """What a row needs, without server, stream and threads."""
    encoder, tokenizer, preprocessor = parts_of(embedder)
    if "text" in row:
        ids: Any = tokenizer.encode([row["text"]], "end")
        return lambda: encoder.texts(ids)
    if row["image"].startswith("http"):
        return None
    most = embedder.settings.max_pixels
    return lambda: encoder.images([preprocessor.read(base64.b64decode(row["image"]), most)])


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(model: str, file: str) -> None:
    embedder = Embedder.load(model, Settings.from_env(os.environ))
    cells = json.loads(Path(file).read_text())
    rows = [Row(**row) for row in cells]
    list(embedder.embed(rows[:64]))
    for _ in range(2):
        began = time.perf_counter()
        failed = [record for record in embedder.embed(rows) if record.error]
        rate = len(rows) / (time.perf_counter() - began)
        assert not failed, failed[0]
    alone = [seconds(work) for row in cells[:30] if (work := compute(embedder, row))]
    print(json.dumps({"rate": rate, "alone": statistics.median(alone) if alone else 0.0}))


if __name__ == "__main__":
    main(*sys.argv[1:])
