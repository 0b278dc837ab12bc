"""Atomic outputs: files and folders that appear under their name only when complete.

Each is written under a hidden name in the target's folder that nobody can guess, then renamed. So
two processes with the same output do not write into each other's files: the one that finishes last
wins. A link is never followed: not one that somebody put where the temporary file is created, nor
one at the target, which the file replaces. If writing fails, the temporary files are removed. Those
of a killed process are removed by the next process that writes into the same folder: at once if
their name shows an ended process of this machine, otherwise after a day without a write. A folder
that a killed process was replacing is restored.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from score.wording.system_errors import FULL

_NAME = re.compile(
    r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]{1,9})-[0-9a-f]{8,16}\.part", re.DOTALL
)
_OLD = "old"  # in the temporary folder of `folder`: where the folder that is replaced is moved
_LONGEST = 150  # bytes of the final name in the temporary one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ABANDONED = 24 * 3600.0  # seconds without a write
_STARTED = time.time()  # what this process wrote is not older
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_NO_SYNC = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A temporary, empty file, which replaces `path` when the block ends. Raises OSError.

    mode: its permissions, less the process's umask.
    """
    with files([path], mode) as (part,):
        yield part


@contextmanager
def files(paths: Iterable[Path], mode: int = 0o666) -> Iterator[list[Path]]:
    """Temporary, empty files, which replace `paths` when the block ends.

    For a file that the block removes, `paths`' own file is deleted. The folder of each must exist.
    Raises OSError; where the disk is full, one that names the first of `paths`.
    """
    paths = list(paths)
    parts: dict[Path, Path] = {}
    try:
        for path in paths:
            part = _temporary(path.parent, path.name)
            os.close(os.open(part, _CREATE, mode))
            parts[path] = part
        yield list(parts.values())
        for part in parts.values():
            _sync(part)
        for path, part in parts.items():
            if part.exists():
                part.replace(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        if paths:
            _name(error, paths[0])
        raise
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


@contextmanager
def folder(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """An empty folder that is renamed to `path` when the block ends.

    Its parent is a temporary folder of its own, where the block may write other temporary files.

    check: called before the renaming, which may be hours later; it raises if the existing folder at
    `path` must not be replaced. If the renaming fails, the existing folder stays. Raises OSError.
    """
    with scratch(path) as temporary:
        new, old = temporary / "new", temporary / _OLD
        new.mkdir()
        yield new
        check()
        if path.exists():
            old.mkdir()
            path.rename(old / path.name)
        new.rename(path)
        with suppress(OSError):  # where there was no old one
            old.rename(temporary / "replaced")  # not to be put back any more


@contextmanager
def contents(path: Path) -> Iterator[Path]:
    """A folder inside `path`, whose content replaces all that `path` holds when the block ends.

    If the block raises, `path` is unchanged. What other processes add meanwhile stays. Unlike
    renaming the folder itself, this works for a mount point, such as Azure ML's outputs. Raises
    OSError.
    """
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    replaced = [entry for entry in path.iterdir() if not is_temporary(entry.name)]
    try:
        with scratch(path / "new") as temporary:
            yield temporary
            for old in replaced:
                if _is_folder(old):
                    remove(old)
                else:
                    old.unlink(missing_ok=True)
            for new in temporary.iterdir():
                new.rename(path / new.name)
            is_new = False
    finally:
        if is_new:
            with suppress(OSError):  # other processes have added files
                path.rmdir()


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, removed when the block ends. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent, path.name)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
    except OSError as error:
        _name(error, path)
        raise
    finally:
        with suppress(OSError):  # what cannot be put back is kept
            _put_back(temporary)
            remove(temporary)


def _name(error: OSError, path: Path) -> None:
    """Raises an error of a full disk anew, of this file or folder: it names none, or a temporary
    one."""
    if error.errno in FULL:
        parts = Path(os.fsdecode(error.filename or "")).parts
        if not parts or any(map(is_temporary, parts)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def remove(path: Path) -> None:
    """Removes a folder if it exists; never raises OSError.

    It is renamed first, so that another process can create it again at once, and a thread that
    still writes into it fails.
    """
    aside = _temporary(path.parent, path.name)
    try:
        path.rename(aside)
    except OSError:  # in use on Windows, or its parent is not writable
        aside = path
    shutil.rmtree(aside, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary, incomplete file or folder."""
    return _NAME.fullmatch(name) is not None


def _temporary(parent: Path, name: str) -> Path:
    _remove_abandoned(parent.absolute())
    start = os.fsencode(name)[:_LONGEST].decode(errors="ignore")
    return parent / f".{start}.{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.part"


_next_sweep: dict[Path, float] = {}
_PAUSE = 50  # a sweep takes its share of the time: a job may write thousands of files to one folder


def _remove_abandoned(parent: Path) -> None:
    """Removes what killed processes left in a folder, unless it was looked through just now."""
    start = time.monotonic()
    if start < _next_sweep.get(parent, 0.0):
        return
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if name := _NAME.fullmatch(entry.name):
                with suppress(OSError):  # of this entry; the others may be removable
                    _remove_if_abandoned(Path(entry), name)
    end = time.monotonic()
    _next_sweep[parent] = end + _PAUSE * (end - start)


def _remove_if_abandoned(path: Path, name: re.Match[str]) -> None:
    if not _is_abandoned(path, name):
        return
    if _is_folder(path):
        _put_back(path)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _put_back(temporary: Path) -> None:
    """Moves the old folder back where `folder` ended before its second rename. Raises OSError.

    Without it the only copy of the old folder would be removed with the temporary one.
    """
    if not _is_folder(temporary / _OLD):  # a link could name anyone's folder to move files out of
        return
    for old in (temporary / _OLD).glob("*"):
        target = temporary.parent / old.name
        if not os.path.lexists(target):  # else another process has written it meanwhile
            old.rename(target)


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    process = int(name["process"]) if name["machine"] == _machine() else None
    if process is not None and not _is_running(process):
        return True
    # Written by another machine, or its process id may be another process's by now.
    paths = [path, *(path.rglob("*") if _is_folder(path) else ())]
    written: float = max(each.lstat().st_mtime for each in paths)
    if process == os.getpid() and written >= _STARTED:
        return False
    return time.time() - written > _ABANDONED


def _is_folder(path: Path) -> bool:
    """Whether it is a folder itself, no link to one."""
    return path.is_dir() and not path.is_symlink()


@cache
def _machine() -> str:
    """An id of the machine or container whose process ids this process sees: 8 hexadecimal digits.

    Two machines may share a host name and the number of their PID namespace, not the boot id.
    """
    namespace, boot = 0, ""
    with suppress(OSError):  # not Linux
        namespace = os.stat("/proc/self/ns/pid").st_ino
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    return f"{zlib.crc32(f'{platform.node()} {namespace} {boot}'.encode()):08x}"


def _is_running(process: int) -> bool:
    if os.name != "posix":  # on Windows `os.kill` would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:  # a zombie has ended; its parent has not asked yet how
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux
        return True
    return status.rpartition(")")[2].split()[0] != "Z"


def _sync(path: Path) -> None:
    """Flushes a file to disk before it is renamed: otherwise it may be empty after a power cut."""
    with suppress(FileNotFoundError), path.open("rb") as stream:
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:  # the file system does not support fsync
                raise
