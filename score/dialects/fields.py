"""A JSON object whose keys are read one by one, and refused where nothing reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from score.contract import wire
from score.errors import BadField
from score.wording.quoting import listed, quoted

T = TypeVar("T", bound=str)


class Fields:
    """The keys of an object. A key that is null counts as absent."""

    def __init__(self, content: object, where: str = "the body") -> None:
        """`where`: what the object is, for messages. Raises BadField for what is no object."""
        if not isinstance(content, Mapping):
            raise BadField(f"{where} must be a JSON object, not {wire.kind(content)}")
        self._left = {key: value for key, value in content.items() if value is not None}
        self._known: list[str] = []
        self._names = list(content)
        self._where = where

    def take(self, name: str) -> object:
        """The value of a key; None where it is absent."""
        self._known.append(name)
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string, or None. Raises BadField."""
        value = self.take(name)
        if value is None or isinstance(value, str):
            return value
        raise BadField(f"{name!r} must be a string, not {wire.kind(value)}", name)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean. Raises BadField."""
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        raise BadField(f"{name!r} must be true or false, not {wire.kind(value)}", name)

    def integer(self, name: str) -> int | None:
        """A whole number, or None. Raises BadField."""
        value = self.take(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise BadField(f"{name!r} must be a whole number, not {wire.kind(value)}", name)

    def choice(self, name: str, choices: Sequence[T]) -> T | None:
        """One of some strings, or None. Raises BadField."""
        value = self.text(name)
        for choice in choices:
            if value == choice:
                return choice
        if value is None:
            return None
        offered = ", ".join(map(repr, choices))
        raise BadField(f"{name!r} may be {offered}, not {quoted(value)}", name)

    def one_of(self, *names: str) -> tuple[str, object]:
        """The one key of several that the object has, and its value. Raises BadField."""
        present = {name: value for name in names if (value := self.take(name)) is not None}
        if len(present) == 1:
            return next(iter(present.items()))
        wanted = " or ".join(map(repr, names))
        if present:
            raise BadField(f"{self._where} may have one of {wanted}, not several", names[0])
        keys = listed(self._names)
        raise BadField(f"{self._where} needs {wanted}; its keys are {keys}", names[0])

    def ignore(self, *names: str) -> None:
        """Keys that change nothing in an answer."""
        for name in names:
            self.take(name)

    def end(self) -> None:
        """Raises BadField for a key that nothing has read."""
        for name in self._left:
            raise BadField(
                f"unknown key {quoted(name)} in {self._where}; known are {', '.join(self._known)}",
                name[:80],
            )
