"""MLflow's server, Cohere's embeddings, Weaviate's module and KServe's protocol."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import requests

from score import __version__
from score.dialects.base import RED_SQUARE
from tests.dialects.asking import NAME, check_alike, check_refusal, post, refused
from tests.support.images import in_base64

INVOCATIONS, EMBED, VECTORIZE = "/invocations", "/v2/embed", "/vectorize"


def score(base: str, *rows: dict[str, str], **params: Any) -> list[Any]:
    body = {"input_data": rows, "params": params}
    return [next(iter(record.values())) for record in post(base, "/score", body).json()]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["text"], "data": [["a boat"], ["a house"]]}},
        {"dataframe_records": [{"text": "a boat"}, {"text": "a house"}]},
        {"instances": [{"text": "a boat"}, {"text": "a house"}]},
        {"inputs": {"text": ["a boat", "a house"]}},
        {"input_data": {"columns": ["text"], "data": [["a boat"], ["a house"]]}},
    ],
)
def test_every_body_of_mlflow(base: str, body: Any) -> None:
    answer = post(base, INVOCATIONS, body).json()
    vectors = score(base, {"text": "a boat"}, {"text": "a house"})
    assert set(answer) == {"predictions"}
    answered = [record["text_features"] for record in answer["predictions"]]
    check_alike(answered, vectors)
    labelled = post(base, INVOCATIONS, {**body, "params": {"normalize": True}}).json()
    assert labelled != answer


def test_csv(base: str, apple: bytes) -> None:
    body = f'image,text,other\n{in_base64(apple)},a boat,1\n,"a ""red""\napple",2\n'.encode()
    answer = post(base, INVOCATIONS, body, "text/csv; charset=utf-8").json()
    first, second = answer["predictions"]
    assert set(first) == {"image_features", "text_features"}
    (wanted,) = score(base, {"text": 'a "red"\napple'})
    check_alike(second["text_features"], wanted)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "empty"),
        (b"Text\na\n", 400, "must be spelled 'text'"),
        (b'text\n"a\n', 400, "quote is left open"),
        (b"text,other\na\n", 400, "1 cells, not 2"),
        (b"text\n\xff\n", 400, "not UTF-8"),
        (b"text\n" + b"a\n" * 51, 413, "50 rows"),
    ],
)
def test_csv_that_is_refused(base: str, body: bytes, status: int, says: str) -> None:
    response = post(base, INVOCATIONS, body, "text/csv")
    assert response.status_code == status
    assert says in response.json()["message"]
    check_refusal(INVOCATIONS, response)


def test_what_mlflow_refuses(base: str) -> None:
    error = refused(base, INVOCATIONS, {"dataframe_records": [{"text": ""}]})
    assert error["error_code"] == "INVALID_PARAMETER_VALUE"
    assert error["error"]["rows"][0]["code"] == "empty_row"
    response = post(base, INVOCATIONS, b"PAR1", "application/vnd.apache.parquet")
    assert response.status_code == 415
    assert "text/csv" in response.json()["message"]


def test_pages_of_mlflow(base: str) -> None:
    for path in ("/ping", "/health"):
        assert requests.get(base + path, timeout=10).status_code == 200
    assert requests.get(f"{base}/version", timeout=10).json()["version"] == __version__


def cohere(base: str, **body: Any) -> Any:
    response = post(base, EMBED, {"input_type": "search_document", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_texts_for_cohere(base: str) -> None:
    answer = cohere(base, model=NAME, texts=["a boat", "a house"])
    wanted = score(base, {"text": "a boat"}, {"text": "a house"}, normalize=True)
    check_alike(answer["embeddings"]["float"], wanted)
    assert answer["texts"] == ["a boat", "a house"]
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["meta"]["billed_units"] == {"input_tokens": 8}


def test_images_and_inputs_for_cohere(base: str, apple: bytes) -> None:
    uri = f"data:image/png;base64,{in_base64(apple)}"
    (wanted,) = score(base, {"image": uri}, normalize=True)
    part = {"type": "image_url", "image_url": {"url": uri, "detail": "low"}}
    for body in ({"images": [uri]}, {"inputs": [{"content": [part]}]}):
        answer = cohere(base, **body)
        check_alike(answer["embeddings"]["float"], [wanted])
        assert answer["meta"]["billed_units"] == {"images": 1}
    text = {"content": [{"type": "text", "text": "a boat"}]}
    both = cohere(base, inputs=[text], embedding_types=["base64", "float"])["embeddings"]
    packed = np.frombuffer(base64.b64decode(both["base64"][0]), "<f4")
    np.testing.assert_array_equal(packed, np.array(both["float"][0], np.float32))
    once = {"embedding_types": ["float"] * 1_000}  # as often as a body has room for
    assert cohere(base, inputs=[text], **once)["embeddings"]["float"] == both["float"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input_type": None, "texts": ["a"]}, "needs 'input_type'"),
        ({"input_type": "other", "texts": ["a"]}, "may be 'search_document'"),
        ({}, "needs 'texts' or 'images' or 'inputs'"),
        ({"texts": ["a"], "images": ["b"]}, "not several"),
        ({"texts": []}, "not empty"),
        ({"texts": "a"}, "must be a list"),
        ({"texts": ["a"], "embedding_types": ["int8"]}, "not 'int8'"),
        ({"texts": ["a"], "embedding_types": "float"}, "must be a list"),
        ({"texts": ["a"], "embedding_types": [["float"]]}, "not a list"),
        ({"texts": ["a"], "truncate": "START"}, "'END', 'NONE'"),
        ({"texts": ["a"], "output_dimension": 256}, "'output_dimension' must be 512"),
        ({"texts": ["a"], "max_tokens": 5}, "unknown key 'max_tokens'"),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}] * 2}]}, "does not fuse"),
        ({"inputs": [{"content": [{"type": "audio"}]}]}, "'text', 'image_url'"),
        ({"inputs": ["a"]}, "must be a JSON object"),
    ],
)
def test_what_cohere_refuses(base: str, body: Any, says: str) -> None:
    error = refused(base, EMBED, {"input_type": "image", **body})
    assert says in error["message"]


def test_truncation_and_models_for_cohere(base: str) -> None:
    long = {"input_type": "search_query", "texts": ["a " * 100]}
    assert post(base, EMBED, long).status_code == 200
    assert "context is 77" in refused(base, EMBED, {**long, "truncate": "NONE"}, 422)["message"]
    body = {"input_type": "search_query", "texts": ["a"], "model": "embed-v4.0"}
    assert NAME in refused(base, EMBED, body, 404)["message"]


def test_cohere_s_own_client(base: str, apple: bytes) -> None:
    library = pytest.importorskip("cohere")
    with library.ClientV2(api_key="none", base_url=base) as client:
        answer = client.embed(
            model=NAME, input_type="search_query", texts=["a boat"], embedding_types=["float"]
        )
        (wanted,) = score(base, {"text": "a boat"}, normalize=True)
        check_alike(answer.embeddings.float_[0], wanted)
        uri = f"data:image/png;base64,{in_base64(apple)}"
        image = client.embed(
            model=NAME, input_type="image", images=[uri], embedding_types=["float"]
        )
        assert len(image.embeddings.float_[0]) == 512
        with pytest.raises(library.NotFoundError):
            client.embed(model="embed-v4.0", input_type="search_query", texts=["a"])


def test_weaviate(base: str, apple: bytes) -> None:
    image = in_base64(apple)
    answer = post(base, VECTORIZE, {"texts": ["a boat"], "images": [image, image]}).json()
    text, picture = score(base, {"text": "a boat"}, {"image": image})
    assert set(answer) == {"textVectors", "imageVectors"}
    check_alike(answer["textVectors"], [text])
    check_alike(answer["imageVectors"], [picture, picture])
    # Go writes an empty list as null.
    alone = post(base, VECTORIZE, {"texts": None, "images": [image]}).json()
    assert alone["textVectors"] == []
    check_alike(alone["imageVectors"], [picture])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"texts": "a"}, 400, "must be a list"),
        ({"texts": ["a"], "images": ["%"]}, 422, "row 1, image"),
        ({"texts": [""]}, 422, "row 0"),
        ({"text": ["a"]}, 400, "unknown key 'text'"),
    ],
)
def test_what_weaviate_is_refused(base: str, body: Any, status: int, says: str) -> None:
    assert says in refused(base, VECTORIZE, body, status)["error"]


def test_pages_of_weaviate(base: str) -> None:
    for path in ("live", "ready"):
        response = requests.get(f"{base}/.well-known/{path}", timeout=10)
        assert (response.status_code, response.content) == (204, b"")
    meta = json.loads(requests.get(f"{base}/meta", timeout=10).content)
    assert meta == {"model": NAME, "dimension": 512}


INFER = f"/v2/models/{NAME}/infer"


def tensor(name: str, *data: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": [*data], **more}


def test_kserve(base: str, apple: bytes) -> None:
    image = in_base64(apple)
    body = {
        "id": "7",
        "inputs": [tensor("text", "a boat", "a house"), tensor("image", image, image)],
    }
    answer = post(base, INFER, {**body, "parameters": {"normalize": True}}).json()
    assert (answer["id"], answer["model_name"]) == ("7", NAME)
    texts, images = answer["outputs"]
    assert (texts["name"], images["name"]) == ("text_features", "image_features")
    assert texts["shape"] == images["shape"] == [2, 512]
    rows = [{"text": "a boat"}, {"text": "a house"}, {"image": image}, {"image": image}]
    wanted = score(base, *rows, normalize=True)
    check_alike(texts["data"], [*wanted[0], *wanted[1]])
    check_alike(images["data"], [*wanted[2], *wanted[3]])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": []}, 400, "list of tensors"),
        ({"inputs": [tensor("text", "a", shape=[2])]}, 400, "shape must be [1]"),
        ({"inputs": [tensor("text", "a", datatype="FP32")]}, 400, "BYTES"),
        ({"inputs": [tensor("Text", "a")]}, 400, "'image', 'text'"),
        ({"inputs": [tensor("text", "")]}, 400, "not empty"),
        (
            {"inputs": [tensor("image", *[RED_SQUARE] * 2), tensor("text", " ", "b")]},
            400,
            "not empty",
        ),
        ({"inputs": [tensor("text", "<NA>")]}, 400, "not empty"),
        ({"inputs": [tensor("text", "a")], "parameters": []}, 400, "'normalize'"),
        ({"inputs": [tensor("text", "a")], "parameters": 0}, 400, "'normalize'"),
        ({"inputs": [tensor("text", "a"), tensor("text", "a")]}, 400, "distinct"),
        ({"inputs": [tensor("text", "a"), tensor("image", "a", "b")]}, 400, "one length"),
        ({"inputs": [tensor("text", "a")], "parameters": {"labels": ["a"]}}, 400, "'normalize'"),
        ({"inputs": [tensor("image", "%")]}, 422, "base64"),
    ],
)
def test_what_kserve_is_refused(base: str, body: Any, status: int, says: str) -> None:
    assert says in refused(base, INFER, body, status)["error"]


def test_pages_of_kserve(base: str) -> None:
    for path in ("live", "ready"):
        assert requests.get(f"{base}/v2/health/{path}", timeout=10).json()[path] is True
    model = requests.get(f"{base}/v2/models/{NAME}", timeout=10).json()
    assert [one["name"] for one in model["outputs"]] == ["image_features", "text_features"]
    unknown = requests.get(f"{base}/v2/models/other", timeout=10)
    assert (unknown.status_code, set(unknown.json())) == (404, {"error"})
