"""Classes and functions of PyTorch's own form as components: their arguments become options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, create_model

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import Component

# what an argument without a type of its own may be; the first that fits the text counts
Value = Annotated[int | float | bool | list[float] | str | None, Field(union_mode="left_to_right")]


def component_of(base: type[Component], target: Callable[..., Any], skip: int) -> type[Component]:
    """A component whose options are the arguments of `target`, which is kept as its `target`.

    Args:
        base: what the component extends; it has `target: ClassVar`.
        target: a class or a function.
        skip: how many of its first arguments are no options.

    Raises UsageError where an argument cannot be an option.
    """
    title = getattr(target, "__name__", type(target).__name__)
    try:
        arguments = list(inspect.signature(target).parameters.values())[skip:]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{title}: its arguments are unknown: {error}") from None
    fields: dict[str, Any] = {}
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        if argument.kind is argument.POSITIONAL_ONLY or argument.name.startswith("_"):
            raise UsageError(f"{title}: its argument {argument.name!r} cannot be given by name")
        if hasattr(base, argument.name):
            raise UsageError(f"{title}: its argument {argument.name!r} hides what every component has")
        if argument.default is not argument.empty or argument.name not in base.model_fields:
            fields[argument.name] = _field(argument, title)
    made = create_model(title, __base__=base, __module__=base.__module__, **fields)
    made.target = target  # type: ignore[attr-defined]
    made.__doc__ = _first_line(target) or f"{title}, in PyTorch's form."
    return made


def _field(argument: inspect.Parameter, title: str) -> tuple[Any, Any]:
    """The type and declaration of an option: its type is that of the default, where that says enough."""
    default = ... if argument.default is argument.empty else argument.default
    text = Field(default, description=f"Argument of {title}.")
    if isinstance(default, bool):
        return bool, text
    if isinstance(default, (int, float)):
        return float if isinstance(default, float) or argument.name == "lr" else int | float, text
    if isinstance(default, tuple) and default and all(isinstance(item, (int, float)) for item in default):
        return tuple[(float,) * len(default)], text  # type: ignore[misc]
    return Value, text


def _first_line(target: object) -> str:
    lines = (inspect.getdoc(target) or "").strip().splitlines()
    return lines[0] if lines else ""
