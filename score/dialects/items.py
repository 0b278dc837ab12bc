"""An item of a list of inputs → a row with one image or one text."""

from __future__ import annotations

from score.contract import wire
from score.contract.rows import IMAGE, TEXT, Row
from score.dialects.fields import Fields
from score.errors import BadField

_TOKENS = (
    "token ids belong to the tokenizer that made them, which is not this model's: send texts "
    "(LangChain: check_embedding_ctx_length=False)"
)


def rows_of(value: object, field: str, *, images: bool = False) -> list[Row]:
    """The rows of one item or of a list of them; at least one. Raises BadField.

    images: strings are images.
    """
    if not isinstance(value, list):
        return [row_of(value, field, images=images)]
    if not value:
        raise BadField(f"{field!r} is an empty list", field)
    if all(type(item) is int for item in value):
        raise BadField(f"{field!r}: {_TOKENS}", field)
    return [row_of(item, f"{field}[{number}]", images=images) for number, item in enumerate(value)]


def row_of(item: object, field: str, *, images: bool = False) -> Row:
    """The row of `{"text": …}`, `{"image": …}` or a string. Raises BadField.

    A string is a text, but for a `data:` URI of an image, which nobody means as one.
    """
    if isinstance(item, str):
        return Row(image=item) if images or is_image_data(item) else Row(text=item)
    if isinstance(item, dict):
        fields = Fields(item, field)
        name, value = fields.one_of(TEXT, IMAGE)
        fields.end()
        if not isinstance(value, str):
            raise BadField(f"{field}.{name} must be a string, not {wire.kind(value)}", field)
        return Row(text=value) if name == TEXT else Row(image=value)
    if isinstance(item, list) and item and all(type(number) is int for number in item):
        raise BadField(f"{field!r}: {_TOKENS}", field)
    raise BadField(f"{field!r} must be a string or an object, not {wire.kind(item)}", field)


def row_of_part(part: object, where: str) -> Row:
    """The row of a part of a message: `{"type": "text", "text"}` or `{"type": "image_url",
    "image_url": {"url"}}`. where: what errors call the part. Raises BadField.
    """
    fields = Fields(part, where)
    if fields.choice("type", ("text", "image_url")) == "text":
        row = Row(text=fields.text("text"))
    else:
        image = Fields(fields.take("image_url"), "'image_url'")
        row = Row(image=image.text("url"))
        image.ignore("detail")
        image.end()
    fields.end()
    return row


def is_image_data(text: str) -> bool:
    """Whether a text is a `data:` URI of an image."""
    return text[:11].lower() == "data:image/"
