"""SigLIP's tokenizers: T5's Unigram pieces of SigLIP, and Gemma's byte pairs of SigLIP 2.

The rules are those of `transformers.SiglipTokenizer`, `Siglip2Tokenizer` and, for the files of
OpenCLIP's checkpoints, `T5Tokenizer` (5.x). Texts of all are padded to the context (`padding`);
those of the first and the last are cleaned before (`Cleaning`).
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from score.errors import ModelError
from score.texts.charsmap import BREAK, Charsmap
from score.texts.sentencepiece_model import CONTROL, UNKNOWN, Pieces

VOCABULARY = "spiece.model"
"""The file of SigLIP's pieces."""

FIRST = (("<pad>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN))
"""The first pieces of it, whose ids are 0 to 2."""


SPECIAL = ("</s>", "<unk>")
"""The special pieces that a text may contain."""


def unigram_tokenizer(pieces: Pieces) -> Tokenizer:
    """SigLIP's tokenizer from SentencePiece's pieces: `$A </s>`, every word after a space."""
    specials = [(text, 0.0) for text, _ in FIRST]
    tokenizer = Tokenizer(Unigram([*specials, *pieces.pieces], unk_id=2, byte_fallback=False))
    table = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    # SentencePiece removes the white space that its table makes, at the end and of several in a
    # row; that at the start becomes the one that begins each text. A word right after a
    # special token, which transformers cuts out first, has no space before it.
    tokenizer.normalizer = normalizers.Sequence(
        [
            *table,
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(r"\A "), "▁"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


class Combined:
    """Prepares texts so that their characters are combined as SentencePiece does.

    tokenizers' `Precompiled` does it otherwise; see `charsmap`.
    """

    def __init__(self, table: bytes, tokens: Iterable[str]) -> None:
        """`table`: the tokenizer's charsmap, checked. `tokens`: those that are cut out of a text
        before it is normalised."""
        self._sentencepiece, self._precompiled = Charsmap(table), normalizers.Precompiled(table)
        longest_first = sorted({*SPECIAL, *tokens}, key=len, reverse=True)
        self._tokens = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Combined | None:
        """For `unigram_tokenizer`'s; None for one whose table leaves nothing to prepare."""
        normalizer = tokenizer.normalizer
        if not isinstance(normalizer, normalizers.Sequence):
            return None
        first = json.loads(normalizer.__getstate__())["normalizers"][0]
        if first["type"] != "Precompiled":
            return None
        table = base64.b64decode(first["precompiled_charsmap"])
        tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return cls(table, tokens) if Charsmap(table)(BREAK) == "" else None

    def __call__(self, text: str) -> str:
        """A text that the tokenizer's own table makes what SentencePiece makes of `text`.

        Raises UnicodeEncodeError for a lone surrogate.
        """
        if text.isascii() or not any(map(_may_combine, set(text))):
            return text
        parts = self._tokens.split(text)
        parts[::2] = map(self._part, parts[::2])
        return "".join(parts)

    def _part(self, text: str) -> str:
        wanted = self._sentencepiece(text)
        return text if self._precompiled.normalize_str(text) == wanted else BREAK.join(wanted)


def _may_combine(letter: str) -> bool:
    """Whether a character may be more than the first of those that are one for a reader (Unicode's
    extended grapheme clusters), where alone the two replace differently."""
    return unicodedata.category(letter) in _MARKS or _OTHERS.match(letter) is not None


_MARKS = frozenset({"Mn", "Mc", "Me", "Cf"})
# Hangul in parts, vowels of Thai and Lao, marks of half-width Katakana, flags, shades of skin, and
# letters that go before another.
_OTHERS = re.compile(
    r"[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff\u0e33\u0eb3\uff9e\uff9f\r\U0001f1e6-\U0001f1ff"
    r"\U0001f3fb-\U0001f3ff\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89"
    r"\U00011d46]"
)

SENTINEL = re.compile("▁?<extra_id_[0-9]+>")
"""T5's masks of its training, which have no embeddings in a SigLIP."""


def t5_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """T5's tokenizer: `$A </s>`, words between white space.

    Of a file it takes the pieces but `SENTINEL`, and the table by which texts are normalised.
    Raises ModelError for another kind of tokenizer.
    """
    content = json.loads(tokenizer.to_str())
    model, normalizer = content["model"], content["normalizer"] or {}
    listed = model["vocab"] if model["type"] == "Unigram" else []
    pieces = [(text, score) for text, score in listed if not SENTINEL.fullmatch(text)]
    first = [text for text, _ in FIRST]
    if [text for text, _ in pieces[: len(first)]] != first:
        raise ModelError("tokenizer.json is not T5's: pieces that begin with <pad>, </s> and <unk>")
    made = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=False))
    for step in normalizer.get("normalizers", [normalizer]):
        if step.get("type") == "Precompiled":
            table = base64.b64decode(step["precompiled_charsmap"])
            made.normalizer = normalizers.Precompiled(table)
            break
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return made


def lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    """Gemma's tokenizer with the rules of SigLIP 2, which was trained on lower-cased texts.

    The files of its checkpoints name `GemmaTokenizer`, which keeps case. Raises ModelError for
    another kind of tokenizer.
    """
    if not isinstance(tokenizer.model, BPE):
        raise ModelError("tokenizer.json is no byte-pair tokenizer, as SigLIP 2's is")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer
