"""Prints the lowest version of each library that pyproject.toml allows, as pip constraints.

    python .ci/lowest.py batch,serve,mlflow > lowest.txt

For the project's dependencies and those of the named extras: of several bounds on one library, the
highest. `.ci/transitive.txt` holds back what those need in turn. PyTorch is left out: the Makefile
installs its CPU build, because others install gigabytes of CUDA.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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


def bound(requirement: Requirement) -> Version:
    """A requirement's lower bound. Raises ValueError if it has none."""
    for specifier in requirement.specifier:
        if specifier.operator in (">=", "==", "~="):
            return Version(specifier.version)
    raise ValueError(f"{requirement} has no lower bound")


def lowest(wanted: Iterable[Requirement]) -> Iterator[str]:
    """`name==version` of each library but PyTorch, with the marker of its requirement."""
    highest = {canonicalize_name(one.name): one for one in sorted(wanted, key=bound)}
    for name, requirement in sorted(highest.items()):
        if name != "torch":
            marker = f"; {requirement.marker}" if requirement.marker else ""
            yield f"{name}=={bound(requirement)}{marker}"


if __name__ == "__main__":
    print(*lowest(requirements(sys.argv[1].split(","))), sep="\n")
