"""A job's folder and the shards that workers make, in any order and not always at once."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from score.contract.params import Params
from score.core.embedder import Embedder
from score.errors import RequestError, ScoreError
from score.executors.executor import Executor, Seen
from score.executors.pieces import Pieces
from score.executors.spread import spread_into
from score.executors.work import Begun, Failure, Partial, Result, Task, Work
from score.executors.worker import Worker
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.job_folder import embed as embed_module
from score.job_folder.embed import JobOptions
from score.job_folder.ranges import Range
from score.jobs.line_source import open_lines
from score.jobs.summary import Summary
from score.settings import Settings
from tests.job_folder.test_embed import ROWS, damaged, run
from tests.job_folder.test_embed import table as table
from tests.job_folder.test_retry import ROWS as FETCHED
from tests.job_folder.test_retry import Server, failing
from tests.job_folder.test_retry import fetching as fetching
from tests.job_folder.test_retry import server as server
from tests.job_folder.test_retry import table as fetched_table
from tests.support.job_folders import assert_same, content, entries

__all__ = ["fetched_table"]


class InProcess:
    """An executor without processes: it does tasks in another order, and some twice.

    interrupted: after so many results it raises KeyboardInterrupt. poison: a row that ends workers.
    """

    def __init__(self, interrupted: int | None = None, poison: int | None = None) -> None:
        self._interrupted, self._poison = interrupted, poison
        self.done = list[Task]()
        self.partials = list[Partial]()
        self.closed = False

    def begin(self, work: Work) -> Begun:
        self._worker = Worker(work)
        return self._worker.begun

    def results(self, tasks: Iterable[Task], seen: Seen) -> Iterator[Result | Failure]:
        every = list(tasks)
        random.Random(1).shuffle(every)
        for task in every:
            if self._interrupted is not None and len(self.done) >= self._interrupted:
                raise KeyboardInterrupt
            if self._poison is not None and self._poison in range(
                task.rows.first, task.rows.end or 0
            ):
                yield Failure(task, "it was killed")
                continue
            list(self._worker.results([task]))  # an attempt of which nobody hears
            (result,) = self._worker.results([task], lambda task, partial: self.note(partial, seen))
            self.done.append(task)
            yield result

    def note(self, partial: Partial, seen: Seen) -> None:
        self.partials.append(partial)
        seen([partial])

    def close(self) -> None:
        if not self.closed:
            self._worker.close()
        self.closed = True


@pytest.fixture(autouse=True)
def _one_model(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedder, "load", lambda model, settings: embedder)


def spread(
    executor: Executor, table: Path, folder: Path, embedder: Embedder, **options: Any
) -> Summary:
    chosen = JobOptions(**{"shard_rows": 20, **options})
    params = Params(on_error="report")
    with open_lines(table) as lines:
        work = Work(
            model="any",
            name="emoji",
            fingerprint="f",
            settings=embedder.settings,
            params=params,
            vectors="float32",
            sources=(str(table),),
            columns=(),
            root=lines.root,
            folder=folder,
        )
        return spread_into(executor, lines, work, chosen)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "job"


def test_rows_are_as_one_process_embeds_them(
    table: Path, folder: Path, tmp_path: Path, embedder: Embedder
) -> None:
    executor = InProcess()
    summary = spread(executor, table, folder, embedder)
    one = run(embedder, table, tmp_path / "one")
    assert (summary.rows, summary.failed, summary.position) == (ROWS, one.failed, one.position)
    shards, wanted = content(folder), content(tmp_path / "one")
    assert_same(shards.replace_schema_metadata(None), wanted.replace_schema_metadata(None))
    assert b"score.fingerprint" in shards.schema.metadata
    found, other = entries(folder), entries(tmp_path / "one")
    assert [replace(each, bytes=0, seconds=0, sha256="") for each in found] == [
        replace(each, bytes=0, seconds=0, sha256="") for each in other
    ]
    assert sorted(each.name for each in folder.iterdir()) == [
        "ledger.jsonl",
        "lock",
        "manifest.json",
        "shards",
    ]
    assert executor.closed


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_job_that_was_interrupted_goes_on_with_what_is_missing(
    number: int, table: Path, folder: Path, tmp_path: Path, embedder: Embedder
) -> None:
    first = InProcess(interrupted=number)
    with pytest.raises(KeyboardInterrupt):
        spread(first, table, folder, embedder)
    assert first.closed
    assert len(entries(folder)) == number
    (folder / "attempts").mkdir()  # of a process that was killed
    (folder / "attempts/part-000000000000.0.parquet").write_text("cut")
    second = InProcess()
    summary = spread(second, table, folder, embedder)
    assert summary.earlier + sum(task.rows.rows or 0 for task in second.done) == ROWS
    assert {task.rows.first for task in first.done} & {t.rows.first for t in second.done} == set()
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))
    assert not (folder / "attempts").exists()
    third = InProcess()
    assert spread(third, table, folder, embedder).earlier == ROWS
    assert third.done == []


def test_one_process_goes_on_where_several_stopped_and_the_reverse(
    table: Path, folder: Path, embedder: Embedder
) -> None:
    with pytest.raises(KeyboardInterrupt):
        spread(InProcess(interrupted=2), table, folder, embedder)
    manifest = folder / "manifest.json"
    fingerprint = '"fingerprint": "f"'
    text = manifest.read_text()
    assert fingerprint in text
    from score.core.embedder import fingerprint_of

    manifest.write_text(text.replace(fingerprint, f'"fingerprint": "{fingerprint_of(embedder)}"'))
    run(embedder, table, folder)
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))
    manifest.write_text(text)
    damaged(folder / entries(folder)[1].file, "cut")
    again = InProcess()
    spread(again, table, folder, embedder)
    assert [task.rows.rows for task in again.done] == [20]
    assert content(folder)["row_id"].to_pylist() == list(range(ROWS))


def test_a_shard_that_is_damaged_inside_is_computed_again(
    table: Path, folder: Path, embedder: Embedder
) -> None:
    spread(InProcess(), table, folder, embedder)
    whole = content(folder)
    entry = entries(folder)[3]
    damaged(folder / entry.file, "inside")
    again = InProcess()
    summary = spread(again, table, folder, embedder)
    assert [task.rows.first for task in again.done] == [entry.first]
    assert summary.rows == ROWS
    assert_same(content(folder), whole)


def test_rows_that_end_every_worker_are_named_after_the_others_are_done(
    table: Path, folder: Path, embedder: Embedder
) -> None:
    with pytest.raises(ScoreError, match=r"rows 40 to 59 .*: it was killed\. What is done is kept"):
        spread(InProcess(poison=42), table, folder, embedder)
    assert [each.first for each in entries(folder)] == [0, 20, 60, 80]
    assert '"rows": null' in (folder / "manifest.json").read_text()
    assert spread(InProcess(), table, folder, embedder).earlier == ROWS - 20
    assert f'"rows": {ROWS}' in (folder / "manifest.json").read_text()


def test_rows_that_may_succeed_are_tried_again(
    fetched_table: Path, folder: Path, server: Server, fetching: Embedder, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda model, settings: fetching)
    first = spread(InProcess(), fetched_table, folder, fetching)
    assert (first.errors, first.retried) == (5, 0)
    untouched = (folder / entries(folder)[2].file).stat().st_ino
    server.down = {"/5.png"}
    executor = InProcess()
    again = spread(executor, fetched_table, folder, fetching, retry_failed=True)
    assert failing(folder) == {5: "fetch_failed", 44: "fetch_failed"}
    assert (again.rows, again.retried, again.recovered, again.errors) == (FETCHED, 4, 3, 2)
    assert sorted(task.rows.first for task in executor.done) == [0, 20]
    assert (folder / entries(folder)[2].file).stat().st_ino == untouched
    file = folder / entries(folder)[0].file
    data = bytearray(file.read_bytes())
    data[10:2000] = bytes(1990)
    file.write_bytes(data)
    server.down.clear()
    last = spread(InProcess(), fetched_table, folder, fetching, retry_failed=True)
    assert (last.rows, last.errors) == (FETCHED, 1)
    assert failing(folder) == {44: "fetch_failed"}
    assert content(folder)["row_id"].to_pylist() == list(range(FETCHED))


def test_too_many_errors_end_a_job_while_shards_are_under_way(
    tmp_path: Path, folder: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "_ENOUGH", 30)
    table = tmp_path / "in.csv"
    table.write_text("text\n" + '""\n' * 5000)
    executor = InProcess()
    summary = spread(executor, table, folder, embedder, max_error_rate=0.5, shard_rows=1000)
    assert summary.stopped
    assert executor.partials[-1].rows == 30
    assert executor.closed
    assert (summary.rows, entries(folder)) == (0, [])


def test_a_job_of_another_kind_is_refused(table: Path, folder: Path, embedder: Embedder) -> None:
    spread(InProcess(), table, folder, embedder)
    with pytest.raises(RequestError, match="holds another job: the model was"):
        run(embedder, table, folder)
    with pytest.raises(RequestError, match=r"holds another job: the input 'in\.csv' had"):
        table.write_text(table.read_text() + "more,,a text\r\n")
        spread(InProcess(), table, folder, embedder)


def pieces(table: Path, todo: list[Range], rows: int) -> tuple[list[Range], Pieces]:
    with open_lines(table) as lines:
        cut = Pieces(lines, todo, rows)
        return [task.rows for task in cut], cut


def test_pieces_are_of_one_shard_each(table: Path) -> None:
    whole, cut = pieces(table, [Range(0, None, None)], 40)
    assert [(piece.first, piece.rows) for piece in whole] == [(0, 40), (40, 40), (80, 15)]
    assert (cut.total, cut.row, cut.position) == (ROWS, ROWS, table.stat().st_size)
    inner, cut = pieces(table, [Range(40, 30, whole[1].mark), whole[2]], 20)
    assert [(piece.first, piece.rows) for piece in inner] == [(40, 20), (60, 10), (80, 15)]
    assert cut.total is None
    with open_lines(table) as lines:
        assert next(iter(lines.after(inner[1].mark))).kept[0] == "60"
    assert pieces(table, [Range(ROWS, None, None)][:0], 20)[0] == []


def test_an_input_that_has_become_shorter_is_noticed(table: Path) -> None:
    with pytest.raises(RequestError, match="the input ends after 95 rows, and had 200"):
        pieces(table, [Range(0, 200, None)], 20)


def test_a_worker_that_reads_another_input_or_model_is_refused(table: Path) -> None:
    """It would give rows the numbers of others, or vectors of another kind."""
    fingerprint = ModelFolder.open(EMBEDDED).fingerprint()
    work = Work(
        *(str(EMBEDDED), "emoji", fingerprint, Settings(verify="off"), Params(), "float32"),
        *((str(table),), (), table.parent, table.parent / "job"),
        sizes=(table.stat().st_size,),
    )
    Worker(work).close()
    with pytest.raises(RequestError, match="its files changed"):
        Worker(replace(work, sizes=(1,)))
    with pytest.raises(ScoreError, match="is another one here"):
        Worker(replace(work, fingerprint="f", is_here=False))


def test_a_worker_writes_nothing_before_its_first_task(table: Path) -> None:
    """The job's folder would hold something before it is a job's, and be refused."""
    fingerprint = ModelFolder.open(EMBEDDED).fingerprint()
    folder = table.parent / "job"
    work = Work(
        *(str(EMBEDDED), "emoji", fingerprint, Settings(verify="off"), Params(), "float32"),
        *((str(table),), (), table.parent, folder),
    )
    seen = []

    def tasks() -> Iterator[Task]:
        seen.append(folder.exists())
        folder.mkdir()
        yield Task(Range(0, 2, None))

    with closing(Worker(work)) as worker:
        assert len(list(worker.results(tasks()))) == 1
    assert seen == [False]


def test_workers_share_the_limits_of_downloads(table: Path) -> None:
    settings = Settings(per_host=64, fetch_workers=6, decode_workers=0)
    params = Params()
    work = Work(
        "any", "emoji", "f", settings, params, "float32", ("in.csv",), (), table.parent, table
    )
    shared = work.shared_by(8).settings
    assert (shared.per_host, shared.fetch_workers, shared.decode_workers) == (8, 1, 0)
    shared = work.shared_by(200, 2).settings
    assert (shared.per_host, shared.fetch_workers) == (1, 3)


def test_workers_keep_the_types_of_columns(
    folder: Path, tmp_path: Path, embedder: Embedder
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(f'{{"text": "{n}", "price": {n}.5}}\n' for n in range(30)))
    spread(InProcess(), file, folder, embedder)
    assert content(folder)["price"].to_pylist() == [n + 0.5 for n in range(30)]
