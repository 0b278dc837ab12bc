"""Frameworks that wrap clients, each in a process of its own, since they start threads and warn."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.dialects.asking import NAME, check_alike
from tests.dialects.test_openai import contract
from tests.support.images import in_base64
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

LANGCHAIN = """
from langchain_openai import OpenAIEmbeddings
def model(**more):
    return OpenAIEmbeddings(
        base_url=f"{base}/v1", api_key="none", model=name, max_retries=0,
        check_embedding_ctx_length=False, **more,
    )
"""
LITELLM = """
import litellm
litellm.suppress_debug_info = True
def embed(route, path, input, **more):
    answer = litellm.embedding(
        model=f"{route}/{name}", api_base=base + path, api_key="none", input=input,
        max_retries=0, **more,
    )
    return [item["embedding"] for item in answer.data], answer.usage.prompt_tokens
"""


def run(base: str, library: str, setup: str, code: str) -> Any:
    """What the code prints, as JSON. Skips the test where the library is missing."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    script = f"import json\nbase, name = {base!r}, {NAME!r}\n{setup}\n{code}"
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_langchain(base: str) -> None:
    code = """
documents = model(chunk_size=1).embed_documents(["a boat", "a red apple"])
query = model(dimensions=512).embed_query("a boat")
long = "word " * 200
cut = model(model_kwargs={"extra_body": {"truncate": True}}).embed_query(long)
try:
    model().embed_query(long)
    refused = ""
except Exception as error:
    refused = str(error)
print(json.dumps([documents, query, cut, refused]))
"""
    documents, query, cut, refused = run(base, "langchain_openai", LANGCHAIN, code)
    check_alike(documents, [contract(base, text=text) for text in ("a boat", "a red apple")])
    check_alike(query, documents[0])
    assert len(cut) == 512
    assert "the model's context is 77" in refused


ROUTES = {
    "openai": "/v1",
    "openai_like": "/v1",
    "hosted_vllm": "/v1",
    "infinity": "/v1",
    "jina_ai": "/v1",
    "cohere": "/v2/embed",
}
"""A provider of LiteLLM's → the path at which its `api_base` ends."""


@pytest.mark.slow
def test_litellm(base: str, apple: bytes) -> None:
    uri = f"data:image/png;base64,{in_base64(apple)}"
    code = f"""
routes, uri = {ROUTES!r}, {uri!r}
texts = {{route: embed(route, path, ["a boat", "a red apple"]) for route, path in routes.items()}}
images = [
    embed("openai", "/v1", [uri], extra_body={{"modality": "image"}})[0][0],
    embed("infinity", "/v1", [uri], modality="image")[0][0],
    embed("jina_ai", "/v1", [uri])[0][0],
    embed("cohere", "/v2/embed", [uri])[0][0],
]
embed("infinity", "/v1", ["a"], dimensions=512)
name = "other"
try:
    embed("openai", "/v1", ["a"])
    status = 200
except litellm.NotFoundError as error:
    status = error.status_code
print(json.dumps([texts, images, status]))
"""
    texts, images, status = run(base, "litellm", LITELLM, code)
    wanted = [contract(base, text=text) for text in ("a boat", "a red apple")]
    assert {*texts} == {*ROUTES}
    for route, (vectors, tokens) in texts.items():
        check_alike(vectors, wanted)
        assert (route, tokens) == (route, 9)
    for vector in images:
        check_alike(vector, contract(base, image=in_base64(apple)))
    assert status == 404
