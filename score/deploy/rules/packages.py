"""Python packages that an environment installs: invalid or contradictory requirements.

They are read from conda's `pip:` lists, requirements files and `pip install` in Dockerfiles. Only
an index knows which versions exist. Without one, two pins that contradict each other are found, and
local versions such as `2.13.0+cpu` without an extra index: PyPI has none (PEP 440, "Local version
identifiers").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from score.deploy.values import mapping

_INDEX = re.compile(r"(?:^|\s)(?:--extra-index-url|--index-url|-i|--find-links|-f)\b")
_INCLUDED = re.compile(r"^\s*(?:-r\s*|--requirement[ =]\s*)(\S+)")
_CONDA = re.compile(r"(?:[\w.-]+::)?([A-Za-z_][\w.-]*)\s*(.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


def problems(where: str, lines: Sequence[str]) -> Iterator[str]:
    """What is wrong with the lines of a requirements file, which may hold flags of pip."""
    indexed = any(_INDEX.search(line) for line in lines)
    pins: dict[str, list[Requirement]] = {}
    for line in lines:
        text = _COMMENT.sub("", line).strip().removesuffix("\\").strip()
        if not text or text.startswith("-") or "$" in text:
            continue
        if "/" in text.partition("@")[0] or text.startswith("."):  # a path or a URL
            continue
        try:
            requirement = Requirement(_INDEX.split(text)[0].split(" --")[0].strip())
        except InvalidRequirement:
            yield f"{where}: {text!r} is no requirement"
            continue
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
        if (
            not indexed
            and not requirement.url
            and any("+" in str(one) for one in requirement.specifier)
        ):
            yield f"{where}: {text} is not at PyPI: it needs --extra-index-url"
    for name, requirements in pins.items():
        yield from _contradictions(where, name, requirements)


def conda(content: object) -> tuple[Sequence[str], Sequence[str]]:
    """The dependencies of a conda file: conda's own, and pip's."""
    dependencies = mapping(content).get("dependencies")
    own, pip = [], []
    for item in dependencies if isinstance(dependencies, list) else ():
        if isinstance(item, str):
            own.append(item)
        listed = mapping(item).get("pip")
        pip += [str(line) for line in listed] if isinstance(listed, list) else []
    return own, pip


def of_conda(where: str, own: Sequence[str]) -> Iterator[str]:
    """Conda dependencies that are pinned to more than one version."""
    pins: dict[str, set[str]] = {}
    for item in own:
        match = _CONDA.fullmatch(item)
        version = match[2].strip() if match else ""
        exact = re.fullmatch(r"==?\s*([\w.]+)(?:=.*)?", version)
        if match and exact:
            pins.setdefault(match[1].lower(), set()).add(exact[1])
    for name, versions in pins.items():
        if len(versions) > 1:
            yield f"{where}: {name} is pinned to {' and '.join(sorted(versions))}"


def included(lines: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that `-r FILE` includes: each name as written, and its path."""
    for line in lines:
        match = _INCLUDED.search(_COMMENT.sub("", line))
        if match:
            yield match[1], folder / match[1]


def names(lines: Sequence[str]) -> set[str]:
    """The canonical names of the required packages."""
    packages = set()
    for line in lines:
        match = re.match(r"\s*([A-Za-z0-9][\w.-]*)", _COMMENT.sub("", line))
        if match:
            packages.add(str(canonicalize_name(match[1])))
    return packages


def _contradictions(where: str, name: str, requirements: Sequence[Requirement]) -> Iterator[str]:
    """Requirements of one package that no version meets; those with markers are alternatives."""
    always = [one for one in requirements if one.marker is None]
    whole = SpecifierSet(",".join(str(one.specifier) for one in always if one.specifier))
    exact = {
        one.version for one in whole if one.operator in ("==", "===") and "*" not in one.version
    }
    if len({_plain(version) for version in exact}) > 1:
        yield f"{where}: {name} is pinned to {' and '.join(sorted(exact))}"
        return
    for version in exact:
        if not whole.contains(version, prereleases=True):
            yield f"{where}: {name}=={version} contradicts {name}{whole}"


def _plain(version: str) -> Version | str:
    try:
        return Version(version)
    except InvalidVersion:
        return version
