"""Which cleaning a checkpoint's texts get, and the tokenizer that goes with it."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

from score.checkpoints.architectures import CLIP_TOKENIZER
from score.checkpoints.source import Source
from score.errors import ModelError
from score.folder.families import Kind
from score.texts.cleaning import Cleaning, Name
from score.texts.clip_bpe import open_clip_tokenizer
from score.texts.tokenizer import Tokenizer


def cleaned(source: Source, asked: Name | None = None) -> Source:
    """The source with the requested cleaning, by default that of its layout's library.

    CLIP's own byte pairs become OpenCLIP's `SimpleTokenizer` under `openclip`; any other tokenizer
    stays, after the cleaning, as in OpenCLIP's `HFTokenizer`. Raises ModelError where
    the cleaning's library is not installed.
    """
    cleaning_is_fixed = source.architecture.text.pooling != "end"  # a part of the tokenizer
    if "siglip" in (asked, source.cleaning.name) or cleaning_is_fixed:
        return _as_it_is(source, asked)
    wanted = Cleaning.from_config({"text_cleaning": asked or source.cleaning.name})
    if wanted.name == "transformers":
        return _uncleaned(source)
    if source.cleaning.lower:
        return source
    if not _is_clips(source):
        return replace(source, cleaning=wanted)
    tokenizer = _open_clips(source.architecture.text.context)
    return replace(source, cleaning=replace(wanted, lower=True), tokenizer=tokenizer)


def _as_it_is(source: Source, asked: Name | None) -> Source:
    """A source whose cleaning is a part of its tokenizer. Raises ModelError for another."""
    if asked in (None, source.cleaning.name):
        return source
    names: dict[Kind, str] = {"siglip": "SigLIP", "chinese_clip": "Chinese CLIP"}
    kind = names.get(source.architecture.kind, "CLIP")
    raise ModelError(f"--cleaning {asked} is not for a {kind}'s texts")


def _uncleaned(source: Source) -> Source:
    if not source.cleaning.lower:
        return replace(source, cleaning=Cleaning())
    # A package of ours with OpenCLIP's tokenizer: replaced by transformers'.
    tokenizer = (CLIP_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8")
    return replace(source, cleaning=Cleaning(), tokenizer=tokenizer, tokenizer_folder=None)


def _is_clips(source: Source) -> bool:
    """Whether a checkpoint's vocabulary is exactly CLIP's."""
    context = source.architecture.text.context
    return Tokenizer.parse(source.tokenizer, context).vocabulary() == _clips(context)


@functools.cache
def _clips(context: int) -> dict[str, int]:
    return Tokenizer.of(CLIP_TOKENIZER, context).vocabulary()


@functools.cache
def _open_clips(context: int) -> str:
    text = (CLIP_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8")
    model = json.loads(text)["model"]
    pairs = [tuple(pair) if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    tokenizer = open_clip_tokenizer(model["vocab"], [(a, b) for a, b in pairs])
    return Tokenizer(tokenizer, context).to_json()
