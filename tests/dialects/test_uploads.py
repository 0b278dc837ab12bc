"""Images and forms as they are, at `/score` and `/v1/classify`."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tracemalloc
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from score.contract.rows import Row
from score.dialects import uploads
from score.dialects.base import Message
from score.errors import RequestError
from tests.dialects.asking import check_alike, check_refusal, post, refused
from tests.support.images import SAMPLES, in_base64

FORM = "multipart/form-data; boundary=x"


def wanted(base: str, apple: bytes) -> Any:
    return post(base, "/score", {"input_data": [{"image": in_base64(apple)}]}).json()


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    return (
        b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
        + end
    )


def part(name: str, more: str = "") -> str:
    return f'Content-Disposition: form-data; name="{name}"{more}'


def read(body: bytes, kind: str = FORM) -> uploads.Upload:
    others = ("params", "labels", "model")
    return uploads.read(Message(body, kind, most_rows=50), *others)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "Image/X-Any; a=b"])
def test_an_image_as_it_is(base: str, apple: bytes, kind: str) -> None:
    """Its type is judged by its bytes."""
    check_alike(post(base, "/score", apple, kind).json(), wanted(base, apple))


def test_a_form_of_several_rows(base: str, apple: bytes) -> None:
    files = [
        ("image", ("a.png", apple, "image/png")),
        ("text", (None, "a boat")),
        ("image", (None, in_base64(apple))),
        ("params", (None, json.dumps({"normalize": True}))),
    ]
    records = requests.post(f"{base}/score", files=files, timeout=60).json()
    assert [list(record) for record in records] == [
        ["image_features"],
        ["text_features"],
        ["image_features"],
    ]
    check_alike(records[0], records[2])
    assert np.linalg.norm(records[1]["text_features"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_as_curl_sends_them(base: str, apple: bytes) -> None:
    file = SAMPLES / "images" / "apple.png"
    for options in (
        ["-F", f"image=@{file}"],
        ["--data-binary", f"@{file}", "-H", "Content-Type: image/png"],
    ):
        command = ["curl", "--silent", *options, f"{base}/score"]
        came = subprocess.run(command, capture_output=True, check=True, timeout=60)
        check_alike(json.loads(came.stdout), wanted(base, apple))


def test_classes_of_a_form(base: str, apple: bytes) -> None:
    files = [
        ("image", ("a.png", apple, "image/png")),
        ("labels", (None, '["a red apple", "a boat"]')),
    ]
    answer = requests.post(f"{base}/v1/classify", files=files, timeout=60).json()
    assert answer["data"][0]["labels"][0]["label"] == "a red apple"


def test_refusals_over_a_socket(base: str, apple: bytes) -> None:
    assert "image" in post(base, "/score", b"no image", "image/png").json()["error"]["message"]
    assert post(base, "/score", b"", "image/png").json()["error"]["rows"][0]["code"] == "empty_row"
    many = form(*[(part("text"), b"a")] * 51)
    assert post(base, "/score", many, FORM).status_code == 413
    assert post(base, "/score", form(*[(part("text"), b"a")] * 500), FORM).status_code == 413
    assert "labels" in post(base, "/v1/classify", apple, "image/png").json()["error"]["message"]
    assert refused(base, "/v1/classify", {"image": "x"})["error"]["code"] == "bad_field"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "does not end with its boundary"),
        (b"--x", "does not end"),
        (form((part("text"), b"a"), end=b""), "does not end"),
        (b"--xy\r\n\r\n--x--", "does not follow its boundary"),
        (b"--x\r\nno headers\r\n--x--", "no end of its headers"),
        (b"--x\r\n\r\ndata\r\n--x--", "no name"),
        (form((part("text") + "; a=b" * 400_000, b"a")), "or long ones"),
        (form(("Content-Disposition: form-data", b"a")), "no name"),
        (form((part("text") + "\r\nContent-Transfer-Encoding: base64", b"YQ==")), "is encoded"),
        (form((part("params"), b"{}"), (part("params"), b"{}")), "twice"),
        (form((part("params"), b"{")), "the part 'params' is not JSON"),
        (form((part("file", '; filename="a.png"'), b"\x89PNG")), "'file' is a file: name it"),
    ],
)
def test_broken_forms(body: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read(body)


def test_a_part_that_is_none_of_the_forms_is_told_with_those_that_are(base: str) -> None:
    """`curl -F foo=bar`, whose value is no JSON."""
    for path, parts in (
        ("/score", "'params'"),
        ("/v1/classify", "'model', 'labels', 'ontology', 'confidence'"),
    ):
        answer = post(base, path, form((part("foo"), b"bar")), FORM)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "bad_field")
        assert error["message"].startswith("a form has no part 'foo' here: 'image' and 'text'")
        assert error["message"].endswith(f"beside them it may have {parts}")


@pytest.mark.parametrize("kind", [FORM, "image/png"])
def test_a_path_that_takes_no_uploads_says_so(base: str, apple: bytes, kind: str) -> None:
    body = form((part("text"), b"a")) if kind == FORM else apple
    answer = post(base, "/v1/embeddings", body, kind)
    check_refusal("/v1/embeddings", answer)
    said = f"'{kind.partition(';')[0]}' is not read at /v1/embeddings, but at /score; send "
    assert answer.status_code == 415
    assert answer.json()["error"]["message"] == f"{said}application/json"
    body = {"input": ["a"]}
    assert post(base, "/v1/embeddings", body, kind).status_code == 200, "JSON by another name"


@pytest.mark.parametrize("data", [b"emoji", b'"emoji"'])
def test_a_model_is_named_as_it_is_or_in_quotes(data: bytes) -> None:
    assert read(form((part("text"), b"a"), (part("model"), data))).fields.take("model") == "emoji"


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=é",
        f"multipart/form-data; boundary={'x' * 71}",
    ],
)
def test_boundaries(kind: str) -> None:
    with pytest.raises(RequestError, match="boundary of 1 to 70"):
        read(form((part("text"), b"a")), kind)


def test_bytes_are_not_changed() -> None:
    data = b"\r\n--\r\n\0\xff--x-\r\n--y\r\n\n\r"
    upload = read(b"preamble\r\n" + form((part("image", '; filename="a"'), data)) + b"epilogue")
    assert upload.rows == [Row(image=data)]


@given(st.binary(max_size=300))
def test_any_data_comes_through(data: bytes) -> None:
    if b"\r\n--x" not in b"\r\n" + data:
        assert read(form((part("image", "; filename=a"), data))).rows == [Row(image=data)]


@given(
    st.lists(
        st.sampled_from(
            [
                b"--x",
                b"\r\n",
                b"--",
                b"Content-Disposition: form-data; name=a",
                b";",
                b"\0",
                b"\xff",
                b":",
                b"boundary",
            ]
        ),
        max_size=20,
    )
)
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    with contextlib.suppress(RequestError):
        read(b"".join(pieces))


def test_text_that_is_no_utf_8_fails_its_row() -> None:
    (row,) = read(form((part("text"), b"\xff"))).rows
    assert "UTF-8" in str(row.text)


def test_a_form_is_divided_without_copies_of_it() -> None:
    data = b"a" * 8 * 2**20
    body = form((part("text"), data), (part("image", '; filename="a"'), data))
    tracemalloc.start()
    try:
        rows = read(body).rows
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == [Row(text=data.decode()), Row(image=data)]
    assert most < 1.1 * len(body), "the rows' own cells, and no copy beside them"
