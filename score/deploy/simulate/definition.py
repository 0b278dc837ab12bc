"""Reads the YAML of a deployment or component: its settings, entry script, code and variables."""

from __future__ import annotations

from pathlib import Path

import yaml

from score.deploy.values import whole
from score.errors import AzureError
from score.type_aliases import Json

_HERE = Path(__file__).resolve().parent


def read(file: Path, *kinds: str) -> Json:
    """The content of a YAML file whose `$schema` is one of `kinds`, or which has no `$schema`.

    Raises AzureError for a file that cannot be read, or of another kind.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AzureError(f"{file} cannot be read: {error}") from error
    schema = str(content.get("$schema", "")) if isinstance(content, dict) else "none"
    if schema and not any(f"/{kind}.schema.json" in schema for kind in kinds):
        raise AzureError(f"{file} is no {kinds[0]}")
    return content  # type: ignore[no-any-return]


def code(content: Json, file: Path) -> Path | None:
    """The code folder, absolute; None where the YAML names none."""
    path = (content.get("code_configuration") or {}).get("code", content.get("code"))
    return None if path is None else (file.parent / path).resolve()


def script(content: Json, file: Path, nocode: str | None) -> Path:
    """The entry script; without one, this folder's `nocode`, which stands in for Azure's own.

    Raises AzureError where there is neither, or no such file.
    """
    configured: Json = content.get("code_configuration") or {}
    name = configured.get("scoring_script", content.get("entry_script"))
    folder = code(content, file)
    if folder is not None and name:
        path: Path = folder / name
    elif nocode:
        path = _HERE / nocode
    else:
        raise AzureError(f"{file} names no entry script")
    if not path.is_file():
        raise AzureError(f"{file}: there is no {path}")
    return path


def variables(content: Json, file: Path) -> dict[str, str]:
    """The environment variables that the YAML sets."""
    return {
        name: str(value) for name, value in part(content, "environment_variables", file).items()
    }


def part(content: Json, name: str, file: Path) -> Json:
    """The mapping `name` within another; empty where it is absent. Raises AzureError for others."""
    inner = content.get(name) or {}
    if not isinstance(inner, dict):
        raise AzureError(f"{file}: {name}: {inner!r} is no mapping")
    return inner


def number(settings: Json, name: str, default: int, least: int, file: Path) -> int:
    """A whole number of at least `least`. Raises AzureError for anything else."""
    return whole(f"{file}: {name}", settings.get(name, default), least)
