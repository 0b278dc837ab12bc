"""What a model's registration says of it: title, author, licence and Hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from score.errors import AzureError
from score.folder.architecture import Architecture
from score.folder.model_folder import EMBEDDED


@dataclass(frozen=True, slots=True)
class Card:
    """The description of a registered model. `hub`: its id at the Hugging Face Hub, or empty."""

    title: str
    architecture: Architecture
    hub: str
    author: str
    licence: str


def card(model: str | None, name: str, architecture: Architecture) -> Card:
    """The card of a catalog name or a package's folder; None is the embedded model.

    `name`: the title where the model's metadata has none. Raises AzureError for a folder that is no
    MLflow model.
    """
    from score.checkpoints.catalog import CATALOG

    model = model or str(EMBEDDED.parent)
    entry = CATALOG.get(model)
    if entry:
        return Card(entry.title, architecture, entry.hub, entry.authors, entry.licence.name)
    file = Path(model) / "MLmodel"
    if not file.is_file():
        raise AzureError(f"{model} is no MLflow model: there is no {file}")
    import yaml  # optional: see score.extras

    metadata = yaml.safe_load(file.read_text(encoding="utf-8")).get("metadata") or {}
    source = str(metadata.get("source", ""))
    listed = next((entry for entry in CATALOG.values() if entry.hub == source), None)
    return Card(
        str(metadata.get("base_model_name", name)),
        architecture,
        source,
        listed.authors if listed else "",
        str(metadata.get("license", "")),
    )
