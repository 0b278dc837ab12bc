"""The training loop.

The recipe is CLIP's (Radford et al., 2021, https://arxiv.org/abs/2103.00020): two transformers, one
learned temperature, a contrastive loss in both directions. A batch that two cores can manage is
small, so after the first steps it is made of hard negatives, groups of pictograms with similar
vectors (as Harwood et al., 2017, "Smart mining for deep metric learning",
https://arxiv.org/abs/1704.01285). A second loss classifies each vector among all pictograms, by one
learned vector of each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPModel

from score.training.batches import LookAlikes, batches
from score.training.config import Config
from score.training.loss import classify, contrast
from score.training.model import build, centre, embed_images, embed_texts
from score.training.optimizers import optimizers_of, rate
from score.training.pictograms import Pictogram
from score.training.samples import Samples
from score.training.saving import save

SAVE_EVERY = 500
"""Steps between two copies of the unfinished model."""


def train(
    config: Config,
    things: Sequence[Pictogram],
    tokenizer: Tokenizer,
    folder: Path | None = None,
    *,
    processes: int = 0,
    device: str = "cpu",
) -> CLIPModel:
    """The trained model, its weights in fp32.

    Every SAVE_EVERY steps the unfinished model is written to `folder`. `processes`: how many others
    draw the images; 0 draws them in this one. Raises ModelError for fewer pictograms than a batch
    needs.
    """
    model = build(config).train().to(device)
    proxies = 0.1 * torch.randn(len(things), config.architecture.dimension)
    proxies = torch.nn.Parameter(proxies.to(device))
    optimizers = optimizers_of(model, config)
    optimizers[1].add_param_group({"params": [proxies], "weight_decay": 0.0})
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config, step))
        for optimizer in optimizers
    ]
    samples, alike = Samples(things, config, tokenizer), LookAlikes(len(things), config)
    start = time.perf_counter()
    for step, batch in enumerate(batches(samples, alike, config.steps, processes)):
        images, ids, classes, unclear, plain, true_of = (
            torch.from_numpy(part).to(device) for part in batch
        )
        if step == 0:
            centre(model, images, ids)
        keep = config.keep if step < (1 - config.whole) * config.steps else 1.0
        of_images, of_texts = embed_images(model, images, keep), embed_texts(model, ids)
        scale = model.logit_scale.exp().clamp(max=100)  # as in CLIP
        loss = contrast(of_images, of_texts, unclear, scale)
        loss = loss + classify(of_images, classes, true_of, proxies, scale) / 2
        texts = of_texts[plain], classes[plain], true_of[plain]
        loss = loss + classify(*texts, proxies, scale) / 2
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        last = F.normalize(of_images + of_texts, dim=-1).detach().cpu().numpy()
        alike.update(batch.classes[batch.plain], last[batch.plain])
        if step % 50 == 49:
            _report(step + 1, config, loss, model, of_images @ of_texts.T, start)
        if folder and (step + 1) % SAVE_EVERY == 0:
            save(model, tokenizer, config, folder)
    return model.eval()


def _report(
    done: int,
    config: Config,
    loss: Tensor,
    model: CLIPModel,
    cosines: Tensor,
    start: float,
) -> None:
    """Prints the progress to stderr. `cosines`: of the batch's images and texts, N × N."""
    right = cosines.argmax(1).cpu().eq(torch.arange(len(cosines))).float().mean()
    speed = done / (time.perf_counter() - start)
    print(
        f"step {done}/{config.steps}  loss {loss:.3f}  scale {model.logit_scale.exp():.1f}  "
        f"right in batch {right:.1%}  {speed:.2f} steps/s",
        file=sys.stderr,
        flush=True,
    )
