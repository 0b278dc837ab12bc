"""The machine that measures, as results name it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from score.hardware.processor import cores


def described() -> dict[str, Any]:
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("torch", "transformers", "openvino", "pillow", "numpy")
    return {
        "cpu": cpu,
        "cores": cores(),
        "date": datetime.now(UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in packages if find_spec(_module(name))},
    }


def _module(package: str) -> str:
    return {"pillow": "PIL"}.get(package, package)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []
