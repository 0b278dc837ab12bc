"""Blue/green rollout: a new deployment beside the current one, as Azure describes it in
https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import workspace
from azure.ai.ml import MLClient
from azure.core.exceptions import ResourceNotFoundError
from workspace import ROOT, Agreed, asked, is_ours, must

from score.deploy.smoke import problems
from score.errors import AzureError

BODIES = (ROOT / "samples/requests/both.json", ROOT / "samples/requests/labels.json")
CONTAINERS = ("inference-server", "storage-initializer")


@dataclass(frozen=True)
class Rollout:
    """How the traffic of an endpoint moves to a new deployment.

    mirror: per cent of the requests that are mirrored first, 0 to 50; steps: per cent of the
    traffic, the last 100; wait: seconds between the steps; keep: delete no deployment.
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
        if not 0 <= self.wait < 86400:
            raise AzureError("wait: seconds between the steps, a day at most")

    # -- the current state

    def shares(self) -> dict[str, int]:
        """Deployment → per cent of the live traffic, for those that get any."""
        traffic = self.client.online_endpoints.get(self.endpoint).traffic or {}
        return {name: int(percent) for name, percent in traffic.items() if int(percent)}

    def choose(self, dimension: int) -> tuple[str | None, str]:
        """The current deployment, if any, and the name of the new one. Raises AzureError."""
        shares = self.shares()
        if len(shares) > 1:
            raise AzureError(
                f"{self.endpoint} shares its traffic ({shares}): a rollout is under way, or was "
                "broken off. Give all of it to one deployment first"
            )
        old = next(iter(shares), None)
        new = "green" if old == "blue" else "blue"
        existing = self._get(new)
        if existing and not is_ours(existing):
            raise AzureError(f"{self.endpoint} has a deployment {new} that was not made here")
        before = (self._get(old).tags or {}).get("dimension") if old else None
        if before and before != str(dimension):
            self._agree(f"{old} answers vectors of {before} numbers, {new} would of {dimension}.")
        return old, new

    def _same_machines(self, old: str, new: str, deployment: Any, asked_for: Sequence[str]) -> None:
        before = self._get(old)
        size, other = before.instance_type, deployment.instance_type
        if size and size.lower() != other.lower() and "instance_type" not in asked_for:
            self._agree(f"{old} runs on {size}, {new} would on {other} (--sku).")
        count, wanted = int(before.instance_count or 1), int(deployment.instance_count or 1)
        if count > wanted and "instance_count" not in asked_for:
            self._agree(f"{old} has {count} machines, {new} would have {wanted} (--instances).")

    def _agree(self, question: str) -> None:
        if not self.agreed(f"{question} Replace it?"):
            raise AzureError(f"{question} Nothing was changed")

    def _get(self, name: str) -> Any:
        try:
            return self.client.online_deployments.get(name, self.endpoint)
        except ResourceNotFoundError:
            return None

    # -- the rollout

    def run(self, deployment: Any, dimension: int, asked_for: Sequence[str] = ()) -> None:
        """Creates a deployment without live traffic, tests it, and moves the traffic to it in
        steps. On any failure the traffic is moved back, and the deployment is deleted.

        asked_for: which of `instance_type` and `instance_count` the user has set; others are
        changed only after a question. Raises AzureError for wrong answers, and what Azure raises.
        """
        old, new = self.choose(dimension)
        if old:
            self._same_machines(old, new, deployment, asked_for)
        deployment.endpoint_name, deployment.name = self.endpoint, new
        try:
            self.client.online_deployments.begin_create_or_update(deployment).result()
            self.smoke(dimension, new)
            self._shift_traffic(old, new, dimension)
            self.smoke(dimension)
        except BaseException:  # Ctrl-C among them
            self._roll_back(old, new)
            raise
        if old:
            self._retire(old, new)

    def smoke(self, dimension: int, deployment: str | None = None) -> None:
        """Sends sample requests, and checks that each row has its vectors. Raises AzureError."""
        for body in BODIES:
            answer = self.client.online_endpoints.invoke(
                self.endpoint, request_file=str(body), deployment_name=deployment
            )
            wrong = problems(json.loads(body.read_text(encoding="utf-8")), answer, dimension)
            if wrong:
                raise AzureError(f"{deployment or self.endpoint}: {body.name}: {'; '.join(wrong)}")
            print(f"{body.name}: {answer[:200]}")

    def _shift_traffic(self, old: str | None, new: str, dimension: int) -> None:
        if not old:
            self.set_traffic(traffic={new: 100})
            return
        if self.mirror:
            self.set_traffic(mirror_traffic={new: self.mirror})
            print(f"{new} gets a copy of {self.mirror} % of the requests; {old} answers them all")
            time.sleep(self.wait)
            self.smoke(dimension, new)
            self.set_traffic(mirror_traffic={new: 0})
        for percent in self.steps:
            self.set_traffic(traffic={old: 100 - percent, new: percent})
            print(f"{new} answers {percent} % of the requests")
            if percent < 100:
                time.sleep(self.wait)
            self.smoke(dimension, new)

    def set_traffic(self, **traffic: dict[str, int]) -> None:
        """Sets `traffic` or `mirror_traffic`."""
        endpoint = self.client.online_endpoints.get(self.endpoint)
        for name, shares in traffic.items():
            setattr(endpoint, name, shares)
        self.client.online_endpoints.begin_create_or_update(endpoint).result()

    def delete(self, name: str) -> None:
        """Deletes a deployment, which must have no live traffic."""
        self.client.online_deployments.begin_delete(name, self.endpoint).result()

    def _roll_back(self, old: str | None, new: str) -> None:
        """Moves the traffic back and deletes the new deployment, which must have no live traffic
        for that. Tries each step, even if one before it failed; raises nothing, but prints the
        commands of failed steps."""
        try:
            if self._get(new) is None:
                return  # it was never created
        except Exception as error:
            _tell(f"Azure does not say whether the deployment {new} is there: {error}")
        traffic = {**({old: 100} if old else {}), new: 0}
        shares = " ".join(f"{name}={percent}" for name, percent in traffic.items())
        update = f"az ml online-endpoint update --name {self.endpoint}"
        moves = [f"{update} --traffic '{shares}'", f"{update} --mirror-traffic '{new}=0'"]
        delete = f"az ml online-deployment delete --name {new} --endpoint-name {self.endpoint}"
        _tell(
            f"{new} failed: putting everything back. If that breaks off, by hand:", *moves, delete
        )
        left = []
        if not _done(self.set_traffic, traffic=traffic, mirror_traffic={new: 0}):
            left += moves
        for container in CONTAINERS:
            _done(self._print_log, new, container)
        if self.keep:
            _tell(f"{new} is kept, to be looked at. It is billed until: {delete}")
        elif not _done(self.delete, new):
            left.append(delete)
        if left:
            billed = f"Not everything is put back: {new} is billed, and may have requests."
            _tell(f"{billed} Still to be done:", *left)
        else:
            _tell("Everything is put back.")

    def _print_log(self, name: str, container: str) -> None:
        logs = self.client.online_deployments
        text = logs.get_logs(name, self.endpoint, lines=200, container_type=container)
        _tell(f"-- {container} of {name}\n{text}")

    def _retire(self, old: str, new: str) -> None:
        if self.keep or not is_ours(self._get(old)):
            print(f"{old} is kept with no traffic. It is billed, as {new} is, until it is deleted.")
        else:
            self.delete(old)
            print(f"{old} is deleted; {new} is billed.")


def _tell(*lines: str) -> None:
    print(*lines, sep="\n  ", file=sys.stderr)


def _done(step: Callable[..., None], *arguments: Any, **options: Any) -> bool:
    """Whether a step succeeds; its error is printed."""
    try:
        step(*arguments, **options)
    except Exception as error:
        _tell(str(error))
        return False
    return True


def clean(client: MLClient, name: str, everything: bool = False, agreed: Agreed = asked) -> None:
    """Deletes what these samples created at an endpoint, as `workspace.clean` does.

    Also raises AzureError where several other deployments share the traffic.
    """
    rollout = Rollout(client, name)

    def release(_: Any, ours: list[str], others: list[str]) -> None:
        """Moves the traffic to the only other deployment that has some, or to none."""
        shares = rollout.shares()
        live = {one: 0 for one in ours if one in shares}
        staying = [one for one in others if one in shares]
        if not live:
            return
        if len(staying) > 1:
            raise AzureError(f"the traffic of {name} is {shares}: decide first who gets it")
        whose = f"Shall {staying[0]} get all of it" if staying else "Shall nothing answer any more"
        must(agreed(f"The traffic of {name} is {shares}. {whose}?"))
        rollout.set_traffic(traffic={**dict.fromkeys(staying, 100), **live})

    operations = (client.online_endpoints, client.online_deployments)
    workspace.clean(*operations, name, everything, agreed, release)
