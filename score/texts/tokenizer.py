"""Text → token ids, equal to those of the model folder's own tokenizer.

Knows nothing of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tokenizers
from tokenizers.models import BPE

from score.errors import BadType, ModelError, RowError, TextTooLong
from score.folder.architecture import Architecture
from score.folder.model_folder import LFS_POINTER, ModelFolder, is_lfs_pointer, read_optional_json
from score.texts import siglip, tokenizer_files, tokenizer_limits
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Cleaning
from score.texts.padding import Padding
from score.type_aliases import Truncate
from score.wording.quoting import quoted

Ids = list[int]

MOST_CHARACTERS = 16_384
"""Characters of a text that are read, and more where a context is long (`longest`).

It is far more than a context holds. No other thread runs while a text is tokenized: 70 ms for as
many emoji.
"""

_CHARACTERS_OF_TOKEN = 16  # more than a token of ordinary text has
_BLANK = re.compile(r"\s*")


class Tokenizer:
    """A model folder's tokenizer, truncating to its context. Safe to share between threads."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        context: int,
        cleaning: Cleaning | None = None,
        padding: Padding | None = None,
    ) -> None:
        """`context`: most token ids a text may have, begin and end tokens included.

        `cleaning`: of texts before they are tokenized; None leaves them as they are. `padding`: of
        every text to the context; None for none.
        """
        self.context, self._longest = context, longest(context)
        self.cleaning = cleaning or Cleaning()
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context)
        if isinstance(tokenizer.model, BPE):
            # By dropout, which is for training, a text has other ids each time. transformers'
            # CLIPTokenizer, which is made of vocabulary and merges, has none either.
            tokenizer.model.dropout = None
        empty = tokenizer.encode("")
        self._specials = len(empty.ids)
        self.ends: tuple[str, str] | None = None
        """The begin and end tokens of every text; None for a tokenizer without any."""
        if empty.tokens:
            self.ends = empty.tokens[0], empty.tokens[-1]
        is_siglips = self.cleaning.name == "siglip"
        self._combined = siglip.Combined.of(tokenizer) if is_siglips else None
        self.padding = padding
        if padding:
            padding.enable(tokenizer, context)

    @classmethod
    def load(cls, folder: ModelFolder) -> Tokenizer:
        """The tokenizer of a model folder. Raises ModelError for one that is not the model's."""
        text = folder.architecture.text
        texts = cls.of(folder.tokenizer, text.context, pads=text.pads)
        texts.check(folder.architecture)
        return texts

    @classmethod
    def of(cls, path: Path, context: int, *, pads: bool = False) -> Tokenizer:
        """The tokenizer whose files lie in `path`. Raises ModelError.

        `pads`: whether texts are padded to the context.
        """
        config = read_optional_json(path / CONFIG)
        try:
            with no_panics():
                tokenizer = tokenizer_files.read(path, config, pads=pads)
                padding = tokenizer_files.padding(path, config, tokenizer) if pads else None
                return cls(tokenizer, context, Cleaning.from_config(config), padding)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare Exception on a broken file
            file = path / tokenizer_files.JSON
            pointer = file.is_file() and is_lfs_pointer(file)
            reason = f"it is {LFS_POINTER}" if pointer else str(error)[:300]
            raise ModelError(f"cannot read the tokenizer in {path}: {reason}") from error

    @classmethod
    def parse(
        cls, text: str, context: int, cleaning: Cleaning | None = None, *, pads: bool = False
    ) -> Tokenizer:
        """The tokenizer that a `tokenizer.json` spells out, its padding included if it `pads`."""
        tokenizer = tokenizers.Tokenizer.from_str(text)
        return cls(tokenizer, context, cleaning, Padding.stated(tokenizer) if pads else None)

    @property
    def byte_pairs(self) -> bool:
        """Whether its pieces are byte pairs, as CLIP's and Gemma's are."""
        return isinstance(self._tokenizer.model, BPE)

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def expressions(self) -> str:
        """The patterns by which it divides and replaces, one after the other."""
        return tokenizer_limits.expressions(self._tokenizer)

    def check(self, architecture: Architecture) -> None:
        """Raises ModelError for a tokenizer that cannot be this model's.

        Every id needs an embedding, and every text must end with the pooled token, within the
        context, and not be made much longer first.
        """
        try:
            with no_panics():
                self._check(architecture)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"the tokenizer fails on a text: {str(error)[:300]}") from error

    def _check(self, architecture: Architecture) -> None:
        text = architecture.text
        tokenizer_limits.check_growth(self._tokenizer)
        vocabulary = self.vocabulary()
        largest = max(vocabulary, key=vocabulary.__getitem__, default="")
        if vocabulary.get(largest, 0) >= text.vocabulary:
            raise ModelError(
                f"the tokenizer makes ids up to {vocabulary[largest]:,}, the model has embeddings "
                f"for {text.vocabulary:,}: {quoted(largest)} has none"
            )
        added = max(tokenizer_limits.added_ids(self._tokenizer), default=0)
        if added >= text.vocabulary:
            raise ModelError(
                f"the tokenizer's post_processor adds the id {added:,}, the model has embeddings "
                f"for {text.vocabulary:,}"
            )
        longest = len(self._tokenizer.encode("a photo " * self.context).ids)
        if self._specials >= self.context or longest > self.context:
            raise ModelError(
                f"the tokenizer's post_processor makes {longest:,} ids of a long text, the model's "
                f"context is {self.context:,}"
            )
        if text.pads:
            return
        if text.pooling == "first":
            if self._specials < 2:
                raise ModelError("the tokenizer puts no token before a text, where it is pooled")
            return
        ids = self._tokenizer.encode("a photo").ids
        end = max(ids, default=None) if architecture.pools_largest else text.end
        if not ids or ids[-1] != end or not self._specials:
            last = ids[-1] if ids and self._specials else "none of its own (no post_processor)"
            raise ModelError(f"the tokenizer ends a text with id {last}, the model pools at {end}")

    def to_json(self) -> str:
        """The `tokenizer.json` of this tokenizer, without truncation."""
        tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.no_truncation()
        text: str = tokenizer.to_str()
        return text

    def encode(self, texts: Sequence[object], truncate: Truncate) -> list[Ids | RowError]:
        """Token ids of each text, begin and end token included, or its error.

        A text longer than the context is truncated, its end token kept; with `truncate="error"` it
        is an error, as is one of more characters than are read.
        """
        return [self._encode(text, truncate) for text in texts]

    def _encode(self, text: object, truncate: Truncate) -> Ids | RowError:
        if not isinstance(text, str):
            return BadType(f"must be a string, not {type(text).__name__}")
        try:
            read, is_cut = _readable(text, self._longest)
            cleaned = self.cleaning(read)
            encoding = self._tokenizer.encode(
                self._combined(cleaned) if self._combined else cleaned
            )
        except (UnicodeEncodeError, TypeError):
            return BadType("holds half a character (a lone surrogate), so it is not Unicode")
        except MemoryError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            return BadType(f"the model's tokenizer fails on it: {str(error)[:200]}")
        if truncate == "error" and (encoding.overflowing or is_cut):
            count = sum(encoding.attention_mask) + sum(
                sum(part.attention_mask) - self._specials for part in encoding.overflowing
            )
            tokens = f"{count} tokens"
            if is_cut:
                tokens = f"at least {tokens} in the first {self._longest:,} characters"
            return TextTooLong(f"{tokens}; the model's context is {self.context}")
        ids: Ids = encoding.ids
        return ids


def longest(context: int) -> int:
    """Characters of a text that a tokenizer of that context reads; what follows is cut off."""
    return max(MOST_CHARACTERS, _CHARACTERS_OF_TOKEN * context)


def _is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of tokenizers' Rust code, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


@contextmanager
def no_panics() -> Iterator[None]:
    """A block in which a panic of tokenizers becomes a ValueError."""
    try:
        yield
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise ValueError(f"tokenizers stops with: {error}") from None


def _readable(text: str, most: int) -> tuple[str, bool]:
    """The part of a text that is read, and whether more follows.

    Leading white space of a text over `most` characters does not count.
    """
    if len(text) <= most:
        return text, False
    blank = _BLANK.match(text)  # not `lstrip`, which would copy all of it
    start = blank.end() if blank else 0
    return text[start : start + most], len(text) - start > most
