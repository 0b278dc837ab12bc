"""Failed rows that are tried again."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from score.contract.params import Params
from score.core.embedder import Embedder
from score.fetch import circuit_breaker
from score.job_folder import retry
from score.job_folder.embed import JobOptions, embed_into
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary
from score.settings import Settings
from tests.support.hostile import dead_port
from tests.support.images import random_image
from tests.support.job_folders import assert_same, content, entries

ROWS = 60
SETTINGS = Settings(allow_hosts=("127.0.0.1",), max_retries=0, retry_wait=0)


class Server:
    """A server of one image. Paths in `down` get a 503, others that are no `.png` a 404."""

    def __init__(self, port: int = 0) -> None:
        self.down: set[str] = set()
        ours, image = self, random_image(1)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = 503 if self.path in ours.down else 200
                if not self.path.endswith(".png"):
                    status = 404
                self.send_response(status)
                self.send_header("Content-Length", str(len(image)))
                self.end_headers()
                self.wfile.write(image)

            def log_message(self, *_: object) -> None: ...

        self.listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.listening.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with listening() as server:
        yield server


@contextmanager
def listening(port: int = 0) -> Iterator[Server]:
    server = Server(port)
    threading.Thread(target=server.listening.serve_forever, daemon=True).start()
    yield server
    server.listening.shutdown()
    server.listening.server_close()


@pytest.fixture(scope="module")
def fetching() -> Embedder:
    return Embedder.load(settings=SETTINGS)


@pytest.fixture
def table(tmp_path: Path, server: Server) -> Path:
    """Texts, and images, of which some are not there for the moment, and one never is."""
    cells = {number: server.url(f"/{number}.png") for number in (3, 5, 23, 24, 30)}
    cells[44] = server.url("/nowhere")
    server.down = {f"/{number}.png" for number in (3, 5, 23, 24)}
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as stream:
        lines = ([number, cells.get(number, ""), f"text {number}"] for number in range(ROWS))
        csv.writer(stream).writerows([["id", "image", "text"], *lines])
    return file


def run(embedder: Embedder, table: Path, folder: Path, *, retry_failed: bool = False) -> Summary:
    with open_lines(table) as lines:
        options = JobOptions(shard_rows=20, retry_failed=retry_failed)
        return embed_into(embedder, lines, folder, Params(on_error="report"), options)


def failing(folder: Path) -> dict[int, str]:
    shards = content(folder)
    codes = zip(shards["row_id"].to_pylist(), shards["error_code"].to_pylist(), strict=True)
    return {number: code for number, code in codes if code}


def test_rows_that_may_succeed_are_tried_again_and_no_others(
    table: Path, tmp_path: Path, fetching: Embedder, server: Server
) -> None:
    folder = tmp_path / "job"
    first = run(fetching, table, folder)
    assert failing(folder) == {**dict.fromkeys((3, 5, 23, 24), "fetch_failed"), 44: "fetch_failed"}
    assert [entry.retryable for entry in entries(folder)] == [2, 2, 0]
    assert entries(folder)[0].hosts == {"127.0.0.1": 2}
    assert [dict(e.statuses) for e in entries(folder)] == [{"503": 2}, {"503": 2}, {"404": 1}]
    times = [time for entry in entries(folder) for time in entry.slowest.items()]
    assert {host for host, _ in times} == {"127.0.0.1"}
    assert sum(time.requests for _, time in times) == 6
    assert (first.retried, first.errors) == (0, 5)
    before = content(folder)
    untouched = (folder / entries(folder)[2].file).stat().st_ino

    server.down = {"/5.png"}
    again = run(fetching, table, folder, retry_failed=True)
    assert failing(folder) == {5: "fetch_failed", 44: "fetch_failed"}
    assert (again.retried, again.recovered, again.errors) == (4, 3, 2)
    assert again.failed == {"fetch_failed": 2}
    assert [entry.retryable for entry in entries(folder)] == [1, 0, 0]
    assert [dict(entry.hosts) for entry in entries(folder)] == [
        {"127.0.0.1": 1},
        {},
        {"127.0.0.1": 1},
    ]
    assert [dict(entry.statuses) for entry in entries(folder)] == [{"503": 1}, {}, {"404": 1}]
    times = [time for entry in entries(folder) for time in entry.slowest.values()]
    assert sum(time.requests for time in times) == 6 + 4
    assert (folder / entries(folder)[2].file).stat().st_ino == untouched
    after = content(folder)
    assert after["row_id"].to_pylist() == list(range(ROWS))
    others = [number for number in range(ROWS) if number not in (3, 23, 24)]
    assert after.take(others).equals(before.take(others))
    hashes = after["image_sha256"].to_pylist()
    assert hashes[3] == hashes[23] == hashes[24] == hashes[30] is not None
    assert after["row_status"].to_pylist().count("failed") == 2

    server.down.clear()
    run(fetching, table, folder, retry_failed=True)
    run(fetching, table, tmp_path / "other")
    assert_same(content(folder), content(tmp_path / "other"))
    assert entries(folder)[0].bytes == (folder / entries(folder)[0].file).stat().st_size


def test_rows_of_a_silent_host_have_their_turn_at_the_end(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked for each of them while others are waiting; when it is back, they succeed."""
    monkeypatch.setattr(circuit_breaker, "SHORTEST", 0.2)
    monkeypatch.setattr(circuit_breaker, "LONGEST", 0.4)
    monkeypatch.setattr(retry, "PAUSES", (1.0,) * 5)
    back, port, seen = ExitStack(), dead_port(), list[Server]()
    file = tmp_path / "in.csv"
    cells = (
        f"http://127.0.0.1:{port}/{n}.png" if n % 2 else server.url(f"/{n}.png") for n in range(80)
    )
    file.write_text("image\n" + "\n".join(cells) + "\n")

    waited, shown = list[tuple[int, float]](), list[Summary]()
    pause = retry._pause

    def pausing(seconds: float, summary: Summary, progress: object) -> None:
        before = summary.seconds
        pause(seconds, summary, shown.append)
        waited.append((summary.waiting, summary.seconds - before))

    monkeypatch.setattr(retry, "_pause", pausing)

    def progress(summary: Summary) -> None:
        if summary.rows == 80 and not seen:
            seen.append(back.enter_context(listening(port)))

    embedder = Embedder.load(settings=SETTINGS)
    with back, open_lines(file) as lines:
        params = Params(on_error="report")
        options = JobOptions(shard_rows=20)
        summary = embed_into(embedder, lines, tmp_path / "job", params, options, progress)
    assert summary.retried > 20
    assert waited, "after a pause, which counts"
    assert all(rows > 0 and seconds >= 1 for rows, seconds in waited)
    assert shown
    assert summary.waiting == 0
    assert failing(tmp_path / "job") == {}
    assert [entry.unasked for entry in entries(tmp_path / "job")] == [0] * 4


def test_rows_that_need_not_be_tried_again_are_not(
    table: Path, tmp_path: Path, fetching: Embedder, server: Server
) -> None:
    folder = tmp_path / "job"
    server.down.clear()
    run(fetching, table, folder)
    ledger = (folder / "ledger.jsonl").read_bytes()
    assert run(fetching, table, folder, retry_failed=True).retried == 0
    assert (folder / "ledger.jsonl").read_bytes() == ledger


def test_a_job_that_stopped_goes_on_first(
    table: Path, tmp_path: Path, fetching: Embedder, server: Server
) -> None:
    folder = tmp_path / "job"
    run(fetching, table, folder)
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(lines[:1]))
    server.down.clear()
    summary = run(fetching, table, folder, retry_failed=True)
    assert (summary.rows, summary.retried, summary.errors) == (ROWS, 2, 1)
    assert failing(folder) == {44: "fetch_failed"}


def test_a_shard_that_is_damaged_inside_is_computed_again(
    table: Path,
    tmp_path: Path,
    fetching: Embedder,
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its length and ends are right: the checksums of its pages tell."""
    folder = tmp_path / "job"
    run(fetching, table, folder)
    file = folder / entries(folder)[1].file
    data = bytearray(file.read_bytes())
    data[10:2000] = bytes(1990)
    file.write_bytes(data)
    server.down.clear()
    summary = run(fetching, table, folder, retry_failed=True)
    assert f"{file} is damaged" in caplog.text
    assert failing(folder) == {44: "fetch_failed"}
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))
    assert summary.rows == ROWS
    assert summary.failed == {"fetch_failed": 1}
