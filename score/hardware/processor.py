"""What an engine computes on: the processor, as the system describes it, and its memory."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# What multiplies numbers of half precision: Intel's and AMD's flags, and ARM's.
_HALVES = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}


def cores() -> int:
    """Cores this process may use, where the system can tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_flags() -> frozenset[str]:
    """What this CPU can, in its maker's words: avx512_vnni, amx_bf16, …; nothing but on Linux."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def cpu_maker() -> str:
    """GenuineIntel, AuthenticAMD, …; nothing but on Linux, nor on ARM."""
    return _cpuinfo("vendor_id")


def _cpuinfo(name: str) -> str:
    """A line about the first of the cores; they are alike."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def computes(precision: str) -> bool:
    """Whether this CPU multiplies such numbers; others only act as if, and take longer.

    Of half precision, no where the system does not tell.
    """
    return precision not in _HALVES or not _HALVES[precision].isdisjoint(cpu_flags())


def release_free_memory() -> None:
    """Returns freed heap pages to the system (`malloc_trim`); does nothing outside glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
