"""A model and a job's input, open in one process, which makes shards of them."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property
from itertools import chain

from score.contract.rows import IMAGE
from score.core.embedder import Embedder, pipeline_of
from score.core.identity import Identity
from score.errors import RequestError, ScoreError
from score.executors.work import Begun, Partial, Result, Task, Work
from score.job_folder import stored
from score.job_folder.folder import ATTEMPTS, known_of
from score.job_folder.input_files import sizes_of
from score.job_folder.known import Known
from score.job_folder.manifest import key_of
from score.job_folder.ranges import Range
from score.job_folder.retry import warn_of_damage
from score.job_folder.rows import Item, embedded
from score.job_folder.shard import Shard
from score.jobs.line_source import open_lines
from score.wording.quoting import quoted

Progress = Callable[[Task, Partial], None]
"""Is called after each row. The object that it gets is changed by the next one."""


class Worker:
    """A model and a job's input, open in one process."""

    def __init__(self, work: Work) -> None:
        """Loads the model. Raises ScoreError, OSError."""
        self._work = work
        self._embedder = Embedder.load(work.model, work.settings)
        # What another machine has under the same path may be another model.
        found = Identity.of(self._embedder, work.fingerprint if work.is_here else None)
        if found.fingerprint != work.fingerprint:
            raise ScoreError(
                f"the model {quoted(work.name)} is another one here (fingerprint "
                f"{found.fingerprint[:12]}) than where the job began ({work.fingerprint[:12]})"
            )
        identity = replace(found, model=work.name)
        self.begun = Begun(identity, self._embedder.dimension)
        self._about = identity.metadata()
        with ExitStack() as closing:
            self._lines = closing.enter_context(open_lines(work.sources, dict(work.columns)))
            if work.sizes and sizes_of(self._lines) != work.sizes:
                raise RequestError(
                    "the input is not what it was when the job began: its files changed"
                )
            self._closing = closing.pop_all()
        self._lines.root = work.root
        self._image = dict(work.columns).get(IMAGE, IMAGE)

    @cached_property
    def _known(self) -> Known | None:
        """Opened with the first task: the job has its folder then."""
        if not self._work.is_here:
            return None
        work = self._work
        key = key_of(self.begun.identity, work.settings, work.params)
        known = known_of(
            work.folder, key, work.vector_cache, work.vector_cache_bytes, is_shared=True
        )
        return self._closing.enter_context(known)

    def close(self) -> None:
        """Closes the input, and what the job knows."""
        self._closing.close()

    def results(
        self, tasks: Iterable[Task], progress: Progress = lambda task, partial: None
    ) -> Iterator[Result]:
        """The result of each task, in order. Rows of tasks that follow one another are embedded in
        one stream, unless they are tried again. Raises RequestError for an input that has fewer
        rows, OSError."""
        coming, again = iter(tasks), list[Task]()

        def anew() -> Iterator[Task]:
            for task in coming:
                if task.entry is not None:
                    again.append(task)
                    return
                yield task

        while True:
            yield from self._embedded(anew(), progress)
            if not again:
                return
            yield self._retried(again.pop())

    def _embedded(self, tasks: Iterator[Task], progress: Progress) -> Iterator[Result]:
        if (first := next(tasks, None)) is None:  # until it comes there may be no folder
            return
        tasks = chain((first,), tasks)
        begun = dict[Range, Task]()

        def ranges() -> Iterator[Range]:
            for task in tasks:
                begun[task.rows] = task
                yield task.rows

        shard = None
        rows = embedded(self._embedder, self._lines, ranges(), self._work.params, self._known)
        try:
            with closing(rows):
                for item, record in rows:
                    if shard is None:
                        shard, failed = self._shard(item), Counter[str]()
                    shard.add(item.line, record, item.digest.sha256)
                    if record.error:
                        failed[record.error.code] += 1
                    progress(begun[item.rows], Partial(shard.rows, failed))
                    if item.is_last:
                        times = pipeline_of(self._embedder).host_times
                        entry, shard = shard.finish(times), None
                        if self._known:
                            self._known.save()
                        yield Result(begun.pop(item.rows), entry)
        finally:
            if shard is not None:
                shard.drop()

    def _shard(self, item: Item) -> Shard:
        return Shard(
            self._work.folder,
            _name(item.number),
            item.number,
            self._lines.columns,
            self.begun.dimension,
            self._about,
            vectors=self._work.vectors,
            image=self._image,
            types=self._lines.types,
        )

    def _retried(self, task: Task) -> Result:
        assert task.entry is not None
        file, name = self._work.folder / task.entry.file, _name(task.rows.first)
        try:
            wanted = stored.retryable(file)
            rows = embedded(
                self._embedder,
                self._lines,
                [task.rows],
                self._work.params,
                self._known,
                lambda rows: wanted,
            )
            new = list(rows)
            target = self._work.folder / name
            times = pipeline_of(self._embedder).host_times
            entry = stored.rewrite(file, target, task.entry, new, times, self._image)
        except stored.Damaged as error:
            warn_of_damage(file, error)
            return Result(task, None)
        if self._known:
            self._known.save()
        recovered = sum(record.error is None for _, record in new)
        return Result(task, replace(entry, file=name), len(new), recovered)


def _name(first: int) -> str:
    """Where this process alone writes a shard that begins with a row."""
    return f"{ATTEMPTS}/part-{first:012}.{secrets.token_hex(8)}.parquet"
