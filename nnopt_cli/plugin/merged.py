"""The options of all components of a kind as flags of one command, which then uses one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.explain import explain
from nnopt_cli.plugin.fields import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nnopt_cli.plugin.registry import Registry


class ComponentFlags(BaseModel):
    """What was given for the components of a kind; a field that was not is not set."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    def build(self, cls: type[Component], registry: Registry) -> Component:
        """A component of `cls` from the flags.

        Raises UsageError: one that was given is no option of it, or does not fit.
        """
        given = {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }
        foreign = [name for name in given if name not in cls.model_fields]
        if foreign:
            owners = [c.name for c in registry.all(cls.kind) if foreign[0] in c.model_fields]
            raise UsageError(
                f"--{key_of(foreign[0])} is for the {cls.kind} {' or '.join(owners)}, and this is {cls.name}",
                "Leave it out, or write another kind of file.",
            )
        try:
            return cls.model_validate(given, context={"registry": registry, "allow_code": True})
        except ValidationError as error:
            raise explain(error, cls, flags=True) from None


def merged(kind: str, registry: Registry, taken: Iterable[type[BaseModel]]) -> type[ComponentFlags]:
    """One model with the options of every component of `kind`.

    Of equal names the first counts; one that `taken` have is left out (`NAME:key=value` still reaches it).
    """
    used = {name for model in taken for name in model.model_fields}
    fields: dict[str, Any] = {}
    for cls in registry.all(kind):
        for name, info in cls.model_fields.items():
            if name not in used:
                fields.setdefault(name, (info.annotation, info))
    made: type[ComponentFlags] = create_model("MergedFlags", __base__=ComponentFlags, **fields)
    return made
