"""Trains the embedded model: a small CLIP that knows emoji, from a font and their names alone.

`python -m score.training FOLDER` draws the images, writes the captions, trains, and leaves a model
folder. The images are the glyphs of Debian's `fonts-noto-color-emoji`, drawn by Pillow at random
size, position, rotation, colour and background; the words are the names and synonyms in the package
`emoji`. Nothing is read from the network. The same seed gives the same weights on a CPU with the
same libraries and number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from score.console.commands import Parser, required_imports, run
from score.errors import ModelError
from score.hardware.processor import cores

with required_imports(__name__):
    import torch

    from score.training.config import Config
    from score.training.loop import train
    from score.training.pictograms import FONT, pictograms
    from score.training.saving import save
    from score.training.vocabulary import vocabulary


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m score.training FOLDER`."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "folder",
        type=Path,
        help="for the model; written several times until it is finished",
    )
    parser.add_argument("--font", type=Path, default=FONT, help=f"default: {FONT}")
    parser.add_argument("--seed", type=int, default=Config.seed, help="of everything random")
    parser.add_argument("--steps", type=int, default=Config.steps, help=f"default: {Config.steps}")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, not {options.steps}")
    folder, config = options.folder, Config(seed=options.seed, steps=options.steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        things = pictograms(options.font)
        tokenizer = vocabulary(things, config.vocabulary)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = train(config, things, tokenizer, folder, processes=cores(), device=device)
        print(save(model, tokenizer, config, folder))
    except BrokenProcessPool:
        parser.exit(1, "a process that drew images was killed: too little memory?\n")
    except (ModelError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    run(main)
