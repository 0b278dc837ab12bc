"""Texts are cleaned to the ids that OpenCLIP's own tokenizers give, with ftfy."""

from __future__ import annotations

import html
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import ftfy
import numpy as np
import pytest
import torch

from score.checkpoints import openclip, random_checkpoint, retokenized
from score.checkpoints.catalog import CATALOG
from score.checkpoints.source import opened
from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.errors import BadType, ModelError
from score.folder.model_folder import EMBEDDED
from score.model.probes import FILE, Probes
from score.package import probe_set, reference
from score.package.build import package
from score.settings import Settings
from score.texts import cleaning as cleaning_module
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Ids, Tokenizer
from tests.checkpoints.test_layouts import SMALL, shallow, write_open_clip
from tests.model.test_reference import TEXTS
from tests.support.open_clip_reference import OpenClip
from tests.support.open_clip_reference import package as open_clip_package

pytestmark = pytest.mark.reference

CONTEXT = 77
FP32 = Settings(device="cpu", precision="fp32")
OPEN_CLIP = Cleaning("openclip", lower=True)

# What cleaning is for, and where it could go wrong.
DIRTY = [
    "a dog’s bowl", "“quoted” and ‘quoted’", "Tom &amp; Jerry", "Tom &amp;amp; Jerry",
    "&amp;amp;amp; three times", "&lt;b&gt;bold&lt;/b&gt;", "<b>Tom &amp; Jerry</b>",
    "caf&eacute; &#233; &#xe9; &EACUTE; &eacute", "AT&T R&D this&not that &copy 2020",
    "ＦＵＬＬ　ｗｉｄｔｈ　１２３", "ﾊﾝｶｸ ｶﾀｶﾅ", "ﬁne ﬂoor oﬃce ﬅ ĳ Ǆ", "cafÃ© au lait",
    "â€œmojibakeâ€\x9d", "naÃ¯ve faÃ§ade", "Ð¼Ð¾Ñ\x81ÐºÐ²Ð°", "l’humanitÃ© â€“ rÃªve",
    "ÃƒÂ© twice", "schÃ¶n &amp; groß", "\ufeffwith a mark", "a\u2028b\u2029c\x85d",
    "a\r\nb\rc\x0bd",
    "\x1b[31mred\x1b[0m", "bell\x07 nul\x00 del\x7f", "ΟΔΥΣΣΕΥΣ ΣΑΣ", "İSTANBUL", "J̌ J\u030c",
    "<b> e&#769;", "'ſ it'ſ", "IT'S WE'LL", "<start_of_text>", "a cat<end_of_text>a dog",
    "A <END_OF_TEXT> b", "!<end_of_text>", "x<<start_of_text><end_of_text>", "<end_of_text>" * 3,
    "!<end_of_text><start_of_text>!", "'<end_of_text>'s", "1<end_of_text>2", "&lt;end_of_text&gt;",
    "<|endoftext|> <|startoftext|>", "&nbsp;", "&nbsp;a&nbsp;&nbsp;b", "&#0; &#xD800; &#x1F600;",
    "http://a.b/?c=d&amp;e=f", "1 &lt; 2 &gt; 1", "100&percnt;", "&#8217;&#8220;",
    "e\u0301 E\u0301",
    "\u1680 \u2003 \u3000 \u180e \u200b", "\x1c\x1d\x1e\x1f", "½ ⅓ ① ™ ℃", "한국어 사진",
    "ｈｔｔｐ：／／ａ",
    "ИМЯ ÐÐ", "Â£100 Â°C", "fiancÃ©e â™¥ ðŸ˜€", "a" * 400, "&amp;" * 200, "’" * 100, "Ã©" * 100,
]  # fmt: skip
PIECES = ["dog", "’", "&amp;", "Ã©", " ", "ﬁ", "Ａ", "&#39;", "<", ">", "<end_of_text>", "!", "É",
          "Σ", "\n", "&lt;", "“", "猫", "'s", "1", "&", "amp;", "â€™", "\u3000", "_"]  # fmt: skip


def mixed(seed: int) -> str:
    dice = random.Random(seed)
    return "".join(dice.choice(PIECES) for _ in range(dice.choice([2, 4, 8, 30])))


ALL = [*DIRTY, *TEXTS, *map(mixed, range(400))]


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """`open_clip.tokenizer`, loaded here and not by the code that is tested."""
    spec = importlib.util.spec_from_file_location("its", open_clip_package() / "tokenizer.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpadded(rows: Any, padding: int) -> list[Ids]:
    return [np.trim_zeros(np.array(row) - padding, "b").__add__(padding).tolist() for row in rows]


def simple_texts() -> Tokenizer:
    return Tokenizer.parse(retokenized._open_clips(CONTEXT), CONTEXT, OPEN_CLIP)


def test_ids_are_openclips(theirs: ModuleType) -> None:
    wanted = unpadded(theirs.SimpleTokenizer()(ALL).tolist(), 0)
    for text, ours, ids in zip(ALL, simple_texts().encode(ALL, "end"), wanted, strict=True):
        assert ours == ids, repr(text[:80])


def test_cleaned_texts_are_openclips(theirs: ModuleType) -> None:
    clean = Cleaning("openclip")
    for text in ALL:
        assert clean(text) == theirs._clean_whitespace(text), repr(text[:80])


def test_it_makes_a_difference() -> None:
    plain = Tokenizer.parse(random_checkpoint.clip_vocabulary(), CONTEXT).encode(DIRTY, "end")
    cleaned = simple_texts().encode(DIRTY, "end")
    assert sum(a != b for a, b in zip(plain, cleaned, strict=True)) > len(DIRTY) / 2


def test_plain_texts_need_no_ftfy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is skipped could not have changed: every pair of characters, and long random texts."""
    plain = [chr(code) for code in range(128) if cleaning_module._PLAIN.fullmatch(chr(code))]
    assert len(plain) == 95 - 1 + 3
    dice = random.Random(0)
    long = ["".join(dice.choices(plain, k=200)) for _ in range(200)]
    whole = "".join(a + b for a, b in product(plain, plain))
    for text in [*map("".join, product(plain, plain)), *long, whole]:
        slow = html.unescape(html.unescape(ftfy.fix_text(text)))
        assert slow.split() == text.split()
    monkeypatch.setattr(ftfy, "fix_text", None)
    assert OPEN_CLIP("A red\tapple\r\n") == "a red apple"
    with pytest.raises(TypeError):
        OPEN_CLIP("Tom &amp; Jerry")


@pytest.mark.parametrize("character", [chr(code) for code in (*range(9), 0x0B, 0x1B, 0x7F)] + ["&"])
def test_what_may_change_is_not_skipped(character: str) -> None:
    assert not cleaning_module._PLAIN.fullmatch(f"a{character}b")


# -- packages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in OpenCLIP's layout."""
    return write_open_clip(tmp_path_factory.mktemp("open") / "c", OpenClip(SMALL), SMALL, {})


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(model, tmp_path_factory.mktemp("made") / "p")


def config(made: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((made / "model/tokenizer_config.json").read_text())
    return content


def test_a_package_of_openclips_layout_cleans(made: Path, theirs: ModuleType) -> None:
    embedder = Embedder.load(made, FP32)
    assert parts_of(embedder).tokenizer.cleaning == OPEN_CLIP
    assert config(made)["text_cleaning"] == "openclip"
    assert "  text_cleaning: openclip\n" in (made / "MLmodel").read_text()
    assert "cleaned as OpenCLIP does" in (made / "README.md").read_text()
    wanted = unpadded(theirs.SimpleTokenizer()(ALL).tolist(), 0)
    assert parts_of(embedder).tokenizer.encode(ALL, "end") == wanted


def test_its_probes_are_openclips(made: Path, theirs: ModuleType) -> None:
    probes = Probes.read(made / "model")
    assert probes
    assert "open_clip 3.3.0, ftfy 6.3.1" in probes.reference
    tokenizer = theirs.SimpleTokenizer()
    for probe in probes.texts:
        assert [probe.ids] == unpadded(tokenizer([probe.text]).tolist(), 0)


def test_a_package_that_forgot_its_cleaning_does_not_load(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made / "model", tmp_path / "model"))
    kept = json.loads((copy / "tokenizer_config.json").read_text())
    for name in ("text_cleaning", "do_lower_case"):
        changed = {key: value for key, value in kept.items() if key != name}
        (copy / "tokenizer_config.json").write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=r"the token ids of .* are not the reference's"):
            Embedder.load(copy, FP32)


def test_a_transformers_folder_is_cleaned_where_that_is_asked(
    tiny: Path, tmp_path: Path, theirs: ModuleType
) -> None:
    cleaned = package(tiny, tmp_path / "p", cleaning="openclip")
    texts = parts_of(Embedder.load(cleaned, FP32)).tokenizer
    assert texts.encode(ALL, "end") == unpadded(theirs.SimpleTokenizer()(ALL).tolist(), 0)
    again = package(cleaned, tmp_path / "again")  # keeps what its source records
    assert (again / "model" / FILE).read_bytes() == (cleaned / "model" / FILE).read_bytes()


@pytest.mark.parametrize("source", ["made", "model"])
def test_an_openclip_folder_is_not_where_that_is_asked(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nor a package that was made from one."""
    folder = request.getfixturevalue(source)
    made = package(folder, tmp_path / "p", cleaning="transformers")
    plain = Tokenizer.parse(random_checkpoint.clip_vocabulary(), CONTEXT)
    assert config(made)["text_cleaning"] == "transformers"
    assert "do_lower_case" not in config(made)
    assert parts_of(Embedder.load(made, FP32)).tokenizer.encode(ALL, "end") == plain.encode(
        ALL, "end"
    )


def test_other_tokenizers_are_cleaned_as_openclip_wraps_them(
    tmp_path: Path, theirs: ModuleType
) -> None:
    """MetaCLIP 2 in OpenCLIP's layout: its pieces keep their case."""
    model_cfg = shallow("ViT-H-14-worldwide-quickgelu", layers=1)
    model_cfg |= {"embed_dim": 32}
    model_cfg["vision_cfg"] |= {"width": 80, "head_width": 80}
    model_cfg["text_cfg"] |= {"width": 64, "heads": 2}
    folder = write_open_clip(tmp_path / "c", OpenClip(model_cfg), model_cfg, {})
    made = package(folder, tmp_path / "p")
    assert parts_of(Embedder.load(made, FP32)).tokenizer.cleaning == Cleaning("openclip")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    (folder / "config.json").write_text('{"model_type": "metaclip_2"}')
    wanted = unpadded(theirs.HFTokenizer(str(folder))(ALL).tolist(), 1)
    assert parts_of(Embedder.load(made, FP32)).tokenizer.encode(ALL, "end") == wanted
    plain = package(folder, tmp_path / "plain", cleaning="transformers")
    assert parts_of(Embedder.load(plain, FP32)).tokenizer.encode(ALL, "end") != wanted


def test_bare_weights_are_cleaned_as_their_authors_do() -> None:
    """Meta's code for MetaCLIP 2 cleans nothing, that of all other CLIPs what OpenAI's does."""
    for entry in CATALOG.values():
        kind = entry.architecture.kind
        assert kind in ("siglip", "chinese_clip") or entry.cleaning == (
            "openclip" if kind == "clip" else "transformers"
        )


@pytest.mark.parametrize(
    ("kind", "cleaning"), [("clip", "openclip"), ("metaclip_2", "transformers")]
)
def test_a_bare_file_is_cleaned_by_its_kind(kind: Any, cleaning: str, tmp_path: Path) -> None:
    made = openclip.architecture(SMALL)
    made = replace(made, kind=kind)
    torch.save({"logit_scale": torch.zeros(())}, tmp_path / "w.pt")
    texts = Tokenizer.parse(random_checkpoint.clip_vocabulary(), CONTEXT)
    source = openclip.file(opened(tmp_path / "w.pt"), made, texts)
    assert source.cleaning.name == cleaning


def test_a_package_without_the_record_loads(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(EMBEDDED, tmp_path / "model"))
    kept = json.loads((copy / "tokenizer_config.json").read_text())
    assert kept.pop("text_cleaning") == "transformers"
    (copy / "tokenizer_config.json").write_text(json.dumps(kept))
    assert parts_of(Embedder.load(copy, FP32)).tokenizer.cleaning == Cleaning()
    (copy / "tokenizer_config.json").unlink()
    assert parts_of(Embedder.load(copy, FP32)).tokenizer.cleaning == Cleaning()


# -- every way in ----------------------------------------------------------------------------------


def test_labels_and_rows_are_cleaned_alike(made: Path) -> None:
    embedder = Embedder.load(made, FP32)
    clean, dirty = "tom & jerry's café", "Tom &amp;amp; Jerry’s cafÃ©"
    first, second = embedder.embed([Row(text=clean), Row(text=dirty)])
    assert np.array_equal(first.text_features, second.text_features)  # type: ignore[arg-type]
    assert np.array_equal(embedder.embed_text(dirty), embedder.embed_text(clean))
    image = probe_set.images()["wide"]
    assert [*embedder.classify(image, {"a": clean, "b": "a dog"}).values()] == [
        *embedder.classify(image, {"a": dirty, "b": "a dog"}).values()
    ]


def test_what_cleaning_counts_is_the_cleaned_text(made: Path) -> None:
    embedder = Embedder.load(made, FP32)
    (record,) = embedder.embed([Row(text="&amp;" * 40)], Params(truncate="error"))
    assert record.error is None  # 120 tokens as it stands
    (record,) = embedder.embed([Row(text="&hearts; " * 90)], Params(truncate="error"))
    assert record.error is not None
    assert record.error.code == "text_too_long"


def test_half_a_character_is_an_error_here_too(made: Path) -> None:
    """ftfy would put U+FFFD in its place."""
    (found,) = parts_of(Embedder.load(made, FP32)).tokenizer.encode(["a cat’s \ud800"], "end")
    assert isinstance(found, BadType)


def test_a_text_may_be_long(made: Path) -> None:
    texts = parts_of(Embedder.load(made, FP32)).tokenizer
    for piece in ("Ã©", "&amp;", "’", "a&", "&#39;", "<end_of_text>!", "ÃƒÂ©"):
        (ids,) = texts.encode([piece * 60_000], "end")
        assert isinstance(ids, list)
        assert len(ids) <= CONTEXT


def test_the_rest_of_a_long_text_is_not_copied(made: Path) -> None:
    texts, text = parts_of(Embedder.load(made, FP32)).tokenizer, " " + "a cat " * 2**20
    tracemalloc.start()
    try:
        (ids,) = texts.encode([text], "end")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids == texts.encode([text[1:1000]], "end")[0]
    assert most < 2**20


@pytest.mark.parametrize(
    "text",
    [
        "&" + "amp;" * 25_000,
        "＆" + "ａｍｐ；" * 25_000,
        "&" + "#65286;" * 14_000,
        "&" + "#38;" * 25_000,
        "&#3" * 20_000 + "8;" * 20_000,
        "&am\x01p;" + "amp;" * 20_000,
        "&" + "amp;" * 20_000 + "\n<b>",
    ],
)
def test_entities_within_entities_are_resolved_a_bounded_number_of_times(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ftfy alone each of these would take minutes."""
    passes: list[int] = []
    once = ftfy.fixes.unescape_html

    def counted(text: str) -> str:
        passes.append(len(text))
        return once(text)

    monkeypatch.setattr(ftfy.fixes, "unescape_html", counted)
    monkeypatch.setitem(ftfy.FIXERS, "unescape_html", counted)
    assert OPEN_CLIP(text)
    assert len(passes) <= 2 * cleaning_module._MOST_LEVELS


@pytest.mark.parametrize("levels", [1, 2, 5, 20, 30])
def test_levels_that_occur_are_resolved_as_openclip_does(levels: int, theirs: ModuleType) -> None:
    for start, more in (("&", "amp;"), ("＆", "ａｍｐ；"), ("&", "#65286;")):
        text = f"Tom {start}{more * levels} Jerry"
        assert Cleaning("openclip")(text) == theirs._clean_whitespace(text)


# -- what is missing -------------------------------------------------------------------------------


@pytest.mark.process
def test_without_ftfy_the_package_says_what_to_install(made: Path) -> None:
    code = (
        "import sys; sys.modules['ftfy'] = None\n"
        "from score.core.embedder import Embedder\n"
        "from score.errors import ModelError\n"
        "Embedder.load()\n"
        "try: Embedder.load(sys.argv[1])\n"
        "except ModelError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=True
    )
    assert "pip install ftfy" in result.stdout


def test_without_openclip_packaging_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference._open_clip.cache_clear()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "open_clip" else find_spec(name)
    )
    with pytest.raises(ModelError, match="pip install --no-deps open_clip_torch"):
        package(model, tmp_path / "p")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    reference._open_clip.cache_clear()


@pytest.mark.parametrize("record", ["ftfy", 3, None, ["openclip"]])
def test_an_unknown_record_is_refused(record: object) -> None:
    with pytest.raises(
        ModelError, match=r"text_cleaning .* is not one of transformers, openclip, siglip"
    ):
        Cleaning.from_config({"text_cleaning": record})


def test_a_wrong_cleaning_is_not_packaged(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cleaning, "__call__", lambda self, text: text.lower())
    with pytest.raises(ModelError, match=r"cannot be packaged: .* token ids"):
        package(model, tmp_path / "p")


def test_the_record_survives() -> None:
    for cleaning in (Cleaning(), Cleaning("openclip"), OPEN_CLIP):
        assert Cleaning.from_config(cleaning.config()) == cleaning
