"""KServe's open inference protocol, version 2, with tensors as JSON."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from score.contract import wire
from score.contract.params import Params
from score.contract.rows import FEATURES, IMAGE, TEXT, Record, Row, is_empty
from score.dialects import schemas
from score.dialects.base import Call, Message, ModelFacts, Page, Reply, Route, refuse_plainly
from score.dialects.fields import Fields
from score.dialects.schemas import Bounds, Schema
from score.errors import BadField
from score.wording.quoting import quoted


def parse(message: Message) -> Call:
    """Tensors `image` and `text` of strings, of one length. Raises RequestError.

    The parameters are the contract's params, but for `on_error`: a tensor has no room for errors.
    """
    fields = Fields(message.json())
    name, inputs = fields.text("id"), fields.take("inputs")
    parameters = fields.take("parameters")
    fields.end()
    if not isinstance(inputs, list) or not inputs:
        raise BadField("'inputs' must be a list of tensors", "inputs")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict) or set(parameters) - {"normalize", "truncate"}:
        raise BadField("'parameters' may have 'normalize' and 'truncate'", "parameters")
    tensors = [_tensor(tensor) for tensor in inputs]
    columns = dict(tensors)
    if len(columns) < len(tensors) or len({len(cells) for cells in columns.values()}) > 1:
        raise BadField("the inputs must be distinct, and of one length", "inputs")
    rows = [
        Row(**dict(zip(columns, cells, strict=True)))
        for cells in zip(*columns.values(), strict=True)
    ]
    render = functools.partial(_answer, name, list(columns))
    return Call(rows, Params.parse(parameters), render, message.model)


def _tensor(tensor: object) -> tuple[str, list[object]]:
    """The name and the cells of a tensor of shape [rows] or [rows, 1]."""
    fields = Fields(tensor, "an input")
    name = fields.choice("name", (IMAGE, TEXT))
    datatype, shape, data = fields.text("datatype"), fields.take("shape"), fields.take("data")
    fields.end()
    if name is None or datatype != "BYTES" or not isinstance(data, list):
        raise BadField(
            "an input needs a 'name', 'image' or 'text', BYTES, and a list of data", "inputs"
        )
    if shape not in ([len(data)], [len(data), 1]) or any(type(size) is bool for size in shape):
        raise BadField(
            f"{name!r}: the shape must be [{len(data)}], the length of its data", "inputs"
        )
    for row, cell in enumerate(data):
        if not isinstance(cell, str) or is_empty(cell):
            shown = quoted(cell) if isinstance(cell, str) else wire.kind(cell)
            raise BadField(
                f"row {row}, {name}: must be a text that is not empty, not {shown}", "inputs"
            )
    return name, data


def _answer(
    name: str | None, columns: Sequence[str], records: Sequence[Record], model: ModelFacts
) -> object:
    outputs = []
    for column in columns:
        each = (
            record.image_features if column == IMAGE else record.text_features for record in records
        )
        vectors = [vector for vector in each if vector is not None]
        data: object = np.concatenate(vectors) if vectors else []
        shape = [len(records), model.dimension]
        about = {"name": f"{column}_features", "datatype": "FP32", "shape": shape}
        outputs.append({**about, "data": data})
    answer = {"model_name": model.name, "model_version": "1", "outputs": outputs}
    return answer if name is None else {"id": name, **answer}


def _live(models: Sequence[ModelFacts], message: Message) -> Reply:
    return Reply(200, {"live": True, "ready": True})


def _model(models: Sequence[ModelFacts], message: Message) -> Reply:
    """A model's tensors."""
    model = models[0]
    tensors = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in (IMAGE, TEXT)]
    shape = [-1, model.dimension]
    features = [{"name": name, "datatype": "FP32", "shape": shape} for name in FEATURES]
    about = {"name": model.name, "platform": "clip-endpoints", "versions": ["1"]}
    return Reply(200, {**about, "inputs": tensors, "outputs": features})


def _schema(bounds: Bounds) -> Schema:
    shape = schemas.listed({"type": "integer"}, 2, 1)
    tensor = schemas.closed(
        {
            "name": schemas.choice(IMAGE, TEXT),
            "datatype": {"const": "BYTES"},
            "shape": {**shape, "description": "[rows], or [rows, 1]"},
            "data": schemas.listed({**schemas.STRING, "pattern": r"\S"}, bounds.rows),
        },
        ["name", "datatype", "shape", "data"],
    )
    parameters = schemas.closed(
        {"normalize": {"type": "boolean", "default": False}, "truncate": schemas.TRUNCATE}
    )
    return schemas.closed(
        {
            "id": schemas.nullable(schemas.STRING),
            "parameters": schemas.nullable(parameters),
            "inputs": schemas.listed(tensor, 2, 1),
        },
        ["inputs"],
    )


INFER = Route(
    path="/v2/models/{model:path}/infer",
    summary="KServe's open inference protocol",
    parse=parse,
    refuse=refuse_plainly,
    schema=_schema,
    example={
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a photo of a cat"]}
        ]
    },
    answer={
        "model_name": "clip",
        "model_version": "1",
        "outputs": [
            {
                "name": "text_features",
                "datatype": "FP32",
                "shape": [1, 3],
                "data": [0.42, 0.13, -0.07],
            }
        ],
    },
)
PAGES = (
    Page("/v2/health/live", "whether the server is up, for KServe", _live, refuse_plainly, "live"),
    Page(
        "/v2/health/ready",
        "whether the server is ready, for KServe",
        _live,
        refuse_plainly,
        "ready",
    ),
    Page("/v2/models/{model:path}", "a model's tensors, for KServe", _model, refuse_plainly),
)
