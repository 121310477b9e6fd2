"""`Registry`: which components there are, and building one from what a user wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.code import load_class
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.explain import explain, unknown_option
from nnopt_cli.plugin.fields import shape
from nnopt_cli.plugin.spec import Spec, parse


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `nnopt`, and what became of it.

    Attributes:
        name: the entry point's name.
        module: what it points to.
        distribution: the installed package that declares it.
        version: that package's version.
        builtin: whether it is nnopt's own.
        state: `loaded`; `broken` (left out, `why` says the reason); or `off` (not asked for).
        why: why it was left out.
        components: what it provides.
        heavy: heavy libraries that it imports at its top, which makes every command slow.
        seconds: what importing it took.
    """

    name: str
    module: str
    distribution: str
    version: str
    builtin: bool
    state: Literal["loaded", "broken", "off"]
    why: str = ""
    components: tuple[type[Component], ...] = ()
    heavy: tuple[str, ...] = ()
    seconds: float = 0.0

    def broken(self, why: str) -> Plugin:
        """The same plugin, left out because of `why`."""
        return replace(self, state="broken", why=why, components=())


class Registry:
    """The components by kind and name, and the plugins that they came from."""

    def __init__(self, commands: Iterable[str] = ()) -> None:
        """`commands`: names that no pass may take, because they are commands of nnopt."""
        self.plugins: list[Plugin] = []
        self._kinds: dict[str, dict[str, type[Component]]] = {}
        self.commands = frozenset(commands)
        self._owner: dict[type[Component], str] = {}
        self._own_code: dict[str, type[Component]] = {}

    def add(self, components: Iterable[type[Component]], owner: str) -> None:
        """Register all of them, or, where a name is taken, none: then NnoptError says which."""
        fresh: dict[tuple[str, str], type[Component]] = {}
        for cls in components:
            place = (cls.kind, cls.name)
            if cls.kind == "pass" and cls.name in self.commands:
                raise NnoptError(f"the name {cls.name!r} is taken: it is a command of nnopt")
            if place in fresh:
                raise NnoptError(f"it has two components called {cls.name!r} of kind {cls.kind}")
            if taken := self._kinds.get(cls.kind, {}).get(cls.name):
                raise NnoptError(
                    f"the {cls.kind} {cls.name!r} is taken: plugin {self._owner[taken]!r} has it"
                )
            fresh[place] = cls
        for (kind, name), cls in fresh.items():
            self._kinds.setdefault(kind, {})[name] = cls
            self._owner[cls] = owner

    def kinds(self) -> tuple[str, ...]:
        """The kinds that have components."""
        return tuple(sorted(self._kinds))

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of one kind's components, in the order in which they came."""
        return tuple(self._kinds.get(kind, {}))

    def all(self, kind: str) -> tuple[type[Component], ...]:
        """One kind's components, in the order in which they came."""
        return tuple(self._kinds.get(kind, {}).values())

    def get(self, kind: str, name: str) -> type[Component]:
        """The component of that name; `a_b` is `a-b`. Raises UsageError with close matches."""
        try:
            return self._kinds[kind][name.replace("_", "-")]
        except KeyError:
            known = self.names(kind)
            listed = f"There are: {', '.join(known)}." if known else "No plugin provides any."
            hint = " ".join(filter(None, (suggest(name, known), listed)))
            raise UsageError(f"there is no {kind} {name!r}", hint) from None

    def broken(self) -> list[Plugin]:
        """The plugins that were left out because something is wrong with them."""
        return [plugin for plugin in self.plugins if plugin.state == "broken"]

    def owner(self, cls: type[Component]) -> str:
        """The plugin that a component came from; an empty string for the user's own code."""
        return self._owner.get(cls, "")

    def build(self, kind: str, value: object, *, allow_code: bool = False) -> Component:
        """Make a component of `kind` from an object of it, a spec string, or a recipe's table.

        Args:
            kind: e.g. `criterion`.
            value: the object itself; `name:key=value,…`, a short form or `code:…`; `{"name": …, key: …}`.
            allow_code: whether `code:` may be followed. Only for what the user typed or wrote into a
                recipe of their own, never for what stands in a model file.

        Raises:
            UsageError: no such component or option, or a value that does not fit; close matches are named.
        """
        if isinstance(value, Component):
            if value.kind != kind:
                raise UsageError(f"{value.name!r} is of kind {value.kind}, not {kind}")
            return value
        if isinstance(value, str):
            found = None if value.startswith("code:") else self._short(kind, value)
            found = found or self._make(kind, parse(value), allow_code, typed=True)
        elif isinstance(value, Mapping):
            found = self._make(kind, _from_table(kind, value), allow_code, typed=False)
        else:
            raise UsageError(f"{value!r} is no {kind}", "Write its name, name:key=value,… or a table.")
        if found.runs_code and not allow_code:
            raise _unwelcome(found.spec())
        return found

    def _short(self, kind: str, text: str) -> Component | None:
        for cls in self.all(kind):
            try:
                found = cls.from_short(text)
            except ValidationError as error:
                raise explain(error, cls, flags=False, subject=f"{kind} {text!r}") from None
            except ValueError as error:
                raise UsageError(f"{kind} {text!r}: {error}") from None
            if found is not None:
                return found
        return None

    def _make(self, kind: str, spec: Spec, allow_code: bool, *, typed: bool) -> Component:
        cls = self._code(kind, spec, allow_code) if spec.module else self.get(kind, spec.name)
        subject = f"{kind} {spec.name!r}"
        values: dict[str, Any] = {}
        for key, value in spec.options.items():
            name = _field(cls, key)
            if name is None:
                message, hint = unknown_option(key, cls)
                raise UsageError(f"{subject}: {message}", hint)
            many = typed and isinstance(value, str) and shape(cls.model_fields[name]).form == "many"
            values[name] = [value] if many else value
        try:
            return cls.model_validate(values, context={"registry": self, "allow_code": allow_code})
        except ValidationError as error:
            raise explain(error, cls, flags=False, subject=subject) from None

    def _code(self, kind: str, spec: Spec, allow_code: bool) -> type[Component]:
        if not allow_code:
            raise _unwelcome(spec.name)
        if spec.name not in self._own_code:
            cls = load_class(kind, spec.module, spec.attribute)
            if cls not in self._owner:
                cls.name = spec.name  # so that its table, and a replay of it, name the code again
            self._own_code[spec.name] = cls
        return self._own_code[spec.name]


def _unwelcome(reference: str) -> UsageError:
    return UsageError(
        f"{reference!r} refers to code, which is not followed here",
        "Give it on the command line or in a recipe of your own.",
    )


def _from_table(kind: str, table: Mapping[Any, Any]) -> Spec:
    name = table.get("name")
    if not isinstance(name, str):
        raise UsageError(
            f"the table of the {kind} needs the key 'name'", f"It has: {', '.join(map(str, table))}."
        )
    spec = parse(name)
    return replace(spec, options={**spec.options, **{str(k): v for k, v in table.items() if k != "name"}})


def _field(cls: type[Component], key: str) -> str | None:
    """The field that `key` means: `n-m` is `n_m`, `lambda` is `lambda_`."""
    name = key.replace("-", "_")
    return next((field for field in (name, f"{name}_") if field in cls.model_fields), None)
