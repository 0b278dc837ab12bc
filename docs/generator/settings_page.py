"""docs/reference/settings.md: every setting, from the definitions in score/settings.py."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from docs.generator.cli_page import commands, setting_flags
from docs.generator.markdown import page, sentence
from docs.generator.sources import VERSION, settings


def settings_page() -> str:
    """Every setting: its variable and flag, default, allowed values and meaning."""
    verbs = {name: set(setting_flags(parser)) for name, parser in commands()}
    servers = ", ".join(f"`--{flag(name)}`" for name in settings.SERVER)
    every = {f"--{flag(name)}" for name in settings.names() if name not in settings.SERVER}
    complete = ", ".join(f"`{verb}`" for verb, flags in verbs.items() if flags >= every)
    partial = " ".join(
        f"`{verb}` has {', '.join(f'`{name}`' for name in sorted(flags))} only."
        for verb, flags in verbs.items()
        if flags and not flags >= every
    )
    rows = "\n".join(setting_row(field) for field in settings.setting_fields())
    return page(
        "score/settings.py",
        "Settings",
        "A setting is an environment variable `SCORE_…` on every surface (server, Azure ML, MLflow,"
        f" Spark, Python) and a flag of {complete}. {partial} Those "
        f"of the server ({servers}) are flags of `score serve` alone.",
        "A flag overrides the variable, the variable overrides MLflow's `model_config`, and that "
        "overrides the default. A blank variable counts as unset. In Python, pass "
        "`Settings(name=value)` to `Embedder.load`. Times are in seconds, sizes in bytes.",
        f"| Setting | Default | Allowed values | Meaning |\n|---|---|---|---|\n{rows}",
    )


def setting_row(field: Field[Any]) -> str:
    """A setting's line in the table, with its name as the anchor."""
    variable = settings.PREFIX + field.name.upper()
    name = f'<a id="{field.name}"></a>`{variable}`<br>`--{flag(field.name)}`'
    return (
        f"| {name} | {default_of(field)} | {allowed(field)} | {sentence(field.metadata['help'])} |"
    )


def default_of(field: Field[Any]) -> str:
    """A setting's default, as written in an environment variable."""
    value: Any = field.default
    if value in ((), ""):
        return "none"
    if isinstance(value, tuple):
        value = ",".join(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    mib = f" ({value // settings.MIB} MiB)" if field.name.endswith("_bytes") else ""
    text = text.replace(VERSION, "VERSION")
    return text if " " in text else f"`{text}`{mib}"  # so that a sentence wraps


def allowed(field: Field[Any]) -> str:
    """The allowed values of a setting."""
    least = field.metadata["least"]
    fault = None if isinstance(field.default, tuple) else field.metadata["fault"]
    if choices := settings.choices(field):
        return ", ".join(f"`{choice}`" for choice in choices)
    if fault is not None:
        rule = fault("") or f"empty, or {fault(' ').removeprefix('must be ')}"
        return str(rule.removeprefix("must be "))
    kinds: dict[type, str] = {bool: "`true` or `false`", tuple: "comma-separated list", str: "text"}
    kinds |= {int: f"whole number ≥ {least}", float: f"number ≥ {least or 0:g}"}
    return kinds[type(field.default)]


def flag(name: str) -> str:
    """A setting's flag without the leading dashes."""
    return name.replace("_", "-")
