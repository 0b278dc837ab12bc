"""Class names, prompt templates and vocabularies, shipped or from files.

The names and templates for ImageNet are OpenAI's, those of emoji Unicode's, in `data/` with their
source and licence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from score.errors import ModelError, RequestError
from score.folder.small_files import read_bytes
from score.wording.quoting import quoted, shown

_DATA = Path(__file__).parent / "data"
_SHIPPED = ("openai", "simple")  # templates
_IMAGENET = "imagenet"  # names
VOCABULARIES = ("imagenet", "emoji")
_PLACE = "{}"
_LARGEST = 32 * 2**20  # bytes of a file


def fill(templates: Sequence[str], name: str) -> list[str]:
    """A class's prompts: its name in each template."""
    return [template.replace(_PLACE, name) for template in templates]


def load_templates(name: str) -> tuple[str, ...]:
    """Templates by name, or from a file: a JSON list, or a text of one a line.

    `openai` are the 80 of the CLIP paper's ImageNet figures, `simple` the 7 of OpenAI's notebook
    that score nearly as well (open_clip's SIMPLE_IMAGENET_TEMPLATES). `{}` stands for the class
    name; `{c}`, as in CLIP_benchmark's files, means the same. Raises RequestError, OSError.
    """
    if name in _SHIPPED:
        return tuple(_shipped("templates")[name])
    file = _file(name, f"templates {name!r}: neither {' nor '.join(_SHIPPED)} nor a file")
    templates = [text.replace("{c}", _PLACE) for text in _list(file)]
    if not templates:
        raise RequestError(f"{file} holds no template")
    for template in templates:
        if _PLACE not in template:
            raise RequestError(f"{file}: the template {quoted(template)} has no {_PLACE}")
    return tuple(templates)


def imagenet() -> list[str]:
    """OpenAI's names of ImageNet's thousand classes."""
    return [str(name) for name in _shipped(_IMAGENET)["names"].values()]


def vocabulary(name_or_file: str) -> tuple[str, ...]:
    """Texts that name things, each once: `imagenet`, OpenAI's names of its thousand classes;
    `emoji`, the names of the emoji that the embedded model knows; or a file: a JSON list, or a text
    of one a line. Raises RequestError, OSError."""
    if name_or_file == _IMAGENET:
        return tuple(dict.fromkeys(imagenet()))
    if name_or_file in VOCABULARIES:
        return tuple(map(str, _shipped(name_or_file)["names"]))
    choices = " nor ".join(VOCABULARIES)
    names = _list(_file(name_or_file, f"names {name_or_file!r}: neither {choices} nor a file"))
    if not names:
        raise RequestError(f"{name_or_file} holds no name")
    return tuple(dict.fromkeys(names))


def class_names(names_or_file: str | None, folders: Sequence[str]) -> tuple[str, ...]:
    """The name of each class folder, in the folders' order.

    `names_or_file`: None for the folders' own names, with `_` as a space; `imagenet` for OpenAI's
    names, where folders are named by WordNet id or by class number (0 to 999, as in ImageNetV2),
    all 1000 or some; or a file: a JSON object of folder → name, or a JSON list or a text of one
    name a line, both in the folders' order. Raises RequestError, OSError.
    """
    if names_or_file is None:
        return tuple(folder.replace("_", " ") for folder in folders)
    if names_or_file == _IMAGENET:
        names = _shipped(_IMAGENET)["names"]
        numbered = dict(zip(map(str, range(len(names))), names.values(), strict=True))
        return _by_folder(numbered if folders[0] in numbered else names, folders, _IMAGENET)
    file = _file(names_or_file, f"class names {names_or_file!r}: neither {_IMAGENET} nor a file")
    decoded = _decoded(file) if _is_json(file) else None
    if isinstance(decoded, dict):
        return _by_folder(decoded, folders, str(file))
    listed = _list(file)
    if len(listed) != len(folders):
        raise RequestError(f"{file} has {len(listed):,} names for {len(folders):,} class folders")
    return tuple(listed)


def _by_folder(names: dict[str, object], folders: Sequence[str], where: str) -> tuple[str, ...]:
    lacking = [folder for folder in folders if folder not in names]
    if lacking:
        raise RequestError(
            f"{where} has no name for {len(lacking):,} of {len(folders):,} class folders, "
            f"such as {lacking[0]!r}"
        )
    return tuple(_text(names[folder], f"{where}, {folder!r}") for folder in folders)


def _list(file: Path) -> list[str]:
    if _is_json(file):
        given = _decoded(file)
        if not isinstance(given, list):
            raise RequestError(f"{file} must hold a JSON list")
    else:
        given = _read(file).rstrip("\n").split("\n")
    return [_text(text, f"{file}, entry {place}") for place, text in enumerate(given, start=1)]


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where}: must be a text, not {shown(value)}")
    return value.strip()


def _is_json(file: Path) -> bool:
    return file.suffix.lower() == ".json"


def _decoded(file: Path) -> object:
    try:
        decoded: object = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file} is not JSON: {error}") from error
    return decoded


def _read(file: Path) -> str:
    try:
        return read_bytes(file, _LARGEST).decode("utf-8-sig")
    except ModelError as error:
        raise RequestError(str(error)) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{file} is not UTF-8 text") from error


def _file(given: str, otherwise: str) -> Path:
    file = Path(given)
    if not file.is_file():
        raise RequestError(otherwise)
    return file


def _shipped(name: str) -> dict[str, dict[str, object]]:
    shipped: dict[str, dict[str, object]] = json.loads(
        (_DATA / f"{name}.json").read_text(encoding="utf-8")
    )
    return shipped
