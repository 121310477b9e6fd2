"""pydantic's validation errors in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.fields import BOUNDS_IN_WORDS, bounds_in_words, extra, key_of, limits, metavar, shape


def explain(error: ValidationError, model: type[BaseModel], *, flags: bool, subject: str = "") -> UsageError:
    """The same error as a usage error that names each option and what it may be.

    Args:
        error: what validating `model` raised.
        model: the options' class.
        flags: whether the options were given as flags (`--lr`) or as keys (`lr`).
        subject: what the keys belong to, e.g. `optimizer 'sgd'`; begins the message.
    """
    parts, hints = [], []
    details = error.errors(include_url=False)
    refused = {detail["loc"][0] for detail in details if len(detail["loc"]) > 1}
    for detail in details:
        if detail["type"] == "too_short" and detail["loc"][0] in refused:
            continue  # none is left, as the others say why
        message, hint = _one(detail, model, flags)
        parts.append(message)
        if hint and hint not in hints:
            hints.append(hint)
    message = "; ".join(dict.fromkeys(parts))
    return UsageError(f"{subject}: {message}" if subject else message, " ".join(hints) or None)


def _one(detail: Mapping[str, Any], model: type[BaseModel], flags: bool) -> tuple[str, str]:
    location, kind, value = detail["loc"], detail["type"], detail.get("input")
    if not location:
        return _said(detail), ""
    field = str(location[0])
    label = f"--{key_of(field)}" if flags else key_of(field).replace("-", "_")
    info = model.model_fields.get(field)
    if info is None:
        return unknown_option(field, model)
    if kind == "missing":
        return f"{label} is required", info.description or ""
    shown = _shown(value)
    choices = shape(info).choices
    if choices and kind in ("literal_error", "enum"):
        return f"{label} {shown}: must be one of {', '.join(choices)}", suggest(str(value), choices)
    allowed = limits(info)
    if kind == "string_pattern_mismatch" and "metavar" in extra(info):
        return f"{label} {shown}: is not {metavar(info)}", info.description or ""
    if kind in _NUMBERS or kind in _RANGES:
        words = [_NUMBERS[kind]] if kind in _NUMBERS else []
        bounds = bounds_in_words(info) or _bounds_of_item(detail)
        return f"{label} {shown}: must be {', '.join([*words, *bounds])}", ""
    if kind == "too_short":
        return f"{label}: takes at least {detail['ctx']['min_length']}", info.description or ""
    beside = f" (allowed: {allowed})" if allowed and kind != "value_error" else ""
    return f"{label} {shown}: {_said(detail)}{beside}", ""


_NUMBERS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a number of fewer digits",
    "float_parsing": "a number",
    "finite_number": "a finite number",
}
_RANGES = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_SHOWN = 60  # characters of a value


def _bounds_of_item(detail: Mapping[str, Any]) -> list[str]:
    """The bound that one of several values went over, which belongs to the values and not to the option."""
    found = detail.get("ctx") or {}
    return [f"{word} {found[key]:g}" for key, word in BOUNDS_IN_WORDS.items() if key in found]


def _shown(value: object) -> str:
    """What was given, as it was written, and not without end."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    text = ", ".join(repr(part) if isinstance(part, str) else str(part) for part in parts)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def unknown_option(key: str, model: type[BaseModel]) -> tuple[str, str]:
    """Message and hint for an option that `model` does not have."""
    known = [key_of(name).replace("-", "_") for name in model.model_fields]
    close = suggest(key, known)
    listed = f"Its options: {', '.join(known)}." if known else "It has no options."
    return f"there is no option {key!r}", " ".join(filter(None, (close, listed)))


def _said(detail: Mapping[str, Any]) -> str:
    raised = detail.get("ctx", {}).get("error")
    if raised is not None:
        return str(raised)
    message = str(detail["msg"]).replace("Input should be", "must be")
    return message.partition(", unable to")[0]
