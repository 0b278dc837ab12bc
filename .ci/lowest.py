"""Prints the lowest version of each library that pyproject.toml allows, as pip constraints.

    python .ci/lowest.py batch,serve,mlflow > lowest.txt

For the project's dependencies and those of the named extras. PyTorch is left out: the Makefile
installs its CPU build, because others install gigabytes of CUDA.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

FILE = Path(__file__).parents[1] / "pyproject.toml"
PROJECT = tomllib.loads(FILE.read_text(encoding="utf-8"))["project"]


def requirements(extras: Sequence[str]) -> Iterator[Requirement]:
    """The project's dependencies and those of the extras, including extras that they name."""
    yield from map(Requirement, PROJECT["dependencies"])
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            if requirement.name == PROJECT["name"]:
                yield from requirements(sorted(requirement.extras))
            else:
                yield requirement


def lowest(requirement: Requirement) -> str:
    """`name==version` of a requirement's lower bound. Raises ValueError if it has none."""
    for specifier in requirement.specifier:
        if specifier.operator in (">=", "==", "~="):
            marker = f"; {requirement.marker}" if requirement.marker else ""
            return f"{requirement.name}=={specifier.version}{marker}"
    raise ValueError(f"{requirement} has no lower bound")


if __name__ == "__main__":
    wanted = requirements(sys.argv[1].split(","))
    print(*sorted({lowest(one) for one in wanted if one.name != "torch"}), sep="\n")
