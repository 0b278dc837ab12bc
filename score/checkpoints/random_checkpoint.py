"""Writes a randomly initialised CLIP in the canonical layout.

Its vectors mean nothing; the files, the tokenizer, the shapes and the arithmetic are those of a
real checkpoint. For tests and benchmarks, also at full size. The same seed gives the same bytes on
any machine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score.checkpoints import canonical
from score.checkpoints.architectures import ALL_ARCHITECTURES, CLIP_TOKENIZER, CLIP_VOCABULARY
from score.checkpoints.source import Source
from score.console.commands import Parser, run
from score.folder.architecture import Architecture, Shape, Text, Transformer, Vision
from score.model.engines.pytorch import DTYPES
from score.storage.outputs import check_files
from score.texts import siglip, wordpiece
from score.texts.padding import Padding
from score.texts.sentencepiece_model import Pieces
from score.texts.tokenizer import Tokenizer
from score.texts.xlm_unigram import xlm_tokenizer
from score.type_aliases import FloatPrecision

CONTEXT = 77

TINY = Architecture(
    kind="clip",
    dimension=512,
    vision=Vision(Transformer(64, 2, 2, 256, "quick_gelu"), image=224, patch=32),
    text=Text(
        Transformer(64, 2, 2, 256, "quick_gelu"),
        vocabulary=CLIP_VOCABULARY,
        context=CONTEXT,
        begin=CLIP_VOCABULARY - 2,
        end=CLIP_VOCABULARY - 1,
        pad=1,
    ),
)
"""ViT-B/32's shape, two thin layers deep."""


class RandomTensors:
    """Random tensors, scaled so that activations keep their magnitude through the layers.

    Matrices: normal, 1/√fan-in. Embeddings: normal, 0.02, position included. Norms: near identity.
    NumPy draws them, since its streams are the same on every machine; each tensor has its own
    stream, so that tensors need not be kept in memory.
    """

    def __init__(self, architecture: Architecture, seed: int) -> None:
        self._shapes = architecture.shapes()
        self._seed = seed

    def names(self) -> list[str]:
        """As `Tensors.names`."""
        return list(self._shapes)

    def shape(self, name: str) -> Shape | None:
        """As `Tensors.shape`."""
        return self._shapes.get(name)

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return torch.float32

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`."""
        shape = self._shapes[name]
        if name == "logit_scale":
            return torch.full(shape, math.log(1 / 0.07))  # CLIP paper, section 2.5
        random = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        values = random.standard_normal(shape, dtype=np.float32)
        scale(name, values)
        return torch.from_numpy(values)


def scale(name: str, values: Any) -> None:
    """Scales a tensor's normal values, an array of NumPy's or PyTorch's, as `RandomTensors` has
    them, in place."""
    if "norm" in name.lower():
        values *= 0.1
        values += name.endswith("weight")
    elif "embedding" in name or len(values.shape) < 2:
        values *= 0.02
    else:
        values /= math.sqrt(math.prod(values.shape[1:]))


def write(
    folder: Path,
    architecture: Architecture,
    seed: int = 0,
    precision: FloatPrecision = "fp32",
    tokenizer: str | None = None,
) -> Path:
    """Writes config, weights, tokenizer and preprocessor into `folder`, and returns it.

    `tokenizer`: a `tokenizer.json`, by default CLIP's own, or one of XLM-V's kind for MetaCLIP 2.
    """
    return canonical.write(source(architecture, seed, tokenizer), folder, precision)


def source(architecture: Architecture, seed: int = 0, tokenizer: str | None = None) -> Source:
    """A random checkpoint that has not been written yet."""
    text = tokenizer or _vocabulary(architecture)
    return Source.own("random", architecture, text, RandomTensors(architecture, seed))


def _vocabulary(architecture: Architecture) -> str:
    if architecture.kind == "clip":
        return clip_vocabulary()
    if architecture.kind == "siglip":
        return siglip_vocabulary(architecture.text.vocabulary, architecture.text.context)
    if architecture.kind == "chinese_clip":
        return bert_vocabulary(architecture.text.vocabulary)
    return xlm_vocabulary(architecture.text.vocabulary)


def clip_vocabulary() -> str:
    """CLIP's own byte-pair vocabulary as a `tokenizer.json`."""
    return (CLIP_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8")


def xlm_vocabulary(entries: int) -> str:
    """A `tokenizer.json` of XLM-V's kind and size."""
    pieces = _pieces(entries - 5)  # ids 0 to 3 and the last are special
    text: str = xlm_tokenizer(pieces, b"", mask=True).to_str()
    return text


def siglip_vocabulary(entries: int, context: int) -> str:
    """A `tokenizer.json` of SigLIP's kind and size, which pads to the context."""
    tokenizer = siglip.unigram_tokenizer(Pieces(_pieces(entries - 3), b""))
    padding = Padding.named(tokenizer, "</s>", "right")
    return Tokenizer(tokenizer, context, padding=padding).to_json()


def bert_pieces(entries: int) -> list[str]:
    """The lines of a `vocab.txt` of Chinese BERT's kind and size, its special tokens in their
    places."""
    special = ["[PAD]", *(f"[unused{number}]" for number in range(1, 100))]
    special += ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ranges = ((33, 65), (91, 127), (0x3B1, 0x3CA), (0x430, 0x450), (0x4E00, 0x5200))
    letters = [chr(code) for first, last in ranges for code in range(first, last)]
    words = ["photo", "the", "cat", "dog", "##s", "##ing", *(f"##{letter}" for letter in letters)]
    pieces = dict.fromkeys([*special, *letters, *words])
    pieces |= dict.fromkeys(f"word{number}" for number in range(max(0, entries - len(pieces))))
    return list(pieces)[:entries]


def bert_vocabulary(entries: int) -> str:
    """A `tokenizer.json` of Chinese BERT's kind and size."""
    pieces = {piece: id for id, piece in enumerate(bert_pieces(entries))}
    tokenizer = wordpiece.word_pieces(pieces, {})
    tokenizer.add_special_tokens(list(wordpiece.NAMES.values()))
    wordpiece.enclose(tokenizer, "[CLS]", "[SEP]")
    text: str = tokenizer.to_str()
    return text


def _pieces(entries: int) -> list[tuple[str, float]]:
    """Unigram pieces and their scores: letters of some scripts, then made-up words."""
    ranges = ((33, 127), (0xA1, 0x180), (0x391, 0x3CA), (0x410, 0x450), (0x3041, 0x3097))
    letters = [chr(code) for first, last in ranges for code in range(first, last)]
    real = ["▁", "▁a", "▁the", "▁photo", "ca", "cat", "▁猫", *letters]
    pieces = real[:entries]
    pieces += [f"▁word{number}" for number in range(entries - len(pieces))]
    return [(piece, -1.0 - rank / 1000) for rank, piece in enumerate(pieces)]


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m score.checkpoints.random_checkpoint ViT-B-32-quickgelu FOLDER`."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = {"tiny": TINY, **ALL_ARCHITECTURES}
    parser.add_argument("architecture", choices=known, help="its sizes")
    parser.add_argument("folder", type=Path, help="where it is written")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--precision", choices=DTYPES, default="fp32", help="of the weights")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint")
    options = parser.parse_args(arguments)
    files = [options.folder / name for name in ("config.json", "model.safetensors")]
    check_files(files, overwrite=options.overwrite)
    print(write(options.folder, known[options.architecture], options.seed, options.precision))


if __name__ == "__main__":
    run(main)
