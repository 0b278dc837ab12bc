"""A tokenizer of the kind that MetaCLIP 2 uses, with letters and a few words for vocabulary."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, processors


def tokenizer() -> Tokenizer:
    """Begin, padding and end are 0, 1 and 2; case is kept."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [chr(n) for n in range(33, 127)]
    pieces = ["▁", *letters, "▁a", "▁the", "▁photo", "ca", "cat", "▁猫", "é"]
    scores = [0.0] * len(special) + [-float(place) for place, _ in enumerate(pieces)]
    vocabulary = [*zip([*special, *pieces], scores, strict=True), ("<mask>", 0.0)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens([*special, "<mask>"])
    return made
