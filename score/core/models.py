"""The models of a server, by name: the one place where names are resolved."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress

from score.core.embedder import Embedder
from score.core.loader import Loader
from score.core.model_source import Loaded, Source
from score.core.served_model import ServedModel, Watcher
from score.dialects.base import ModelFacts
from score.errors import ModelUnavailable, UnknownModel
from score.settings import Settings


class Models:
    """At least one model. A request that names no model gets the first.

    Other names are refused, also those of well-known models: vectors of different models cannot be
    compared, and a client that is answered by another model than it names would not notice.
    """

    def __init__(
        self, models: Iterable[ServedModel], settings: Settings, loader: Loader | None = None
    ) -> None:
        """`models`: of different names. `settings`: for what concerns no model. `loader`: of the
        models, where they are not loaded yet."""
        self._models = {model.name: model for model in models}
        self._loader, self.settings = loader, settings

    @classmethod
    def of(cls, embedders: Mapping[str, Embedder]) -> Models:
        """Models that are loaded already, by the names that clients use."""
        created = int(time.time())
        models = [
            ServedModel.of(name, Loaded(embedder), created) for name, embedder in embedders.items()
        ]
        return cls(models, next(iter(embedders.values())).settings)

    @classmethod
    def from_sources(
        cls, sources: Sequence[Source], settings: Settings, watcher: Watcher | None = None
    ) -> Models:
        """Models that are to be loaded: all by `load`, or each when a request asks for it."""
        requests = settings.max_pending_requests
        # With those that may have images, three quarters, they leave room to texts.
        loader = Loader(max(1, requests // 8) if requests else 0)
        watcher = watcher or Watcher()
        return cls((ServedModel(source, loader, watcher) for source in sources), settings, loader)

    def __iter__(self) -> Iterator[ServedModel]:
        """The models, the first one first."""
        return iter(self._models.values())

    @property
    def are_several(self) -> bool:
        """Whether there are more than one."""
        return len(self._models) > 1

    def find(self, name: str | None) -> ServedModel:
        """The model of a name. Raises UnknownModel."""
        if name is None:
            return next(iter(self))
        if name not in self._models:
            raise UnknownModel(name, list(self._models))
        return self._models[name]

    def facts(self) -> list[ModelFacts]:
        """What answers may say of each model."""
        return [model.facts for model in self]

    def load(self) -> list[Future[bool]]:
        """Begins to load all models, in order. Each future says whether its model could be
        loaded."""
        return [model.load() for model in self]

    def failed(self) -> list[str]:
        """The names of models that could not be loaded. They are tried again, each after its pause:
        whoever watches the server need not wait for a request."""
        failed = [model for model in self if model.state == "failed"]
        for model in failed:
            with suppress(ModelUnavailable):
                model.load()
        return [model.name for model in failed]

    def unload_idle(self) -> None:
        """Unloads models that no request has used for `unload_after` seconds."""
        if self.settings.unload_after:
            for model in self:
                model.unload_if_idle(self.settings.unload_after)

    @property
    def are_being_loaded(self) -> bool:
        """Whether any model is being loaded, or unloaded, now."""
        return self._loader is not None and self._loader.is_busy

    def close(self) -> None:
        """Ends the thread that loads models."""
        if self._loader:
            self._loader.close()
