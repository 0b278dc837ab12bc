"""A full-size model, packaged and verified: is it right, how much memory and time does it take?

    python -m benchmarks.full_size ViT-H-14-quickgelu --precision bf16

writes random weights of that architecture in the published layout, packages them (which compares
all probes with transformers), loads the package in the precision it is stored in, and verifies it;
each in a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from score.checkpoints.architectures import ALL_ARCHITECTURES
from score.console import commands

LOAD = """
import sys
from score.core.embedder import Embedder
from score.contract.rows import Row
from score.settings import Settings
model = Embedder.load(sys.argv[1], Settings(device="cpu", precision=sys.argv[2], verify="quick"))
print(model.dimension)
"""


def main() -> None:
    parser = commands.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", choices=ALL_ARCHITECTURES)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--folder", type=Path, help="where there is room; default: a temporary one")
    options = parser.parse_args()
    architecture = ALL_ARCHITECTURES[options.architecture]
    print(f"{options.architecture}: {architecture.parameters:,} parameters, {options.precision}")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        checkpoint, package = Path(scratch) / "checkpoint", Path(scratch) / "package"
        write = ["-m", "score.checkpoints.random_checkpoint", options.architecture, str(checkpoint)]
        step("write", [*write, "--precision", options.precision])
        step("package", ["-m", "score", "package", str(checkpoint), "--output", str(package)])
        shutil.rmtree(checkpoint)
        step("load", ["-c", LOAD, str(package), options.precision])
        print(step("verify", ["-m", "score", "verify", str(package)], SCORE_PRECISION="fp32"))
        size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
        print(f"package: {size / 2**30:.2f} GiB on disk")


def step(name: str, arguments: list[str], **environ: str) -> str:
    """Runs Python, prints seconds and peak memory, and returns what it printed."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, env={**os.environ, **environ}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    seconds, peak = time.perf_counter() - began, usage.ru_maxrss / 2**20
    print(f"{name:8} {seconds:7.0f} s {peak:6.2f} GiB at most", flush=True)
    if process.returncode:
        sys.exit(f"{name} failed\n{text}")
    return text


if __name__ == "__main__":
    commands.run(main)
