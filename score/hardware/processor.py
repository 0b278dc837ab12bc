"""The CPU, as the operating system describes it, and the process's memory."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
# Folder, limit, use, and the line of memory.stat with pages of files: of versions 2 and 1.
_MEMORY_OF_CGROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# CPU flags of instructions that multiply half precision, on x86 and ARM.
_HALVES = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}


def cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_asked() -> str:
    """The variable by which users limit the threads of PyTorch and others; empty where unset."""
    return os.environ.get("OMP_NUM_THREADS", "")


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


def cpu_model() -> str:
    """The CPU's name, such as Intel(R) Xeon(R) Gold 6430; empty on ARM and except on Linux."""
    return _cpuinfo("model name")


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


def free_memory() -> int | None:
    """Bytes that this process may still take: the system's or, where they are fewer, its
    container's; None where the system does not say.
    """
    try:
        free = 1024 * _number(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO)
    except (OSError, ValueError):
        return None
    return min([free, *_free_in_container()])


def _free_in_container() -> list[int]:
    """Bytes up to the limit of the container, by each version of cgroups that it has.

    Pages of files that were read do not count as used: the system drops them where memory is short.
    """
    free = []
    for folder, limit, used, pages in _MEMORY_OF_CGROUPS:
        with suppress(OSError, ValueError):  # not this version, or no limit ("max")
            most, taken = (int((_CGROUPS / folder / name).read_text()) for name in (limit, used))
            cached = _number(rf"^{pages} (\d+)$", _CGROUPS / folder / "memory.stat")
            free.append(most - taken + cached)
    return free


def _number(pattern: str, file: Path) -> int:
    """The number in a line of a file. Raises OSError, ValueError."""
    found = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise ValueError(f"{file} has no line {pattern}")
    return int(found[1])


def release_free_memory() -> None:
    """Returns freed heap pages to the system (`malloc_trim`); does nothing outside glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
