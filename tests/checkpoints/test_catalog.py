"""The catalog: what `data/catalog.toml` holds, `score catalog` and its JSON."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from score.__main__ import main
from score.checkpoints import catalog
from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.checkpoints.catalog import CATALOG, Entry
from score.folder.families import Activation, Kind
from score.texts import cleaning
from tests.support import open_clip_reference

DATA = Path(catalog.__file__).parent / "data" / "catalog.toml"


def texts(*names: str) -> dict[str, Any]:
    return {name: {"type": "string", "minLength": 1} for name in names}


def numbers(*names: str) -> dict[str, Any]:
    return {name: {"type": "integer", "minimum": 1} for name in names}


def of(properties: dict[str, Any], *, nullable: bool = False) -> dict[str, Any]:
    """The schema of an object that has exactly these keys."""
    return {
        "type": ["object", "null"] if nullable else "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


CHANNELS = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
SENTENCES = {"type": "array", "items": {"type": "string", "pattern": r"\.$"}, "minItems": 1}

SCHEMA = of(
    {
        **texts("name", "title", "authors", "source", "hub", "languages"),
        "revision": {"type": ["string", "null"], "pattern": "^[0-9a-f]{40}$"},
        "weights": of(
            {
                "url": {"type": "string", "pattern": r"^https://.*\.pt$"},
                "sha256": {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
            },
            nullable=True,
        ),
        "keras": {"type": ["string", "null"]},
        "licence": of(texts("name", "says")),
        "architecture": {"enum": list(ALL_ARCHITECTURES)},
        "model_type": {"enum": list(get_args(Kind))},
        **numbers("parameters", "dimension"),
        "activation": {"enum": list(get_args(Activation))},
        "image": of(
            {
                **numbers("size", "patch"),
                "resize": {"enum": ["shortest edge, centre crop", "squash"]},
                "resample": {"enum": ["bicubic", "bilinear"]},
                "mean": CHANNELS,
                "std": CHANNELS,
            }
        ),
        "text": of(
            {
                **numbers("context", "vocabulary"),
                **texts("tokenizer", "pooling"),
                "padded": {"type": "boolean"},
                "cleaning": {"enum": list(get_args(cleaning.Name))},
            }
        ),
        "scores": {"enum": ["softmax", "sigmoid"]},
        "accuracy": of(
            {
                "imagenet_top1": {"type": "number", "minimum": 45, "maximum": 90},
                **texts("source"),
            },
            nullable=True,
        ),
        "traps": SENTENCES,
        "limits": SENTENCES,
    }
)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["catalog", *arguments]) == 0
    return capsys.readouterr().out


def test_the_json_has_all_entries_in_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "--json"))
    assert [one["name"] for one in found] == list(CATALOG)
    for one in found:
        jsonschema.validate(one, SCHEMA)
        assert one["parameters"] == ALL_ARCHITECTURES[one["architecture"]].parameters


@pytest.mark.parametrize("name", ["siglip-b-16-224", "google/siglip-base-patch16-224"])
def test_the_json_of_one_entry(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(printed(capsys, name, "--json"))
    assert one == catalog.as_json("siglip-b-16-224")
    assert one["scores"] == "sigmoid"
    assert one["image"]["mean"] == [0.5] * 3


def test_every_key_of_the_json_is_documented() -> None:
    page = Path("docs/checkpoint.md").read_text(encoding="utf-8")
    for key, schema in SCHEMA["properties"].items():
        assert f"`{key}`" in page
        for inner in schema.get("properties", ()):
            assert f'"{inner}"' in page


def test_the_page_states_how_many_there_are() -> None:
    page = Path("docs/checkpoint.md").read_text(encoding="utf-8")
    assert f"lists [{len(CATALOG)} checkpoints](reference/catalog.md)" in page


@pytest.mark.parametrize("name", CATALOG)
def test_an_entry_is_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = CATALOG[name]
    said = printed(capsys, name)
    for fact in (entry.title, entry.hub, entry.licence.name, f"{entry.parameters:,}", *entry.traps):
        assert fact in said
    assert "None" not in said


def keys(entry: Entry) -> Iterator[str]:
    """What `lookup` finds an entry by, its own name apart."""
    yield entry.hub.lower()
    if entry.keras:
        yield entry.keras
    if entry.file:
        yield entry.file.rsplit("/", 1)[-1].lower()


@pytest.mark.parametrize("name", CATALOG)
def test_an_architectures_name_is_openclips_where_the_documentation_says_so(name: str) -> None:
    entry = CATALOG[name]
    assert "OpenCLIP's name" not in catalog.describe(entry)
    if entry.architecture.kind in ("clip", "metaclip_2"):
        assert open_clip_reference.config(entry.architecture_name)


def test_names_and_addresses_are_each_of_one_entry() -> None:
    content = tomllib.loads(DATA.read_text(encoding="utf-8"))
    names = [name for project in content["projects"].values() for name in project["models"]]
    assert names == list(CATALOG)
    assert max(Counter(names).values()) == 1
    assert max(Counter(one for entry in CATALOG.values() for one in keys(entry)).values()) == 1
    assert max(Counter(entry.title for entry in CATALOG.values()).values()) == 1
    for entry in CATALOG.values():
        assert all(catalog.lookup(one) is entry for one in keys(entry))


def test_every_sentence_and_licence_of_the_data_is_said_of_an_entry() -> None:
    content = tomllib.loads(DATA.read_text(encoding="utf-8"))
    said = {one for entry in CATALOG.values() for one in (*entry.traps, *entry.limits)}
    assert set(content["sentences"].values()) == said
    assert set(content["licences"]) == {entry.licence.name for entry in CATALOG.values()}


def test_traps_agree_with_the_facts() -> None:
    """Sentences of traps against the fields that programs read."""
    for name, entry in CATALOG.items():
        said = " ".join(entry.traps)
        image, text = entry.architecture.vision, entry.architecture.text
        activation = image.tower.activation
        assert ("QuickGELU: with plain" in said) == (activation == "quick_gelu"), name
        assert ("Plain GELU" in said) == (activation == "gelu"), name
        assert ("normalised by 0.5" in said) == (entry.mean_and_std == "0.5"), name
        assert ("squashed" in said) == (entry.resize == "squash"), name
        assert ("bilinearly" in said) == (entry.resample == "bilinear"), name
        assert ("sigmoids" in said) == entry.architecture.has_bias, name
        assert ("16 tokens" in said) == (text.context == 16), name
        assert ("52 tokens" in said) == (text.context == 52), name
        assert ("pooled at their first" in said) == (text.pooling == "first"), name
        assert ("378 of its 384" in said) == ((image.image, image.patch) == (384, 14)), name
        size = re.search(r"-(2\d\d|3\d\d|512)$", name)
        assert image.image == (int(size[1]) if size else 224), name
