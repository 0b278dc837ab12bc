"""What OpenCLIP's cleaning of texts changes on lists of captions.

    python -m benchmarks.cleaning samples/captions.csv benchmarks/captions_web.csv

Token ids are CLIP's own, by transformers and by OpenCLIP. Vectors are those of one model for both
(by default the embedded one): their cosine tells how far a text moves when it is not cleaned though
the model was trained on cleaned ones.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from score.checkpoints import random_checkpoint, retokenized
from score.console import commands
from score.core.embedder import Embedder, parts_of
from score.folder.model_folder import EMBEDDED
from score.settings import Settings
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Tokenizer
from score.type_aliases import Vector

CONTEXT = 77


def captions(file: Path) -> list[str]:
    """The cells of a CSV's column `text`."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream) if row["text"]]


def differing(texts: Sequence[str]) -> list[int]:
    """Which texts have other token ids in OpenCLIP than in transformers."""
    source = random_checkpoint.source(random_checkpoint.TINY)
    cleaned = retokenized.cleaned(source, "openclip")
    plain = Tokenizer.parse(source.tokenizer, CONTEXT).encode(texts, "end")
    clean = Tokenizer.parse(cleaned.tokenizer, CONTEXT, cleaned.cleaning).encode(texts, "end")
    return [
        index for index, pair in enumerate(zip(plain, clean, strict=True)) if pair[0] != pair[1]
    ]


def cosines(texts: Sequence[str], embedder: Embedder) -> Vector:
    """Of each text's vector to that of the same text cleaned, [texts]."""
    clean = Cleaning("openclip")
    pairs = [(embedder.embed_text(text), embedder.embed_text(clean(text))) for text in texts]
    units = np.array([[vector / np.linalg.norm(vector) for vector in pair] for pair in pairs])
    return (units[:, 0] * units[:, 1]).sum(-1) if pairs else np.ones(0, np.float32)


def main() -> None:
    parser = commands.Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("captions", nargs="+", type=Path, help="CSVs with a column `text`")
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    options = parser.parse_args()
    embedder = Embedder.load(options.model, Settings(precision="fp32"))
    lower = parts_of(embedder).tokenizer.cleaning.lower  # what the tokenizer counts on
    parts_of(embedder).tokenizer.cleaning = Cleaning()
    print("| captions | texts | other ids | other vectors | median cosine of these | least |")
    print("|---|---|---|---|---|---|")
    for file in options.captions:
        texts = captions(file)
        changed = differing(texts)
        asked = [texts[index].lower() if lower else texts[index] for index in changed]
        near = cosines(asked, embedder)
        moved = near[near < 1 - 1e-5]
        median, least = (np.median(moved), moved.min()) if len(moved) else (1, 1)
        print(
            f"| `{file}` | {len(texts)} | {len(changed)} ({len(changed) / len(texts):.0%}) "
            f"| {len(moved)} | {median:.3f} | {least:.3f} |"
        )
        for index in sorted(range(len(near)), key=near.__getitem__)[:5]:
            print(f"  {near[index]:.3f} {texts[changed[index]]}")


if __name__ == "__main__":
    commands.run(main)
