"""Training samples, and batches of them: a function of seed, step and row alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from score.errors import ModelError
from score.training.captions import NUMBERS, TEMPLATES, article, phrase, plural
from score.training.colours import COLOURS
from score.training.config import Config
from score.training.drawing import draw
from score.training.pictograms import Pictogram
from score.training.randomness import Random, pick


@dataclass(frozen=True)
class Sample:
    """An image, its caption, and the indices of all pictograms that the caption describes."""

    image: Image.Image
    caption: str
    true_of: tuple[int, ...]
    plain: bool  # one pictogram in its own colours, captioned with one of its names


class Batch(NamedTuple):
    """N samples, each of a different pictogram; P pictograms in all."""

    images: np.ndarray  # N × S × S × 3 bytes
    ids: np.ndarray  # N × T token ids
    classes: np.ndarray  # N indices of pictograms
    unclear: np.ndarray  # N × N bool, symmetric: one row's caption describes the other's image, too
    plain: np.ndarray  # N bool, as `Sample.plain`
    true_of: np.ndarray  # N × P bool, as `Sample.true_of`


class Samples:
    """Makes batches by their step, the same on any machine. Raises ModelError.

    A batch must be smaller than the number of pictograms: one more may stand beside each.
    """

    def __init__(self, things: Sequence[Pictogram], config: Config, tokenizer: Tokenizer) -> None:
        if config.batch >= len(things):
            raise ModelError(f"a batch of {config.batch} needs more than {len(things)} pictograms")
        self._things, self._config, self._tokenizer = things, config, tokenizer
        self._by_name: dict[str, set[int]] = {}  # name or group → pictograms that have it
        self._by_glyph: dict[bytes, set[int]] = {}  # some pictograms share a glyph
        for index, thing in enumerate(things):
            self._by_glyph.setdefault(thing.glyph.tobytes(), set()).add(index)
            for name in (thing.name, *thing.synonyms, *thing.foreign, thing.group or thing.name):
                self._by_name.setdefault(name, set()).add(index)

    def batch(self, step: int, classes: np.ndarray) -> Batch:
        """The batch of a step, with these pictograms (N indices)."""
        config = self._config
        rest = np.setdiff1d(np.arange(len(self._things)), classes).tolist()
        # Training begins with clean images: on degraded ones the loss does not fall for long.
        strength = min(0.65, 0.25 + step / config.steps)
        true_of = np.zeros((len(classes), len(self._things)), dtype=bool)
        samples = []
        for row, index in enumerate(classes.tolist()):
            random = np.random.default_rng((config.seed, 2, step, row))
            sample = self.sample(random, index, pick(random, rest), strength)
            true_of[row, list(sample.true_of)] = True
            samples.append(sample)
        images = np.stack([np.asarray(sample.image) for sample in samples])
        ids = [
            encoding.ids for encoding in self._tokenizer.encode_batch([s.caption for s in samples])
        ]
        end = config.vocabulary - 1
        longest = min(config.architecture.text.context, max(map(len, ids)))
        padded = [
            row[: longest - 1] + [end] * (longest - min(len(row), longest - 1)) for row in ids
        ]
        plain = np.array([sample.plain for sample in samples])
        unclear = true_of[:, classes] & ~np.eye(len(classes), dtype=bool)
        return Batch(images, np.array(padded), classes, unclear | unclear.T, plain, true_of)

    def sample(self, random: Random, index: int, other: int, strength: float) -> Sample:
        """One sample of a pictogram. `other`: the pictogram that may be drawn beside it."""
        thing = self._things[index]
        kind = random.random()
        glyphs, tint, plain, name = [thing.glyph], None, False, thing.name
        beside: set[int] = set()
        if kind < 0.06:
            glyphs.append(self._things[other].glyph)
            beside = {other}
            names = [thing.name, self._things[other].name]
            random.shuffle(names)
            caption = " and ".join(names if random.random() < 0.5 else map(article, names))
        elif kind < 0.11:
            count = int(random.integers(2, 5))
            glyphs = glyphs * count
            caption = f"{NUMBERS[count]} {plural(name)}"
        elif kind < 0.16 or (kind < 0.24 and thing.colour):
            tint = pick(random, list(COLOURS)) if kind < 0.16 else None
            caption = f"{tint or thing.colour} {name}"
            caption = caption if random.random() < 0.5 else article(caption)
        elif 0.24 <= kind < 0.26 and thing.group:
            name = thing.group
            caption = phrase(pick(random, TEMPLATES), name)
        else:
            plain = True
            name = self._name(random, thing)
            caption = self._caption(random, thing, name)
        image = draw(random, glyphs, self._config.image, strength=strength, tint=tint)
        true_of = self._by_name[name] | self._by_glyph[thing.glyph.tobytes()] | beside
        true_of |= self._by_name.get(caption, set())  # a cat tinted black: there is a black cat
        return Sample(image, caption, tuple(sorted(true_of)), plain)

    def _name(self, random: Random, thing: Pictogram) -> str:
        choice = random.random()
        if choice < 0.15 and thing.foreign:
            return pick(random, thing.foreign)
        return pick(random, thing.synonyms) if choice < 0.35 and thing.synonyms else thing.name

    def _caption(self, random: Random, thing: Pictogram, name: str) -> str:
        if name in thing.foreign:
            return name
        caption = name if random.random() < 0.4 else phrase(pick(random, TEMPLATES), name)
        if thing.group and random.random() < 0.08:
            caption = f"{caption}, {article(thing.group)}"
        return caption
