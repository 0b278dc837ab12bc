"""Trained weights → a model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPModel

from score.checkpoints import canonical
from score.checkpoints.source import Source
from score.model.probes import FILE as PROBES
from score.training.config import Config


class _TrainedTensors:
    """The weights of a model, as a `Source` reads them."""

    def __init__(self, model: CLIPModel) -> None:
        self._tensors: dict[str, Tensor] = {
            name: tensor.detach().cpu() for name, tensor in model.state_dict().items()
        }

    def names(self) -> list[str]:
        """As `Tensors.names`."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """As `Tensors.shape`."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`."""
        return self._tensors[name]


def save(model: CLIPModel, tokenizer: Tokenizer, config: Config, folder: Path) -> Path:
    """Writes a model folder, weights in fp16, and returns it. Raises ModelError, OSError."""
    source = Source.own("trained", config.architecture, tokenizer.to_str(), _TrainedTensors(model))
    (folder / PROBES).unlink(missing_ok=True)  # of the previous model
    return canonical.write(source, folder, "fp16")
