"""The limits of a real-time deployment that `score serve` answers: Azure's and the server's.

Azure's inference server answers one request at a time in each process. Ours answers many, and
shares forward passes among them, so Azure may send it more at once. The two sets of limits agree:
what Azure sends, the server takes on, and the server gives up on a request before Azure does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from score.deploy.plan import LONGEST_REQUEST_SECONDS, Plan
from score.settings import Settings

# Requests at a time, in batches of a process: while one batch of single rows is encoded, the next
# is downloaded and decoded. Stated.
BATCHES_AT_A_TIME = 2
SPARE_CONNECTIONS = 64  # for probes, and for connections that Azure keeps open; stated
SPARE_SECONDS = 5  # between the server's own time limit and Azure's, for the answer's way; stated
# Azure does not say how long after SIGTERM it kills a container. This is Kubernetes' default.
GRACE_SECONDS = 30
SHUTDOWN_DELAY = 5  # seconds during which Azure may still send requests after SIGTERM; stated

_DEFAULTS = Settings()


def most_with_images(pending: int) -> int:
    """Of the requests that a process takes on at a time, how many may have images."""
    return pending - pending // 4


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of a deployment, Azure's and the server's. Made by `limits`."""

    concurrency: int  # requests that Azure sends to an instance at a time
    request_timeout_ms: int  # Azure's
    request_timeout: int  # the server's, in seconds
    max_pending_requests: int  # of each process, since any of them may get all requests
    max_connections: int  # likewise
    shutdown_delay: int = SHUTDOWN_DELAY
    shutdown_timeout: int = GRACE_SECONDS - 2 * SHUTDOWN_DELAY


def limits(plan: Plan) -> ServerLimits:
    """The limits for a model on a machine size."""
    concurrency = BATCHES_AT_A_TIME * plan.batch_size * plan.workers
    # A request may wait for others, which Azure's server does not let in.
    seconds = plan.request_timeout_ms / 1000 + _DEFAULTS.max_wait
    seconds = min(LONGEST_REQUEST_SECONDS, math.ceil(seconds))
    return ServerLimits(
        concurrency=concurrency,
        request_timeout_ms=1000 * seconds,
        request_timeout=seconds - SPARE_SECONDS,
        max_pending_requests=max(_DEFAULTS.max_pending_requests, math.ceil(concurrency * 4 / 3)),
        max_connections=max(_DEFAULTS.max_connections, concurrency + SPARE_CONNECTIONS),
    )
