"""The models of a server, by name: the one place where names are resolved."""

from __future__ import annotations

import time
from collections.abc import Mapping

from score.core.embedder import Embedder, parts_of
from score.dialects.base import ModelFacts
from score.errors import UnknownModel
from score.settings import Settings


class Models:
    """At least one embedder. A request that names no model gets the first."""

    def __init__(self, embedders: Mapping[str, Embedder]) -> None:
        """`embedders`: by the names that clients use."""
        self._embedders = dict(embedders)
        self._created = int(time.time())

    @classmethod
    def only(cls, embedder: Embedder) -> Models:
        """One model, under its package's name.

        Other names are refused, also those of well-known models: vectors of different models cannot
        be compared, and a client that is answered by another model than it names would not notice.
        """
        return cls({embedder.name: embedder})

    @property
    def settings(self) -> Settings:
        """The server's settings, for what concerns no model."""
        return next(iter(self._embedders.values())).settings

    def find(self, name: str | None) -> tuple[str, Embedder]:
        """The name and the embedder of a model. Raises UnknownModel."""
        if name is None:
            return next(iter(self._embedders.items()))
        if name not in self._embedders:
            raise UnknownModel(name, list(self._embedders))
        return name, self._embedders[name]

    def facts(self) -> list[ModelFacts]:
        """What answers may say of each model."""
        return [self.facts_of(name, embedder) for name, embedder in self._embedders.items()]

    def facts_of(self, name: str, embedder: Embedder) -> ModelFacts:
        """What answers may say of one model."""
        context = parts_of(embedder).tokenizer.context
        return ModelFacts(name, embedder.dimension, context, self._created)
