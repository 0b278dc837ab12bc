"""Vectors and hashes that somebody has put into the files of what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.job_folder.digests import Digest
from score.job_folder.known import Known, _hashed
from score.storage.blob_store import BlobStore


@pytest.mark.parametrize("value", [b"", b"123", bytes(4 * 7), bytes(2**20)], ids=len)
def test_a_vector_of_another_length_is_computed_anew(
    value: bytes, embedder: Embedder, tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors.sqlite"
    with BlobStore(vectors, 10**9) as store:
        store.put(_hashed(b"text a cat"), value)
    with Known(tmp_path / "urls.sqlite", vectors) as known:
        rows = [(0, Digest(), Row(text="a cat"))]
        ((_, record),) = known.embed(embedder, rows, Params(), None)
    assert record.text_features is not None
    assert np.allclose(record.text_features, embedder.embed_text("a cat"), atol=1e-5)
