"""The keys that a running server accepts: those of its file, which is looked at again and again."""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from score.errors import RequestError
from score.serve import keys
from score.serve.keys import Key

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between looks at the file

_Stamp = tuple[int, int, int]


class KeyRing:
    """The keys of a file. A change of the file counts within a second, without a restart.

    If the file becomes unusable, the keys that were read before stay valid, and the log says so.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises RequestError for an unusable file. clock: seconds."""
        self._file, self._clock = file, clock
        self._stamp, self._looked = _stamp(file), clock()  # before reading: no change is missed
        self._keys = keys.read(file)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: Iterable[bytes]) -> Key | None:
        """The key that is among those that a request presents; None if none is.

        Takes the same time whichever key it is: all hashes are compared, each in constant time.
        """
        self._refresh()
        hashes = [keys.hash_of(key) for key in presented]
        found = None
        for key in self._keys:
            for one in hashes:
                if hmac.compare_digest(one, key.sha256):
                    found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _PAUSE:
            return
        self._looked = now
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_again()

    def _read_again(self) -> None:
        try:
            self._keys = keys.read(self._file)
        except RequestError as error:
            log.error("%s; the keys that were read before stay valid", error)
        else:
            log.info("%s was read again; number of keys: %d", self._file, len(self._keys))


def _stamp(file: Path) -> _Stamp | None:
    """Changes whenever the file does; None for a file that is not there."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
