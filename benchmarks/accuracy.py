"""How far each precision is from fp32: the vectors of images and texts, engine by engine.

    python -m benchmarks.accuracy [--model DIR] [--rows N]

"head too" is what PyTorch gives where the last norm and the projection are rounded like the layers
before them, as they would be in a model whose weights are simply cast. "centred": after subtracting
the mean vector, without which all vectors of a model are similar. "error": the largest
difference, over the largest value of its vector. "on the grid": values that are numbers of 16 bits.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import fixtures
from score.console import commands
from score.core.embedder import Embedder, parts_of
from score.folder.model_folder import ModelFolder
from score.hardware.processor import supports
from score.images import decode
from score.images.preprocess import Pixels, Preprocessor
from score.model.encoder import Encoder
from score.model.engines.pytorch import DTYPES, PyTorch
from score.model.heads import Projection
from score.model.probes import difference
from score.settings import Settings
from score.texts.tokenizer import Ids, Tokenizer

EXACT = Settings(device="cpu", precision="fp32", engine="torch", verify="off")


class Inputs(NamedTuple):
    pixels: list[Pixels]
    ids: list[Ids]

    @classmethod
    def of(cls, folder: ModelFolder, rows: int) -> Inputs:
        preprocessor = Preprocessor.from_config(folder.preprocessor)
        most = EXACT.max_pixels
        decoded = (decode.decode(data, most) for data in fixtures.images(fixtures.SMALL[:rows]))
        ids = Tokenizer.load(folder).encode(fixtures.texts(rows), "end")
        return cls(
            [preprocessor.pixels(image, most) for image in decoded],
            [text for text in ids if isinstance(text, list)],
        )

    def vectors(self, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
        return encoder.images(self.pixels), encoder.texts(self.ids)


class RoundedHead:
    """A head that computes in the layers' precision."""

    def __init__(self, head: Projection, dtype: torch.dtype) -> None:
        weight, bias = head._norm
        self.norm = weight.to(dtype), bias.to(dtype)
        self.projection, self.epsilon = head._projection.to(dtype), head._epsilon

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        shape = pooled.shape[-1:]
        x = torch.nn.functional.layer_norm(pooled, shape, *self.norm, self.epsilon)
        return torch.nn.functional.linear(x, self.projection).float()


def encoders(folder: ModelFolder, precisions: list[str]) -> Iterator[tuple[str, Encoder]]:
    """The encoders to compare, each loaded when it is measured."""
    for precision in precisions:
        settings = EXACT.replace({"precision": precision})
        if precision in DTYPES:
            engine = PyTorch.load(folder, settings)
            for tower in (engine._images, engine._texts):
                if isinstance(tower.head, Projection):
                    tower.head = RoundedHead(tower.head, DTYPES[precision])
            yield (
                f"{precision}, torch, head too",
                Encoder(folder.architecture, engine, settings.batch_size),
            )
            del engine
            yield f"{precision}, torch", Encoder.load(folder, settings)
        if precision in ("bf16", "int8") and (
            precision != "int8" or (folder.path / "int8").is_dir()
        ):
            settings = settings.replace({"engine": "openvino"})
            yield f"{precision}, openvino", parts_of(Embedder.load(folder.path, settings)).encoder


def row(name: str, vectors: np.ndarray, exact: np.ndarray, precision: str) -> str:
    mean = exact.mean(axis=0)
    cosine, error = difference(vectors, exact)
    centred = [
        1 - difference(one - mean, two - mean)[0] for one, two in zip(vectors, exact, strict=True)
    ]
    dtype = DTYPES.get(precision, torch.bfloat16)
    on_grid = (torch.from_numpy(vectors).to(dtype).float().numpy() == vectors).mean()
    return (
        f"| {name} | {cosine:.6f} | {1 - max(centred):.6f} | {1 - np.mean(centred):.6f} "
        f"| {error:.2e} | {on_grid:.0%} |"
    )


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a ViT-B/32 with random weights")
    parser.add_argument("--rows", type=int, default=32, help="images and texts, 64 at most")
    parser.add_argument("--precision", nargs="+", default=["bf16", "int8"])
    options = parser.parse_args()
    if not supports("bf16"):
        print(
            "This CPU has no bf16: PyTorch emulates it, slowly; OpenVINO computes fp32 instead.\n"
        )
    print("| | least cosine | least, centred | mean, centred | largest error | on the grid |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = ModelFolder.open(fixtures.model(options.model, Path(scratch), int8=False))
        inputs = Inputs.of(folder, options.rows)
        exact = inputs.vectors(Encoder.load(folder, EXACT))
        for name, encoder in encoders(folder, options.precision):
            for kind, vectors, right in zip(
                ("images", "texts"), inputs.vectors(encoder), exact, strict=True
            ):
                print(row(f"{name}: {kind}", vectors, right, encoder.engine.precision), flush=True)


if __name__ == "__main__":
    commands.run(main)
