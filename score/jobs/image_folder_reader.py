"""A folder of class folders of images, as torchvision's `ImageFolder` reads one.

Images in other formats are skipped and counted, as there, so that figures can be compared. Goes by
file names: no file is opened here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from score.errors import RequestError
from score.images.formats import ENDINGS

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The endings of image files, in any case: torchvision's IMG_EXTENSIONS."""

_MAX_LINKS = 2_000  # linked folders below a class folder

_OTHERS = tuple(sorted(ENDINGS - set(EXTENSIONS)))


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Classes and their images.

    classes: the names of the folders in `path`, sorted, without hidden ones.
    counts: the images in each of them, at any depth, links followed.
    passed_over: ending → number of images with it, which torchvision does not read.
    """

    path: Path
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    passed_over: Mapping[str, int]

    @classmethod
    def open(cls, path: Path) -> ClassFolders:
        """Raises RequestError for a folder without class folders or images, OSError."""
        if not path.is_dir():
            raise FileNotFoundError(f"no such folder: {path}")
        with os.scandir(path) as entries:
            classes = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if not classes:
            raise RequestError(f"{path} has no class folders: one folder a class is wanted")
        by_class = [Counter(map(_ending, _files(path / name))) for name in classes]
        counts = tuple(sum(endings[ending] for ending in EXTENSIONS) for endings in by_class)
        total = sum(by_class, Counter[str]())
        others = {ending: total[ending] for ending in _OTHERS if total[ending]}
        if not any(counts):
            raise RequestError(
                f"the class folders of {path} hold no images ({', '.join(EXTENSIONS)})"
                + (f"; torchvision does not read {listed(others)}" if others else "")
            )
        return cls(path, tuple(classes), counts, others)

    def __len__(self) -> int:
        return sum(self.counts)

    def images(self) -> Iterator[tuple[int, Path]]:
        """Class number and file of each image, sorted; one class folder is listed at a time."""
        for number, name in enumerate(self.classes):
            for file in sorted(_images(self.path / name)):
                yield number, file


def listed(endings: Mapping[str, int]) -> str:
    """Such as `3 .gif, 1 .avif`."""
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.items())


def _images(folder: Path) -> Iterator[Path]:
    return (file for file in _files(folder) if _ending(file) in EXTENSIONS)


def _ending(file: Path) -> str:
    return "." + file.name.lower().rpartition(".")[2]


def _files(folder: Path) -> Iterator[Path]:
    """The files whose ending is an image's for torchvision or for us."""
    links = 0
    for where, _, names in os.walk(folder, followlinks=True, onerror=_raise):
        if os.path.islink(where):
            _check_link(folder, Path(where))
            links += 1
            if links > _MAX_LINKS:  # each of them may hold two links to the next
                raise RequestError(f"{folder} has more than {_MAX_LINKS:,} linked folders below it")
        yield from (
            Path(where, name) for name in names if name.lower().endswith(EXTENSIONS + _OTHERS)
        )


def _check_link(top: Path, link: Path) -> None:
    """Raises RequestError for a loop, in which each image would be counted about forty times.

    Such a link leads to a folder on the way to it, which may lead through other links.
    """
    outside = top.parent.resolve()
    inside = [top / above for above in link.relative_to(top).parents] if link != top else []
    # Links on the way are followed by the system: resolving them here takes long where they nest.
    if _identity(link) in map(_identity, (*inside, outside, *outside.parents)):
        raise RequestError(f"{link} is a link to a folder that it is in")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    """Raises the error of a folder that cannot be listed; `os.walk` alone takes it for empty."""
    raise error
