"""Settings: a frozen dataclass, read from a mapping such as the environment.

Each field `some_limit` is the environment variable `SCORE_SOME_LIMIT` and the flag `--some-limit`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal, get_args

from score import __version__
from score.errors import SettingError
from score.type_aliases import Precision
from score.validation import hosts, web
from score.wording.quoting import quoted
from score.wording.suggestions import suggestion

log = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "openvino"]
Verify = Literal["off", "quick", "full"]
Decoding = Literal["exact", "fast"]
WidePixels = Literal["scale", "reference", "error"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]

MIB = 2**20
PREFIX = "SCORE_"


USER_AGENT = f"clip-endpoints/{__version__} (no contact given; operators set SCORE_USER_AGENT)"
"""The default names no contact: the project runs no service, whoever deploys it does."""


def _setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    fault: Callable[[str], str] | None = None,
    secret: bool = False,
) -> Any:
    """A field. least: the smallest number. fault: text → what is wrong with it, or an empty string;
    of a tuple, of each entry. secret: left out of `repr`."""
    metadata = {"help": help, "least": least, "fault": fault}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment may configure. Times are in seconds, sizes in bytes."""

    # Downloads.
    allow_hosts: tuple[str, ...] = _setting(
        (),
        "host names, addresses or CIDR ranges that may be fetched although private: at all ports, "
        "or at one, as in minio.example:9000",
        fault=hosts.host_fault,
    )
    fetch_ports: tuple[str, ...] = _setting(
        ("80", "443"),
        "ports that public hosts are fetched from, beside those in allow_hosts; * for all",
        fault=hosts.port_fault,
    )
    connect_timeout: float = _setting(5.0, "seconds to connect to an image's server", least=0.01)
    read_timeout: float = _setting(10.0, "seconds to wait for the server's next bytes", least=0.01)
    row_deadline: float = _setting(30.0, "seconds for one image, retries included", least=0.01)
    request_deadline: float = _setting(
        60.0, "seconds for all the downloads of one request", least=0.01
    )
    max_redirects: int = _setting(5, "redirects followed for one image", least=0)
    max_retries: int = _setting(2, "retries of a failed download", least=0)
    retry_wait: float = _setting(
        0.25, "seconds before the first retry, doubled for each later one", least=0
    )
    per_host: int = _setting(
        64, "most downloads from one host at a time; fewer while it is slow or busy", least=1
    )
    fetch_workers: int = _setting(128, "downloads at a time, from all hosts together", least=1)
    ca_bundle: str = _setting("", "PEM file of extra certificate authorities to trust")
    user_agent: str = _setting(
        USER_AGENT,
        "User-Agent header of downloads: name a contact, some servers refuse clients without one",
        fault=web.user_agent_fault,
    )
    respect_robots_tag: bool = _setting(
        False,
        "refuse images whose X-Robots-Tag says noai, noimageai, noindex, noimageindex or none",
    )
    proxy: str = _setting(
        "",
        "HTTP proxy for downloads, http://[user:password@]host:port; it resolves host names, so it "
        "then decides which addresses they may lead to",
        fault=web.proxy_fault,
        secret=True,
    )

    # Images.
    max_image_bytes: int = _setting(
        20 * MIB, "bytes of the largest encoded image (inline in a CSV: at most 45 MiB)", least=1
    )
    # Pillow refuses 178,956,971 pixels and more by itself.
    max_pixels: int = _setting(
        50_000_000, "pixels of the largest image, width times height", least=1
    )
    exif_orientation: bool = _setting(
        False, "rotate images by their EXIF orientation (the reference does not)"
    )
    decoding: Decoding = _setting(
        "exact",
        "exact: the reference's pixels; fast: large JPEGs decoded at half their size or less",
    )
    wide_pixels: WidePixels = _setting(
        "scale",
        "16-bit grey and float images: scale to 8 bits, clip as the reference, or a row error",
    )

    # Requests.
    request_timeout: float = _setting(
        0.0, "seconds for one request as a whole, which is refused then; 0: no limit", least=0
    )
    max_request_bytes: int = _setting(64 * MIB, "bytes of the largest request body", least=1)
    max_request_rows: int = _setting(10_000, "most rows in one request", least=1)
    max_request_pixels: int = _setting(
        2_500_000_000, "pixels of all images of one request together; 0: no limit", least=0
    )
    max_prompts: int = _setting(2_000, "most prompts in one request's labels", least=1)
    max_scores: int = _setting(
        200_000, "rows × labels of one request, of 32 characters on average; 0: no limit", least=0
    )
    max_answer_bytes: int = _setting(
        256 * MIB, "bytes of the vectors in one answer, about; 0: no limit", least=0
    )

    # All requests of a process together. What does not fit is refused: 429, with a Retry-After.
    max_pending_requests: int = _setting(
        256,
        "requests under way at a time, three quarters of them with images; 0: no limit",
        least=0,
    )
    max_pending_rows: int = _setting(20_000, "rows of all requests under way; 0: no limit", least=0)
    max_pending_bytes: int = _setting(
        512 * MIB, "bytes of all requests under way; 0: no limit", least=0
    )
    max_wait: float = _setting(
        10.0,
        "seconds that a request may have to wait for others before it is refused; 0: no limit",
        least=0,
    )

    # `score serve` alone: who may use it, and TLS.
    api_keys_file: str = _setting("", "file of the keys that requests need, from `score key new`")
    tls_cert: str = _setting("", "PEM file of the server's certificate and its intermediate ones")
    tls_key: str = _setting("", "PEM file of the certificate's private key")
    cors_origin: tuple[str, ...] = _setting(
        (),
        "origins of web pages that may use the server, comma-separated; * for all",
        fault=web.origin_fault,
    )

    # The model.
    device: str = _setting("auto", "cpu, cuda, cuda:1, …; auto uses a GPU if one works")
    precision: Precision = _setting(
        "auto",
        "of the arithmetic; auto: the fastest one whose probes reach cosine 0.9999, else fp32",
    )
    engine: EngineName = _setting(
        "auto",
        "library that runs the model; auto: openvino where it is installed, passes the probes, and "
        "is measured faster on this machine, else torch; for int8 openvino",
    )
    cache: str = _setting("~/.cache/clip-endpoints", "folder for compiled OpenVINO models")
    verify: Verify = _setting(
        "quick",
        "which of the package's probes loading checks: none, the first vectors only, or all",
    )
    batch_size: int = _setting(
        0, "images in one forward pass; 0: 32, and 128 on an NVIDIA GPU", least=0
    )
    decode_workers: int = _setting(0, "images decoded at a time; 0: one per CPU core", least=0)

    log_level: LogLevel = _setting("info", "lowest level that is logged")

    # `score serve` alone: when its models are loaded.
    load_on_first_use: bool = _setting(
        False, "load a model when the first request asks for it, not at the start"
    )
    unload_after: float = _setting(
        0.0, "seconds without a request after which a model is unloaded; 0: never", least=0
    )

    # `score serve` alone: its connections, how it stops, its log.
    max_connections: int = _setting(
        512, "connections served at a time; further ones get a 503", least=1
    )
    header_timeout: float = _setting(
        10.0, "seconds for a request's headers, from the connection or their first byte", least=0.1
    )
    body_timeout: float = _setting(
        30.0, "seconds to wait for the next bytes of a body, or for a client to read", least=0.1
    )
    min_body_rate: int = _setting(
        4096, "bytes a second below which a body is given up after body_timeout", least=0
    )
    keep_alive_timeout: float = _setting(
        75.0, "seconds that a connection may be idle between requests", least=0
    )
    shutdown_delay: float = _setting(
        0.0, "seconds of SIGTERM during which new requests are still answered", least=0
    )
    shutdown_timeout: float = _setting(
        25.0, "most seconds after that to answer the requests under way", least=0.1
    )
    log_format: LogFormat = _setting("json", "of the server's log: a JSON object a line, or text")

    def __post_init__(self) -> None:
        if not self.cache:
            raise SettingError("cache must name a folder")
        for field in setting_fields():
            value, least = getattr(self, field.name), field.metadata["least"]
            _check_type(field, value)
            if least is not None and not least <= value < float("inf"):
                raise SettingError(f"{field.name} must be at least {least:g}, not {quoted(value)}")
            for text in value if isinstance(value, tuple) else (value,):
                _check(field, field.name, text)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], otherwise: Mapping[str, object] | None = None
    ) -> Settings:
        """Settings from `SCORE_*` variables.

        `otherwise`: values by setting name, for variables that are unset or blank; settings in
        neither have their defaults. A variable `SCORE_…` that is no setting is logged as a warning
        and ignored: it may be another program's. Raises SettingError.
        """
        for name in otherwise or {}:
            if name not in names():
                hint = suggestion(name, names())
                raise SettingError(
                    f"there is no setting {quoted(name)}, only {', '.join(names())}{hint}"
                )
        variables = [_variable(name) for name in names()]
        for variable in sorted(environ):
            if variable.startswith(PREFIX) and environ[variable] and variable not in variables:
                hint = suggestion(variable, variables, PREFIX)
                log.warning("%s is no setting, and is ignored%s", quoted(variable)[1:-1], hint)
        fallbacks = {
            name: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            for name, value in (otherwise or {}).items()
            if value not in (None, "")
        }
        caches = environ.get("XDG_CACHE_HOME", "")  # replaces ~/.cache
        if PurePath(caches).is_absolute():  # as it has to be
            fallbacks = {"cache": f"{caches}/clip-endpoints", **fallbacks}
        values = {
            name: environ[_variable(name)].strip()
            for name in names()
            if environ.get(_variable(name), "").strip()
        }
        return cls().replace(fallbacks, spelled=str).replace(values)

    def replace(
        self, texts: Mapping[str, str], *, spelled: Callable[[str], str] | None = None
    ) -> Settings:
        """These settings with some replaced. Raises SettingError.

        texts: values by setting name, as text. spelled: a setting's name → how errors name it, by
        default as an environment variable.
        """
        values = {field.name: getattr(self, field.name) for field in setting_fields()}
        for field in setting_fields():
            if field.name in texts:
                where = (spelled or _variable)(field.name)
                values[field.name] = _parse(field, where, texts[field.name])
        return Settings(**values)


def setting_fields() -> tuple[Field[Any], ...]:
    """The settings' dataclass fields; `metadata["help"]` is the text for users."""
    return fields(Settings)


def choices(field: Field[Any]) -> tuple[str, ...]:
    """The values that a setting may have; empty for one without fixed choices."""
    return _CHOICES.get(field.name, ())


def names() -> list[str]:
    """The settings' names, as the fields have them."""
    return [field.name for field in setting_fields()]


_CHOICES = {
    "precision": get_args(Precision),
    "engine": get_args(EngineName),
    "verify": get_args(Verify),
    "decoding": get_args(Decoding),
    "wide_pixels": get_args(WidePixels),
    "log_level": get_args(LogLevel),
    "log_format": get_args(LogFormat),
}


_ON, _OFF = ("1", "true", "yes"), ("0", "false", "no")


SERVER = (
    "api_keys_file",
    "tls_cert",
    "tls_key",
    "cors_origin",
    "load_on_first_use",
    "unload_after",
    "max_connections",
    "header_timeout",
    "body_timeout",
    "min_body_rate",
    "keep_alive_timeout",
    "shutdown_delay",
    "shutdown_timeout",
    "log_format",
)
"""Settings that only `score serve` has flags for."""


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _parse(field: Field[Any], where: str, text: str) -> Any:
    if choices(field):
        _check_choice(field, where, text)
        return text
    default = field.default
    if isinstance(default, tuple):
        entries = tuple(part.strip() for part in text.split(",") if part.strip())
        for entry in entries:
            _check(field, where, entry)
        return entries
    if isinstance(default, bool):
        if text.lower() not in (*_ON, *_OFF):
            raise SettingError(f"{where} must be true or false, not {quoted(text)}")
        return text.lower() in _ON
    if isinstance(default, (int, float)):
        return _number(where, text, type(default), field.metadata["least"])
    _check(field, where, text)
    return text


def _check_type(field: Field[Any], value: object) -> None:
    """Raises SettingError for a value given in Python that is of another type, or no choice."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    kind = type(field.default)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        noun = kinds.get(kind, "a tuple")
        raise SettingError(f"{field.name} must be {noun}, not of type {type(value).__name__}")
    for entry in value if isinstance(value, tuple) else ():
        if not isinstance(entry, str):
            raise SettingError(f"{field.name} must be a tuple of strings, not of {quoted(entry)}")
    if choices(field):
        _check_choice(field, field.name, value)


def _check_choice(field: Field[Any], where: str, value: object) -> None:
    if value not in choices(field):
        raise SettingError(f"{where} must be {', '.join(choices(field))}, not {quoted(value)}")


def _check(field: Field[Any], where: str, text: str) -> None:
    """Raises SettingError for an unusable text; the message does not show it: it may be secret."""
    fault = field.metadata["fault"]
    if fault is not None and (problem := fault(text)):
        raise SettingError(f"{where} {problem}")


def _number(where: str, text: str, kind: type[int] | type[float], least: float) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise SettingError(f"{where} must be {noun}, not {quoted(text)}") from None
    if not least <= value < float("inf"):
        raise SettingError(f"{where} must be at least {least:g}, not {quoted(text)}")
    return value
