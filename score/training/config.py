"""The settings of a training run, and the architecture that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from score.folder.architecture import Architecture, Text, Transformer, Vision


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a run; the defaults are those of the embedded model."""

    seed: int = 20261121
    steps: int = 7600
    batch: int = 192  # images a step, each of a different pictogram
    rate: float = 3e-3  # peak learning rate
    warmup: int = 100  # steps of linear warm-up to the peak
    decay: float = 0.1  # weight decay, multiplied by the learning rate
    mixed: float = 0.2  # share of the steps, at the start, with batches drawn at random
    group: int = 16  # after that, hard negatives that are put into a batch together
    keep: float = 0.5  # share of an image's patches that the tower sees (FLIP)
    whole: float = 0.2  # share of the steps, at the end, in which it sees all patches
    image: int = 96  # pixels
    patch: int = 16
    width: int = 192
    layers: int = 3
    text_width: int = 128
    text_layers: int = 3
    vocabulary: int = 8192

    @property
    def architecture(self) -> Architecture:
        """CLIP's architecture, with these widths and depths."""

        def tower(width: int, layers: int) -> Transformer:
            return Transformer(width, layers, width // 64, 4 * width, "gelu")

        begin, end = self.vocabulary - 2, self.vocabulary - 1
        return Architecture(
            kind="clip",
            dimension=512,
            vision=Vision(tower(self.width, self.layers), image=self.image, patch=self.patch),
            text=Text(
                tower(self.text_width, self.text_layers), self.vocabulary, 77, begin, end, pad=end
            ),
        )
