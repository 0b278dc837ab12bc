"""Which server answers a real-time deployment: Azure's inference server, or `score serve`.

The images of `environment/` have both; a variable of the deployment chooses.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "CLIP_SERVER"
AZURES, OURS = SERVERS = ("azure", "score")
"""Values of the variable."""

LIVE, READY, SCORING = "/health/live", "/health/ready", "/score"
"""The routes of `score serve` for Azure's probes and requests."""


def azures_reason(code: str | None, environment: str | None) -> str:
    """Why Azure's server answers a deployment that is not told which; empty where ours does, which
    is faster. `code`, `environment`: as the command line names them, if it does."""
    if code:
        return "--code names the folder of an entry script, which only Azure's server runs"
    if environment and "-server" not in environment:
        return "the environment is not one of `score serve`, as clip-cpu-server, with its routes"
    return ""


def is_ours(variables: Mapping[str, object]) -> bool:
    """Whether a deployment's environment variables choose `score serve`."""
    return variables.get(VARIABLE) == OURS
