"""Blue/green: a new deployment beside the one that serves, as Azure describes it in
https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from azure.ai.ml import MLClient
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from workspace import ROOT, Agreed, asked, is_ours

from score.deploy.smoke import problems
from score.errors import AzureError

BODIES = (ROOT / "samples/requests/both.json", ROOT / "samples/requests/labels.json")
CONTAINERS = ("inference-server", "storage-initializer")


@dataclass(frozen=True)
class Rollout:
    """How the traffic of an endpoint moves to a new deployment.

    mirror: percent of the requests that are copied first, 0 to 50; steps: percentages of the
    traffic, the last 100; wait: seconds between them; keep: delete no deployment.
    """

    client: MLClient
    endpoint: str
    mirror: int = 10
    steps: Sequence[int] = (10, 50, 100)
    wait: float = 60
    keep: bool = False
    agreed: Agreed = asked

    def __post_init__(self) -> None:
        growing = [*self.steps] == sorted({*self.steps} & {*range(1, 101)})
        if not 0 <= self.mirror <= 50 or not growing or self.steps[-1] != 100:
            raise AzureError("mirror: 0 to 50 percent; steps: growing percentages, the last 100")

    # -- what there is

    def shares(self) -> dict[str, int]:
        """Percent of the live requests of each deployment that gets any."""
        traffic = self.client.online_endpoints.get(self.endpoint).traffic or {}
        return {name: int(percent) for name, percent in traffic.items() if int(percent)}

    def choose(self, dimension: int) -> tuple[str | None, str]:
        """The deployment that serves, if any, and the name of the new one. Raises AzureError."""
        shares = self.shares()
        if len(shares) > 1:
            raise AzureError(
                f"{self.endpoint} shares its traffic ({shares}): a rollout is under way, or was "
                "broken off. Give all of it to one deployment first"
            )
        old = next(iter(shares), None)
        new = "green" if old == "blue" else "blue"
        there = self._get(new)
        if there and not is_ours(there):
            raise AzureError(f"{self.endpoint} has a deployment {new} that was not made here")
        before = (self._get(old).tags or {}).get("dimension") if old else None
        if before and before != str(dimension):
            question = f"{old} answers vectors of {before} numbers, {new} would of {dimension}."
            if not self.agreed(f"{question} Replace it?"):
                raise AzureError(f"{question} Nothing was changed")
        return old, new

    def _get(self, name: str) -> Any:
        try:
            return self.client.online_deployments.get(name, self.endpoint)
        except ResourceNotFoundError:
            return None

    # -- what is done

    def run(self, deployment: Any, dimension: int) -> None:
        """Creates a deployment with no live requests, tries it, and gives it more and more of
        them; whatever fails, requests go where they went before, and the deployment goes.

        Raises AzureError for answers that are not the model's, and what Azure raises.
        """
        old, new = self.choose(dimension)
        deployment.endpoint_name, deployment.name = self.endpoint, new
        try:
            self.client.online_deployments.begin_create_or_update(deployment).result()
            self.smoke(dimension, new)
            self._move(old, new, dimension)
            self.smoke(dimension)
        except BaseException:  # Ctrl-C among them
            self._roll_back(old, new)
            raise
        if old:
            self._retire(old, new)

    def smoke(self, dimension: int, deployment: str | None = None) -> None:
        """Asks, and checks that each row has its vectors. Raises AzureError."""
        for body in BODIES:
            answer = self.client.online_endpoints.invoke(
                self.endpoint, request_file=str(body), deployment_name=deployment
            )
            found = problems(json.loads(body.read_text(encoding="utf-8")), answer, dimension)
            if found:
                raise AzureError(f"{deployment or self.endpoint}: {body.name}: {'; '.join(found)}")
            print(f"{body.name}: {answer[:200]}")

    def _move(self, old: str | None, new: str, dimension: int) -> None:
        if not old:
            self.give(traffic={new: 100})
            return
        if self.mirror:
            self.give(mirror_traffic={new: self.mirror})
            print(f"{new} gets a copy of {self.mirror} % of the requests; {old} answers them all")
            time.sleep(self.wait)
            self.smoke(dimension, new)
            self.give(mirror_traffic={new: 0})
        for percent in self.steps:
            self.give(traffic={old: 100 - percent, new: percent})
            print(f"{new} answers {percent} % of the requests")
            if percent < 100:
                time.sleep(self.wait)
            self.smoke(dimension, new)

    def give(self, **traffic: dict[str, int]) -> None:
        """Sets `traffic` or `mirror_traffic`."""
        endpoint = self.client.online_endpoints.get(self.endpoint)
        for name, shares in traffic.items():
            setattr(endpoint, name, shares)
        self.client.online_endpoints.begin_create_or_update(endpoint).result()

    def delete(self, name: str) -> None:
        """Deletes a deployment, which must have no live traffic."""
        self.client.online_deployments.begin_delete(name, self.endpoint).result()

    def _roll_back(self, old: str | None, new: str) -> None:
        if self._get(new) is None:
            return
        print(f"{new} failed: everything is put back; its logs follow.", file=sys.stderr)
        self.give(traffic={**({old: 100} if old else {}), new: 0}, mirror_traffic={new: 0})
        for container in CONTAINERS:
            print(f"-- {container} of {new}\n{self._log(new, container)}", file=sys.stderr)
        if self.keep:
            print(f"{new} is kept with no traffic, to be looked at. It is billed", file=sys.stderr)
        else:
            self.delete(new)

    def _log(self, name: str, container: str) -> str:
        logs = self.client.online_deployments
        try:
            return logs.get_logs(name, self.endpoint, lines=200, container_type=container)
        except HttpResponseError as error:  # of a container that never started
            return str(error)

    def _retire(self, old: str, new: str) -> None:
        if self.keep or not is_ours(self._get(old)):
            print(f"{old} is kept with no traffic. It is billed, as {new} is, until it is deleted.")
        else:
            self.delete(old)
            print(f"{old} is deleted; {new} is billed.")


def clean(client: MLClient, name: str, everything: bool = False, agreed: Agreed = asked) -> None:
    """Takes down what these samples made at an endpoint, and the endpoint where nothing else is on
    it; with `everything` all of it, after a question.

    Raises AzureError where the answer is no, and where others must decide first.
    """
    endpoint = client.online_endpoints.get(name)
    deployments = list(client.online_deployments.list(name))
    ours = [one.name for one in deployments if is_ours(one)]
    others = [one.name for one in deployments if not is_ours(one)]
    if everything and not agreed(f"Delete {name} with all on it ({' '.join(ours + others)})?"):
        raise AzureError("nothing was deleted")
    if everything or (not others and is_ours(endpoint)):
        client.online_endpoints.begin_delete(name).result()
        return
    rollout = Rollout(client, name)
    shares = rollout.shares()
    live = {one: 0 for one in ours if one in shares}
    staying = [one for one in shares if one not in ours]
    if live and len(staying) > 1:
        raise AzureError(f"the traffic of {name} is {shares}: decide first who gets it")
    if live:
        whose = f"Shall {staying[0]} get all of it" if staying else "Shall nothing answer any more"
        if not agreed(f"The traffic of {name} is {shares}. {whose}?"):
            raise AzureError("nothing was deleted")
        rollout.give(traffic={**dict.fromkeys(staying, 100), **live})
    for one in ours:
        rollout.delete(one)
