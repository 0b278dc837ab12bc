"""A stand-in for `az ml`: keeps its resources in a file, and fails where Azure's docs say so.

A call's environment decides. AZ_STATE: that file. AZ_LOG: a file with the arguments of each call.
AZ_FAILS: a pattern; a matching call fails from the AZ_AFTERth time on; with AZ_STORED it creates
the resource first, in the state `Failed`, as Azure does. AZ_EXPIRES: a pattern; after a matching
call, every call fails. AZ_WORKSPACE: the workspace's id. AZ_RESULTS: a folder from which a batch
job's results are copied. AZ_DIMENSION: the dimension of the vectors in answers. Output is written
by knack, the library of the Azure CLI.

It answers in the tests' process, and the program on the PATH asks it over a socket: a script calls
it twenty times, and starting Python takes 0.1 s.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import socketserver
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jmespath
import yaml
from knack.output import format_tsv
from knack.util import CommandResultItem

Json = dict[str, Any]

WORKSPACE = "/subscriptions/s/workspaces/w"
STORED = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths"


class Refused(Exception):
    """An error that ends the real command."""


def words(arguments: list[str]) -> tuple[str, str, Json]:
    """Group, verb, options: the last value of each, True for a flag."""
    options: Json = {}
    for index, word in enumerate(arguments[3:], start=3):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            after = arguments[index + 1 : index + 2]
            is_value = after and after[0][:2] != "--"
            options[name] = value if equals else after[0] if is_value else True
    return arguments[1], arguments[2], options


def matching(pattern: str, texts: list[str]) -> list[str]:
    return [text for text in texts if pattern and re.search(pattern, text)]


class Call(NamedTuple):
    """What a script runs: the arguments, the first of them `ml`, and where it runs them."""

    arguments: list[str]
    cwd: Path
    environ: Mapping[str, str]


class Answer(NamedTuple):
    """What the program prints, and its exit code."""

    out: str = ""
    err: str = ""
    code: int = 0


class Azure:
    """The resources of a workspace and of registries."""

    def __init__(self, call: Call) -> None:
        self.cwd, self.environ = call.cwd, call.environ
        self.file = Path(self.environ["AZ_STATE"])
        self.state: Json = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.log = Path(self.environ["AZ_LOG"])

    def read(self, file: str) -> Any:
        """The content of a file of YAML."""
        return yaml.safe_load((self.cwd / file).read_text(encoding="utf-8"))

    def answer(self, arguments: list[str]) -> Any:
        group, verb, options = words(arguments)
        text = " ".join(arguments[1:])
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        before = [" ".join(shlex.split(line)[1:]) for line in lines]
        with self.log.open("a") as log:
            print(shlex.join(arguments), file=log)
        if matching(self.environ.get("AZ_EXPIRES", ""), before):
            raise Refused("AADSTS700024: Client assertion is not within its valid time range.")
        pattern = self.environ.get("AZ_FAILS", "")
        times = len(matching(pattern, before)) + 1
        fails = matching(pattern, [text]) and times >= int(self.environ["AZ_AFTER"])
        stored = bool(self.environ.get("AZ_STORED"))
        if fails and not stored:
            raise Refused(f"(BadRequest) {text}")
        kind = group.partition("-")[0]
        handler = getattr(self, f"{group.partition('-')[2] or group}_{verb}".replace("-", "_"))
        result = handler(kind, options)
        if fails and isinstance(result, dict):
            result["provisioning_state"] = "Failed"
        self.file.write_text(json.dumps(self.state))
        if fails:
            raise Refused(f"(ResourceOperationFailure) {text}")
        return jmespath.search(options["query"], result) if "query" in options else result

    def things(self, family: str) -> Json:
        resources: Json = self.state.setdefault(family, {})
        return resources

    def one(self, family: str, name: str) -> Json:
        if name not in self.things(family):
            raise Refused(f"(ResourceNotFound) {family} {name}")
        resource: Json = self.things(family)[name]
        return resource

    # -- workspaces, assets, computes, jobs

    def workspace_show(self, kind: str, options: Json) -> Json:
        return {"id": self.environ.get("AZ_WORKSPACE", WORKSPACE)}

    def asset_create(self, family: str, options: Json) -> Json:
        content = self.read(options["file"])
        registry = options.get("registry-name", "")
        key = f"{registry}/{content['name']}"
        versions = self.things(family).setdefault(key, [])
        version = str(len(versions) + 1)
        plural, name = f"{family}s", content["name"]
        where = f"azureml://registries/{registry}" if registry else WORKSPACE
        asset: Json = content | {"version": version, "path": f"{STORED}/{name}"}
        versions.append(asset | {"id": f"{where}/{plural}/{name}/versions/{version}"})
        created: Json = versions[-1]
        return created

    def model_create(self, kind: str, options: Json) -> Json:
        return self.asset_create("model", options)

    def environment_create(self, kind: str, options: Json) -> Json:
        return self.asset_create("environment", options)

    def model_show(self, kind: str, options: Json) -> Json:
        versions = self.things("model").get(f"{options.get('registry-name', '')}/{options['name']}")
        version: Json
        for version in reversed(versions or []):
            if options.get("label") == "latest" or options.get("version") == version["version"]:
                return version
        # The SDK's message, which differs from that for endpoints and computes.
        raise Refused(f"Asset {options['name']} does not exist in workspace w.")

    def model_list(self, kind: str, options: Json) -> list[Json]:
        registry = options.get("registry-name", "")
        keys = (key.partition("/") for key in self.things("model"))
        return [{"name": name} for holder, _, name in keys if holder == registry]

    def model_download(self, kind: str, options: Json) -> None:
        self.model_show(kind, options)
        source = Path(self.environ["AZ_MODEL"])
        target = self.cwd / options["download-path"] / options["name"] / source.name
        shutil.copytree(self.cwd / source, target)

    def compute_show(self, kind: str, options: Json) -> Json:
        return self.one("compute", options["name"])

    def compute_list(self, kind: str, options: Json) -> list[Json]:
        return [{"name": name} for name in self.things("compute")]

    def compute_create(self, kind: str, options: Json) -> Json:
        compute = {name.replace("-", "_"): value for name, value in options.items()}
        self.things("compute")[options["name"]] = compute
        return compute

    def job_stream(self, kind: str, options: Json) -> None:
        return None

    def job_download(self, kind: str, options: Json) -> None:
        target = self.cwd / options["download-path"] / "named-outputs/score"
        shutil.copytree(self.environ["AZ_RESULTS"], target)

    # -- endpoints

    def endpoint_show(self, kind: str, options: Json) -> Json:
        return self.one(f"{kind}-endpoint", options["name"])

    def endpoint_list(self, kind: str, options: Json) -> list[Json]:
        return list(self.things(f"{kind}-endpoint").values())

    def endpoint_create(self, kind: str, options: Json) -> Json:
        content = self.read(options["file"])
        endpoint: Json = {"public_network_access": "enabled", "defaults": {}} | content
        endpoint |= {"name": options["name"], "traffic": {}, "mirror_traffic": {}}
        endpoint["scoring_uri"] = f"https://{options['name']}.example/score"
        self.things(f"{kind}-endpoint")[options["name"]] = endpoint
        return endpoint

    def endpoint_update(self, kind: str, options: Json) -> Json:
        endpoint = self.endpoint_show(kind, options)
        mirrored = {**endpoint["mirror_traffic"], **self.shares(options.get("mirror-traffic", ""))}
        traffic = {**endpoint["traffic"], **self.shares(options.get("traffic", ""))}
        for name in {**mirrored, **traffic}:
            self.one(f"{kind}-deployment", f"{options['name']}/{name}")
        if sum(traffic.values()) not in (0, 100):
            raise Refused(f"(BadRequest) traffic sums to {sum(traffic.values())}")
        if any(
            percent > 50 or (percent and traffic.get(name)) for name, percent in mirrored.items()
        ):
            raise Refused("(BadRequest) mirrored traffic: 50 % at most, and no live traffic beside")
        endpoint |= {"traffic": traffic, "mirror_traffic": mirrored}
        if "set" in options:
            path, _, value = options["set"].partition("=")
            first, _, second = path.partition(".")
            endpoint[first] = {**endpoint[first], second: value} if second else value
        return endpoint

    @staticmethod
    def shares(text: str) -> dict[str, int]:
        pairs = (pair.partition("=") for pair in text.split())
        return {name: int(percent) for name, _, percent in pairs}

    def endpoint_delete(self, kind: str, options: Json) -> None:
        self.endpoint_show(kind, options)
        del self.things(f"{kind}-endpoint")[options["name"]]
        deployments = self.things(f"{kind}-deployment")
        for key in [key for key in deployments if key.startswith(options["name"] + "/")]:
            del deployments[key]

    def endpoint_invoke(self, kind: str, options: Json) -> Any:
        endpoint = self.endpoint_show(kind, options)
        if kind == "batch":
            return {"name": "job-1"}
        if "deployment-name" in options:
            self.one("online-deployment", f"{options['name']}/{options['deployment-name']}")
        elif not any(endpoint["traffic"].values()):
            raise Refused("(NoRoute) no deployment has traffic")
        request = json.loads((self.cwd / options["request-file"]).read_text())["input_data"]
        vector = [0.5] * int(self.environ["AZ_DIMENSION"])
        features = {"image": "image_features", "text": "text_features"}
        cells = [dict(zip(request["columns"], row, strict=True)) for row in request["data"]]
        records = [{features[name]: vector for name, cell in row.items() if cell} for row in cells]
        return json.dumps(records)  # JSON within JSON, as the real command prints it

    # -- deployments

    def key(self, kind: str, options: Json) -> str:
        self.one(f"{kind}-endpoint", options["endpoint-name"])
        return f"{options['endpoint-name']}/{options['name']}"

    def deployment_list(self, kind: str, options: Json) -> list[Json]:
        prefix = options["endpoint-name"] + "/"
        deployments = self.things(f"{kind}-deployment")
        self.one(f"{kind}-endpoint", options["endpoint-name"])
        return [{"tags": {}} | deployments[key] for key in deployments if key.startswith(prefix)]

    def deployment_show(self, kind: str, options: Json) -> Json:
        return self.one(f"{kind}-deployment", self.key(kind, options))

    def deployment_create(self, kind: str, options: Json, *, exists: bool = False) -> Json:
        key = self.key(kind, options)
        if (key in self.things(f"{kind}-deployment")) != exists:
            raise Refused(f"(Conflict) {key}")
        content = self.read(options["file"])
        deployment: Json = content | {"name": options["name"]}
        self.things(f"{kind}-deployment")[key] = deployment
        return deployment

    def deployment_update(self, kind: str, options: Json) -> Json:
        return self.deployment_create(kind, options, exists=True)

    def deployment_delete(self, kind: str, options: Json) -> None:
        key = self.key(kind, options)
        self.one(f"{kind}-deployment", key)
        if self.one(f"{kind}-endpoint", options["endpoint-name"])["traffic"].get(options["name"]):
            raise Refused(f"(BadRequest) {key} has live traffic")
        del self.things(f"{kind}-deployment")[key]

    def deployment_get_logs(self, kind: str, options: Json) -> str:
        self.deployment_show(kind, options)
        return f"the log of {options['container']}"


def answered(call: Call) -> Answer:
    """What the program answers to a call."""
    try:
        result = Azure(call).answer(call.arguments)
    except Refused as error:
        return Answer(err=f"ERROR: {error}\n", code=1)
    except Exception:
        return Answer(err=traceback.format_exc(), code=1)
    if result is None:
        return Answer()
    if "tsv" in call.arguments:
        return Answer(str(format_tsv(CommandResultItem(result))))
    return Answer(json.dumps(result, indent=2) + "\n")


# -- the program -------------------------------------------------------------------------------

_PROGRAM = """\
#!/bin/bash
exec 3<> /dev/tcp/127.0.0.1/{port}
{{
  printf '%s\\0' "$#" "$PWD" "$@"
  for name in "${{!AZ_@}}"; do printf '%s=%s\\0' "$name" "${{!name}}"; done
  printf '\\0'
}} >&3
IFS= read -r -d '' -u 3 out
IFS= read -r -d '' -u 3 err
IFS= read -r -d '' -u 3 code
printf '%s' "$out"
printf '%s' "$err" >&2
exit "$code"
"""


def install(program: Path) -> None:
    """Writes the program `az`, which asks this process."""
    program.write_text(_PROGRAM.format(port=_port()))
    program.chmod(0o755)


@functools.cache
def _port() -> int:
    """Where this process answers, until it ends."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


class _Handler(socketserver.StreamRequestHandler):
    _turn = threading.Lock()  # the resources are in a file

    def handle(self) -> None:
        count, cwd = int(_word(self.rfile)), Path(_word(self.rfile))
        arguments = [_word(self.rfile) for _ in range(count)]
        variables = dict(word.split("=", 1) for word in iter(lambda: _word(self.rfile), ""))
        with self._turn:
            answer = answered(Call(arguments, cwd, variables))
        self.wfile.write("".join(f"{part}\0" for part in answer).encode())


def _word(stream: BinaryIO) -> str:
    """What comes before the next zero byte, or the end."""
    word = bytearray()
    while (byte := stream.read(1)) not in (b"", b"\0"):
        word += byte
    return word.decode()
