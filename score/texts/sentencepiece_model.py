"""SentencePiece's vocabulary file (`.spm`, `.model`): bytes → pieces and normalisation table.

A reader for the few fields of `sentencepiece_model.proto` (google/sentencepiece) that make token
ids, so that packaging needs neither sentencepiece nor protobuf. Only models like XLM-V's and T5's
are accepted: Unigram, with SentencePiece's own treatment of spaces. Knows nothing of files or
tokenizers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from score.errors import ModelError
from score.texts import charsmap
from score.wording.quoting import quoted

Value = int | bytes

_MOST_PIECES = 2**22  # four times XLM-V's
_MOST_FIELDS = 4_096  # in a message, pieces apart: that of a trainer has one for each of its files
_LONGEST_PIECE = 256  # characters; a tokenizer may take the square of it for each of a text
_LONGEST_VARINT = 10  # bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # types of pieces
_TYPES = {4: "user-defined", 5: "unused", 6: "a byte"}
_MODELS = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a vocabulary file holds.

    pieces: each piece with its score, in order, after the special ones that come first.
    charsmap: the compiled table by which texts are normalised; empty for none.
    """

    pieces: list[tuple[str, float]]
    charsmap: bytes


XLM = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
"""The special pieces of XLM-V and their types."""


def parse(data: bytes, first: Sequence[tuple[str, int]] = XLM) -> Pieces:
    """The pieces in a vocabulary file. Raises ModelError unless it is a complete Unigram model.

    `first`: the special pieces that it has to begin with, and their types.
    """
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data, _MOST_PIECES + _MOST_FIELDS):
        if number == 1:
            pieces.append(_piece(_message(value)))
            if len(pieces) > _MOST_PIECES:
                raise ModelError(f"the SentencePiece vocabulary has over {_MOST_PIECES:,} pieces")
        elif number == 2:
            trainer |= dict(_fields(_message(value)))
        elif number == 3:
            normalizer |= dict(_fields(_message(value)))
    _check_settings(trainer, normalizer)
    _check_pieces(pieces, first)
    table = _message(normalizer.get(2, b""))
    if table:
        charsmap.check(table)
    return Pieces([(text, score) for text, score, _ in pieces[len(first) :]], table)


def _fields(data: bytes, most: int = _MOST_FIELDS) -> Iterator[tuple[int, Value]]:
    """The fields of a protobuf message, in order. Raises ModelError for more than `most`."""
    at = count = 0
    while at < len(data):
        count += 1
        if count > most:
            raise ModelError(f"a part of the SentencePiece vocabulary has over {most:,} fields")
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _broken()
        if at + size > len(data):
            raise _broken()
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint (seven bits a byte) and the position after it."""
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _broken()


def _message(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise _broken()
    return value


def _broken() -> ModelError:
    return ModelError("the SentencePiece vocabulary is damaged or cut short: half a download?")


def _piece(data: bytes) -> tuple[str, float, int]:
    """A piece's text, score and type."""
    fields = dict(_fields(data))
    kind, score = fields.get(3, _NORMAL), _message(fields.get(2, bytes(4)))
    try:
        text = _message(fields.get(1, b"")).decode("utf-8")
        (number,) = struct.unpack("<f", score)
    except (UnicodeDecodeError, struct.error):
        raise _broken() from None
    if not isinstance(kind, int) or not text or not math.isfinite(number):
        raise _broken()
    if len(text) > _LONGEST_PIECE:
        raise ModelError(f"the SentencePiece piece {quoted(text)} has {len(text):,} characters")
    return text, number, kind


def _check_settings(trainer: dict[int, Value], normalizer: dict[int, Value]) -> None:
    """Field numbers and defaults are those of `TrainerSpec` and `NormalizerSpec`."""
    model = trainer.get(3, 1)
    if model != 1:
        name = _MODELS.get(model, model) if isinstance(model, int) else "unknown"
        raise ModelError(f"the SentencePiece model is of type {name}, not Unigram")
    for name, value, wanted in (
        ("byte_fallback", trainer.get(35, 0), 0),
        ("treat_whitespace_as_suffix", trainer.get(24, 0), 0),
        ("add_dummy_prefix", normalizer.get(3, 1), 1),
        ("remove_extra_whitespaces", normalizer.get(4, 1), 1),
        ("escape_whitespaces", normalizer.get(5, 1), 1),
    ):
        if value != wanted:
            raise ModelError(
                f"the SentencePiece model has {name} {'off' if wanted else 'on'}: not supported"
            )


def _check_pieces(pieces: list[tuple[str, float, int]], first: Sequence[tuple[str, int]]) -> None:
    if [(text, kind) for text, _, kind in pieces[: len(first)]] != [*first]:
        *some, last = (text for text, _ in first)
        raise ModelError(
            f"the SentencePiece vocabulary does not begin with {', '.join(some)} and {last}"
        )
    seen = {"<unk>", "<s>", "</s>", "<pad>", "<mask>"}
    for text, _, kind in pieces[len(first) :]:
        if kind != _NORMAL:
            what = _TYPES.get(kind, "of a special type")
            raise ModelError(
                f"the SentencePiece piece {quoted(text)} is {what}; such are not supported"
            )
        if text in seen:
            raise ModelError(f"the SentencePiece vocabulary has {quoted(text)} twice")
        seen.add(text)
