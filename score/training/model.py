"""transformers' CLIP with fresh weights, and its forward pass in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from score.images.processors import CLIP_MEAN, CLIP_STD
from score.training.config import Config


def build(config: Config) -> CLIPModel:
    """transformers' `CLIPModel`, its weights initialised from the seed."""
    torch.manual_seed(config.seed)
    return CLIPModel(CLIPConfig.from_dict(config.architecture.config()))


def embed_images(model: CLIPModel, images: Tensor, keep: float) -> Tensor:
    """Unit vectors of images (N × S × S × 3 bytes).

    `keep`: the share of patches that the tower sees, chosen at random. Half of them halves the time
    of a step and costs little accuracy (Li et al., 2023, "FLIP", https://arxiv.org/abs/2212.00794).
    """
    return F.normalize(model.visual_projection(_pool_images(model, images, keep)), dim=-1)


def _pool_images(model: CLIPModel, images: Tensor, keep: float) -> Tensor:
    """The pooled tokens of images (N × width), before the projection."""
    tower = model.vision_model
    patches = _patches(images, tower.config.patch_size)
    positions = tower.embeddings.position_embedding.weight
    if keep < 1:
        count = patches.shape[1]
        kept = torch.rand(len(patches), count, device=patches.device).argsort(1)
        kept = kept[:, : round(keep * count)]
        patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        # Not by indexing, whose backward pass sums in no fixed order.
        of_patches = F.embedding(kept + 1, positions)
    else:
        of_patches = positions[1:].expand(len(patches), -1, -1)
    mean, std = torch.tensor([CLIP_MEAN, CLIP_STD], device=images.device)
    pixels = (patches.reshape(*patches.shape[:2], -1, 3).float() / 255 - mean) / std
    weight = tower.embeddings.patch_embedding.weight.permute(0, 2, 3, 1).flatten(1)
    first = (tower.embeddings.class_embedding + positions[0]).expand(len(patches), 1, -1)
    hidden = torch.cat([first, pixels.flatten(2) @ weight.T + of_patches], dim=1)
    hidden = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
    pooled: Tensor = tower.post_layernorm(hidden[:, 0])
    return pooled


def _patches(images: Tensor, side: int) -> Tensor:
    """The bytes of each patch of images (N × S × S × 3), row by row: N × patches × bytes."""
    tiles = images.unfold(1, side, side).unfold(2, side, side)  # N × rows × columns × 3 × y × x
    return tiles.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(1, 2)


def embed_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit vectors of token ids (N × T), padded with the end token.

    They are computed in four groups of similar length, so that less padding is computed.
    """
    return F.normalize(model.text_projection(_pool_texts(model, ids)), dim=-1)


def _pool_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """The pooled tokens of texts (N × width), before the projection."""
    lengths = (ids != model.config.text_config.eos_token_id).sum(1) + 1
    order = lengths.argsort(stable=True)
    pooled = [
        model.text_model(ids[rows, : int(lengths[rows].max())]).pooler_output
        for rows in order.chunk(4)
    ]
    return torch.cat(pooled)[order.argsort()]


@torch.no_grad()
def centre(model: CLIPModel, images: Tensor, ids: Tensor) -> None:
    """Subtracts the mean vector of a batch, by the bias of each tower's last layer norm.

    The vectors of an untrained model are nearly equal; without this, the first steps only pull
    them apart. `images`: N × S × S × 3 bytes; `ids`: N × T token ids.
    """
    pooled_images, pooled_texts = _pool_images(model, images, 1.0), _pool_texts(model, ids)
    model.vision_model.post_layernorm.bias -= pooled_images.mean(0)
    model.text_model.final_layer_norm.bias -= pooled_texts.mean(0)
