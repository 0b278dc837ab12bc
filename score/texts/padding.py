"""The padding of texts to a model's context, where all tokens of a text see it (SigLIP).

What pads is read as transformers 5 does: the `pad_token` and the `padding_side` that the
tokenizer's files name, else those of its class.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import tokenizers

from score.errors import ModelError
from score.type_aliases import Json
from score.wording.quoting import quoted

Side = Literal["left", "right"]


class Padding(NamedTuple):
    """token: what pads. id: its id. side: of the text on which it stands."""

    token: str
    id: int
    side: Side

    @classmethod
    def named(cls, tokenizer: tokenizers.Tokenizer, token: str, side: object) -> Padding:
        """The padding by a token, on a side. Raises ModelError where there is none such."""
        id = tokenizer.token_to_id(token)
        if id is None:
            raise ModelError(f"the tokenizer's pad_token {quoted(token)} is not in its vocabulary")
        if side not in ("left", "right"):
            raise ModelError(f"padding_side {quoted(side)} is not left or right")
        return cls(token, id, "left" if side == "left" else "right")

    @classmethod
    def stated(cls, tokenizer: tokenizers.Tokenizer) -> Padding | None:
        """The padding in a `tokenizer.json`; None where it has none."""
        stated = tokenizer.padding
        if stated is None:
            return None
        return cls.named(tokenizer, stated["pad_token"], stated["direction"])

    def enable(self, tokenizer: tokenizers.Tokenizer, length: int) -> None:
        """Makes a tokenizer pad its texts to `length` tokens."""
        tokenizer.enable_padding(
            direction=self.side, pad_id=self.id, pad_token=self.token, length=length
        )

    def config(self) -> Json:
        """The entries of `tokenizer_config.json` by which transformers pads in the same way."""
        return {"pad_token": self.token, "padding_side": self.side}
