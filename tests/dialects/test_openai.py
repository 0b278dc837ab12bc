"""OpenAI's embeddings and models: by its own client, and as infinity, Jina and vLLM extend them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import requests

from tests.dialects.asking import NAME, check_alike, post, refused
from tests.support.images import SAMPLES, in_base64, served

PATH = "/v1/embeddings"
URI = "data:image/png;base64,"


def embedded(base: str, **body: Any) -> list[Any]:
    response = post(base, PATH, body)
    assert response.status_code == 200, response.text
    return [item["embedding"] for item in response.json()["data"]]


def contract(base: str, **row: str) -> Any:
    """The unit vector that `/score` answers."""
    body = {"input_data": [row], "params": {"normalize": True}}
    ((vector,),) = [record.values() for record in post(base, "/score", body).json()]
    return vector


def test_texts_as_openai_answers_them(base: str) -> None:
    answer = post(base, PATH, {"model": NAME, "input": ["a red apple", "a boat"]}).json()
    assert set(answer) == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", NAME)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    # Begin, three words, end; begin, two words, end.
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    for item, text in zip(answer["data"], ["a red apple", "a boat"], strict=True):
        check_alike(item["embedding"], contract(base, text=text))
        assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-5)


def test_one_text_is_a_list_of_one(base: str) -> None:
    check_alike(embedded(base, input=["a boat"], user="x"), embedded(base, input="a boat"))


def test_base64_holds_the_same_floats(base: str) -> None:
    (text,) = embedded(base, input="a boat", encoding_format="base64")
    (floats,) = embedded(base, input="a boat", encoding_format="float")
    check_alike(np.frombuffer(base64.b64decode(text), "<f4").tolist(), floats)
    (jina,) = embedded(base, input="a boat", embedding_type="base64")
    check_alike(np.frombuffer(base64.b64decode(jina), "<f4").tolist(), floats)


def test_vectors_are_as_the_model_makes_them_where_asked(base: str) -> None:
    (raw,) = embedded(base, input="a boat", normalized=False)
    (unit,) = embedded(base, input="a boat")
    assert np.linalg.norm(raw) != pytest.approx(1, abs=1e-2)
    check_alike(np.array(raw) / np.linalg.norm(raw), unit)


def test_images_in_every_form(base: str, apple: bytes) -> None:
    wanted = contract(base, image=in_base64(apple))
    uri = URI + in_base64(apple)
    part = {"type": "image_url", "image_url": {"url": uri}}
    empty = {"type": "text", "text": ""}
    for body in (
        {"input": in_base64(apple), "modality": "image"},  # infinity
        {"input": [uri], "modality": "image"},
        {"input": [{"image": in_base64(apple)}]},  # Jina
        {"input": [{"image": uri}]},
        {"input": uri},  # nobody means this as a text
        {"messages": [{"role": "user", "content": [part]}]},  # vLLM
        {"messages": [{"role": "user", "content": [part, empty]}]},
    ):
        (vector,) = embedded(base, **body)
        check_alike(vector, wanted)


def test_images_behind_urls(base: str, apple: bytes) -> None:
    with served(SAMPLES / "images") as folder:
        url = f"{folder}/apple.png"
        (image,) = embedded(base, input=[url], modality="image")
        (item,) = embedded(base, input=[{"image": url}])
        (text,) = embedded(base, input=[url])  # OpenAI embeds texts, and a URL may be one
    check_alike(image, item)
    check_alike(image, contract(base, image=in_base64(apple)))
    check_alike(text, contract(base, text=url))


def test_mixed_lists(base: str, apple: bytes) -> None:
    vectors = embedded(base, input=["a boat", {"image": in_base64(apple)}, {"text": "a boat"}])
    check_alike(vectors[0], vectors[2])
    check_alike(vectors[1], contract(base, image=in_base64(apple)))


def test_messages_of_text(base: str) -> None:
    (vector,) = embedded(base, messages=[{"role": "user", "content": "a boat"}])
    check_alike([vector], embedded(base, input="a boat"))


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "input", "needs 'input' or 'messages'"),
        ({"input": []}, "input", "empty list"),
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [[1, 2], [3]]}, "input[0]", "check_embedding_ctx_length"),
        ({"input": ["a", 5]}, "input[1]", "must be a string or an object, not a number"),
        ({"input": [{"text": "a", "image": "b"}]}, "text", "not several"),
        ({"input": [{"Text": "a"}]}, "text", "its keys are 'Text'"),
        ({"input": [{"text": "a", "x": 1}]}, "x", "unknown key 'x'"),
        ({"input": "a", "messages": []}, "input", "not several"),
        (
            {"input": "a", "dimensions": 8},
            "dimensions",
            "must be 512, the length of this model's vectors: it was not trained for shorter",
        ),
        ({"input": "a", "dimensions": "512"}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": True}, "dimensions", "whole number"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float', 'base64'"),
        ({"input": "a", "embedding_type": "binary"}, "embedding_type", "'float', 'base64'"),
        (
            {"input": "a", "encoding_format": "float", "embedding_type": "base64"},
            "embedding_type",
            "differ",
        ),
        ({"input": "a", "modality": "audio"}, "modality", "'text', 'image'"),
        ({"input": "a", "normalized": "yes"}, "normalized", "true or false"),
        ({"input": "a", "task": "retrieval.query"}, "task", "unknown key 'task'"),
        ({"messages": [{"role": "user", "content": []}]}, "messages", "they hold 0"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
            "messages",
            "they hold 2",
        ),
        ({"messages": [{"content": [{"type": "video"}]}]}, "type", "'text', 'image_url'"),
        ({"input": ""}, "input", "neither an image nor a text"),
        ({"input": ["a", "\ud800"]}, "input", "row 1"),
        ({"input": "%", "modality": "image"}, "input", "nor base64"),
    ],
)
def test_what_is_refused(base: str, body: Any, param: str, says: str) -> None:
    error = refused(base, PATH, body)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]


def test_dimensions_of_the_model_are_no_fault(base: str) -> None:
    assert len(embedded(base, input="a", dimensions=512)[0]) == 512


def test_a_text_over_the_context_is_refused_unless_it_may_be_cut(base: str) -> None:
    error = refused(base, PATH, {"input": "a " * 200})["error"]
    assert error["code"] == "context_length_exceeded"
    assert '"truncate": true' in error["message"]
    response = post(base, PATH, {"input": "a " * 200, "truncate": True})
    assert response.json()["usage"]["prompt_tokens"] == 77


def test_another_model_is_not_answered_by_this_one(base: str) -> None:
    error = refused(base, PATH, {"model": "text-embedding-3-small", "input": "a"}, 404)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert NAME in error["message"]


def test_models(base: str) -> None:
    answer = requests.get(f"{base}/v1/models", timeout=10).json()
    (model,) = answer["data"]
    assert (answer["object"], model["id"], model["object"]) == ("list", NAME, "model")
    assert requests.get(f"{base}/v1/models/{NAME}", timeout=10).json() == model
    unknown = requests.get(f"{base}/v1/models/a/b", timeout=10)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["dimensions", "output_dimension"])
def test_the_dimension_is_the_model_s(base: str, name: str) -> None:
    assert post(base, PATH, {"input": "a", name: 512}).status_code == 200
    error = refused(base, PATH, {"input": "a", name: 256})["error"]
    assert (error["param"], error["code"]) == (name, "bad_field")


def test_two_dimensions_differ(base: str) -> None:
    body = {"input": "a", "dimensions": 512}
    assert post(base, PATH, {**body, "output_dimension": 512}).status_code == 200
    error = refused(base, PATH, {**body, "output_dimension": 256})["error"]
    assert error["param"] == "output_dimension"


def test_many_rows(base: str) -> None:
    assert refused(base, PATH, {"input": ["a"] * 51}, 413)["error"]["code"] == "too_large"


def test_openai_s_own_client(base: str, apple: bytes) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        # By default the client asks for base64, and decodes it.
        answer = client.embeddings.create(model=NAME, input=["a boat", "a red apple"])
        check_alike(answer.data[0].embedding, contract(base, text="a boat"))
        assert answer.usage.prompt_tokens == 9
        image = client.embeddings.create(
            model=NAME, input=in_base64(apple), extra_body={"modality": "image"}
        )
        wanted = contract(base, image=in_base64(apple))
        check_alike(image.data[0].embedding, wanted)
        assert [model.id for model in client.models.list()] == [NAME]
        assert client.models.retrieve(NAME).id == NAME
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="gpt", input="a")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            client.embeddings.create(model=NAME, input="a", dimensions=3)
        assert (bad.value.param, bad.value.type) == ("dimensions", "invalid_request_error")
        assert json.dumps(bad.value.body)
