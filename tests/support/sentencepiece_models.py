"""SentencePiece models that tests train themselves."""

from __future__ import annotations

import io
from collections.abc import Iterable

import sentencepiece


def trained(texts: Iterable[str], **options: object) -> bytes:
    """A Unigram model of some texts, normalising as XLM-V's and T5's do, in which some characters
    are unknown."""
    file = io.BytesIO()
    defaults = {
        "model_type": "unigram",
        "normalization_rule_name": "nmt_nfkc",
        "character_coverage": 0.98,
        "hard_vocab_limit": False,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, **{**defaults, **options}
    )
    return file.getvalue()
