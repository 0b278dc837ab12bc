"""Embeds, forks while other threads embed, and embeds in the children: `… FOLDER URL ENGINE`.

Prints `equal` once all children have computed what the parent had.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from score import Embedder, Row, Settings
from score.core.embedder import parts_of
from score.pyfunc import Model
from tests.support.hostile import PNG

_CHILDREN = 2


def main(folder: str, url: str, engine: str) -> None:
    """The whole run."""
    settings = Settings(allow_hosts=("127.0.0.1",), engine=engine, precision="fp32", device="cpu")
    embedder = Embedder.load(folder, settings)
    flavour = Model(embedder)
    frame = pd.DataFrame({"text": ["a cat", "a dog"]})
    rows = [*(Row(text=f"a cat {n}") for n in range(5)), Row(image=PNG), Row(image=url)]

    def vectors(of: Embedder) -> np.ndarray:
        records = list(of.embed(rows))
        assert not any(record.error for record in records), records[-1].error
        found = [x.text_features if x.image_features is None else x.image_features for x in records]
        return np.stack(found)

    expected, predicted = vectors(embedder), flavour.predict(frame)
    # Computes on this thread, whose OpenMP team the children do not have.
    encoder = parts_of(embedder).encoder
    encoder.images([np.zeros((224, 224, 3), np.uint8)] * 2)

    def child() -> None:
        with ThreadPoolExecutor(2) as threads:
            for answer in [*threads.map(vectors, [embedder] * 2), vectors(embedder)]:
                assert np.allclose(answer, expected, rtol=1e-4, atol=1e-5)
        assert flavour.predict(frame) == predicted
        assert np.allclose(vectors(Embedder.load(folder, settings)), expected, atol=1e-5)

    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            vectors(embedder)

    others = [threading.Thread(target=busy) for _ in range(2)]
    for thread in others:
        thread.start()
    under_way = embedder.embed(rows)
    next(under_way)
    children = [_forked(child) for _ in range(_CHILDREN)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    over.set()
    for thread in others:
        thread.join()
    assert len(list(under_way)) == len(rows) - 1, "the children have not ended the parent's call"
    print("equal" if codes == [0] * _CHILDREN else f"exit codes {codes}")


def _forked(work: object) -> int:
    process = os.fork()
    if not process:
        try:
            assert callable(work)
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
        finally:
            os._exit(1)
    return process


if __name__ == "__main__":
    main(*sys.argv[1:])
