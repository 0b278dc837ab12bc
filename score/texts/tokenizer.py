"""Text → token ids, equal to the model folder's own tokenizer.

Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from score.arrays import Json
from score.contract.params import Truncate
from score.errors import BadType, ModelError, RowError, TextTooLong
from score.folder.architecture import Architecture
from score.folder.model_folder import (
    LFS_POINTER,
    ModelFolder,
    is_lfs_pointer,
    read_json,
    read_optional_json,
)
from score.texts.added_tokens import CONFIG, AddedTokens
from score.texts.cleaning import Cleaning

Ids = list[int]

CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"
OPEN_CLIP_BEGIN, OPEN_CLIP_END = "<start_of_text>", "<end_of_text>"

# What transformers' classes of tokenizers take for special where a configuration names nothing.
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

# Words of CLIP: a contraction's end, letters, one digit, or anything else but space.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# What is read of a text: far more than fills a context, and little enough to be read in no time.
_MOST_CHARACTERS = 100_000


class Tokenizer:
    """The folder's tokenizer, cut to the model's context. Safe to share between threads."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, context: int, cleaning: Cleaning | None = None
    ) -> None:
        """`context`: most token ids a text may have, begin and end tokens included.

        `cleaning`: what happens to a text before; None is nothing.
        """
        self.context = context
        self.cleaning = cleaning or Cleaning()
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context)
        self._specials = len(tokenizer.encode("").ids)

    @classmethod
    def load(cls, folder: ModelFolder) -> Tokenizer:
        """The tokenizer of a model folder. Raises ModelError for one that is not the model's."""
        texts = cls.of(folder.tokenizer, folder.architecture.text.context)
        texts.check(folder.architecture)
        return texts

    @classmethod
    def of(cls, path: Path, context: int) -> Tokenizer:
        """The tokenizer whose files lie in `path`. Raises ModelError."""
        config = read_optional_json(path / CONFIG)
        file = path / "tokenizer.json"
        vocabulary, merges = path / "vocab.json", path / "merges.txt"
        try:
            if file.is_file():
                return cls(_from_json(file, config), context, Cleaning.from_config(config))
            if vocabulary.is_file() and merges.is_file():
                return cls(_from_merges(path, config), context, Cleaning.from_config(config))
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare Exception on a broken file
            pointer = file.is_file() and is_lfs_pointer(file)
            reason = f"it is {LFS_POINTER}" if pointer else error
            raise ModelError(f"cannot read the tokenizer in {path}: {reason}") from error
        raise ModelError(f"no tokenizer.json, nor vocab.json and merges.txt, in {path}")

    @classmethod
    def parse(cls, text: str, context: int, cleaning: Cleaning | None = None) -> Tokenizer:
        """The tokenizer that a `tokenizer.json` spells out."""
        return cls(tokenizers.Tokenizer.from_str(text), context, cleaning)

    @property
    def ends(self) -> tuple[str, str]:
        """The tokens that every text begins and ends with."""
        tokens: list[str] = self._tokenizer.encode("").tokens
        return tokens[0], tokens[-1]

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def check(self, architecture: Architecture) -> None:
        """Raises ModelError for a tokenizer that cannot be this model's.

        Its ids must have embeddings, and its texts must end with the token that is pooled.
        """
        text = architecture.text
        vocabulary = self.vocabulary()
        largest = max(vocabulary, key=vocabulary.__getitem__, default="")
        if vocabulary.get(largest, 0) >= text.vocabulary:
            raise ModelError(
                f"the tokenizer makes ids up to {vocabulary[largest]:,}, the model has embeddings "
                f"for {text.vocabulary:,}: {largest[:80]!r} has none"
            )
        ids = self._tokenizer.encode("a photo").ids
        end = max(ids, default=None) if architecture.pools_largest else text.end
        if not ids or ids[-1] != end or not self._specials:
            last = ids[-1] if ids and self._specials else "none of its own (no post_processor)"
            raise ModelError(f"the tokenizer ends a text with id {last}, the model pools at {end}")

    def to_json(self) -> str:
        """The `tokenizer.json` of this tokenizer, neither padding nor truncation in it."""
        tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.no_truncation()
        text: str = tokenizer.to_str()
        return text

    def encode(self, texts: Sequence[object], truncate: Truncate) -> list[Ids | RowError]:
        """Token ids of each text, from begin to end token, or why it has none.

        A text over the context is cut, its end token kept; under `truncate="error"` it is an error.
        """
        return [self._encode(text, truncate) for text in texts]

    def _encode(self, text: object, truncate: Truncate) -> Ids | RowError:
        if not isinstance(text, str):
            return BadType(f"must be a string, not {type(text).__name__}")
        try:
            encoding = self._tokenizer.encode(self.cleaning(_readable(text)))
        except (UnicodeEncodeError, TypeError):
            return BadType("holds half a character (a lone surrogate), so it is not Unicode")
        if truncate == "error" and encoding.overflowing:
            count = len(encoding.ids) + sum(
                len(part.ids) - self._specials for part in encoding.overflowing
            )
            at_least = "at least " if len(text) > _MOST_CHARACTERS else ""
            return TextTooLong(f"{at_least}{count} tokens; the model's context is {self.context}")
        ids: Ids = encoding.ids
        return ids


def _readable(text: str) -> str:
    """As much of a text as is read: white space before it counts for nothing."""
    return text if len(text) <= _MOST_CHARACTERS else text.lstrip()[:_MOST_CHARACTERS]


def clip_tokenizer(
    vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """CLIP's byte-level BPE from its two tables.

    The rules are those of openai/CLIP's `simple_tokenizer.py`, as `transformers.CLIPTokenizer`
    writes them down.
    """
    tokenizer = _clip_pairs(vocabulary, merges, CLIP_END)
    tokenizer.add_special_tokens([CLIP_BEGIN, CLIP_END])
    _enclose(tokenizer, CLIP_BEGIN, CLIP_END)
    return tokenizer


def open_clip_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """CLIP's byte-level BPE by the rules of `open_clip.tokenizer.SimpleTokenizer`.

    For texts that `Cleaning("openclip", lower=True)` has cleaned: nothing is normalised here, so
    that letters which lower-casing takes apart (`J` and a caron) stay apart. Special tokens have
    other spellings than in transformers, and the same ids. `ſ` counts as `s` in a contraction,
    since OpenCLIP's pattern ignores case.
    """
    spelled = {CLIP_BEGIN: OPEN_CLIP_BEGIN, CLIP_END: OPEN_CLIP_END}
    tokens = {spelled.get(token, token): id for token, id in vocabulary.items()}
    tokenizer = _byte_pairs(tokens, merges, OPEN_CLIP_END)
    tokenizer.pre_tokenizer = _split(_WORDS.replace("'s", "'[sſ]"), again=False)
    tokenizer.add_special_tokens([OPEN_CLIP_BEGIN, OPEN_CLIP_END])
    _enclose(tokenizer, OPEN_CLIP_BEGIN, OPEN_CLIP_END)
    return tokenizer


def _clip_pairs(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: str | None
) -> tokenizers.Tokenizer:
    """CLIP's byte pairs by transformers' rules, without tokens around a text."""
    tokenizer = _byte_pairs(vocabulary, merges, unknown)
    tokenizer.pre_tokenizer = _split(rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}", again=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    return tokenizer


def _byte_pairs(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: str | None
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=unknown,
        )
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split(words: str, *, again: bool) -> pre_tokenizers.Sequence:
    """Words as the bytes they are of. `again`: split by GPT-2's pattern, too, as transformers."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=again),
        ]
    )


def _enclose(tokenizer: tokenizers.Tokenizer, begin: str, end: str) -> None:
    """Has every text begin and end with these tokens."""
    tokenizer.post_processor = processors.RobertaProcessing(
        _with_id(tokenizer, end),
        _with_id(tokenizer, begin),
        trim_offsets=False,
        add_prefix_space=False,
    )


def _with_id(tokenizer: tokenizers.Tokenizer, token: str) -> tuple[str, int]:
    id = tokenizer.token_to_id(token)
    if id is None:
        raise ModelError(f"the vocabulary has no {token[:80]!r}")
    return token, id


def xlm_tokenizer(
    pieces: Sequence[tuple[str, float]], charsmap: bytes, *, mask: bool
) -> tokenizers.Tokenizer:
    """XLM-V's and XLM-RoBERTa's tokenizer from SentencePiece's Unigram pieces and their scores.

    The rules are those of `transformers.XLMRobertaTokenizer` (5.x): ids 0 to 3 are fairseq's
    specials, the pieces follow, and last, where there is `mask`, comes `<mask>`. `charsmap`:
    SentencePiece's compiled normalisation, empty for none. Case is kept.
    """
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [*((special, 0.0) for special in specials), *pieces]
    if mask:
        specials.append("<mask>")
        vocabulary.append(("<mask>", 0.0))
    tokenizer = tokenizers.Tokenizer(Unigram(vocabulary, unk_id=3, byte_fallback=False))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _from_json(file: Path, config: Json) -> tokenizers.Tokenizer:
    """The tokenizer in a `tokenizer.json`, with the tokens that files beside it add."""
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    AddedTokens.read(file.parent, _names(config, tokenizer)).add_to(tokenizer)
    return tokenizer


def _from_merges(folder: Path, config: Json) -> tokenizers.Tokenizer:
    """CLIP's tokenizer from `vocab.json` and `merges.txt`, with the tokens that others add."""
    kind = _kind(config)
    if kind not in ("", "CLIPTokenizer"):
        raise ModelError(
            f"vocab.json and merges.txt are read as CLIPTokenizer's; {folder / CONFIG} says "
            f"{kind[:80]}, which needs a tokenizer.json"
        )
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#version")]
    added = AddedTokens.read(folder, _CLIP_NAMES)
    tokenizer = _clip_pairs(
        read_json(folder / "vocab.json"),
        [(a, b) for a, b in pairs],
        added.name("unk_token", CLIP_END),
    )
    added.add_to(tokenizer)
    _enclose(tokenizer, added.name("bos_token", CLIP_BEGIN), added.name("eos_token", CLIP_END))
    return tokenizer


def _names(config: Json, tokenizer: tokenizers.Tokenizer) -> Mapping[str, str]:
    """The special tokens of a class of tokenizers, by default of the model's kind."""
    kind = _kind(config)
    if kind == "CLIPTokenizer" or (not kind and isinstance(tokenizer.model, BPE)):
        return _CLIP_NAMES
    if kind == "XLMRobertaTokenizer" or (not kind and isinstance(tokenizer.model, Unigram)):
        # KerasHub's vocabulary may lack the mask, which no text needs and which has no embedding.
        has_mask = tokenizer.token_to_id("<mask>") is not None
        return _XLM_NAMES | ({"mask_token": "<mask>"} if has_mask else {})
    return {}


def _kind(config: Json) -> str:
    """The class of tokenizers that a configuration names; empty for none."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")
