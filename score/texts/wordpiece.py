"""BERT's tokenizer: WordPiece over lower-cased words, each Chinese character a word (Chinese CLIP).

The rules are those of `transformers.BertTokenizer` (5.x).
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from score.errors import ModelError
from score.type_aliases import Json

VOCABULARY = "vocab.txt"
"""The file of its pieces, one a line."""

NAMES: Mapping[str, str] = {
    f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")
}
"""Its special tokens by name."""


def word_pieces(pieces: Mapping[str, int], config: Json, unknown: str = "[UNK]") -> Tokenizer:
    """The tokenizer of some pieces and their ids, which encloses nothing yet.

    `config`: of `tokenizer_config.json`. Raises ModelError where it asks for something unknown.
    """
    tokenizer = Tokenizer(WordPiece(dict(pieces), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(config, "tokenize_chinese_chars", True),
        strip_accents=_strips_accents(config),
        lowercase=_flag(config, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def enclose(tokenizer: Tokenizer, begin: str, end: str) -> None:
    """Puts a begin and an end token around every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )


def _strips_accents(config: Json) -> bool | None:
    """None: where it lower-cases, as the original BERT does."""
    if config.get("strip_accents") is None:
        return None
    return _flag(config, "strip_accents", True)


def _flag(config: Json, name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ModelError(f"tokenizer_config.json: {name} is neither true nor false")
    return value
