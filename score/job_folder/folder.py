"""A job's folder: `manifest.json`, `ledger.jsonl`, `shards/`, and a lock.

One process writes into it at a time. Whatever it was doing when it ended, the folder says truly
which rows are done: a shard has its name when it is complete, and its line in the ledger after
that.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from score.contract.params import Params
from score.errors import RequestError
from score.folder.model_folder import ModelFolder
from score.hardware.locks import Held, hold, is_held
from score.job_folder import ledger, manifest
from score.job_folder.known import Known
from score.job_folder.ledger import FORCE_NEW, SHARDS, Entry, Ledger
from score.job_folder.manifest import Manifest
from score.settings import Settings
from score.storage.outputs import check_folder
from score.tables.lines import Lines
from score.type_aliases import VectorType

ATTEMPTS = "attempts"
"""Where several processes that work on one job write shards, which get their names below `SHARDS`
from the one process that has the folder."""
_LOCK = "lock"
_MAGIC = b"PAR1"  # at both ends of a parquet file
_KNOWN = "known"  # while the job runs
REPORTS = ("report.json", "report.html")
"""What tells of the job when it has ended."""
_OURS = {ledger.NAME, SHARDS, ATTEMPTS, _KNOWN, _LOCK, *REPORTS}  # beside the manifest


class JobFolder:
    """A job's folder, held by this process. Use it as a context manager.

    manifest: of the job that is in it. ledger: open for appending.
    """

    def __init__(self, path: Path, wanted: Manifest, *, force_new: bool = False) -> None:
        """Begins a job, or goes on with one that computes what is wanted.

        force_new: an older job is removed. Raises RequestError where another process has the
        folder, or it holds something else, or a job that computes something else; OSError.
        """
        check(path, force_new=force_new)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _locked(path)
        try:
            if force_new:
                _clear(path)
            self.manifest = _agreed(path, wanted)
            if (path / SHARDS).is_symlink():  # files of another folder would be removed
                raise RequestError(
                    f"{path / SHARDS} is a link: a job keeps its files in its folder"
                )
            (path / SHARDS).mkdir(exist_ok=True)
            self.ledger = Ledger(path)
        except BaseException:
            self._unlock()
            raise
        try:
            self._remove_broken()
            self._remove_unlisted()
        except BaseException:
            self.close()
            raise

    def _remove_broken(self) -> None:
        for entry in list(self.ledger.done()):
            if not self.is_whole(entry):
                self.lost(entry)

    def lost(self, entry: Entry) -> None:
        """Has the rows of a shard that is damaged done again. Raises OSError."""
        (self.path / entry.file).unlink(missing_ok=True)
        self.ledger.lost(entry)

    def _remove_unlisted(self) -> None:
        """A kill may leave a shard that has its name and no line in the ledger, and what workers
        had written that had no name yet."""
        shutil.rmtree(self.path / ATTEMPTS, ignore_errors=True)
        listed = {entry.file for entry in self.ledger.done()}
        for file in (self.path / SHARDS).glob("part-*.parquet"):
            if f"{SHARDS}/{file.name}" not in listed:
                file.unlink()

    def shard(self, first: int) -> str:
        """Where the shard that begins with a row belongs, below the folder."""
        return f"{SHARDS}/part-{first:012}.parquet"

    def is_whole(self, entry: Entry) -> bool:
        """Whether a shard is as long as it was written, and begins and ends as it should. Raises
        OSError for one that is there and cannot be read."""
        try:
            with (self.path / entry.file).open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                start = stream.read(len(_MAGIC))
                stream.seek(max(0, size - len(_MAGIC)))
                return size == entry.bytes and start == stream.read() == _MAGIC
        except FileNotFoundError:
            return False

    def forget_known(self) -> None:
        """Removes what the job alone needed while it ran."""
        shutil.rmtree(self.path / _KNOWN, ignore_errors=True)

    def counted(self, rows: int) -> None:
        """Notes the number of the input's rows, all of which have been read. Raises OSError."""
        if self.manifest.rows != rows:
            self.manifest = self.manifest.counted(rows)
            self.manifest.write(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends holding the folder."""
        self.ledger.__exit__(None, None, None)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)


def known_of(
    folder: Path, key: str, cache: Path | None, most_bytes: int, *, is_shared: bool = False
) -> AbstractContextManager[Known | None]:
    """What has been computed in a job, or in a cache with the same key (`manifest.key_of`).

    most_bytes: of the vectors that are kept; 0: nothing is. is_shared: whether several processes
    work on the job, of which none may remove what the others use.
    """
    if not most_bytes:
        return nullcontext()
    vectors = cache / f"{key}.sqlite" if cache else folder / _KNOWN / "vectors.sqlite"
    return Known(
        folder / _KNOWN / "urls.sqlite",
        vectors,
        most_bytes,
        owns_urls=not is_shared,
        owns_vectors=cache is None and not is_shared,
    )


def check(path: Path, *, force_new: bool = False) -> None:
    """Raises RequestError for a folder that holds something else than a job, that another process
    writes into, or that is not writable. force_new: a job whose manifest is lost may be there."""
    if manifest.is_lost(path) and not force_new:
        raise manifest.missing(path)
    check_folder(path, lambda content: _may_be_job(path, content), overwrite=True)
    if holder(path):
        raise _taken(path)


def check_same_job(
    path: Path,
    model: ModelFolder,
    settings: Settings,
    params: Params,
    vectors: VectorType,
    lines: Lines,
    chosen: Mapping[str, str],
) -> None:
    """Raises RequestError where a folder holds another job than is wanted, as far as that can be
    told before the model is loaded, which may take minutes, and the input is read. Arguments: as of
    `Manifest.about`. Raises ModelError, OSError."""
    if not manifest.exists(path):
        return
    found = Manifest.read(path)
    identity = replace(
        found.identity,
        model=model.name,
        fingerprint=model.fingerprint(),
        precision=found.identity.precision if settings.precision == "auto" else settings.precision,
    )
    _check_same(
        path,
        found,
        Manifest.about(
            identity, found.dimension, settings, params, vectors, lines, chosen, found.inputs
        ),
    )


def check_apart(path: Path, files: Iterable[Path]) -> None:
    """Raises RequestError for an input that lies where the job writes."""
    inside = path.resolve()
    for file in files:
        if file.resolve().is_relative_to(inside):
            raise RequestError(f"the input {file} is in the job's folder {path}: name another")


def holder(path: Path) -> str:
    """Which process is writing into a job's folder, in words; empty for none that is known."""
    return _who(path) if is_held(path / _LOCK) else ""


def _may_be_job(path: Path, content: Sequence[Path]) -> bool:
    """Whether a folder holds a job, or what one leaves that ends before it has a manifest: its
    shards come after that, and go before it."""
    names = {entry.name for entry in content}
    return manifest.exists(path) or names <= {_LOCK} or (manifest.is_lost(path) and names <= _OURS)


def _locked(path: Path) -> int | None:
    try:
        descriptor = hold(path / _LOCK)
    except Held:
        raise _taken(path) from None
    if descriptor is not None:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


def _taken(path: Path) -> RequestError:
    return RequestError(
        f"another job is writing into {path}: {_who(path)}; `score status {path}` tells how far "
        "it is"
    )


def _who(path: Path) -> str:
    told = ""
    with suppress(OSError):
        told = (path / _LOCK).read_bytes()[:200].decode("utf-8", "replace")
    return told or "an unknown process"


def _clear(path: Path) -> None:
    # The manifest last: until then the folder is known to hold a job.
    for name in (ledger.NAME, *REPORTS):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / ATTEMPTS, ignore_errors=True)
    shutil.rmtree(path / SHARDS, ignore_errors=True)
    shutil.rmtree(path / _KNOWN, ignore_errors=True)
    (path / manifest.NAME).unlink(missing_ok=True)


def _agreed(path: Path, wanted: Manifest) -> Manifest:
    """The manifest of the job in a folder, which is written if there is none. Raises RequestError
    where what is wanted is another job."""
    if not manifest.exists(path):
        wanted.write(path)
        return wanted
    found = Manifest.read(path)
    _check_same(path, found, wanted)
    return found


def _check_same(path: Path, found: Manifest, wanted: Manifest) -> None:
    if change := found.change(wanted):
        raise RequestError(f"{path} holds another job: {change}; {FORCE_NEW}")
