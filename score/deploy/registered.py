"""A registered model: its reference, and the architecture in its properties.

`score azure render model` writes the architecture into the model's properties, which Azure stores
with the version and never changes. Deployments are planned from it, without downloading gigabytes
of weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from score.errors import AzureError, ModelError
from score.folder.architecture import Architecture
from score.type_aliases import Json

PROPERTY = "clip-architecture"
"""The property that holds a registered model's `config.json`, as one line."""

_REGISTRY = "azureml://registries/"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a model in a workspace or a registry.

    reference: how a deployment's YAML names it, with the version, so that exactly this version is
    deployed. architecture: None where the properties do not hold it.
    """

    name: str
    version: str
    reference: str
    architecture: Architecture | None

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.name}:{self.version}"


def described(architecture: Architecture) -> str:
    """The value of `PROPERTY` for an architecture."""
    return json.dumps(architecture.config(), separators=(",", ":"))


def registered(shown: Json) -> Registered:
    """Reads what `az ml model show` prints, or a Model of azure-ai-ml as a mapping: `name`,
    `version`, `id`, `properties`.

    Raises AzureError for what is no model, and for an architecture that cannot be read.
    """
    name, version = shown.get("name"), shown.get("version")
    if not name or not version:
        raise AzureError("that is no registered model: it has no name or no version")
    address = str(shown.get("id") or "")
    reference = address if address.startswith(_REGISTRY) else f"azureml:{name}:{version}"
    text = (shown.get("properties") or {}).get(PROPERTY)
    return Registered(str(name), str(version), reference, _architecture(reference, text))


def read(file: Path) -> Registered:
    """Reads a file with what `az ml model show` printed. Raises AzureError as `registered` does."""
    try:
        return registered(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise AzureError(f"{file}: not what `az ml model show` prints: {error}") from error


def _architecture(reference: str, text: str | None) -> Architecture | None:
    if text is None:
        return None
    try:
        return Architecture.from_config(json.loads(text))
    except (ValueError, AttributeError, ModelError) as error:
        raise AzureError(f"{reference}: its property {PROPERTY} is unusable: {error}") from error
