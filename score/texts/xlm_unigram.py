"""XLM-V's and XLM-RoBERTa's Unigram tokenizer, built from SentencePiece's pieces."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram


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
