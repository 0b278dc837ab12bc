"""Inputs and outputs of components: their names, and the defaults of inputs."""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.values import literal, mapping

# A component's inputs become environment variables of these names:
# learn.microsoft.com/azure/machine-learning/reference-yaml-component-command, "Common errors".
_RESERVED = {"path", "ld_library_path", "user", "logname", "home", "pwd", "shell"}


def problems(document: Document) -> Iterator[str]:
    """What is wrong with a component's inputs and outputs; nothing for other documents."""
    if document.family != "component":
        return
    for side in ("inputs", "outputs"):
        for name, port in mapping(document.content.get(side)).items():
            if str(name).lower() in _RESERVED:
                yield f"{side}.{name}: Azure reserves this name"
            if side == "inputs" and "default" in mapping(port) and port["default"] is not None:
                yield from literal(f"inputs.{name}.default", port["default"], port)
