"""CLIP's byte-level BPE tokenizer, built from its vocabulary and merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from score.errors import ModelError
from score.wording.quoting import quoted

CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"
OPEN_CLIP_BEGIN, OPEN_CLIP_END = "<start_of_text>", "<end_of_text>"

# CLIP's words: the end of a contraction, letters, one digit, or other characters but space.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """CLIP's byte-level BPE from its two tables.

    The rules are those of openai/CLIP's `simple_tokenizer.py`, as in `transformers.CLIPTokenizer`.
    Raises ModelError for a vocabulary without the begin and end tokens.
    """
    tokenizer = clip_pairs(vocabulary, merges, CLIP_END)
    tokenizer.add_special_tokens([CLIP_BEGIN, CLIP_END])
    enclose(tokenizer, CLIP_BEGIN, CLIP_END)
    return tokenizer


def open_clip_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> Tokenizer:
    """CLIP's byte-level BPE by the rules of `open_clip.tokenizer.SimpleTokenizer`.

    For texts that `Cleaning("openclip", lower=True)` has cleaned: nothing is normalised here, so
    that letters which lower-casing decomposes (`J` and a caron) stay decomposed. Special tokens are
    spelled differently than in transformers, with the same ids. `ſ` counts as `s` in a contraction,
    since OpenCLIP's pattern ignores case.
    """
    spelled = {CLIP_BEGIN: OPEN_CLIP_BEGIN, CLIP_END: OPEN_CLIP_END}
    tokens = {spelled.get(token, token): id for token, id in vocabulary.items()}
    tokenizer = _byte_pairs(tokens, merges, OPEN_CLIP_END)
    tokenizer.pre_tokenizer = _split(_WORDS.replace("'s", "'[sſ]"), again=False)
    tokenizer.add_special_tokens([OPEN_CLIP_BEGIN, OPEN_CLIP_END])
    enclose(tokenizer, OPEN_CLIP_BEGIN, OPEN_CLIP_END)
    return tokenizer


def clip_pairs(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: str | None
) -> Tokenizer:
    """CLIP's BPE by transformers' rules, without begin and end tokens."""
    tokenizer = _byte_pairs(vocabulary, merges, unknown)
    tokenizer.pre_tokenizer = _split(rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}", again=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    return tokenizer


def _byte_pairs(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: str | None
) -> Tokenizer:
    tokenizer = Tokenizer(
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
    """Splits a text into words of bytes. `again`: also by GPT-2's pattern, as in transformers."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=again),
        ]
    )


def enclose(tokenizer: Tokenizer, begin: str, end: str) -> None:
    """Adds a begin and an end token to every text. Raises ModelError for an unknown token."""
    tokenizer.post_processor = processors.RobertaProcessing(
        _with_id(tokenizer, end),
        _with_id(tokenizer, begin),
        trim_offsets=False,
        add_prefix_space=False,
    )


def _with_id(tokenizer: Tokenizer, token: str) -> tuple[str, int]:
    id = tokenizer.token_to_id(token)
    if id is None:
        raise ModelError(f"the vocabulary has no {quoted(token)}")
    return token, id
