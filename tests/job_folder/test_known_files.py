"""Vectors and hashes that somebody has put into the files of what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.job_folder.digests import Digest
from score.job_folder.folder import known_of
from score.job_folder.known import Known, _hashed
from score.storage import blob_store
from score.storage.blob_store import BlobStore


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_several_processes_use_none_of_them_removes(
    is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a disk is nearly full, say."""
    with known_of(tmp_path, "k", None, 10**9, is_shared=is_shared):
        files = sorted((tmp_path / "known").glob("*.sqlite"))
        assert len(files) == 2
    monkeypatch.setattr(blob_store, "LEAST_FREE", 2**62)
    with known_of(tmp_path, "k", None, 10**9, is_shared=is_shared):
        assert [file.exists() for file in files] == [is_shared] * 2


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
