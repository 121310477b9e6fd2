"""How several models become one: the members opened and checked, the fusion, and the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nnopt_cli.commands.common import Context, device_of
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.component import changed, option
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.fusion import Alignment, Fusion, Integers, Members, Weighting
from nnopt_cli.plugin.options import ComputeOptions, MemberOptions, ModelOptions, Options

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.model.provenance import Provenance
    from nnopt_cli.run import Run


class EnsembleOptions(Options):
    """How several models become one."""

    method: Fusion | None = option(None, help="How they are fused; by default auto: by what they are.")
    weights: tuple[str, ...] = option(
        (),
        help="How much each member counts: 0.7,0.3; or for some tensors only: 'layer4.*=0.5,0.5'.",
        metavar="[GLOB=]A,B,…",
    )
    base: Path | None = option(
        None, help="The ancestor that the members were fine-tuned from.", metavar="MODEL"
    )
    align: Alignment | None = option(
        None, help="Put the units of networks that were trained apart into one order first."
    )
    integers: Integers = option("max", help="Which value an integer tensor gets where members differ.")
    share_trunk: str | None = option(
        None,
        help="Fusing outputs: average so many of the lowest layers and compute them once; auto: as many as "
        "--data allow.",
        metavar="N|auto",
    )


@dataclass(frozen=True)
class Fused:
    """What several models became.

    Attributes:
        method: what was done, where that was left open.
        members: as they went in, aligned if that was done.
        fused: the result, with its record; its inputs are named when it is saved.
    """

    method: Fusion
    members: Members
    fused: Model

    @property
    def everyone(self) -> tuple[Model, ...]:
        """The members, and the base behind them."""
        return (*self.members.models, *([self.members.base] if self.members.base else ()))


def asked_for(context: Context) -> Fusion:
    """The method that was asked for; `auto` where none was."""
    asked = context[EnsembleOptions].method or context.registry.build("fusion", "auto")
    assert isinstance(asked, Fusion)
    return asked


def fuse(asked: Fusion, members: Members, context: Context) -> Fused:
    """Fuse `members` as `asked` and the options of `context` say. Raises NnoptError before any long work."""
    wanted, run = context[EnsembleOptions], context.run
    members = replace(members, data=_opened_data(context, asked, wanted.align, members))
    if wanted.align is not None:
        members = _aligned(asked, wanted.align, members, run)
    method, members = asked.chosen(members, run)
    _check(method, members, wanted)
    fused = method.fuse(members, run)
    if not hasattr(fused, "weights"):
        raise NnoptError(f"the fusion {method.name!r} returned {type(fused).__name__}, not a Model")
    made = Fused(method, members, fused)
    files = tuple(path for model in made.everyone for path in (model.path, *model.container.files))
    fused = replace(
        fused,
        provenance=_provenance(method, members, context),
        container=replace(fused.container, files=files),  # none of which may be written to
    )
    return replace(made, fused=fused)


def open_members(context: Context) -> Members:
    """The members and the base, opened and not yet read."""
    from nnopt_cli.plugin.opening import open_model

    wanted = context[EnsembleOptions]
    texts: Sequence[str] = context.arguments["model"]
    if len(texts) < 2:
        raise UsageError("one model is no ensemble", "Name two or more: nnopt ensemble a.pt b.pt")
    options = context[MemberOptions]
    models = [_opened(Path(text), options.of(place, len(texts)), context) for place, text in enumerate(texts)]
    for place, model in enumerate(models):
        if model.path.resolve() in [other.path.resolve() for other in models[:place]]:
            context.run.note(f"{model.path} is named twice, and counts twice.")
    base = None
    if wanted.base is not None:
        base = open_model(wanted.base, ModelOptions(key=options.key), context.registry)
    weighting = _weighting(wanted.weights, models)
    trunk = _trunk(wanted.share_trunk)
    return Members(tuple(models), weighting, base, None, wanted.integers, None, trunk)


def _opened(path: Path, options: ModelOptions, context: Context) -> Model:
    """One member; --arch and --input are for those that hold weights only."""
    from nnopt_cli.plugin.opening import load, open_model

    alone = load(path, key=options.key)
    if alone.rung == "graph" and (options.arch or options.input):
        return load(path, key=options.key, operators=options.operators)
    return open_model(path, options, context.registry)


def _trunk(text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--share-trunk {text}: is neither a number of layers nor auto")
    return int(text)


def _weighting(texts: Sequence[str], models: Sequence[Model]) -> Weighting:
    """`--weights`. Raises UsageError for other than one number per member, or a glob that matches nothing."""
    from nnopt_cli.model.naming import match

    everywhere: tuple[float, ...] | None = None
    patterns = []
    for text in texts:
        glob, equals, row = text.rpartition("=")
        try:
            numbers = tuple(float(part) for part in row.split(","))
        except ValueError:
            raise UsageError(f"--weights {text!r}: is not numbers with commas between") from None
        if len(numbers) != len(models):
            raise UsageError(
                f"--weights {text}: has {len(numbers)} numbers, and there are {len(models)} members"
            )
        if not all(abs(number) < float("inf") for number in numbers):
            raise UsageError(f"--weights {text}: is not finite")
        if equals:
            match(models[0].weights, glob)
            patterns.append((glob, numbers))
        elif everywhere is not None:
            raise UsageError("--weights is given twice for all tensors", "Give others as 'GLOB=A,B'.")
        else:
            everywhere = numbers
    return Weighting(everywhere, tuple(patterns))


def _opened_data(context: Context, method: Fusion, align: Alignment | None, members: Members) -> Any:
    options = context[DataOptions]
    for each in (method, align):
        if each is not None and each.needs_data and options.data is None:
            raise UsageError(f"{each.name} needs data", "Add --data FILE (or --data digits to try it out).")
    if options.data is None:
        return None
    context.run.device = device_of(context[ComputeOptions].device, context.run.device)
    return options.open(context.run, members.models[0])


def _aligned(method: Fusion, align: Alignment, members: Members, run: Run) -> Members:
    """The members with their units in one order, once it is known that this is of use."""
    from nnopt_cli.model.alike import check_alike

    if method.space == "outputs" and members.share_trunk is None:
        raise UsageError(f"--align is for averaging, and --method {method.name} leaves weights alone")
    check_alike(members.models)
    for model in members.models:
        model.require(align.needs)
    return replace(align.align(members, run), aligned=align)


def _check(method: Fusion, members: Members, wanted: EnsembleOptions) -> None:
    """All that can be known from headers."""
    from nnopt_cli.model.alike import check_alike

    names = f"--method {method.name}"
    if method.most is not None and len(members.models) > method.most:
        raise UsageError(
            f"{names} fuses {method.most} models, and there are {len(members.models)}",
            "karcher does the like for more than two." if method.name == "slerp" else None,
        )
    if method.base == "required" and members.base is None:
        raise UsageError(
            f"{names} works on what fine-tuning changed",
            "Name the model that all started from: --base MODEL.",
        )
    if method.base == "no" and members.base is not None:
        raise UsageError(f"{names} has no use for --base", "task-arithmetic, ties and model-stock have.")
    if method.needs_data and members.data is None:
        raise UsageError(f"{names} needs data", "Add --data FILE (or --data digits to try it out).")
    _check_sums(method, members)
    if method.space == "weights":
        if wanted.share_trunk is not None:
            raise UsageError(f"--share-trunk is for fused outputs, and {names} averages weights")
        check_alike([*members.models, *([members.base] if members.base else [])])
    for model in members.models:
        model.require(method.needs)
    method.check(members)


def _check_sums(method: Fusion, members: Members) -> None:
    for glob, numbers in members.weighting.given() if method.convex else ():
        total = sum(numbers)
        if abs(total - 1) <= 1e-6:
            continue
        given = ("" if glob == "*" else f"{glob}=") + ",".join(f"{number:g}" for number in numbers)
        scaled = ",".join(f"{number / total:.6g}" for number in numbers) if total > 0 else ""
        raise UsageError(
            f"--weights {given}: sums to {total:g}, not to one",
            f"In the same proportions: {scaled}." if scaled else "Weights of an average sum to one.",
        )


def _provenance(method: Fusion, members: Members, context: Context) -> Provenance:
    """A record that begins with the fusion: the members' own histories lie behind their hashes."""
    from nnopt_cli.model.provenance import Provenance

    step: dict[str, Any] = {"pass": "ensemble", "method": method.spec()}
    if members.weighting.given():
        step["weights"] = [row_of(glob, numbers) for glob, numbers in members.weighting.given()]
    if members.aligned is not None:
        step["align"] = members.aligned.spec()
    if members.base is not None:
        step["base"] = members.base.path.name
    if members.integers != "max":
        step["integers"] = members.integers
    if members.share_trunk is not None:
        step["share_trunk"] = str(members.share_trunk)
    if context[DataOptions].data is not None:
        step |= changed(context[DataOptions])
    run = context.run
    return Provenance().then({**step, **({"seed": run.seed} if run.seed else {})})


def row_of(glob: str, numbers: Sequence[float]) -> str:
    return ("" if glob == "*" else f"{glob}=") + ",".join(f"{number:g}" for number in numbers)
