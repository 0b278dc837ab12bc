"""The file of API keys: the name, hash, date and rate of each, never the key itself.

A key is 256 random bits, so SHA-256 is enough: nobody can try all keys until one has a given hash.
Slow hashes (bcrypt, Argon2) are for passwords, which people choose and which can be guessed; here
they would only make each request slower.

The file is JSON, `{"keys": [{"name", "sha256", "created", "per_minute"}, …]}`. It is replaced as a
whole, so a server never reads half of it, and under a lock, so that of two commands at the same
time neither loses the other's change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from score.errors import RequestError
from score.hardware.locks import lock_file
from score.storage import atomic
from score.storage.outputs import check_files
from score.wording.quoting import quoted

PREFIX = "clip_"
"""What every key begins with, so that people and secret scanners recognise one."""

_BYTES = 32  # random bytes of a key
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATIENCE = 10.0  # seconds to wait for another command's lock


@dataclass(frozen=True)
class Key:
    """A key as the file holds it. sha256: of the whole key, hexadecimal; per_minute: most requests
    a minute, None without limit."""

    name: str
    sha256: str
    created: str
    per_minute: int | None = None


def hash_of(key: bytes) -> str:
    """The hash under which the file holds a key."""
    return hashlib.sha256(key).hexdigest()


def read(file: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises RequestError for a file that is missing, unreadable or damaged."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        hint = f"make a first key with `score key new NAME --file {file}`"
        raise RequestError(f"no file of keys at {file}: {hint}") from None
    except OSError as error:
        raise RequestError(f"{file}: {error.strerror}") from None
    try:
        return _parse(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file} is not a file of keys: {error}") from None


def new(file: Path, name: str, per_minute: int | None = None) -> str:
    """Adds a key to a file, which is created if it does not exist; returns the key.

    Raises RequestError for a name that is taken or unusable, and for an unusable file.
    """
    if not _NAME.fullmatch(name):
        rule = "1 to 64 letters, digits, dots, dashes or underscores"
        raise RequestError(f"a key's name must be {rule}, not {quoted(name)}")
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    with _locked(file):
        keys = read(file) if file.exists() else ()
        if any(other.name == name for other in keys):
            raise RequestError(
                f"{file} has a key {name} already: revoke it, or choose another name"
            )
        today = datetime.now(UTC).date().isoformat()
        _write(file, [*keys, Key(name, hash_of(key.encode()), today, per_minute)])
    return key


def revoke(file: Path, name: str) -> None:
    """Removes a key from a file. Raises RequestError where there is none of this name."""
    read(file)  # a file that is missing is not locked, which would create the lock's file
    with _locked(file):
        keys = read(file)
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            names = ", ".join(key.name for key in keys) or "no keys"
            raise RequestError(f"{file} has no key {quoted(name)}, only {names}")
        _write(file, kept)


def _parse(content: bytes) -> tuple[Key, ...]:
    """Raises ValueError, which says what is wrong."""
    table = json.loads(content)
    if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
        raise ValueError('it must be {"keys": […]}')
    keys = tuple(_key(place, entry) for place, entry in enumerate(table["keys"]))
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("a name is there twice")
    return keys


def _key(place: int, entry: Any) -> Key:
    try:
        key = Key(**entry)
    except TypeError:
        raise ValueError(f"key {place} must have name, sha256 and created") from None
    texts = (key.name, key.sha256, key.created)
    if not all(isinstance(text, str) for text in texts) or not _NAME.fullmatch(key.name):
        raise ValueError(f"the name of key {place} is unusable")
    if not _SHA256.fullmatch(key.sha256):
        raise ValueError(f"sha256 of {key.name} must be 64 hexadecimal digits")
    if key.per_minute is not None and (type(key.per_minute) is not int or key.per_minute < 1):
        raise ValueError(f"per_minute of {key.name} must be a whole number from 1, or null")
    return key


def _write(file: Path, keys: Sequence[Key]) -> None:
    """Replaces a file, which keeps its owner and mode; a new one can be read by its owner alone."""
    target = file.resolve()  # a link stays a link
    before = target.stat() if target.exists() else None
    with atomic.file(target, mode=0o600) as part:
        with part.open("w", encoding="utf-8") as stream:
            json.dump({"keys": [asdict(key) for key in keys]}, stream, indent=1)
            stream.write("\n")
        if before is not None:
            with suppress(PermissionError):  # only root may give a file to another user
                os.chown(part, before.st_uid, before.st_gid)
            part.chmod(stat.S_IMODE(before.st_mode))


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Holds the lock on changes of a file. Raises RequestError where it cannot be had.

    The lock is a file of its own: the file of keys is replaced, and a lock on it with it.
    """
    check_files([file.resolve()], overwrite=True)  # a link stays a link
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.resolve().with_name(f".{file.resolve().name}.lock")
    give_up = time.monotonic() + _PATIENCE
    while (descriptor := lock_file(lock)) is None:
        if time.monotonic() > give_up:
            raise RequestError(f"{lock} cannot be locked: another command is changing {file}")
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)
