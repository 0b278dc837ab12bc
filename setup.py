"""Puts the embedded model into wheels; pyproject.toml says everything else.

In the repository it lies beside `score/`, because the root is an MLflow model. A wheel has no root
of its own: there the same files are in `score/embedded`.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONTENTS = runpy.run_path(str(ROOT / "score/package/contents.py"))


class BuildWithModel(build_py):
    """Copies the parts of the package that the root is, apart from its code."""

    def run(self) -> None:
        """Builds `score`, and `score/embedded` in it; an editable install finds the clone's own."""
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # it may hold modules that are gone
        super().run()
        target = Path(self.build_lib, "score", "embedded")
        target.mkdir()
        for name in CONTENTS["PARTS"]:
            if name == "model":
                shutil.copytree(ROOT / name, target / name)
            elif (ROOT / name).is_file():
                shutil.copyfile(ROOT / name, target / name)


setup(cmdclass={"build_py": BuildWithModel})
