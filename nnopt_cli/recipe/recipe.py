"""`Recipe`: a table of a model and steps, from a file of the user's or from a model's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.component import Component, changed
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions
from nnopt_cli.recipe.steps import (
    Command,
    CommandStep,
    PassStep,
    command_step,
    options_of,
    pass_step,
    paths_in,
    placed,
)
from nnopt_cli.recipe.syntax import read_table
from nnopt_cli.recipe.variables import combinations, escape, names_in, substitute

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Registry

OPTIONS = (ModelOptions, ComputeOptions)
MOST_STEPS = 1000
_OWN = ("model", "output", "vars", "steps")


@dataclass(frozen=True)
class Plan:
    """One run of a recipe, checked.

    Attributes:
        model: the input; None where the recipe leaves it to the command line.
        output: where the result goes; None for the usual name beside the input.
        reading: how the input is read.
        compute: device, seed and threads.
        first: commands that write the model on which the passes work.
        passes: what is done to the model, with one load and one save.
        last: commands on the result.
        variables: the values of this run.
        table: the recipe with them filled in.
    """

    model: Path | None
    output: Path | None
    reading: ModelOptions
    compute: ComputeOptions
    first: tuple[CommandStep, ...]
    passes: tuple[PassStep, ...]
    last: tuple[CommandStep, ...]
    variables: Mapping[str, Any]
    table: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A recipe before its variables are filled in.

    Attributes:
        origin: the file, for messages.
        table: what stands in it.
        own: whether the user wrote it, so that code it names may run. A model's record is nobody's own.
    """

    origin: str
    table: Mapping[str, Any]
    own: bool = True

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a file; its keys are checked, its steps are not yet. Raises UsageError."""
        recipe = cls(str(path), read_table(path))
        with placed(recipe.origin):
            recipe._check_keys()
        return recipe

    @classmethod
    def of_record(cls, origin: str, steps: Sequence[object]) -> Recipe:
        """The passes that a model's record names. It is untrusted: code in it is never followed."""
        return cls(origin, {"steps": list(steps)}, own=False)

    def runs(self, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The values of the variables, one table for each run. Raises UsageError."""
        with placed(self.origin):
            defaults = self.table.get("vars") or {}
            used = set(names_in({key: value for key, value in self.table.items() if key != "vars"}))
            for name in settings:
                if name not in defaults and name not in used:
                    known = sorted({*defaults, *used})
                    listed = f"Its variables: {', '.join(known)}." if known else "It has no variables."
                    hint = " ".join(filter(None, (suggest(name, known), listed)))
                    raise UsageError(f"--set {name}: the recipe has no such variable", hint)
            return combinations({**defaults, **settings})

    def plan(self, values: Mapping[str, Any], registry: Registry, commands: Iterable[Command]) -> Plan:
        """Fill in the variables and check every step, before anything is done.

        Raises UsageError that names the file, the step and the key, with close matches.
        """
        with placed(self.origin):
            table = {key: value for key, value in self.table.items() if key != "vars"}
            table = substitute(table, values) if self.own else table
            shared = {key: value for key, value in table.items() if key not in _OWN}
            options = options_of(shared, OPTIONS, registry, allow_code=self.own)
            reading, compute = options[ModelOptions], options[ComputeOptions]
            assert isinstance(reading, ModelOptions)
            assert isinstance(compute, ComputeOptions)
            first, passes, last = self._steps(table.get("steps"), registry, tuple(commands))
            return Plan(
                model=_path(table, "model"),
                output=_path(table, "output"),
                reading=reading,
                compute=compute,
                first=first,
                passes=passes,
                last=last,
                variables=dict(values),
                table={key: escape(value) for key, value in table.items()},
            )

    def _check_keys(self) -> None:
        known = [*_OWN, *(name for model in OPTIONS for name in model.model_fields)]
        for key in self.table:
            if str(key).replace("-", "_") not in known:
                hint = " ".join(filter(None, (suggest(str(key), known), f"Keys: {', '.join(known)}.")))
                raise UsageError(f"there is no key {key!r}", hint)
        if not isinstance(self.table.get("vars") or {}, Mapping):
            raise UsageError("vars: is not a table of names and values", "For example vars: {sparsity: 0.5}")

    def _steps(
        self, steps: object, registry: Registry, commands: tuple[Command, ...]
    ) -> tuple[tuple[CommandStep, ...], tuple[PassStep, ...], tuple[CommandStep, ...]]:
        if not isinstance(steps, list) or not steps:
            raise UsageError(
                "steps: there are none", "A step is a table such as {pass: prune, sparsity: 0.5}."
            )
        if len(steps) > MOST_STEPS:
            raise UsageError(f"steps: there are {len(steps):,}; {MOST_STEPS:,} is the most")
        first: list[CommandStep] = []
        passes: list[PassStep] = []
        last: list[CommandStep] = []
        makers = [command.name for command in commands if command.makes]
        for number, step in enumerate(steps, 1):
            with placed(_label(number, step)):
                kind = _kind(step, registry, commands)
                if kind == "command":
                    last.append(command_step(step, commands, registry, allow_code=self.own))
                    continue
                if wrong := next((each for each in last if passes or each.name not in makers), None):
                    raise UsageError(
                        f"a pass cannot follow the command {wrong.name!r}",
                        f"Put the passes together; before them only {' and '.join(makers)} may stand.",
                    )
                first, last = [*first, *last], []
                passes.append(pass_step(step, registry, allow_code=self.own))
                self._check_files(passes[-1])
        return tuple(first), tuple(passes), tuple(last)

    def _check_files(self, step: PassStep) -> None:
        """A record may name data to read, but no file that a pass would open or write by itself."""
        found = [] if self.own else list(paths_in(step.method))
        if found:
            raise UsageError(
                f"it names the file {str(found[0])!r}, which is not followed from a model's record",
                "Write the recipe with `nnopt recipe show MODEL --save FILE`, read it, and run that.",
            )


def _kind(step: object, registry: Registry, commands: Sequence[Command]) -> str:
    if not isinstance(step, Mapping):
        raise UsageError("is not a table", "Write {pass: prune, sparsity: 0.5}.")
    named = [key for key in ("pass", "command") if key in step]
    if len(named) == 1:
        kind = named[0]
        name = str(step[kind])
        if kind == "pass" and name in {command.name for command in commands}:
            raise UsageError(f"{name!r} is a command, not a pass", f"Write command: {name}")
        if kind == "command" and name in registry.names("pass"):
            raise UsageError(f"{name!r} is a pass, not a command", f"Write pass: {name}")
        return kind
    passes, known = registry.names("pass"), [command.name for command in commands]
    said = "has both a pass and a command" if named else "says neither pass nor command"
    raise UsageError(f"it {said}", f"Passes: {', '.join(passes)}. Commands: {', '.join(known)}.")


def _label(number: int, step: object) -> str:
    name = (step.get("pass") or step.get("command")) if isinstance(step, Mapping) else None
    return f"step {number} ({name})" if isinstance(name, str) else f"step {number}"


def _path(table: Mapping[str, Any], key: str) -> Path | None:
    value = table.get(key)
    if value is None or isinstance(value, str):
        return Path(value) if value else None
    raise UsageError(f"{key}: {value!r} is not the name of a file")


def table_of(
    model: Path | None, reading: ModelOptions, compute: ComputeOptions, output: Path | None, step: Component
) -> dict[str, Any]:
    """The recipe that repeats a pass: what `--save-recipe` writes."""
    table: dict[str, Any] = {} if model is None else {"model": str(model)}
    table |= changed(reading)
    if output is not None:
        table["output"] = str(output)
    table |= {key: value for key, value in changed(compute).items() if key != "threads"}
    options = {key: value for key, value in step.table().items() if key != "name"}
    table["steps"] = [{"pass": step.name, **options}]
    return {key: escape(value) for key, value in table.items()}
