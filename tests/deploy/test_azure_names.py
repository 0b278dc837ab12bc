"""What resources of a workspace are called: names that Azure takes, one for each size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from score.deploy.check import check
from score.deploy.names import LOW_PRIORITY, checked, cluster_name, fault
from score.deploy.skus import skus
from score.errors import AzureError


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ("Standard_DS3_v2", "clip-ds3-v2"),
        ("Standard_NC4as_T4_v3", "clip-nc4as-t4-v3"),
        ("standard_nc24ads_a100_v4", "clip-nc24ads-a100-v4"),
    ],
)
def test_a_clusters_name_tells_its_size(size: str, name: str) -> None:
    assert cluster_name(size) == name


def test_every_size_of_the_table_has_its_own_cluster() -> None:
    names = [cluster_name(size) for size in skus()]
    names += [cluster_name(size, LOW_PRIORITY) for size in skus()]
    assert len(set(names)) == len(names)
    assert "clip-nd96amsr-a100-v4-lp" in names  # the longest
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", name) for name in names)


@pytest.mark.parametrize(
    "size", ["", "Standard_", "Standard_D4 v3", "D" * 28, "Standard_D4_", "Standard_D4_3"]
)
def test_what_makes_no_name_is_said(size: str) -> None:
    with pytest.raises(AzureError, match="name of a cluster"):
        cluster_name(size)


@pytest.mark.parametrize("name", ["gpus", "my-cluster-a", "Clip4", "a" * 32])
def test_a_name_of_ones_own_is_taken(name: str) -> None:
    assert checked("cluster", name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cpu-cluster-1", "a letter somewhere after its last dash"),
        ("my_cluster", "letters, digits and dashes"),
        ("4clip", "a letter first"),
        ("clip-", "no dash last"),
        ("ab", "3 to 32 letters"),
        ("a" * 33, "3 to 32 letters"),
    ],
)
def test_a_name_that_azure_refuses_is_refused_everywhere(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(AzureError, match=f"no name for Azure: that of a cluster must .*{said}"):
        checked("cluster", name)
    cluster = {"$schema": "amlCompute.schema.json", "type": "amlcompute", "name": name}
    (tmp_path / "cluster.yml").write_text(yaml.safe_dump(cluster))
    assert any(said in problem for problem in check([tmp_path]))


@pytest.mark.parametrize(
    ("what", "name", "taken"),
    [
        ("endpoint", "my.end_point", False),
        ("endpoint", "my-endpoint", True),
        ("deployment", "my_deployment", False),
        ("deployment", "ab", False),
        ("model", "m" * 40, True),
        ("model", "m" * 255, True),
        ("model", "m" * 256, False),
        ("model", "clip.v2_large", True),
        ("environment", "my environment", False),
        ("component", "Prepare", False),
        ("compute instance", "c" * 25, False),
        ("job", "anything at all", True),
    ],
)
def test_each_kind_of_resource_has_its_own_rule(what: str, name: str, taken: bool) -> None:
    assert (fault(what, name) is None) == taken
