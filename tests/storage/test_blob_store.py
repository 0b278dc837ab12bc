"""A cache of small values on disk."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from score.storage import blob_store
from score.storage.blob_store import BlobStore, BloomFilter
from tests.support.surfaces import ROOT

MIB = 2**20


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_values_outlive_the_store(tmp_path: Path) -> None:
    file = tmp_path / "below" / "store.sqlite"
    with BlobStore(file, MIB) as store:
        assert store.get(key(-1)) is None
        store.put(key(-1), b"1")
        assert store.get(key(-1)) == b"1"  # though it is not written yet
    with BlobStore(file, MIB) as store:
        assert store.get(key(-1)) == b"1"
        store.put(key(-1), b"2")  # what is there stays
    with BlobStore(file, MIB) as store:
        assert store.get(key(-1)) == b"1"
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_oldest_values_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_store, "_UNWRITTEN", 10)
    file = tmp_path / "store.sqlite"
    most = 100 * (1000 + blob_store._OVERHEAD)
    with BlobStore(file, most) as store:
        for number in range(1000):
            store.put(key(number), bytes(1000))
            there = sqlite3.connect(file).execute("select count(*) from blobs").fetchone()[0]
            assert there <= 1.2 * 100
        assert store.get(key(999)) is not None
        assert store.get(key(950)) is not None
        assert store.get(key(0)) is None
    assert file.stat().st_size < 3 * most


def test_threads_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_store, "_UNWRITTEN", 7)
    wrong = []

    def work(store: BlobStore, begin: int) -> None:
        for number in range(begin, begin + 500):
            store.put(key(number), key(number))
            if store.get(key(number)) != key(number):
                wrong.append(number)

    with BlobStore(tmp_path / "store.sqlite", MIB) as store:
        threads = [threading.Thread(target=work, args=[store, 400 * n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert all(store.get(key(number)) == key(number) for number in range(1700))


def test_values_are_in_the_file_within_seconds_and_others_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_store, "_LATEST", 0.0)
    file = tmp_path / "store.sqlite"
    with BlobStore(file, MIB) as store, BlobStore(file, MIB) as other:
        for number in range(3):
            store.put(key(number), b"1")
            store.save()  # which waits for what is on its way
            assert other.get(key(number)) == b"1"


def test_what_is_saved_outlives_a_killed_process(tmp_path: Path) -> None:
    file, copied = tmp_path / "store.sqlite", tmp_path / "copied"
    with BlobStore(file, MIB) as store:
        store.put(key(1), b"1")
        store.save()
        store.save()
        copied.mkdir()
        for each in tmp_path.glob("store.sqlite*"):
            shutil.copy(each, copied)
        with BlobStore(copied / "store.sqlite", MIB) as other:
            assert other.get(key(1)) == b"1"


OTHER = """
import hashlib, sys
from pathlib import Path
from score.storage.blob_store import BlobStore, BloomFilter
with BlobStore(Path(sys.argv[1]), 2**30) as store:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        store.put(hashlib.sha256(b"%d" % number).digest(), b"value" * 100)
"""


@pytest.mark.process
def test_processes_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    command = [sys.executable, "-c", OTHER, str(file)]
    ranges = [(0, 5000), (4000, 9000)]
    running = [
        subprocess.Popen([*command, *map(str, part)], cwd=ROOT, stderr=subprocess.PIPE)
        for part in ranges
    ]
    for process in running:
        assert process.communicate(timeout=120)[1] == b""
        assert process.returncode == 0
    with BlobStore(file, 2**30) as store:
        assert all(store.get(key(number)) == b"value" * 100 for number in range(9000))


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_begins_anew(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "store.sqlite"
    file.write_bytes(content)
    with BlobStore(file, MIB) as store:
        store.put(key(-1), b"1")
    assert "was damaged, and begins anew" in caplog.text
    with BlobStore(file, MIB) as store:
        assert store.get(key(-1)) == b"1"


def test_a_file_that_is_damaged_meanwhile_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    with BlobStore(file, MIB) as store:
        for number in range(5000):
            store.put(key(number), bytes(100))
    data = bytearray(file.read_bytes())
    data[4096:] = b"x" * (len(data) - 4096)
    file.write_bytes(data)
    with BlobStore(file, MIB) as store:
        for number in range(3000):
            store.get(key(number))
            store.put(key(number), b"new")
    with BlobStore(file, MIB) as store:
        assert store.get(key(2500)) == b"new"


def test_a_file_that_cannot_be_used_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with BlobStore(tmp_path / "file" / "store.sqlite", MIB) as store:
        store.put(key(-1), b"1")
        assert store.get(key(-1)) is None
    assert "cannot be used, and is done without" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_file_makes_way_where_the_disk_is_nearly_full(
    when: str,
    is_own: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that others need stays, but does not grow."""
    file = tmp_path / "store.sqlite"
    with BlobStore(file, MIB) as store:
        store.put(key(1), b"1")

    def fill_disk() -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=blob_store.LEAST_FREE - 1)
        monkeypatch.setattr(blob_store.shutil, "disk_usage", lambda _: usage)

    if when == "before":
        fill_disk()
    with BlobStore(file, MIB, is_own=is_own) as store:
        store.put(key(2), b"2")
        fill_disk()
    assert "is done without: less than 256 MiB are free on its disk" in caplog.text
    assert [each.name for each in tmp_path.iterdir()] == ([] if is_own else ["store.sqlite"])
    monkeypatch.undo()
    with BlobStore(file, MIB) as store:
        assert store.get(key(1)) == (None if is_own else b"1")
        assert store.get(key(2)) is None


def test_a_filter_knows_its_keys_and_few_others() -> None:
    known = BloomFilter()
    for number in range(20_000):
        known.add(key(number))
    assert all(key(number) in known for number in range(20_000))
    assert sum(key(number) in known for number in range(20_000, 40_000)) < 10


@pytest.mark.parametrize(
    ("keys", "value"),
    [("x", b"1"), (5, b"1"), (b"", b"1"), (None, None), (key(0), "text"), (key(0), 7)],
    ids=["a text as key", "a number as key", "a short key", "null", "a text", "a number"],
)
def test_a_file_that_somebody_else_has_filled_does_no_harm(
    keys: object, value: object, tmp_path: Path
) -> None:
    file = tmp_path / "blobs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("create table blobs (number integer primary key, key, value)")
        connection.execute("insert into blobs (key, value) values (?, ?)", (keys, value))
    connection.close()
    with BlobStore(file, 10**9) as store:
        assert store.get(key(0)) is None
        store.put(key(1), b"1")
        assert store.get(key(1)) == b"1"
