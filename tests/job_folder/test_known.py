"""What comes again in a job is not fetched or encoded again."""

from __future__ import annotations

import base64
import csv
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, pipeline_of
from score.errors import ROW_CODES
from score.job_folder import known as known_module
from score.job_folder.digests import Digest
from score.job_folder.embed import JobOptions, embed_into
from score.job_folder.folder import known_of
from score.job_folder.ledger import Entry, Ledger
from score.jobs.embed import embed_file
from score.jobs.line_source import open_lines
from score.settings import Settings
from score.storage import blob_store
from tests.support.images import random_image
from tests.support.job_folders import assert_same, content

IMAGES = [random_image(seed, (40, 30)) for seed in range(4)]


class Server:
    """Images 0 to 3, by any number of names; `/no…` is a 404, `/junk` no image, `/busy` a 503.
    served: how often each path was."""

    def __init__(self) -> None:
        self.served = Counter[str]()
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ours.served[self.path] += 1
                status, body = ours.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, path: str) -> tuple[int, bytes]:
        if path.startswith("/no"):
            return 404, b""
        if path == "/busy":
            return 503, b""
        return 200, b"no image" if path == "/junk" else IMAGES[int(path[1]) % 4]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.listening.server_port}/{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.listening.serve_forever, daemon=True).start()
    yield server
    server.listening.shutdown()
    server.listening.server_close()


@pytest.fixture(scope="module")
def fetching() -> Embedder:
    settings = Settings(allow_hosts=("127.0.0.1",), max_retries=0, per_host=4)
    return Embedder.load(settings=settings)


@pytest.fixture
def encoded(fetching: Embedder, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images and texts are encoded."""
    counts = Counter[str]()
    pipeline = pipeline_of(fetching)
    for name in ("images", "texts"):
        original = getattr(pipeline, f"encode_{name}")

        def counted(inputs: Any, *more: Any, name: str = name, original: Any = original) -> Any:
            counts[name] += len(inputs)
            return original(inputs, *more)

        monkeypatch.setattr(pipeline, f"encode_{name}", counted)
    return counts


def table(tmp_path: Path, rows: Sequence[Sequence[str]]) -> Path:
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "text"], *rows])
    return file


def run(embedder: Embedder, file: Path, folder: Path, **options: Any) -> None:
    with open_lines(file) as lines:
        chosen = JobOptions(**{"shard_rows": 50, **options})
        embed_into(embedder, lines, folder, Params(on_error="report"), chosen)


def mixed(server: Server) -> list[tuple[str, str]]:
    """Rows of few images and texts, in all combinations, with cells that fail."""
    dice = random.Random(0)
    inline = base64.b64encode(IMAGES[2]).decode()
    images = ["", "", *(server.url(f"{n}") for n in range(3)), server.url("0b"), server.url("no")]
    images += [inline, "not base64!", server.url("no2"), f" {server.url('1')} "]
    texts = ["", "", "a cat", "a dog", "a bird", "a cat ", "x" * 9000]
    return [(dice.choice(images), dice.choice(texts)) for _ in range(400)]


def test_rows_are_as_without_repetition(server: Server, fetching: Embedder, tmp_path: Path) -> None:
    """Each row is as the row alone, whatever was known of it, and whatever failed before it."""
    rows = mixed(server)
    file = table(tmp_path, rows)
    run(fetching, file, tmp_path / "job")
    found = content(tmp_path / "job")
    alone: dict[tuple[str, str], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        if row not in alone:
            one = table(tmp_path, [row])
            run(fetching, one, tmp_path / "one", force_new=True)
            alone[row] = content(tmp_path / "one").to_pylist()[0]
        wanted = alone[row]
        got = found.slice(number, 1).to_pylist()[0]
        for name in ("error_code", "error_message", "row_status"):
            assert got[name] == wanted[name], (number, row)
        if wanted["error_code"] is None:
            assert got["image_sha256"] == wanted["image_sha256"], (number, row)
        for name in ("image_features", "text_features"):
            assert (got[name] is None) == (wanted[name] is None), (number, row)
            if wanted[name]:
                assert got[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-4)


def test_a_url_is_fetched_once_and_what_is_equal_encoded_once(
    server: Server, fetching: Embedder, tmp_path: Path, encoded: Counter[str]
) -> None:
    """Under way at the same time, or long before; by another URL, or inline."""
    urls = [server.url(path) for path in ("0", "1", "2", "0b")]
    rows = [(urls[number % 4], f"text {number % 3}") for number in range(300)]
    rows += [(base64.b64encode(IMAGES[0]).decode(), "")] * 20
    run(fetching, table(tmp_path, rows), tmp_path / "job")
    assert server.served == {"/0": 1, "/1": 1, "/2": 1, "/0b": 1}
    assert encoded["texts"] == 3
    assert encoded["images"] <= 4  # /0 and /0b may be under way at the same time
    hashes = content(tmp_path / "job")["image_sha256"].to_pylist()
    assert len(set(hashes)) == 3
    assert None not in hashes


def test_what_an_earlier_row_did_not_compute_is_computed_once(
    server: Server, fetching: Embedder, tmp_path: Path, encoded: Counter[str]
) -> None:
    """The first row's image fails, so that nothing comes of its text, for which others wait."""
    rows = [(server.url("no"), "the text of all"), *[(server.url("1"), "the text of all")] * 50]
    run(fetching, table(tmp_path, rows), tmp_path / "job")
    assert encoded["texts"] == 1
    found = content(tmp_path / "job")["text_features"].to_pylist()
    assert found[0] is None
    assert None not in found[1:]


def test_a_url_that_fails_for_good_is_fetched_once(
    server: Server, fetching: Embedder, tmp_path: Path
) -> None:
    rows = [(server.url(path), "") for path in ("no", "junk")] * 200
    run(fetching, table(tmp_path, rows), tmp_path / "job")
    found = content(tmp_path / "job")
    assert found["error_code"].to_pylist() == ["fetch_failed", "not_an_image"] * 200
    assert len(set(found["error_message"].to_pylist())) == 2
    assert len(set(found["image_sha256"].to_pylist())) == 2
    assert server.served == {"/no": 1, "/junk": 1}


def test_a_url_that_may_succeed_later_is_fetched_again(
    server: Server, fetching: Embedder, tmp_path: Path
) -> None:
    items = [(0, Digest(), Row(image=server.url("busy")))]
    with known_of(tmp_path, "key", None, 10**9) as known:
        assert known is not None
        for _ in range(2):
            ((_, record),) = known.embed(fetching, items, Params(), None)
            assert record.error
            assert record.error.retryable
    assert server.served == {"/busy": 2}


def test_with_other_limits_a_url_that_failed_is_fetched_again(
    server: Server, fetching: Embedder, tmp_path: Path
) -> None:
    items = [(0, Digest(), Row(image=server.url("0")))]
    small = Embedder.load(settings=fetching.settings.replace({"max_image_bytes": "100"}))
    with known_of(tmp_path, "key", None, 10**9) as known:
        assert known is not None
        for embedder, error in ((small, "too_many_bytes"), (fetching, None)):
            ((_, record),) = known.embed(embedder, items, Params(), None)
            assert (record.error.code if record.error else None) == error


def test_after_a_kill_no_url_of_a_finished_shard_is_fetched_again(
    server: Server, fetching: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process writes nothing any more: what it knew is in the files before the ledger
    names the shard."""
    file, folder = table(tmp_path, [(server.url(f"0{n}"), "") for n in range(60)]), tmp_path / "job"
    kept = list[set[str]]()
    original = Ledger.add

    def add(ledger: Ledger, entry: Entry) -> None:
        copied = tmp_path / "copied"
        shutil.copytree(folder / "known", copied / "known", dirs_exist_ok=True)
        with known_of(copied, "key", None, 10**9) as known:
            assert known is not None
            known._vector_bytes = 4 * fetching.dimension
            urls = [server.url(f"0{n}") for n in range(entry.first, entry.end)]
            kept.append({url for url in urls if known._image(url).vector is None})
        original(ledger, entry)

    monkeypatch.setattr(Ledger, "add", add)
    run(fetching, file, folder, shard_rows=20)
    assert kept == [set()] * 3


def test_workers_of_one_machine_know_what_others_computed(
    server: Server, fetching: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_store, "_LATEST", 0.0)
    urls = [server.url(path) for path in ("0", "1", "no")]
    items = [(0, Digest(), Row(image=url, text="a cat")) for url in urls]
    with (
        known_of(tmp_path, "key", None, 10**9, is_shared=True) as one,
        known_of(tmp_path, "key", None, 10**9, is_shared=True) as other,
    ):
        assert one is not None
        assert other is not None
        for known in (one, other):
            records = [record for _, record in known.embed(fetching, items, Params(), None)]
            assert [record.error is None for record in records] == [True, True, False]
            known.save()
    assert server.served == {"/0": 1, "/1": 1, "/no": 1}


def test_a_job_that_goes_on_knows_what_it_computed_before(
    server: Server, fetching: Embedder, tmp_path: Path, encoded: Counter[str]
) -> None:
    rows = [(server.url(str(number % 4)), f"text {number % 5}") for number in range(200)]
    file = table(tmp_path, rows)

    def progress(summary: Any) -> None:
        if summary.rows == 100:
            raise KeyboardInterrupt

    with open_lines(file) as lines, pytest.raises(KeyboardInterrupt):
        params = Params(on_error="report")
        embed_into(fetching, lines, tmp_path / "job", params, JobOptions(), progress)
    assert (tmp_path / "job" / "known").is_dir()
    before, fetched = Counter(encoded), server.served.total()
    run(fetching, file, tmp_path / "job")
    assert encoded == before
    assert server.served.total() == fetched
    assert not (tmp_path / "job" / "known").exists()  # a finished job needs it no more


@pytest.mark.parametrize("free", ["none", "switched off"])
def test_a_job_does_without_what_it_knows(
    free: str,
    server: Server,
    fetching: Embedder,
    tmp_path: Path,
    encoded: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the disk has no room for it, or nobody wants it: what was kept is removed at once."""
    rows = [(server.url(str(number % 4)), f"text {number % 5}") for number in range(200)]
    file = table(tmp_path, rows)
    known = tmp_path / "job" / "known"
    seen = list[list[Path]]()

    def progress(summary: Any) -> None:
        if summary.rows == 100:
            raise KeyboardInterrupt

    def look(summary: Any) -> None:
        seen.append(list(known.glob("*")))

    params = Params(on_error="report")
    with open_lines(file) as lines, pytest.raises(KeyboardInterrupt):
        embed_into(fetching, lines, tmp_path / "job", params, JobOptions(), progress)
    assert list(known.iterdir())
    options = JobOptions(vector_cache_bytes=0)
    if free == "none":
        options = JobOptions()
        monkeypatch.setattr(blob_store, "LEAST_FREE", 2**62)
    before = Counter(encoded)
    with open_lines(file) as lines:
        embed_into(fetching, lines, tmp_path / "job", params, options, look)
    assert not any(seen)
    assert encoded["texts"] > before["texts"]
    assert len(content(tmp_path / "job")) == 200


def test_a_cache_outlives_the_job_but_not_the_options(
    server: Server, fetching: Embedder, tmp_path: Path, encoded: Counter[str]
) -> None:
    rows = [(server.url(str(number % 4)), f"text {number}") for number in range(20)]
    file, cache = table(tmp_path, rows), tmp_path / "cache"
    run(fetching, file, tmp_path / "one", vector_cache=cache)
    before = Counter(encoded)
    assert before == {"images": 4, "texts": 20}
    run(fetching, file, tmp_path / "two", vector_cache=cache, vectors="float16")
    assert encoded == before
    assert server.served == dict.fromkeys(("/0", "/1", "/2", "/3"), 2)  # URLs may have changed
    other = tmp_path / "three"
    with open_lines(file) as lines:
        params = Params(normalize=True, on_error="report")
        embed_into(fetching, lines, other, params, JobOptions(vector_cache=cache))
    assert encoded["texts"] == 40
    assert len(list(cache.glob("*.sqlite"))) == 2
    run(fetching, file, tmp_path / "four")
    assert_same(content(tmp_path / "four"), content(tmp_path / "one"))


def test_a_damaged_cache_is_no_error(server: Server, fetching: Embedder, tmp_path: Path) -> None:
    rows = [(server.url("1"), "a text")] * 3
    file, cache = table(tmp_path, rows), tmp_path / "cache"
    run(fetching, file, tmp_path / "one", vector_cache=cache)
    (stored,) = cache.glob("*.sqlite")
    stored.write_bytes(b"damaged" * 5000)
    run(fetching, file, tmp_path / "two", vector_cache=cache)
    assert_same(content(tmp_path / "one"), content(tmp_path / "two"))


def test_the_mark_of_what_is_known_is_no_code_of_rows() -> None:
    assert known_module._Known.code not in ROW_CODES


def test_file_outputs_are_the_same(server: Server, fetching: Embedder, tmp_path: Path) -> None:
    file = table(tmp_path, mixed(server)[:100])
    embed_file(fetching, file, tmp_path / "all.parquet")
    run(fetching, file, tmp_path / "job")
    import pyarrow.parquet as pq

    whole, shards = pq.read_table(tmp_path / "all.parquet"), content(tmp_path / "job")
    assert whole["error_message"].to_pylist() == shards["error_message"].to_pylist()
