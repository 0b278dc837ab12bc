"""The heads of CLIP's towers, which make vectors of pooled tokens. They compute in fp32."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from score.folder.architecture import Transformer
from score.model.transformer import TensorLoader, activation, affine


class Head(Protocol):
    """What follows a tower's layers."""

    def __call__(self, pooled: Tensor) -> Tensor:
        """[…, width], in any precision → […, dimension] in fp32."""


class Projection:
    """The last norm and the projection."""

    def __init__(self, take: TensorLoader, norm: str, projection: str, epsilon: float) -> None:
        """`norm`, `projection`: the prefixes of their names in a checkpoint."""
        self._norm = affine(take, norm, torch.float32)
        self._projection = take(f"{projection}.weight", torch.float32)
        self._epsilon = epsilon

    def __call__(self, pooled: Tensor) -> Tensor:
        """As `Head`."""
        x = F.layer_norm(pooled.float(), pooled.shape[-1:], *self._norm, self._epsilon)
        return F.linear(x, self._projection)


class BiasedProjection(Projection):
    """The last norm and a projection with a bias (SigLIP's text tower)."""

    def __init__(self, take: TensorLoader, norm: str, projection: str, epsilon: float) -> None:
        """As `Projection`."""
        super().__init__(take, norm, projection, epsilon)
        self._bias = take(f"{projection}.bias", torch.float32)

    def __call__(self, pooled: Tensor) -> Tensor:
        """As `Head`."""
        return super().__call__(pooled) + self._bias


class Perceptron:
    """x + MLP(norm(x)), after attention pooling (SigLIP's image tower)."""

    def __init__(self, take: TensorLoader, prefix: str, config: Transformer) -> None:
        """`prefix`: of its tensors' names in a checkpoint."""
        self._norm = affine(take, f"{prefix}.layernorm", torch.float32)
        self._fc1 = affine(take, f"{prefix}.mlp.fc1", torch.float32)
        self._fc2 = affine(take, f"{prefix}.mlp.fc2", torch.float32)
        self._activation, self._epsilon = activation(config.activation), config.epsilon

    def __call__(self, pooled: Tensor) -> Tensor:
        """As `Head`."""
        x = pooled.float()
        normed = F.layer_norm(x, x.shape[-1:], *self._norm, self._epsilon)
        return x + F.linear(self._activation(F.linear(normed, *self._fc1)), *self._fc2)
