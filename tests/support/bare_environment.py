"""A virtual environment with the libraries of this one, but without this project."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = sysconfig.get_path("purelib")


class BareEnvironment:
    """The environment: its `python`, and commands in it."""

    def __init__(self, folder: Path, *wheels: Path) -> None:
        """Creates it in a new folder, and installs wheels without their dependencies."""
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
        # Python searches a folder named in a .pth file, but does not read .pth files in it, so this
        # project's editable installation is not found.
        (self.site / "libraries.pth").write_text(PACKAGES + "\n", encoding="utf-8")

    def run(
        self, *words: str | Path, cwd: Path, python: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs Python with arguments, or a command of the environment, and waits for it."""
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
        """The environment variables of commands in it."""
        return {**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore", **more}
