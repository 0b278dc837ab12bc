"""What `save_pretrained` of a model alone leaves behind, and where the rest comes from."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import Model
from tokenizers import Tokenizer
from transformers import CLIPModel

from score import __main__ as command
from score.checkpoints import base_checkpoint, catalog, random_checkpoint, resolve
from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.model.probes import Probes
from score.package.build import package
from tests.checkpoints.test_layouts import SMALL, write_open_clip
from tests.support.open_clip_reference import OpenClip
from tests.support.surfaces import free_port

pytestmark = pytest.mark.reference

BESIDE = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
OPENAI = "openai/clip-vit-base-patch32"


@pytest.fixture(scope="module")
def fine_tuned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `CLIPModel.save_pretrained` writes it: config.json and model.safetensors."""
    folder = tmp_path_factory.mktemp("base") / "fine-tuned"
    CLIPModel.from_pretrained(tiny).save_pretrained(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    return folder


@pytest.fixture
def bare(fine_tuned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fine_tuned, tmp_path / "fine-tuned"))


@pytest.fixture
def processor(tiny: Path, tmp_path: Path) -> Path:
    """A folder of a tokenizer and an image processor alone, as `CLIPProcessor.save_pretrained`."""
    (tmp_path / "processor").mkdir()
    for name in BESIDE:
        shutil.copy(tiny / name, tmp_path / "processor")
    return tmp_path / "processor"


def configured(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


def vectors(made: Path) -> np.ndarray:
    probes = Probes.read(made / "model")
    assert probes
    return np.stack([probe.vector for probe in (*probes.texts, *probes.images)])


# -- without a base: one message, on every surface -------------------------------------------------

LACKS = (
    r"lacks a tokenizer \(tokenizer\.json, or vocab\.json and merges\.txt\) and an image processor "
    r"\(preprocessor_config\.json\): `score package .* --base openai/clip-vit-base-patch32 "
)


def test_all_that_is_missing_is_named(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=LACKS) as packaging:
        package(bare, tmp_path / "p")
    with pytest.raises(ModelError, match=LACKS) as loading:
        Embedder.load(bare)
    assert str(packaging.value) == str(loading.value)
    assert str(bare) in str(loading.value)
    assert not (tmp_path / "p").exists()


OTHERS = {
    "siglip": r"spiece\.model, or SigLIP 2's tokenizer\.json",
    "chinese_clip": r"vocab\.txt, or tokenizer\.json",
    "metaclip_2": r"tokenizer\.json",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_familys_own_files_are_named_and_no_base_of_clips(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    says = rf"lacks a tokenizer \({OTHERS[kind]}\), an image processor .* --base ID --output DIR`"
    with pytest.raises(ModelError, match=says):
        Embedder.load(tmp_path)


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("tokenizer.json", r"fine-tuned lacks an image processor \(preprocessor_config\.json\): `"),
        ("preprocessor_config.json", r"fine-tuned lacks a tokenizer \([^)]*\): `score"),
    ],
)
def test_what_is_there_is_not_called_missing(there: str, says: str, bare: Path, tiny: Path) -> None:
    shutil.copy(tiny / there, bare)
    with pytest.raises(ModelError, match=says):
        Embedder.load(bare)


def test_weights_are_named_among_what_is_missing(bare: Path) -> None:
    (bare / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks a tok.*, an image.* and weights \(model\.safe"):
        Embedder.load(bare)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "MODEL", "--port", "PORT"],
        ["embed", "CSV", "--model", "MODEL", "--output", "OUT.jsonl"],
        ["label", "CSV", "--model", "MODEL", "--ontology", "LABELS", "--output", "OUT.csv"],
        ["evaluate", "retrieval", "CSV", "--model", "MODEL"],
        ["verify", "MODEL"],
        ["package", "MODEL", "--output", "OUT"],
        ["azure", "plan", "--model", "MODEL"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_says_so(
    arguments: list[str], bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("image,text\nhttp://127.0.0.1:9/a.png,a cat\n")
    (tmp_path / "labels.json").write_text('["cat", "dog"]')
    names: dict[str, object] = {
        "MODEL": bare,
        "CSV": tmp_path / "rows.csv",
        "LABELS": tmp_path / "labels.json",
        "PORT": free_port(),
    }
    spelled = [
        str(names.get(word, tmp_path / word if word.startswith("OUT") else word))
        for word in arguments
    ]
    assert command.main(spelled) == 2
    said = capsys.readouterr().err
    assert "lacks a tokenizer" in said
    assert "and an image processor" in said
    assert f"`score package {bare} --base" in said
    assert "Traceback" not in said


# -- with one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["checkpoint", "package", "processor"])
def test_tokenizer_and_image_processor_come_from_the_base(
    kind: str, bare: Path, tiny: Path, processor: Path, tmp_path: Path
) -> None:
    given = {"checkpoint": tiny, "processor": processor, "package": tmp_path / "whole"}[kind]
    whole = package(tiny, tmp_path / "whole")
    said: list[str] = []
    made = package(bare, tmp_path / "p", base=str(given), say=said.append)
    assert np.array_equal(vectors(made), vectors(whole))
    for name in BESIDE:
        assert (made / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    origin = tiny.name if kind == "package" else given.name
    assert f"taken from {origin}: tokenizer and image processor" in said
    assert f"| tokenizer, image processor | from {origin} |" in (made / "README.md").read_text()
    metadata = Model.load(str(made)).metadata
    assert metadata["base"] == origin
    assert "license" not in metadata, "a base's licence is not known to be the checkpoint's"


def test_only_what_is_lacking_is_taken(bare: Path, processor: Path, tmp_path: Path) -> None:
    shutil.copy(processor / "preprocessor_config.json", bare)
    configured(bare, "preprocessor_config.json", lambda c: c.update(image_mean=[0.5] * 3))
    said: list[str] = []
    made = package(bare, tmp_path / "p", base=str(processor), say=said.append)
    assert "taken from processor: tokenizer" in said
    assert parts_of(Embedder.load(made)).preprocessor.mean == (0.5, 0.5, 0.5)


def test_a_base_that_adds_nothing_is_refused(tiny: Path, processor: Path) -> None:
    with pytest.raises(ModelError, match="--base adds nothing"):
        resolve.find(str(tiny), base=str(processor))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "config.json",
            lambda c: c["text_config"].update(max_position_embeddings=248),
            "its context is 248, the checkpoint's 77",
        ),
        (
            "config.json",
            lambda c: c["text_config"].update(vocab_size=50000),
            "its vocabulary is 50000, the checkpoint's 49408",
        ),
        (
            "config.json",
            lambda c: c.update(model_type="metaclip_2"),
            "its kind is metaclip_2, the checkpoint's clip",
        ),
        (
            "preprocessor_config.json",
            lambda c: c.update(size=336, crop_size=336),
            "its image size is 336×336, the checkpoint's 224×224",
        ),
        (
            "config.json",
            lambda c: c.update(model_type="align"),
            "model_type 'align': ALIGN",
        ),
    ],
)
def test_a_base_must_fit(
    name: str, change: Callable[[dict[str, Any]], object], says: str, bare: Path, tiny: Path
) -> None:
    other = configured(Path(shutil.copytree(tiny, bare.parent / "other")), name, change)
    with pytest.raises(ModelError) as caught:
        resolve.find(str(bare), base=str(other))
    assert says in str(caught.value)
    assert "--base other" in str(caught.value)


def test_a_tokenizer_whose_ids_have_no_embeddings(bare: Path, processor: Path) -> None:
    configured(bare, "config.json", lambda c: c["text_config"].update(vocab_size=1000))
    with pytest.raises(ModelError, match="ids up to 49,407, the model has embeddings for 1,000"):
        resolve.find(str(bare), base=str(processor))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nothing-there", "no checkpoint 'nothing-there'"),
        ("./nothing-there", "--base: no such folder"),
        ("FILE", "is a file; name the folder"),
        ("EMPTY", r"lacks a tokenizer .*, and so does .*EMPTY: `score package"),
    ],
)
def test_a_base_that_is_none(given: str, says: str, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("")
    (tmp_path / "EMPTY").mkdir()
    name = str(tmp_path / given) if given.isupper() else given
    with pytest.raises(ModelError, match=says):
        resolve.find(str(bare), base=name)


def test_layouts_that_say_all_themselves_take_no_base(tiny: Path, tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "c", OpenClip(SMALL), SMALL, {})
    with pytest.raises(ModelError, match="--base is for the transformers layout"):
        resolve.find(str(folder), base=str(tiny))


# -- from the Hub, and what its licence means ------------------------------------------------------


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A Hub on which every repository is the tiny model; what was asked of it, and said."""
    asked: list[Any] = []
    snapshot = Path(shutil.copytree(tiny, tmp_path / "snapshots" / ("a" * 40)))
    (snapshot / "LICENSE").write_text("the base's")

    def download(id: str, revision: str | None, *, weights: bool = True, **_: object) -> Any:
        asked.append((id, revision, weights))
        return resolve.hub.Download(snapshot, "a" * 40)

    monkeypatch.setattr(base_checkpoint.hub, "download", download)
    return asked


@pytest.mark.parametrize("name", [OPENAI, "openai-vit-b-32", f"{OPENAI}@main"])
def test_a_base_on_the_hub(name: str, hub: list[Any], bare: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = package(bare, tmp_path / "p", base=name, say=said.append)
    pinned = catalog.CATALOG["openai-vit-b-32"].revision
    assert hub == [(OPENAI, "main" if "@" in name else pinned, False)]
    assert said[0].startswith(f"tokenizer and image processor come from huggingface.co/{OPENAI}")
    assert "Licence MIT" in said[0]
    # The weights are not OpenAI's, as far as is known; if they were, its licence would count.
    metadata = Model.load(str(made)).metadata
    assert "license" not in metadata
    assert metadata["source"] == "fine-tuned"
    assert metadata["base"] == f"huggingface.co/{OPENAI}@{'a' * 40}"
    card = (made / "README.md").read_text()
    assert "fine-tuned is not in the catalog: find out yourself what its licence allows" in card
    assert "if OpenAI CLIP ViT-B/32 is what it was fine-tuned from, its licence counts" in card
    # The base's licence goes along with what is the base's, and is not taken for the weights'.
    assert [file.name for file in (made / "model").glob("LICENSE*")] == ["LICENSE.base"]
    # Packaged again, all that is still known.
    again = package(made, tmp_path / "again")
    assert Model.load(str(again)).metadata["base"] == metadata["base"]
    assert "if OpenAI CLIP ViT-B/32 is what" in (again / "README.md").read_text()
    assert [file.name for file in (again / "model").glob("LICENSE*")] == ["LICENSE.base"]


def test_a_base_for_research_only_is_said_to_be(hub: list[Any], bare: Path) -> None:
    found = resolve.find(str(bare), base="facebook/metaclip-b32-400m")
    assert "CC-BY-NC-4.0, NON-COMMERCIAL" in found.notice
    assert found.entry is None


def test_without_a_network_it_says_what_to_fetch(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError) as caught:
        resolve.find(str(bare), base=OPENAI)
    message = str(caught.value)
    assert f"hf download {OPENAI} --revision" in message
    options = shlex.split(message.partition("hf download")[2].partition("--local-dir")[0])
    small = [value for key, value in itertools.pairwise(options) if key == "--include"]
    assert len(options) == 1 + 2 * (1 + len(small)), "each pattern has an --include of its own"
    for name in base_checkpoint.hub._BESIDE:
        assert any(fnmatch(name, pattern) for pattern in small), name
    assert "name it: --base clip-vit-base-patch32" in message


def test_a_bare_repository_is_named_as_it_was_asked_for(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(id: str, revision: str | None, *, weights: bool = True, **_: object) -> Any:
        return resolve.hub.Download(bare, "a" * 40)

    monkeypatch.setattr(resolve.hub, "download", download)
    with pytest.raises(ModelError, match=r"someone/tuned lacks .* package someone/tuned --base"):
        resolve.find("someone/tuned")


# -- bare weights ----------------------------------------------------------------------------------


def test_a_base_says_what_bare_weights_are(bare: Path, tiny: Path, tmp_path: Path) -> None:
    """Its configuration is theirs, and need not be named."""
    made = package(bare / "model.safetensors", tmp_path / "p", base=str(tiny))
    whole = package(tiny, tmp_path / "whole")
    assert np.array_equal(vectors(made), vectors(whole))
    assert Model.load(str(made)).metadata["base"] == tiny.name


def test_bare_weights_that_are_said_to_be_two_things(
    bare: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    tower = replace(random_checkpoint.TINY.vision.tower, activation="gelu")
    other = replace(
        random_checkpoint.TINY, vision=replace(random_checkpoint.TINY.vision, tower=tower)
    )
    monkeypatch.setattr(resolve, "ARCHITECTURES", {"small": other})
    with pytest.raises(ModelError, match=r"--base is no small: its vision_config\.hidden_act is"):
        resolve.find(str(bare / "model.safetensors"), base=str(tiny), architecture="small")


@pytest.mark.parametrize("family", ["ViT-B-16-SigLIP-224", "chinese-ViT-B-16"])
def test_bare_weights_whose_base_is_of_another_family(
    family: str, bare: Path, tmp_path: Path
) -> None:
    config = ALL_ARCHITECTURES[family].config()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    says = f"--base is no ViT-B-32: its model_type is '{config['model_type']}', not 'clip'"
    with pytest.raises(ModelError, match=says):
        resolve.find(
            str(bare / "model.safetensors"), base=str(tmp_path / "base"), architecture="ViT-B-32"
        )


# -- with another tokenizer ------------------------------------------------------------------------


@pytest.fixture
def more_tokens(tiny: Path, tmp_path: Path) -> Path:
    """A tokenizer to which a token was added, as fine-tuning does it; beside no configuration."""
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.add_tokens(["<rose>"])
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return tmp_path / "tokenizer"


@pytest.fixture
def resized(tiny: Path, tmp_path: Path) -> Path:
    """A model whose table of tokens grew with the tokenizer, as `save_pretrained` leaves it."""
    model = CLIPModel.from_pretrained(tiny)
    model.text_model.resize_token_embeddings(49409, mean_resizing=False)
    model.config.text_config.vocab_size = 49409
    model.save_pretrained(tmp_path / "resized")
    return tmp_path / "resized"


def test_image_processor_of_the_base_tokenizer_from_elsewhere(
    resized: Path, more_tokens: Path, tiny: Path, tmp_path: Path
) -> None:
    """The base's tokenizer, which is not taken, need not fit."""
    said: list[str] = []
    made = package(resized, tmp_path / "p", base=str(tiny), tokenizer=more_tokens, say=said.append)
    assert f"taken from {tiny.name}: image processor" in said
    texts = parts_of(Embedder.load(made)).tokenizer
    assert [id for id in texts.encode(["a <rose>"], "end")[0] if id > 49407] == [49408]
    assert "nothing in them can confirm" not in (made / "README.md").read_text().lower()


def test_a_given_tokenizer_is_not_missing(
    resized: Path, more_tokens: Path, processor: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"lacks an image processor \(preprocessor_config"):
        resolve.find(str(resized), tokenizer=more_tokens)
    shutil.copy(processor / "preprocessor_config.json", resized)
    package(resized, tmp_path / "p", tokenizer=more_tokens)
    with pytest.raises(ModelError, match="--base adds nothing"):
        resolve.find(str(resized), tokenizer=more_tokens, base=str(processor))


def test_bare_weights_with_a_base_and_another_tokenizer(
    bare: Path, tiny: Path, tmp_path: Path
) -> None:
    """What is given counts more than the base's, for the reference as for us."""
    other = tmp_path / "other"
    other.mkdir()
    content = json.loads((tiny / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "NFC"}
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] >= 49406]
    (other / "tokenizer.json").write_text(json.dumps(content))
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(tiny / name, other)
    given = resolve.find(str(bare / "model.safetensors"), base=str(tiny), tokenizer=other).source
    assert json.loads(given.tokenizer)["normalizer"] == {"type": "NFC"}
    assert given.tokenizer_folder is None
    assert given.processor_file == tiny / "preprocessor_config.json"


def test_a_base_whose_texts_are_cleaned_may_be_uncleaned(
    bare: Path, tiny: Path, tmp_path: Path
) -> None:
    cleaned = package(tiny, tmp_path / "cleaned", cleaning="openclip")
    made = package(bare, tmp_path / "p", base=str(cleaned), cleaning="transformers")
    assert np.array_equal(vectors(made), vectors(package(tiny, tmp_path / "whole")))


def test_what_the_hub_holds_says_itself_what_it_is(hub: list[Any]) -> None:
    with pytest.raises(ModelError, match=r"openai/clip.* --architecture is for bare weights"):
        resolve.find(OPENAI, architecture="ViT-B-32")
