"""`Component`: a method as one small typed class.

A component is a frozen pydantic model. Its fields are its options, its docstring is its help, and
from that single declaration come flags, recipe keys, validation, JSON schema, docs and record.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from nnopt_cli.plugin.spec import write


def option(
    default: Any = ..., *, help: str, short: str | None = None, metavar: str | None = None, **bounds: Any
) -> Any:
    """One option of a component.

    Args:
        default: its default; required if left out.
        help: one sentence for `--help` and the docs.
        short: a one-letter flag, e.g. `-s`.
        metavar: what `--help` shows for the value, e.g. `FRACTION`.
        bounds: pydantic's constraints: `ge`, `gt`, `le`, `lt`, `pattern`, `min_length`, …
    """
    extra = {"short": short, "metavar": metavar}
    return Field(default, description=help, json_schema_extra={k: v for k, v in extra.items() if v}, **bounds)


class Component(BaseModel):
    """What every method is. Extend one of its kinds (`Pass`, `Criterion`, …), not this class.

    Class attributes:
        name: how it is called on the command line; by default the class name in kebab-case.
        kind: the kind's name, set by the kind.
        runs_code: whether its options name code of the user's, which is then run; such a component is built
            only from what the user typed or wrote.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        defer_build=True,  # `nnopt --help` looks at all components and validates none
    )

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    runs_code: ClassVar[bool] = False

    def __init_subclass__(cls, kind: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is not None:  # this class *is* a kind, not a component of one
            cls.kind = kind
            cls.name = ""
        elif "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def from_short(cls, text: str) -> Self | None:
        """Parse a short form of this component (`2:4`, `4x4`), or return None. It must match whole."""
        return None

    @classmethod
    def adopt(cls, found: object) -> type[Component] | None:
        """Make a component of this kind of something else that `code:` names; None where that cannot be."""
        return None

    @classmethod
    def options(cls) -> dict[str, FieldInfo]:
        """Its options by name."""
        return dict(cls.model_fields)

    def table(self) -> dict[str, Any]:
        """As a recipe writes it: the name, and the options that are not at their defaults."""
        return {"name": self.name, **changed(self)}

    def spec(self) -> str:
        """As the command line writes it: `name:key=value,…`; one with a short form may return that."""
        return write(self.table())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls.__name__ == "Component" or cls.name:
            return handler(source)

        def resolve(value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, cls):
                return value
            if not info.context or "registry" not in info.context:
                raise ValueError(f"give a {cls.kind} object, or validate with a registry to use names")
            allow_code = bool(info.context.get("allow_code"))
            return info.context["registry"].build(cls.kind, value, allow_code=allow_code)

        return core_schema.with_info_plain_validator_function(resolve, serialization=_AS_TABLE)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        if cls.__name__ == "Component" or cls.name:
            return dict(handler(schema))
        return {"type": ["string", "object"], "description": f"{cls.kind}: NAME, NAME:key=value,… or a table"}


def changed(options: BaseModel) -> dict[str, Any]:
    """The options that are not at their defaults, by their keys in a recipe, as JSON-able data."""
    out = {}
    for key, info in type(options).model_fields.items():
        value = getattr(options, key)
        if info.is_required() or value != info.get_default(call_default_factory=True):
            out[key.rstrip("_")] = plain(value)
    return out


def plain(value: Any) -> Any:
    """`value` as JSON-able data: components become tables."""
    if isinstance(value, Component):
        return value.table()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


_AS_TABLE = core_schema.plain_serializer_function_ser_schema(plain)
