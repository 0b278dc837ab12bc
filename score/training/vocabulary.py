"""The byte-pair vocabulary, learnt from the captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from score.texts.clip_bpe import CLIP_BEGIN, CLIP_END, clip_tokenizer
from score.training.captions import NUMBERS, TEMPLATES, plural
from score.training.colours import COLOURS
from score.training.pictograms import GROUPS, Pictogram


def vocabulary(things: Sequence[Pictogram], entries: int) -> Tokenizer:
    """CLIP's tokenizer with `entries` byte pairs, learnt from all names and templates."""
    learnt = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=CLIP_END))
    plain = clip_tokenizer({CLIP_BEGIN: 0, CLIP_END: 1}, [])
    learnt.normalizer, learnt.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [symbol + "</w>" for symbol in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=entries - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=endings,  # listed, since the trainer orders them differently in each run
        show_progress=False,
    )
    learnt.train_from_iterator(_corpus(things), trainer)
    merges = [tuple(merge) for merge in json.loads(learnt.to_str())["model"]["merges"]]
    symbols = list(dict.fromkeys([*alphabet, *endings, *("".join(merge) for merge in merges)]))
    symbols += [f"<|unused{index}|>" for index in range(entries - 2 - len(symbols))]
    table = {symbol: index for index, symbol in enumerate([*symbols, CLIP_BEGIN, CLIP_END])}
    return clip_tokenizer(table, merges)


def _corpus(things: Sequence[Pictogram]) -> Iterator[str]:
    for thing in things:
        for name in (thing.name, *thing.synonyms):
            yield from (name, name, plural(name))
        yield from thing.foreign
    for template in TEMPLATES:
        yield from [template.format(a="a", name="", names="")] * 20
    for word in (*GROUPS, *COLOURS, *NUMBERS):
        yield from [word] * 20
