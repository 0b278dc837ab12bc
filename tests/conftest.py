"""What many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from score import machine
from score.embedder import Embedder
from score.jobs import checkpoint
from score.settings import Settings
from tests.pictures import SAMPLES, served

# The embedded model is so small that threads cost it more than they bring.
torch.set_num_threads(1)

# On a processor with bf16, too, vectors are fp32's, which are what most tests compare: here, and in
# the processes that tests start.
machine._CPUINFO = Path(os.devnull)
os.environ["SCORE_PRECISION"] = "fp32"


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The embedded model, allowed to fetch from this machine."""
    return Embedder.load(settings=Settings(allow_hosts=("127.0.0.1",), retry_wait=0.01))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint as small as the embedded one, in the transformers layout."""
    return checkpoint.write(tmp_path_factory.mktemp("tiny") / "c", checkpoint.TINY)


@pytest.fixture(scope="session")
def pictures_url() -> Iterator[str]:
    """Where the sample pictures are served."""
    with served(SAMPLES / "images") as url:
        yield url
