"""Hugging Face's zero-shot image classification: `POST /models/{model}`."""

from __future__ import annotations

from collections.abc import Sequence

from score.contract import wire
from score.contract.labels import LONGEST_PROMPT, Labels, labels_of
from score.contract.params import Params
from score.contract.rows import IMAGE, Record, Row
from score.dialects import schemas
from score.dialects.base import RED_SQUARE, Call, Message, ModelFacts, Route, refuse_plainly
from score.dialects.classify import scores
from score.dialects.fields import Fields
from score.dialects.schemas import Bounds, Schema
from score.errors import BadField, RequestTooLarge

TEMPLATE = "This is a photo of {}."
"""What the library's pipeline makes of a label where the request has no template."""


def parse(message: Message) -> Call:
    """One image in `inputs`, `candidate_labels` in `parameters`. Raises RequestError."""
    fields = Fields(message.json())
    row = _row(fields)
    labels = _labels(Fields(fields.take("parameters"), "'parameters'"))
    fields.ignore("options")
    fields.end()
    return Call([row], Params(labels=labels), _answer, message.model, number=0)


def _row(fields: Fields) -> Row:
    """An image in base64 or behind a URL; older clients send it as an object."""
    inputs = fields.take("inputs")
    if isinstance(inputs, dict):
        image = Fields(inputs, "'inputs'")
        inputs = image.take(IMAGE)
        image.end()
    if not isinstance(inputs, str):
        raise BadField(
            f"'inputs' must be an image, in base64 or a URL, not {wire.kind(inputs)}", "inputs"
        )
    return Row(image=inputs)


def _labels(fields: Fields) -> Labels:
    names = fields.take("candidate_labels")
    template = fields.text("hypothesis_template")
    template = TEMPLATE if template is None else template
    fields.end()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadField("'candidate_labels' must be a list of strings", "candidate_labels")
    if "{}" not in template:
        raise BadField("'hypothesis_template' needs {} where the label goes", "hypothesis_template")
    if len(set(names)) < len(names):
        raise BadField("'candidate_labels' has a label twice", "candidate_labels")
    if len(template) > LONGEST_PROMPT:
        raise RequestTooLarge(
            f"'hypothesis_template' may have {LONGEST_PROMPT:,} characters at most"
        )
    labels = labels_of((name, name) for name in names)  # before prompts are made of long ones
    return labels_of((name, template.replace("{}", name)) for name in labels.names)


def _answer(records: Sequence[Record], model: ModelFacts) -> object:
    return scores(records[0])


def _schema(bounds: Bounds) -> Schema:
    labels = {**schemas.listed(schemas.LABEL, bounds.prompts, 1), "uniqueItems": True}
    template = {
        **schemas.STRING,
        "maxLength": LONGEST_PROMPT,
        "pattern": r"\{\}",
        "default": TEMPLATE,
    }
    parameters = schemas.closed(
        {"candidate_labels": labels, "hypothesis_template": schemas.nullable(template)},
        ["candidate_labels"],
    )
    image = schemas.closed({IMAGE: schemas.IMAGE_TEXT}, [IMAGE])
    inputs = {"anyOf": [schemas.IMAGE_TEXT, image]}
    return schemas.closed(
        {"inputs": inputs, "parameters": parameters, "options": schemas.IGNORED},
        ["inputs", "parameters"],
    )


ZERO_SHOT = Route(
    path="/models/{model:path}",
    summary="Hugging Face's zero-shot image classification",
    parse=parse,
    refuse=refuse_plainly,
    schema=_schema,
    example={
        "inputs": RED_SQUARE,
        "parameters": {"candidate_labels": ["red", "blue"], "hypothesis_template": "a {} square"},
    },
    answer=[{"label": "red", "score": 0.98}, {"label": "blue", "score": 0.02}],
)
