"""Whether two things compute the same, on inputs to which they respond, at two of every size that varies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.check import distance
from nnopt_cli.model.inputs import Dim, InputSpec

if TYPE_CHECKING:
    from nnopt_cli.graph.sides import Side

STYLES = ("noise", "noise with all flags set", "positive values", "large values")
_RESPONSE = 4.0  # a difference must be so many times smaller than what the inputs change
_FLAT = 1e-6  # of the largest output: what changes less than that is as good as constant
SNR, TOP1 = 12.0, 0.8  # what a quantized model must reach: decibels, share of equal choices
_MARKED = 1e-3  # of the spread of the logits: where two choices are nearer, either is right

Measure = Literal["difference", "noise"]


@dataclass(frozen=True)
class Trial:
    """One run of both.

    Attributes:
        inputs: what was fed: `data`, or one of `STYLES`.
        sizes: of the dimensions that vary.
        difference: largest difference over largest output.
    """

    inputs: str
    sizes: dict[str, int]
    difference: float


@dataclass(frozen=True)
class Parity:
    """What comparing two gave.

    Attributes:
        against: what it was held against.
        measure: `difference`, or `noise` for what was rounded to few bits.
        trials: all runs that count.
        difference: the largest of all trials.
        tolerance: what it had to stay within; None for `noise`.
        snr: signal-to-noise ratio in decibels: variance of the outputs over variance of the error.
        top1: share of samples for which both choose the same class, where there are classes.
        fault: why the two are not proven to be the same; None where they are.
        notes: what the user should know.
    """

    against: str
    measure: Measure = "difference"
    trials: tuple[Trial, ...] = ()
    difference: float = 0.0
    tolerance: float | None = None
    snr: float | None = None
    top1: float | None = None
    fault: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the two compute the same."""
        return self.fault is None


@dataclass(frozen=True)
class _Found:
    """Outputs of both sides for two different inputs of one size."""

    want: list[list[Tensor]]
    got: list[list[Tensor]]
    difference: float


@dataclass
class _Work:
    want: Side
    got: Side
    tolerance: float
    trials: list[Trial] = field(default_factory=list)

    def run(self, style: str, sizes: dict[str, int], given: Sequence[list[Tensor]]) -> _Found:
        """Both sides on all of `given`. Raises NnoptError with what is wrong with the second one."""
        want = [self.want.call(each) for each in given]
        got = [self.got.call(each) for each in given]
        worst = 0.0
        for one, other in zip(want, got, strict=True):
            worst = max(worst, self._gap(one, other, sizes))
        self.trials.append(Trial(style, sizes, worst))
        return _Found(want, got, worst)

    def _gap(self, want: list[Tensor], got: list[Tensor], sizes: dict[str, int]) -> float:
        if len(want) != len(got):
            raise NnoptError(f"it has {len(got)} outputs instead of {len(want)}")
        for name, a, b in zip(self.want.outputs, want, got, strict=True):
            if a.shape != b.shape:
                raise NnoptError(f"its output {name} is of shape {list(b.shape)} instead of {list(a.shape)}")
            if a.is_floating_point() != b.is_floating_point():
                raise NnoptError(f"its output {name} is {str(b.dtype)[6:]} instead of {str(a.dtype)[6:]}")
        return distance(want, got)


def verify(
    want: Side,
    got: Side,
    *,
    tolerance: float,
    measure: Measure = "difference",
    data: Sequence[list[Tensor]] = (),
) -> Parity:
    """Hold `got` against `want`.

    They are fed real data where there are some, else made-up inputs; of these, others are tried until
    every output differs between two inputs, is finite and is not flat. Then every size that may vary is
    changed alone, the batch to 1 as well.

    Args:
        want: what is right.
        got: what is in question.
        tolerance: for the largest difference over the largest output.
        measure: `noise` holds `got` to `SNR` and, on data, to `TOP1` instead of `tolerance`.
        data: real inputs, in the order of `want.spec`: two or more different ones of one size.
    """
    blank = Parity(want.name, measure, tolerance=tolerance if measure == "difference" else None)
    if fault := _declared(want, got):
        return replace(blank, fault=fault)
    got = _in_order(want, got)
    work = _Work(want, got, tolerance)
    base = {**want.spec.sizes(2 if measure == "difference" else 16), **_within(want)}
    if measure == "noise" and want.spec.batch:
        base[want.spec.batch] = _number(_dim(want.spec, want.spec.batch), 16)
    found = _first(work, base, data, measure)
    if isinstance(found, str):
        return replace(blank, trials=tuple(work.trials), difference=_worst(work), fault=found)
    style, seen = found
    fault = _other_sizes(work, style if style != "data" else STYLES[0], base, measure)
    blank = replace(blank, trials=tuple(work.trials), difference=_worst(work))
    if measure == "noise":
        snr, top1 = _snr(seen), _top1(seen)
        real = style == "data"
        if fault is None and snr < SNR:
            where = "" if real else "; on made-up inputs, real ones say more"
            fault = f"its error is too large: {snr:.1f} dB, and {SNR:g} are needed{where}"
        if fault is None and real and top1 is not None and top1 < TOP1:
            fault = f"it chooses another class for {1 - top1:.0%} of the samples"
        return replace(blank, snr=snr, top1=top1, fault=fault)
    return replace(blank, fault=fault)


def _worst(work: _Work) -> float:
    return max((trial.difference for trial in work.trials), default=0.0)


def _declared(want: Side, got: Side) -> str | None:
    """What the two say about their inputs that cannot be reconciled."""
    ours, theirs = want.spec.inputs, got.spec.inputs
    if len(ours) != len(theirs):
        names = ", ".join(each.name for each in theirs) or "none"
        return f"it takes {len(theirs)} inputs ({names}), and {want.name} {len(ours)}"
    known = {each.name: each for each in theirs}
    for index, one in enumerate(ours):
        other = known.get(one.name, theirs[index])
        if len(one.shape) != len(other.shape):
            return f"its input {other.name} has {len(other.shape)} dimensions instead of {len(one.shape)}"
        for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)):
            if isinstance(a, Dim) and isinstance(b, int):
                return (
                    f"dimension {axis} of its input {other.name} is fixed to {b}, and may vary in {want.name}"
                )
            if isinstance(a, int) and isinstance(b, int) and a != b:
                return f"dimension {axis} of its input {other.name} is {b} instead of {a}"
    return None


def _in_order(want: Side, got: Side) -> Side:
    """`got`, fed in the order of `want`: by name where the names are the same, else by place."""
    names = [each.name for each in got.spec.inputs]
    ours = [each.name for each in want.spec.inputs]
    if sorted(names) != sorted(ours) or names == ours:
        return got
    places = [ours.index(name) for name in names]
    return replace(got, call=lambda given: got.call([given[place] for place in places]))


def _within(side: Side) -> dict[str, int]:
    """Sizes as the program was exported, in the ranges that it allows; the batch is ours to choose."""
    dims = {dim.name: dim for each in side.spec.inputs for dim in each.shape if isinstance(dim, Dim)}
    return {
        name: _number(dims[name], size)
        for name, size in side.sizes.items()
        if name in dims and name != side.spec.batch
    }


def _dim(spec: InputSpec, name: str) -> Dim:
    return next(d for each in spec.inputs for d in each.shape if isinstance(d, Dim) and d.name == name)


def _number(dim: Dim, wanted: int) -> int:
    return max(dim.low, wanted if dim.high is None else min(wanted, dim.high))


def draw(spec: InputSpec, sizes: dict[str, int], seed: int, style: str) -> list[Tensor]:
    """Made-up inputs of one of `STYLES`: normal noise, whole numbers below what each input allows."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for each in spec.inputs:
        shape = [s if isinstance(s, int) else sizes[s.name] * s.factor + s.offset for s in each.shape]
        kind = getattr(torch, each.dtype or "float32")
        if kind.is_floating_point or kind.is_complex:
            wide = torch.complex64 if kind.is_complex else torch.float32
            value = torch.randn(shape, generator=generator, dtype=wide)
            value = value.abs() if style == STYLES[2] else value * 8 if style == STYLES[3] else value
            out.append(value.to(kind))
            continue
        value = torch.randint(0, 2 if kind == torch.bool else each.below, shape, generator=generator)
        flags = kind == torch.bool or each.below == 2
        out.append((torch.ones_like(value) if flags and style == STYLES[1] else value).to(kind))
    return out


def _first(
    work: _Work, base: dict[str, int], data: Sequence[list[Tensor]], measure: Measure
) -> tuple[str, _Found] | str:
    """The first inputs on which the two agree and respond; else what is wrong."""
    why = "nothing was fed"
    attempts: list[tuple[str, Sequence[list[Tensor]]]] = [("data", data)] if data else []
    attempts += [(style, [draw(work.want.spec, base, seed, style) for seed in (0, 1)]) for style in STYLES]
    for style, given in attempts:
        sizes = base if style != "data" else _sizes_of(work.want.spec, given[0])
        try:
            found = work.run(style, sizes, given)
        except NnoptError as error:
            why = error.message
            return f"{_at(sizes)}{why}"
        if measure == "difference" and not found.difference <= work.tolerance:
            return _differs(work, found, sizes)
        silent = _silent(work.want, found, measure)
        if silent is None:
            return style, found
        work.trials.pop()  # agreement there proves nothing
        why = silent
    return f"unproven: {why}, whatever was fed; that the two agree there says nothing"


def _sizes_of(spec: InputSpec, given: list[Tensor]) -> dict[str, int]:
    return {
        dim.name: (size - dim.offset) // dim.factor
        for each, tensor in zip(spec.inputs, given, strict=True)
        for dim, size in zip(each.shape, tensor.shape, strict=True)
        if isinstance(dim, Dim)
    }


def _at(sizes: dict[str, int]) -> str:
    said = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    return f"where {said}, " if said else ""


def _differs(work: _Work, found: _Found, sizes: dict[str, int]) -> str:
    gaps = [
        (max(distance([w[i]], [g[i]]) for w, g in zip(found.want, found.got, strict=True)), name)
        for i, name in enumerate(work.want.outputs)
    ]
    gap, name = max(gaps)
    size = (
        "is not finite, or infinitely far away,"
        if math.isinf(gap)
        else f"differs by {gap:.2g} of the largest,"
    )
    return f"{_at(sizes)}its output {name} {size} and {work.tolerance:g} is allowed"


def _silent(want: Side, found: _Found, measure: Measure) -> str | None:
    """Why agreement would prove nothing: an output that is not finite, flat, or the same for both inputs."""
    for index, name in enumerate(want.outputs):
        if index in want.fixed:
            continue
        one, other = (outputs[index].detach().double() for outputs in found.want[:2])
        if not one.numel():
            return f"its output {name} is empty"
        finite = one.isfinite() & other.isfinite()
        if bool(one.isnan().any()) or not bool(finite.any()):
            return f"the output {name} is not finite"
        scale = float(one[finite].abs().max())
        response = float((one - other)[finite].abs().max()) / (scale or 1.0)
        if not response > _FLAT:
            return f"the output {name} is the same"
        if len(one[finite]) > 1 and float(one[finite].max() - one[finite].min()) <= _FLAT * scale:
            return f"the output {name} is all equal"
        near = found.difference * _RESPONSE > response and found.difference > _FLAT
        if near and measure == "difference":
            gap = f"{found.difference:.1g}"
            return f"the output {name} changes by {response:.1g} only, and the two differ by {gap}"
    return None


def _other_sizes(work: _Work, style: str, base: dict[str, int], measure: Measure) -> str | None:
    """Change every size alone, or with its equals. Gives what is wrong, with the dimension's name."""
    spec = work.want.spec
    for name, now in base.items():
        groups = [_others(_dim(spec, name), now)]
        if name == spec.batch and _dim(spec, name).low <= 1 < now:
            groups.append([1])
        for numbers in groups:
            for sizes in _changed(spec, base, name, numbers):
                number = sizes[name]
                given = [draw(spec, sizes, 2, style)]
                try:
                    work.want.call(given[0])
                except NnoptError:  # not a size that the model itself takes: another one
                    continue
                try:
                    found = work.run(style, sizes, given)
                except NnoptError as error:
                    return f"the size {name} is frozen: at {now} it runs, at {number} {error.message}"
                if measure == "difference" and not found.difference <= work.tolerance:
                    return (
                        f"the size {name} is frozen: at {now} it agrees, at {number} it differs by "
                        f"{found.difference:.2g} of the largest output ({work.tolerance:g} is allowed)"
                    )
                break
            else:
                if numbers != [1]:
                    return (
                        f"unproven: no second size of {name} was found that {work.want.name} itself runs at"
                    )
    return None


def _changed(spec: InputSpec, base: dict[str, int], name: str, numbers: list[int]) -> list[dict[str, int]]:
    """One size changed alone; then with all that equal it, as those of two inputs may belong together."""
    alike = [other for other, size in base.items() if size == base[name]]
    alone = [{**base, name: number} for number in numbers]
    together = [
        {**base, **dict.fromkeys(alike, number)}
        for number in numbers
        if all(_number(_dim(spec, other), number) == number for other in alike)
    ]
    return alone + together if len(alike) > 1 else alone


def _others(dim: Dim, now: int) -> list[int]:
    wanted = (now + 1, now * 2, now - 1, now // 2, now * 3, now + 32)
    high = math.inf if dim.high is None else dim.high
    return [n for n in wanted if max(1, dim.low) <= n <= high and n != now]


def _pairs(found: _Found) -> Iterator[tuple[Tensor, Tensor]]:
    """Floating outputs of both, all inputs together."""
    for index in range(len(found.want[0])):
        if found.want[0][index].is_floating_point() and found.want[0][index].dim():
            yield (
                torch.cat([outputs[index].double() for outputs in found.want]),
                torch.cat([outputs[index].double() for outputs in found.got]),
            )


def _snr(found: _Found) -> float:
    """Of the worst output: 10 log10 of the variance over samples by the mean squared error, in decibels."""
    worst = math.inf
    for want, got in _pairs(found):
        signal = float((want - want.mean(0)).square().mean())  # what is constant is no signal
        noise = float((want - got).square().mean())
        if noise != noise or math.isinf(noise):
            return -math.inf
        worst = min(
            worst, 10 * math.log10(signal / noise) if noise and signal else math.inf if signal else -math.inf
        )
    return worst


def _top1(found: _Found) -> float | None:
    """Of the first output with classes: for how many samples both choose the same."""
    for want, got in _pairs(found):
        if want.dim() >= 2 and want.shape[-1] > 1:
            chosen = got.argmax(-1, keepdim=True)
            best = want.amax(-1, keepdim=True)
            close = (best - want.gather(-1, chosen)) <= _MARKED * float(want.max() - want.min())
            return float(close.double().mean())
    return None
