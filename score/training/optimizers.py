"""Muon and AdamW, which of them updates what, and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPModel

from score.training.config import Config


class Muon(torch.optim.Optimizer):
    """Updates each matrix by the nearest orthogonal matrix to its momentum.

    As Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon), scaled to the size of
    AdamW's steps as by Liu et al., 2025 (https://arxiv.org/abs/2502.16982, section 2.2), so that
    one learning rate serves both. PyTorch's own Muon computes in bfloat16, slow on many CPUs.
    """

    def __init__(self, matrices: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all matrices, those of one shape at once."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                steps = [self._momentum(weight) for weight in weights]
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for weight, step in zip(weights, orthogonal(torch.stack(steps)), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-scale)

    def _momentum(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].lerp_(weight.grad, 0.05)
        step: Tensor = weight.grad.lerp(momentum, 0.95)  # Nesterov momentum
        return step


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximately the nearest orthogonal matrix to each (N × A × B), by Newton-Schulz.

    The coefficients are Jordan's: five steps bring all but the smallest singular values to between
    0.7 and 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    square, product = x @ x.mT, torch.eye(x.shape[1], device=x.device)
    for _ in range(5):  # on the square matrix; the long one is multiplied once, at the end
        step = -4.7750 * square + 2.0315 * square @ square
        step.diagonal(dim1=1, dim2=2).add_(3.4445)
        square, product = step @ square @ step, step @ product
    x = product @ x
    return x.mT if tall else x


def optimizers_of(model: CLIPModel, config: Config) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers; AdamW for the rest, without decay for vectors."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, weight in model.named_parameters():
        kind = vectors if weight.ndim < 2 else matrices if ".layers." in name else others
        kind.append(weight)
    decay = {"weight_decay": config.decay}
    groups = [{"params": others, **decay}, {"params": vectors, "weight_decay": 0.0}]
    return [
        Muon(matrices, lr=config.rate, **decay),
        torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), eps=1e-6, fused=True),
    ]


def rate(config: Config, step: int) -> float:
    """The learning rate of a step, as a share of its peak: linear warm-up, then cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * share))
