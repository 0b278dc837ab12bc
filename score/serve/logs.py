"""The server's log on stderr: one JSON object a line, or text."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from typing_extensions import override

from score.serve.request_log import CURRENT, ids
from score.settings import Settings


class JsonLines(logging.Formatter):
    """A record as a JSON object: time, level, logger, message, and the request's id if any."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)


class Text(logging.Formatter):
    """A record as a line of text for people."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """A line; more lines for an exception."""
        fields = " ".join(f"{name}={value}" for name, value in _context(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()} {fields}"
        if record.exc_info:
            line = f"{line.rstrip()}\n{self.formatException(record.exc_info)}"
        return line.rstrip()


def configure(settings: Settings) -> None:
    """Sends all logs to stderr, in the format and from the level of the settings.

    Libraries below `warning` are left out, since they might log what requests contain.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for ours in ("score", "uvicorn.error"):
        logging.getLogger(ours).setLevel(settings.log_level.upper())
    # Its information is about its own steps, which `score.serve` names.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(max(uvicorn.level, logging.WARNING))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _context(record: logging.LogRecord) -> dict[str, object]:
    """The record's own fields; for others, the id of the request that is being answered."""
    fields: dict[str, object] = getattr(record, "fields", {})
    request = CURRENT.get()
    return fields if fields or request is None else dict(ids(request))
