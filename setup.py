"""Adds the embedded model to wheels; all other metadata is in pyproject.toml.

In the repository its files are beside `score/`, because the root is an MLflow model. In a wheel
they are in `score/embedded`.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONTENTS = runpy.run_path(str(ROOT / "score/package/contents.py"))


class BuildWithModel(build_py):
    """Copies the files of the package in the repository root, apart from `score/`."""

    def run(self) -> None:
        """Builds `score` with `score/embedded`; an editable install uses the clone's files."""
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # may contain deleted modules
        super().run()
        target = Path(self.build_lib, "score", "embedded")
        target.mkdir()
        for name in CONTENTS["PARTS"]:
            if name == "model":
                shutil.copytree(ROOT / name, target / name)
            elif (ROOT / name).is_file():
                shutil.copyfile(ROOT / name, target / name)


setup(cmdclass={"build_py": BuildWithModel})
