"""The files of a tokenizer in a folder → a `tokenizers.Tokenizer`, as transformers 5 reads them.

`tokenizer.json`, CLIP's `vocab.json` and `merges.txt`, SigLIP's `spiece.model`, or BERT's
`vocab.txt`; with the tokens that the files beside them add (`added_tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordPiece

from score.errors import ModelError
from score.folder.model_folder import read_json
from score.folder.small_files import TABLE, read_bytes, read_text
from score.texts import sentencepiece_model, siglip, wordpiece
from score.texts.added_tokens import CONFIG, AddedTokens
from score.texts.clip_bpe import CLIP_BEGIN, CLIP_END, clip_pairs, enclose
from score.texts.padding import Padding
from score.texts.tokenizer_limits import check_charsmaps, check_growth
from score.type_aliases import Json

JSON = "tokenizer.json"

_JSON, _MERGES, _PIECES = (JSON,), ("vocab.json", "merges.txt"), (siglip.VOCABULARY,)
_WORDS = (wordpiece.VOCABULARY,)

LARGEST = 2**27
"""Bytes of it: twice XLM-V's."""

_T5 = "T5Tokenizer"
_GEMMAS = ("GemmaTokenizer", "Siglip2Tokenizer")  # transformers pads them on the left by default

# The special tokens of transformers' tokenizer classes where a configuration names none.
_CLIP_NAMES = {"bos_token": CLIP_BEGIN} | dict.fromkeys(
    ("eos_token", "unk_token", "pad_token"), CLIP_END
)
_XLM_NAMES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
}


_SIGLIP_NAMES = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
_T5_NAMES = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GEMMA_NAMES = {name: f"<{name[:3]}>" for name in ("bos_token", "eos_token", "unk_token")} | {
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def read(path: Path, config: Json, *, pads: bool = False) -> Tokenizer:
    """The tokenizer whose files lie in `path`.

    `config`: of `tokenizer_config.json`, empty where there is none. `pads`: whether it is that of a
    model whose texts are padded (SigLIP). Raises ModelError, and for a broken file any Exception,
    as the library does.
    """
    names = names_in(path, config, pads=pads)
    if names == _PIECES:
        return _from_pieces(path, config)
    if names == _JSON:
        tokenizer = _from_json(path / JSON, config, is_t5=pads and _kind(config) == _T5)
        gemmas = pads and _kind(config) in _GEMMAS
        return siglip.lower_cased(tokenizer) if gemmas else tokenizer
    if names == _MERGES:
        return _from_merges(path, config)
    if names == _WORDS:
        return _from_words(path, config)
    pieces = f", nor {siglip.VOCABULARY}" if pads else ""  # which only texts that are padded have
    raise ModelError(
        f"no {JSON}, nor vocab.json and merges.txt, nor {wordpiece.VOCABULARY}{pieces}, in {path}"
    )


def names_in(path: Path, config: Json, *, pads: bool = False) -> tuple[str, ...]:
    """The files in `path` that make a tokenizer's ids, transformers' first choice of those that are
    there; none where there is no tokenizer. `config`, `pads`: as for `read`."""
    choices: tuple[tuple[str, ...], ...] = (_JSON, _MERGES, _WORDS)
    if pads:
        choices = (_JSON, _PIECES) if _kind(config) == _T5 else (_PIECES, *choices)
    there = (names for names in choices if all((path / name).is_file() for name in names))
    return next(there, ())


def padding(path: Path, config: Json, tokenizer: Tokenizer) -> Padding:
    """What pads the texts of a tokenizer whose files lie in `path`. Raises ModelError."""
    names = _names(config, tokenizer)
    token = AddedTokens.read(path, names).name("pad_token", "")
    side = config.get("padding_side", "left" if _kind(config) in _GEMMAS else "right")
    if token:
        return Padding.named(tokenizer, token, side)
    stated = Padding.stated(tokenizer)
    if stated is None:
        raise ModelError(f"the model's texts are padded, and {path / CONFIG} names no pad_token")
    return stated


def _from_pieces(folder: Path, config: Json) -> Tokenizer:
    """SigLIP's tokenizer from `spiece.model`."""
    _check_kind(folder, config, "SiglipTokenizer", f"{siglip.VOCABULARY} is")
    data = read_bytes(folder / siglip.VOCABULARY, LARGEST)
    tokenizer = siglip.unigram_tokenizer(sentencepiece_model.parse(data, siglip.FIRST))
    AddedTokens.read(folder, _SIGLIP_NAMES).add_to(tokenizer)
    return tokenizer


def _from_words(folder: Path, config: Json) -> Tokenizer:
    """BERT's tokenizer from `vocab.txt`."""
    _check_kind(folder, config, "BertTokenizer", f"{wordpiece.VOCABULARY} is")
    lines = read_text(folder / wordpiece.VOCABULARY, TABLE).split("\n")
    pieces = {piece: id for id, piece in enumerate(lines) if piece or id < len(lines) - 1}
    added = AddedTokens.read(folder, wordpiece.NAMES)
    names = {name: added.name(name, default) for name, default in wordpiece.NAMES.items()}
    tokenizer = wordpiece.word_pieces(pieces, config, names["unk_token"])
    added.add_to(tokenizer)
    wordpiece.enclose(tokenizer, names["cls_token"], names["sep_token"])
    return tokenizer


def _from_json(file: Path, config: Json, *, is_t5: bool) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, with the tokens that files beside it add.

    `is_t5`: whether it is made of T5's pieces alone, as transformers' class for them does.
    """
    data = read_bytes(file, LARGEST)
    check_charsmaps(data)
    tokenizer = Tokenizer.from_buffer(data)
    check_growth(tokenizer)
    added = AddedTokens.read(file.parent, _names(config, tokenizer))
    if is_t5:
        tokenizer, added = siglip.t5_tokenizer(tokenizer), added.without(siglip.SENTINEL)
    added.add_to(tokenizer)
    return tokenizer


def _from_merges(folder: Path, config: Json) -> Tokenizer:
    """CLIP's tokenizer from `vocab.json` and `merges.txt`, with the tokens that other files add."""
    _check_kind(folder, config, "CLIPTokenizer", "vocab.json and merges.txt are")
    lines = read_text(folder / "merges.txt", TABLE).splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#version")]
    added = AddedTokens.read(folder, _CLIP_NAMES)
    tokenizer = clip_pairs(
        read_json(folder / "vocab.json", TABLE),
        [(a, b) for a, b in pairs],
        added.name("unk_token", CLIP_END),
    )
    added.add_to(tokenizer)
    enclose(tokenizer, added.name("bos_token", CLIP_BEGIN), added.name("eos_token", CLIP_END))
    return tokenizer


def _check_kind(folder: Path, config: Json, wanted: str, files: str) -> None:
    """Raises ModelError where a configuration names another class than the one that files are."""
    if (kind := _kind(config)) not in ("", wanted):
        raise ModelError(
            f"{files} read as {wanted}'s; {folder / CONFIG} says {kind[:80]}, which needs a "
            "tokenizer.json"
        )


def _names(config: Json, tokenizer: Tokenizer) -> Mapping[str, str]:
    """The default special tokens of the configured class, else of the class for this model."""
    kind = _kind(config)
    if kind == "CLIPTokenizer" or (not kind and isinstance(tokenizer.model, BPE)):
        return _CLIP_NAMES
    if kind == "XLMRobertaTokenizer" or (not kind and isinstance(tokenizer.model, Unigram)):
        # KerasHub's vocabulary may lack the mask, which no text needs and which has no embedding.
        has_mask = tokenizer.token_to_id("<mask>") is not None
        return _XLM_NAMES | ({"mask_token": "<mask>"} if has_mask else {})
    if kind == "BertTokenizer" or (not kind and isinstance(tokenizer.model, WordPiece)):
        return wordpiece.NAMES
    if kind == "SiglipTokenizer":
        return _SIGLIP_NAMES
    if kind == _T5:
        return _T5_NAMES
    if kind in _GEMMAS:
        return _GEMMA_NAMES
    return {}


def _kind(config: Json) -> str:
    """The tokenizer class that a configuration names; empty for none."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")
