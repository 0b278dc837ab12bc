"""Of the rate of bare multiplications, how much do the towers of an architecture reach?

    python -m benchmarks.share ViT-B-16 ViT-B-16-SigLIP-224

In PyTorch with random weights, on one thread and in processor time, so that other load on the
machine matters little. Multiplications (those of the MLPs of the image tower, in and out again) and
towers take turns; medians of all turns, of the shares turn by turn. Captions have 14 tokens, or the
whole context where a family pads them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.checkpoints.random_checkpoint import RandomTensors
from score.console import commands
from score.folder.architecture import Architecture
from score.images.preprocess import Preprocessor
from score.model.engines.pytorch import DTYPES, Placement, layout_of
from score.model.image_tower import ImageTower
from score.model.text_tower import TextTower
from score.model.transformer import Layout, Plain

CAPTION = 14  # tokens of a usual one, begin and end included
PLAIN = Layout(Plain, fused=True)  # whose multiplications PyTorch counts

Work = dict[str, Callable[[], object]]


def towers(architecture: Architecture, layout: Layout, dtype: torch.dtype, batch: int) -> Work:
    """What is measured: a pass of images, and one of texts."""
    weights, usual = RandomTensors(architecture, 0), dtype

    def take(name: str, dtype: torch.dtype | None = None) -> Tensor:
        return weights.read(name).to(dtype or usual)

    side, text = architecture.vision.image, architecture.text
    images = ImageTower(
        take, architecture.vision, Preprocessor.from_config({}).normalisation(), layout
    )
    texts = TextTower(take, text, layout)
    noise = np.random.default_rng(0)
    pixels = torch.from_numpy(noise.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))
    length = text.context if text.pads else CAPTION
    ids = torch.from_numpy(noise.integers(0, 1000, (batch, length)))
    positions, ends = torch.arange(length).expand(batch, -1), torch.full((batch, 1), length - 1)
    return {
        "images": lambda: images.encode(pixels),
        "texts": lambda: texts.encode(ids, positions, torch.zeros_like(ids), ends),
    }


def gemm(architecture: Architecture, layout: Layout, dtype: torch.dtype, batch: int) -> float:
    """FLOP/s of the MLPs' multiplications alone."""
    tower = architecture.vision.tower
    x = torch.randn(batch * architecture.vision.tokens, tower.width, dtype=dtype)
    wide, narrow = torch.randn(tower.hidden, tower.width), torch.randn(tower.width, tower.hidden)
    into, out = layout.linear(wide.to(dtype), None), layout.linear(narrow.to(dtype), None)
    return 4 * x.shape[0] * wide.numel() / seconds(lambda: out(into(x)))


def flops(compute: Callable[[], object]) -> int:
    """As PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())


def seconds(compute: Callable[[], object]) -> float:
    """Of processor time, for one."""
    compute()
    began = time.process_time()
    compute()
    return time.process_time() - began


def measured(names: list[str], turns: int, dtype: torch.dtype, batch: int) -> Iterator[str]:
    """A line for each architecture and kind of input."""
    layout = layout_of(Placement(torch.device("cpu"), dtype))
    work = {name: towers(ALL_ARCHITECTURES[name], layout, dtype, batch) for name in names}
    counts = {
        (name, kind): flops(compute)
        for name in names
        for kind, compute in towers(ALL_ARCHITECTURES[name], PLAIN, dtype, batch).items()
    }
    shares: dict[tuple[str, str], list[float]] = {pass_: [] for pass_ in counts}
    for _ in range(turns):
        for (name, kind), count in counts.items():
            limit = gemm(ALL_ARCHITECTURES[name], layout, dtype, batch)
            shares[name, kind].append(count / seconds(work[name][kind]) / limit)
    for (name, kind), values in shares.items():
        middle, least, most = statistics.median(values), min(values), max(values)
        yield f"{name:24} {kind:7} {middle:6.1%} ({least:.1%} to {most:.1%}) of the GEMM rate"


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "architectures", nargs="+", choices=ALL_ARCHITECTURES, metavar="ARCHITECTURE"
    )
    parser.add_argument("--turns", type=int, default=7, help="default: 7")
    parser.add_argument("--batch", type=int, default=16, help="of a pass; default: 16")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.described())
    with torch.inference_mode():
        dtype = DTYPES[options.precision]
        for line in measured(options.architectures, options.turns, dtype, options.batch):
            print(line)


if __name__ == "__main__":
    commands.run(main)
