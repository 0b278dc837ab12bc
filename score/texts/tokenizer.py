"""Text → token ids, equal to those of the model folder's own tokenizer.

Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from score.errors import BadType, ModelError, RowError, TextTooLong
from score.folder.architecture import Architecture
from score.folder.model_folder import LFS_POINTER, ModelFolder, is_lfs_pointer, read_optional_json
from score.texts import tokenizer_files
from score.texts.added_tokens import CONFIG
from score.texts.cleaning import Cleaning
from score.type_aliases import Truncate

Ids = list[int]

# The rest of a text is not read: this is far more than a context holds, and tokenized quickly.
_MOST_CHARACTERS = 100_000


class Tokenizer:
    """A model folder's tokenizer, truncating to its context. Safe to share between threads."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, context: int, cleaning: Cleaning | None = None
    ) -> None:
        """`context`: most token ids a text may have, begin and end tokens included.

        `cleaning`: of texts before they are tokenized; None leaves them as they are.
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
        try:
            return cls(tokenizer_files.read(path, config), context, Cleaning.from_config(config))
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare Exception on a broken file
            file = path / tokenizer_files.JSON
            pointer = file.is_file() and is_lfs_pointer(file)
            reason = f"it is {LFS_POINTER}" if pointer else error
            raise ModelError(f"cannot read the tokenizer in {path}: {reason}") from error

    @classmethod
    def parse(cls, text: str, context: int, cleaning: Cleaning | None = None) -> Tokenizer:
        """The tokenizer that a `tokenizer.json` spells out."""
        return cls(tokenizers.Tokenizer.from_str(text), context, cleaning)

    @property
    def ends(self) -> tuple[str, str]:
        """The begin and end tokens of every text."""
        tokens: list[str] = self._tokenizer.encode("").tokens
        return tokens[0], tokens[-1]

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def check(self, architecture: Architecture) -> None:
        """Raises ModelError for a tokenizer that cannot be this model's.

        Every id needs an embedding, and every text must end with the pooled token.
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
        """The `tokenizer.json` of this tokenizer, without padding and truncation."""
        tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.no_truncation()
        text: str = tokenizer.to_str()
        return text

    def encode(self, texts: Sequence[object], truncate: Truncate) -> list[Ids | RowError]:
        """Token ids of each text, begin and end token included, or its error.

        A text longer than the context is truncated, its end token kept; with `truncate="error"` it
        is an error.
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
    """The part of a text that is read; leading white space of a longer one does not count."""
    return text if len(text) <= _MOST_CHARACTERS else text.lstrip()[:_MOST_CHARACTERS]
