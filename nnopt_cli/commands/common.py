"""How a command is declared, and what its body gets.

A command module holds one `COMMAND: CommandSpec`: a name, a help text, its arguments, the option
models whose fields are its flags, and a body. `nnopt_cli.app` makes a Typer command of it:

    class InspectOptions(Options):
        tensors: bool = option(True, help="List every tensor.")

    def body(context: Context) -> None:
        model = load(context.path("model"), key=context[ReadOptions].key)
        record = ...  # pure work, no printing
        context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)

    COMMAND = CommandSpec(
        name="inspect", help="Show what is in a model file.", panel=LOOK,
        arguments=(Arg("model", "The model file or folder."),),
        options=(ReadOptions, InspectOptions), body=body,
    )

`CommonOptions` (`--json`, `-v`, `-q`) are added to every command. Import heavy modules inside the body.
A body prints nothing but by `context.emit`; it may return an exit code (None is 0), and fails by
raising `NnoptError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.options import CommonOptions, ComputeOptions, ReportOptions
from nnopt_cli.report.text import printable
from nnopt_cli.run import Run

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.plugin.registry import Registry
    from nnopt_cli.report.record import Row

# panels of `nnopt --help`, in order
PASSES, FORMS, LOOK, PROJECT = "Passes", "Write a model in another form", "Look at a model", "Project"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Arg:
    """A positional argument; `multiple` ones take one or more values."""

    name: str
    help: str
    multiple: bool = False
    required: bool = True


@dataclass(frozen=True)
class CommandSpec:
    """One command, as data.

    Attributes:
        name: what is typed.
        help: what `--help` says; the first sentence stands in the list of commands.
        panel: the box of `nnopt --help` that it stands in.
        body: what it does; the returned exit code may be left out.
        arguments: its positional arguments, in order.
        options: the models whose fields are its flags.
        commands: commands below it (`plugins new`).
        lenient: whether it runs although NNOPT_STRICT_PLUGINS is set and a plugin is broken.
        flags_of: a kind of component whose options are flags of it, too.
        makes: in a recipe, whether what it writes is the model of the steps after it.
    """

    name: str
    help: str
    panel: str
    body: Callable[[Context], int | None]
    arguments: tuple[Arg, ...] = ()
    options: tuple[type[BaseModel], ...] = ()
    commands: tuple[CommandSpec, ...] = ()
    lenient: bool = False
    flags_of: str = ""
    makes: bool = False

    def models(self, registry: Registry) -> tuple[type[BaseModel], ...]:
        """The models of all its flags, with the options of the components of `flags_of` among them."""
        if not self.flags_of:
            return self.options
        from nnopt_cli.plugin.merged import merged

        return (*self.options, merged(self.flags_of, registry, (*self.options, CommonOptions)))


@dataclass
class Context:
    """What a command's body works with.

    Attributes:
        arguments: the positional arguments by name: a string, a tuple of strings, or None.
        options: the validated option models by class; `context[Model]` is shorter.
        registry: the plugins and their components.
        run: device, seed, threads, messages (stderr).
        console: where the result is shown (stdout).
        document: the result for `--json`, once `emit` was called.
    """

    arguments: Mapping[str, Any]
    options: Mapping[type[BaseModel], BaseModel]
    registry: Registry
    run: Run
    console: Console
    document: object = field(default=None)

    def __getitem__(self, model: type[M]) -> M:
        found = self.options[model]
        assert isinstance(found, model)
        return found

    def path(self, name: str) -> Path:
        """The argument `name` as a path. Raises UsageError for an empty one, which would be this folder."""
        if not self.arguments[name]:
            raise UsageError(f"{name.upper()} is empty", "Give the name of a file.")
        return Path(self.arguments[name])

    @property
    def report(self) -> Path | None:
        """Where `--report` wants a page, on a command that has it."""
        found = self.options.get(ReportOptions)
        return found.report if isinstance(found, ReportOptions) else None

    def emit(self, document: object, show: Callable[[Console], None], record: Row | None = None) -> None:
        """Give the result, once: with `--json` the JSON-able `document`, else `show(console)`.

        `record` is what `--report` makes a page of, on a command that has `ReportOptions`.
        """
        self.document = document
        if not self[CommonOptions].json_:
            show(self.console)
        if self.report is not None and record is not None:
            from nnopt_cli.commands.saving import save_report

            save_report(record, self.report)
            if not self[CommonOptions].json_ and self.run.verbose >= 0:
                self.console.print(f"Report in {printable(str(self.report))}", markup=False, soft_wrap=True)


def make_run(options: Mapping[type[BaseModel], BaseModel], console: Console) -> Run:
    """The `Run` that the shared options describe. Raises NnoptError for a device that is not there."""
    common = options[CommonOptions]
    assert isinstance(common, CommonOptions)
    run = Run(console=console, verbose=-1 if common.quiet else common.verbose)
    compute = options.get(ComputeOptions)
    if isinstance(compute, ComputeOptions):
        run.device = _device(compute.device)
        run.seed = compute.seed
        run.threads = compute.threads or run.threads
    return run


def device_of(asked: str, found: str) -> str:
    """For what computes with whole networks: a CUDA device where there is one and none was named."""
    import torch

    return "cuda" if asked == "auto" and torch.cuda.is_available() else found


def _device(name: str) -> str:
    if name in ("auto", "cpu"):
        return "cpu"
    import torch  # only here: it takes seconds

    kind, _, index = name.partition(":")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise NnoptError("--device mps: PyTorch finds no Metal device here", "Use --device cpu.")
        return name
    if not torch.cuda.is_available():
        raise NnoptError("--device cuda: PyTorch finds no CUDA device here", "Use --device cpu.")
    if int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return name


def peak_memory(run: Run) -> int:
    """Peak resident bytes of this process and its helpers so far; what they share counts in each."""
    from nnopt_cli.formats import syscalls

    return syscalls.peak_memory() + run.helpers_bytes
