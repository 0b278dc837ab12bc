"""A virtual environment with the libraries of this one and without this project: it cannot see the
clone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = sysconfig.get_path("purelib")


class BareEnvironment:
    """Its `python`, and what one runs there."""

    def __init__(self, folder: Path, *wheels: Path) -> None:
        """Makes it in a new folder, and installs wheels without their dependencies."""
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)],
            check=True,
            capture_output=True,
        )
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")
        self.site = folder / os.path.relpath(PACKAGES, sys.prefix)
        if wheels:
            install = ["install", "--quiet", "--no-deps", "--no-index", "--no-warn-script-location"]
            pip = [sys.executable, "-m", "pip", "--python", self.python, *install]
            subprocess.run([*pip, *map(str, wheels)], check=True, capture_output=True)
        # A folder that a .pth file names is searched, but .pth files in it are not read: this
        # project's editable installation is one.
        (self.site / "libraries.pth").write_text(PACKAGES + "\n", encoding="utf-8")

    def run(
        self, *words: str | Path, cwd: Path, python: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs Python's arguments, or a command of the environment's, to the end."""
        command = [self.python, *map(str, words)]
        if not python:
            command = [str(self.bin / words[0]), *map(str, words[1:])]
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def environ(self, **more: str) -> dict[str, str]:
        """The variables of what runs there."""
        return {**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore", **more}
