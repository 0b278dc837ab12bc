"""Forked processes: what an object must not inherit from the process that was forked.

Theory of operation. A fork copies the memory as it is at that moment, and one thread, the one that
forks. In the child, locks that other threads held stay locked, queues wait for threads that are
gone, counts of work under way never go down, and sockets are shared with the parent, of which each
would read the other's answers. So an object that has any of these makes them in one method, and
names it here: it is called at once, and again in each forked process before that runs any other
code. (Servers that load before they fork, `gunicorn --preload`, and `multiprocessing` by fork.)

Libraries' threads are not in our hands. OpenMP, with which PyTorch computes, keeps a team of
threads for each thread that has computed; the thread that forked finds in the child a team of
threads that are gone, and waits for them for ever. A thread that is new in the child has none, so
that computing there is safe. Passes have a thread of their own anyway (`core.batching`), made anew
in the child; `on_new_thread` is for what computes where it is called. And no library may be copied
in the middle of a pass: a fork waits for each `ForkSafeLock`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 30.0  # seconds that a fork waits for all locks: much longer than a pass
_renewals: weakref.WeakKeyDictionary[object, Callable[..., None]] = weakref.WeakKeyDictionary()
_survivor: list[int] = []  # the thread that forked, in a process that was forked


def renewing(renew: Callable[[], None]) -> None:
    """Calls an object's method, now and in each process that is forked while the object lives.

    One method of an object. It must neither block nor raise.
    """
    renew()
    _renewals[renew.__self__] = renew.__func__  # type: ignore[attr-defined]


class ForkSafeLock:
    """A lock, for use in a `with` statement, which nobody holds while the process is forked."""

    def __init__(self) -> None:
        renewing(self._renew)
        with _registry_lock:
            _fork_safe.add(self)

    def _renew(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


_fork_safe: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()
_registry_lock = threading.Lock()


def on_new_thread(compute: Callable[[], T]) -> T:
    """The result of `compute`, by another thread where this one is from before a fork.

    Raises what it raises.
    """
    if threading.get_ident() not in _survivor:
        return compute()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(compute())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="after a fork")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Forking(threading.local):
    """The locks that a thread holds while it forks."""

    held: tuple[ForkSafeLock, ...] = ()


_forking = _Forking()


def _take_locks() -> None:
    until = time.monotonic() + _PATIENCE
    with _registry_lock:
        # Sorted, so that two threads that fork do not wait for each other.
        locks = sorted(_fork_safe, key=id)
    _forking.held = tuple(
        held for held in locks if held.lock.acquire(timeout=max(0.0, until - time.monotonic()))
    )


def _give_locks_back() -> None:
    for held in _forking.held:
        held.lock.release()
    _forking.held = ()


def _renew() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    _forking.held = ()
    _survivor[:] = [threading.get_ident()]
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take_locks, after_in_parent=_give_locks_back, after_in_child=_renew)
