"""Zero-shot classification, Hugging Face's and our own, and similarities."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import requests

from score.dialects import huggingface
from score.dialects.base import Message
from score.errors import RequestTooLarge
from tests.dialects.asking import NAME, check_alike, post, refused
from tests.support.images import in_base64

CLASSIFY, SIMILARITY, MODEL = "/v1/classify", "/v1/similarity", f"/models/{NAME}"
LABELS = ["a red apple", "a boat", "a house"]


def classes(base: str, **body: Any) -> list[Any]:
    response = post(base, CLASSIFY, body)
    assert response.status_code == 200, response.text
    return [item["labels"] for item in response.json()["data"]]


def test_images_have_the_probabilities_of_the_contract(base: str, apple: bytes) -> None:
    image = in_base64(apple)
    body = {"input_data": [{"image": image}], "params": {"labels": LABELS}}
    (record,) = post(base, "/score", body).json()
    wanted = [
        {"label": label, "score": prob}
        for label, prob in zip(record["labels"], record["probs"], strict=True)
    ]
    assert wanted[0]["label"] == "a red apple"
    for asked in ({"image": image}, {"image": [image]}, {"input": {"image": image}}):
        check_alike(classes(base, labels=LABELS, **asked), [wanted])
    check_alike(classes(base, image=image, ontology=LABELS), [wanted])


def test_prompts_of_labels(base: str, apple: bytes) -> None:
    ontology = {"fruit": ["a red apple", "a green apple"], "ship": "a boat"}
    ((first, second),) = classes(base, image=in_base64(apple), ontology=ontology)
    assert (first["label"], second["label"]) == ("fruit", "ship")
    (likely,) = classes(base, image=in_base64(apple), ontology=ontology, confidence=0.5)
    assert [item["label"] for item in likely] == ["fruit"]


def test_texts_are_classified_too(base: str, apple: bytes) -> None:
    inputs = [{"text": "a boat"}, {"image": in_base64(apple)}, "a house"]
    firsts = [labels[0]["label"] for labels in classes(base, input=inputs, labels=LABELS)]
    assert firsts == ["a boat", "a red apple", "a house"]
    (ranked,) = classes(base, text="a boat", labels=LABELS)
    assert sum(item["score"] for item in ranked) == pytest.approx(1, abs=1e-5)
    assert ranked == sorted(ranked, key=lambda item: -item["score"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"labels": ["a"]}, "needs 'image' or 'text' or 'input'"),
        ({"image": "a", "text": "b", "labels": ["a"]}, "not several"),
        ({"image": []}, "empty list"),
        ({"text": "a"}, "needs 'labels' or 'ontology'"),
        ({"text": "a", "labels": "a, b"}, "must be a list or an object"),
        ({"text": "a", "labels": []}, "no label"),
        ({"text": "a", "labels": ["a", "a"]}, "twice"),
        ({"text": "a", "labels": ["a"], "confidence": 2}, "0 to 1"),
        ({"text": "a", "labels": ["a"], "confidence": False}, "0 to 1"),
        ({"text": "a", "labels": ["a"], "confidence": ""}, "0 to 1"),
        ({"text": "a", "labels": ["a"], "confidence": []}, "0 to 1"),
        ({"text": "a", "labels": ["\ud800"]}, "half a character"),
    ],
)
def test_what_classify_refuses(base: str, body: Any, says: str) -> None:
    assert says in refused(base, CLASSIFY, body)["error"]["message"]


def test_bad_rows_are_listed(base: str) -> None:
    error = refused(base, CLASSIFY, {"image": ["%", ""], "labels": ["a"]}, 422)["error"]
    assert [row["code"] for row in error["rows"]] == ["bad_base64", "empty_row"]


def test_another_model(base: str) -> None:
    body = {"model": "other", "text": "a", "labels": ["a"]}
    assert refused(base, CLASSIFY, body, 404)["error"]["code"] == "model_not_found"
    assert "other" in refused(base, "/models/a/other", HUGGING, 404)["error"]


HUGGING: dict[str, Any] = {"inputs": "%", "parameters": {"candidate_labels": ["apple", "boat"]}}


def test_hugging_face(base: str, apple: bytes) -> None:
    image = in_base64(apple)
    parameters = {"candidate_labels": ["apple", "boat"], "hypothesis_template": "a red {}"}
    answer = post(base, MODEL, {"inputs": image, "parameters": parameters}).json()
    assert [set(item) for item in answer] == [{"label", "score"}] * 2
    prompts = {"apple": "a red apple", "boat": "a red boat"}
    check_alike([answer], classes(base, image=image, labels=prompts))
    older = post(base, MODEL, {"inputs": {"image": image}, "parameters": parameters}).json()
    check_alike(older, answer)
    default = post(base, MODEL, {**HUGGING, "inputs": image}).json()
    usual = {name: f"This is a photo of {name}." for name in ("apple", "boat")}
    check_alike([default], classes(base, image=image, labels=usual))


@pytest.mark.parametrize(
    ("inputs", "parameters", "says"),
    [
        (None, {}, "must be an image"),
        (["a"], {}, "not a list"),
        ("a", None, "must be a JSON object, not null"),
        ("a", {}, "must be a list of strings"),
        ("a", {"candidate_labels": ["a", 1]}, "must be a list of strings"),
        ("a", {"candidate_labels": ["a", "a"]}, "twice"),
        ("a", {"candidate_labels": []}, "no label"),
        ("a", {"candidate_labels": ["a"], "hypothesis_template": "no"}, "needs {}"),
        ("a", {"candidate_labels": ["a"], "hypothesis_template": ""}, "needs {}"),
        ("a", {"candidate_labels": ["a"], "multi_label": True}, "unknown key 'multi_label'"),
    ],
)
def test_what_hugging_face_refuses(base: str, inputs: Any, parameters: Any, says: str) -> None:
    body = {"inputs": inputs, "parameters": parameters}
    assert says in refused(base, MODEL, body)["error"]


def test_a_bad_image_for_hugging_face(base: str) -> None:
    assert "base64" in refused(base, MODEL, HUGGING, 422)["error"]


def test_hugging_face_s_own_client(base: str, apple: bytes) -> None:
    hub = pytest.importorskip("huggingface_hub")
    with hub.InferenceClient(model=base + MODEL, token="none") as client:
        answer = client.zero_shot_image_classification(apple, candidate_labels=["apple", "boat"])
        assert [item.label for item in answer] == ["apple", "boat"]
    hub.close_session()  # its connections are the library's


def test_similarities(base: str, apple: bytes) -> None:
    image = {"image": in_base64(apple)}
    body = {"a": ["a red apple", "a boat"], "b": [image, "a boat", "a house"]}
    answer = post(base, SIMILARITY, body).json()
    matrix = np.array(answer["data"])
    assert (answer["model"], matrix.shape) == (NAME, (2, 3))
    inputs = [*body["a"], *body["b"]]
    data = post(base, "/v1/embeddings", {"input": inputs}).json()["data"]
    vectors = np.array([item["embedding"] for item in data])
    check_alike(matrix.tolist(), (vectors[:2] @ vectors[2:].T).tolist())
    assert matrix[1, 1] == pytest.approx(1, abs=1e-6)
    alone = np.array(post(base, SIMILARITY, {"a": body["a"]}).json()["data"])
    check_alike(np.diag(alone).tolist(), [1.0, 1.0])
    assert np.abs(alone).max() <= 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "needs 'a'"),
        ({"a": [], "b": ["a"]}, 400, "empty list"),
        ({"a": ["a"], "b": []}, 400, "empty list"),
        ({"a": ["a"], "b": [1, 2]}, 400, "token ids"),
        ({"a": ["a"], "b": ["a"], "metric": "dot"}, 400, "unknown key 'metric'"),
        ({"a": ["a"] * 30, "b": ["a"] * 30}, 413, "50 rows"),
        ({"a": ["a"] * 1001}, 413, "1,000,000 similarities"),
        ({"a": ["a"], "b": [""]}, 422, "row 1"),
    ],
)
def test_what_similarity_refuses(base: str, body: Any, status: int, says: str) -> None:
    assert says in refused(base, SIMILARITY, body, status)["error"]["message"]


def test_paths_need_post(base: str) -> None:
    assert requests.get(base + CLASSIFY, timeout=10).status_code == 405


@pytest.mark.parametrize(
    ("label", "template"),
    [("a", "{}" + "a" * 2**20), ("a" * 2**11, "{}" * 2**10), ("a" * 2**20, "{}")],
    ids=["long", "of many places", "of a long label"],
)
def test_a_template_makes_no_prompt_that_is_too_long(label: str, template: str) -> None:
    parameters = {"candidate_labels": [label], "hypothesis_template": template}
    body = json.dumps({"inputs": "AAAA", "parameters": parameters}).encode()
    with pytest.raises(RequestTooLarge, match="may have 4,000 characters at most"):
        huggingface.parse(Message(body))
