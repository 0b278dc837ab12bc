"""The CPU, as the operating system describes it, and the process's memory."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# CPU flags of instructions that multiply half precision, on x86 and ARM.
_HALVES = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}


def cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def keep_share(number: int, count: int) -> None:
    """Restricts this process to its share of the cores that it may use, so that `count` processes
    do not each start a thread for every core. Several share a core where there are fewer. Does
    nothing where the system cannot.

    number: of this process, from 0.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[number % len(allowed) :: count])


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags, such as avx512_vnni and amx_bf16; empty except on Linux."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def cpu_maker() -> str:
    """The CPU's vendor: GenuineIntel, AuthenticAMD, …; empty on ARM and except on Linux."""
    return _cpuinfo("vendor_id")


def _cpuinfo(name: str) -> str:
    """A value from /proc/cpuinfo, of the first core: all cores are alike."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def supports(precision: str) -> bool:
    """Whether this CPU has instructions for a precision; others emulate it, more slowly.

    False for half precision where the system lists no CPU flags.
    """
    return precision not in _HALVES or not _HALVES[precision].isdisjoint(cpu_flags())


def release_free_memory() -> None:
    """Returns freed heap pages to the system (`malloc_trim`); does nothing outside glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
