"""Characters that are combined: as by SentencePiece, through tokenizers."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from score.texts.charsmap import Charsmap
from score.texts.sentencepiece_model import Pieces, parse
from score.texts.siglip import FIRST, SPECIAL, Combined, unigram_tokenizer
from tests.support import sentencepiece_models

JOINING = st.sampled_from(
    "e½…ﬁ가ᄒ\u1161\u11ab\u0301\u0300\u0327\u0e33\u0e49\u06d6\u200d\u200c\ufe0f\uff9e🏽🇩🇪👩™\r\n\u0600\u0d4e\u0903\u00ad\u20e3"
)


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    captions = [f"a photo of {n} zebras, {n * 7} apples and a house" for n in range(300)]
    return parse(sentencepiece_models.trained(captions, vocab_size=200, **ids), FIRST)


def test_every_text_becomes_what_sentencepiece_makes_of_it(pieces: Pieces) -> None:
    combined, ours = Combined(pieces.charsmap, ()), Charsmap(pieces.charsmap)
    tokenizers = normalizers.Precompiled(pieces.charsmap)

    @settings(max_examples=1000, deadline=None)
    @given(st.text(st.characters(codec="utf-8"), max_size=12) | st.text(JOINING, max_size=12))
    @example("가\u11ab")
    @example("🇩🇪\u0301")
    def check(text: str) -> None:
        if not any(token in text for token in SPECIAL):
            assert tokenizers.normalize_str(combined(text)) == ours(text)

    check()


def test_added_tokens_stay_whole(pieces: Pieces) -> None:
    tokenizer = unigram_tokenizer(pieces)
    tokenizer.add_tokens([AddedToken("zebra", normalized=False)])
    combined = Combined.of(tokenizer)
    assert combined
    zebra = tokenizer.token_to_id("zebra")
    assert zebra in tokenizer.encode(combined("zebra é")).ids
    assert zebra in tokenizer.encode(combined("zebra e\u0301\u0300")).ids


def test_what_cannot_combine_is_not_looked_at(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    combined = Combined(pieces.charsmap, ())
    monkeypatch.setattr(combined, "_sentencepiece", None)
    assert combined("ein Äpfel 苹果 яблоко 한국어 😀") == "ein Äpfel 苹果 яблоко 한국어 😀"
