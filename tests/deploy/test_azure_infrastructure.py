"""Infrastructure, workflow and scripts, read by what reads their languages.

No linter of Azure's own is to be had from a package index: names of resources and properties are
held against each other here, not against Azure's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import hcl2
import pytest
import tree_sitter_bicep
import yaml
from tree_sitter import Language, Node, Parser

from tests.support.surfaces import BIN, ROOT

AZURE = ROOT / "samples/azure"
BICEP = AZURE / "infrastructure/main.bicep"
TERRAFORM = AZURE / "infrastructure/main.tf"
WORKFLOW = ROOT / "samples/github/clip.yml"
SCRIPTS = ("deploy-online.sh", "deploy-batch.sh", "prepare.sh")


def plain(value: Any) -> Any:
    """hcl2's values without the quotes that it keeps."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value


def resources() -> dict[str, Any]:
    with TERRAFORM.open(encoding="utf-8") as file:
        content = plain(hcl2.load(file))
    return {
        f"{family}.{name}": body
        for resource in content["resource"]
        for family, named in resource.items()
        for name, body in named.items()
    }


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def bicep() -> Node:
    parser = Parser(Language(tree_sitter_bicep.language()))
    return parser.parse(BICEP.read_bytes()).root_node


@pytest.mark.slow
def test_terraform_is_terraform_and_closed() -> None:
    found = resources()
    workspace = found["azurerm_machine_learning_workspace.this"]
    closed = ("storage_account", "key_vault", "container_registry", "machine_learning_workspace")
    for family in closed:
        assert found[f"azurerm_{family}.this"]["public_network_access_enabled"] is False
    assert TERRAFORM.read_text(encoding="utf-8").count('"AzureServices"') == 3
    (network,) = workspace["managed_network"]
    assert network["isolation_mode"] == "AllowOnlyApprovedOutbound"
    text = TERRAFORM.read_text(encoding="utf-8")
    for family, name in re.findall(r"(?<!data\.)\b(azurerm_\w+)\.(\w+)[.\[]", text):
        assert f"{family}.{name}" in found, f"{family}.{name} is referred to, and is not there"
    variables = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("terraform"), reason="Terraform is not installed")
def test_terraform_is_formatted() -> None:
    command = ["terraform", "fmt", "-check", "-diff", str(TERRAFORM.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bicep_is_bicep_and_closed() -> None:
    root = bicep()
    wrong = [node.start_point for node in nodes(root) if node.type == "ERROR" or node.is_missing]
    assert wrong == []
    text = BICEP.read_text(encoding="utf-8")
    assert text.count("publicNetworkAccess: 'Disabled'") == 4
    assert text.count(": 'AzureServices'") == 3
    assert "isolationMode: 'AllowOnlyApprovedOutbound'" in text
    declared = set(re.findall(r"^(?:param|var|resource) (\w+)", text, re.MULTILINE))
    used = set(re.findall(r"\b(\w+)\.(?:id|name|properties)\b", text))
    local = {"service"}
    assert used - local <= declared


def test_a_mistake_in_bicep_is_seen() -> None:
    parser = Parser(Language(tree_sitter_bicep.language()))
    root = parser.parse(BICEP.read_bytes().replace(b"  location: location\n", b"  location =\n", 1))
    assert root.root_node.has_error


def test_both_make_the_same() -> None:
    """Kinds of resources, private endpoints and roles: once in each language."""
    text = BICEP.read_text(encoding="utf-8")
    kinds = {kind.lower() for kind in re.findall(r"^resource \w+ '([\w./]+)@", text, re.MULTILINE)}
    families = {name.partition(".")[0] for name in resources()}
    same = {
        "microsoft.operationalinsights/workspaces": "azurerm_log_analytics_workspace",
        "microsoft.insights/components": "azurerm_application_insights",
        "microsoft.storage/storageaccounts": "azurerm_storage_account",
        "microsoft.keyvault/vaults": "azurerm_key_vault",
        "microsoft.containerregistry/registries": "azurerm_container_registry",
        "microsoft.machinelearningservices/workspaces": "azurerm_machine_learning_workspace",
        "microsoft.machinelearningservices/workspaces/computes": (
            "azurerm_machine_learning_compute_cluster"
        ),
        "microsoft.machinelearningservices/workspaces/outboundrules": (
            "azurerm_machine_learning_workspace_network_outbound_rule_fqdn"
        ),
        "microsoft.network/privatednszones": "azurerm_private_dns_zone",
        "microsoft.network/privatednszones/virtualnetworklinks": (
            "azurerm_private_dns_zone_virtual_network_link"
        ),
        "microsoft.network/privateendpoints": "azurerm_private_endpoint",
        "microsoft.managedidentity/userassignedidentities": "azurerm_user_assigned_identity",
        "microsoft.authorization/roleassignments": "azurerm_role_assignment",
    }
    assert families == set(same.values())
    # Terraform has the group of zones inside the private endpoint.
    assert kinds == {*same, "microsoft.network/privateendpoints/privatednszonegroups"}
    terraform = TERRAFORM.read_text(encoding="utf-8")
    for part in ("amlworkspace", "blob", "file", "vault", "registry"):
        assert f"part: '{part}'" in text
        assert re.search(rf'part\s+= "{part}"', terraform)
    hosts = set(re.findall(r"'((?:[\w-]+\.)+(?:org|com))'", text))
    assert {"pypi.org", "download.pytorch.org"} < hosts
    assert all(f'"{host}"' in terraform for host in hosts)


# -- the workflow --------------------------------------------------------------------------------


@pytest.mark.process
def test_github_takes_the_workflow() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_checks_before_it_deploys_and_keeps_no_secret() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    assert jobs["deploy"]["needs"] == "check"
    assert jobs["deploy"]["permissions"]["id-token"] == "write"
    assert "secrets." not in WORKFLOW.read_text(encoding="utf-8")
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert any("score azure check" in command for command in commands)
    for path in re.findall(r"(?:samples|components)/[\w./-]+", " ".join(commands)):
        assert (ROOT / path).is_file(), path
    assert (ROOT / "samples/azure/deploy-online.sh").stat().st_mode & 0o111


def test_the_workflow_takes_its_tokens_while_github_vouches_for_it() -> None:
    """What GitHub gives at the login is good for minutes, and a rollout takes longer."""
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["deploy"]["steps"]
    login = next(at for at, step in enumerate(steps) if "login" in step.get("uses", ""))
    for scope in ("https://management.azure.com/.default", "https://ml.azure.com/.default"):
        assert (
            f"az account get-access-token --scope {scope} --output none" in steps[login + 1]["run"]
        )


# -- the scripts ---------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    command = [BIN / "shellcheck", "--external-sources", "--source-path", ROOT, AZURE / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def sources(name: str) -> str:
    """What a script runs: its own text, and of what it sources the functions that it calls."""
    text = (AZURE / name).read_text(encoding="utf-8")
    shared = "".join(
        (AZURE / file).read_text(encoding="utf-8")
        for file in re.findall(r"^\. samples/azure/(\S+)", text, re.MULTILINE)
    )
    bodies = dict(re.findall(r"^(\w+)\(\) \{\n(.*?)^\}", shared, re.MULTILINE | re.DOTALL))
    found: set[str] = set()
    while called := {one for one in bodies if re.search(rf"\b{one}\b", text)} - found:
        found |= called
        text += "".join(bodies[one] for one in called)
    return text


@pytest.mark.parametrize("name", SCRIPTS)
def test_variables_of_the_scripts_are_in_their_heads(name: str) -> None:
    """Each variable that a script, or what it sources, reads from its caller is explained at its
    top; except those that it empties or refuses."""
    text = sources(name)
    head = (AZURE / name).read_text(encoding="utf-8").partition("set -euo")[0]
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    read = set(re.findall(r"(?<!\\)\$\{?([A-Z][A-Z_]+)\b", code)) - {"PWD"}
    assert {"SKU"} < read
    others = set(re.findall(r'^([A-Z]+)=""$', code, re.MULTILINE))
    others |= set(re.findall(r'^\[ -z "\$\{([A-Z]+):-\}" \] \|\| refuse', code, re.MULTILINE))
    assert {word for word in read - others if not re.search(rf"\b{word}\b", head)} == set()
    if name != "prepare.sh":
        assert {"MODEL", "REGISTRY", "ENVIRONMENT", "INSTANCES", "ENDPOINT", "YES"} < read


@pytest.mark.process
def test_python_twins_parse_their_options() -> None:
    for name in ("online.py", "batch.py"):
        command = [sys.executable, str(AZURE / name), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--clean" in done.stdout
