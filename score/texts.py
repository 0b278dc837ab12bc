"""Text → token ids, equal to the model folder's own tokenizer.

Knows nothing of torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from score.architecture import Architecture
from score.errors import BadType, ModelError, RowError, TextTooLong
from score.folder import LFS_POINTER, ModelFolder, is_lfs_pointer
from score.params import Truncate

Ids = list[int]

CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"

# What is read of a text: far more than fills a context, and little enough to be read in no time.
_MOST_CHARACTERS = 100_000


class Texts:
    """The folder's tokenizer, cut to the model's context. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, context: int) -> None:
        """`context`: most token ids a text may have, begin and end tokens included."""
        self.context = context
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context)
        self._specials = len(tokenizer.encode("").ids)

    @classmethod
    def load(cls, folder: ModelFolder) -> Texts:
        """The tokenizer of a model folder. Raises ModelError for one that is not the model's."""
        texts = cls.of(folder.tokenizer, folder.architecture.text.context)
        texts.check(folder.architecture)
        return texts

    @classmethod
    def of(cls, path: Path, context: int) -> Texts:
        """The tokenizer whose files lie in `path`. Raises ModelError."""
        file = path / "tokenizer.json"
        vocabulary, merges = path / "vocab.json", path / "merges.txt"
        try:
            if file.is_file():
                return cls(Tokenizer.from_file(str(file)), context)
            if vocabulary.is_file() and merges.is_file():
                return cls(_from_merges(vocabulary, merges), context)
        except Exception as error:  # tokenizers raises bare Exception on a broken file
            pointer = file.is_file() and is_lfs_pointer(file)
            reason = f"it is {LFS_POINTER}" if pointer else error
            raise ModelError(f"cannot read the tokenizer in {path}: {reason}") from error
        raise ModelError(f"no tokenizer.json, nor vocab.json and merges.txt, in {path}")

    def check(self, architecture: Architecture) -> None:
        """Raises ModelError for a tokenizer that cannot be this model's.

        Its ids must have embeddings, and its texts must end with the token that is pooled.
        """
        text = architecture.text
        largest = max(self._tokenizer.get_vocab().values(), default=0)
        if largest >= text.vocabulary:
            raise ModelError(
                f"the tokenizer makes ids up to {largest:,}, the model has embeddings for "
                f"{text.vocabulary:,}"
            )
        ids = self._tokenizer.encode("a photo").ids
        end = max(ids, default=None) if architecture.pools_largest else text.end
        if not ids or ids[-1] != end or not self._specials:
            last = ids[-1] if ids and self._specials else "none of its own (no post_processor)"
            raise ModelError(f"the tokenizer ends a text with id {last}, the model pools at {end}")

    def to_json(self) -> str:
        """The `tokenizer.json` of this tokenizer, neither padding nor truncation in it."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
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
            encoding = self._tokenizer.encode(text.lstrip()[:_MOST_CHARACTERS])
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


def clip_tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """CLIP's byte-level BPE from its two tables.

    The rules are those of openai/CLIP's `simple_tokenizer.py`, as `transformers.CLIPTokenizer`
    writes them down.
    """
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=list(merges),
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=CLIP_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = (
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
        r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (CLIP_END, vocabulary[CLIP_END]),
        (CLIP_BEGIN, vocabulary[CLIP_BEGIN]),
        trim_offsets=False,
        add_prefix_space=False,
    )
    tokenizer.add_special_tokens([CLIP_BEGIN, CLIP_END])
    return tokenizer


def xlm_tokenizer(pieces: Sequence[tuple[str, float]], charsmap: bytes, *, mask: bool) -> Tokenizer:
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
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=3, byte_fallback=False))
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


def _from_merges(vocabulary: Path, merges: Path) -> Tokenizer:
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#version")]
    return clip_tokenizer(
        json.loads(vocabulary.read_text(encoding="utf-8")), [(a, b) for a, b in pairs]
    )
