"""`auto`: which fusion fits, by what the members are; and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from nnopt_cli import Alignment, Fusion, NnoptError, Unlike, unlike

if TYPE_CHECKING:
    from nnopt_cli import Members, Model, Run

RELATED, APART = 0.5, 0.2  # median and least cosine of layers from which members have one ancestor
LOOKED_AT = 8  # chunks of 131,072 elements of a layer that its cosine is measured on
ALIGNMENTS = ("weights", "activations")  # as they are tried: the first needs no look at the data
MARGIN = 0.01  # of the metric that an aligned average may lose against the best member


class Auto(Fusion):
    """Average fine-tunes of one ancestor; else align if that holds up on the data; else fuse the outputs."""

    def chosen(self, members: Members, run: Run) -> tuple[Fusion, Members]:
        if members.aligned is not None:
            _because(run, "The members' units were put into one order, so their weights are averaged.")
            return _fusion("linear", run), members
        different = unlike(members.models)
        if different is not None:
            return self._unlike(different, members, run)
        layers = likeness(members)
        run.facts["likeness"] = [{"layer": layer.name, "cosine": round(layer.cosine, 4)} for layer in layers]
        said = "The members have the same tensors"
        if related(layers):
            what = f"and layers point the same way (median cosine {_median(layers):.3f})"
            _because(run, f"{said}, {what}: they come from one ancestor, so their weights are averaged.")
            return _fusion("linear", run), members
        what = f"but layers do not point the same way (median cosine {_median(layers):.3f}, {_least(layers)})"
        _because(
            run, f"{said}, {what}: they were trained apart, and their plain average would be no network."
        )
        return self._apart(layers, members, run)

    def fuse(self, members: Members, run: Run) -> Model:
        method, members = self.chosen(members, run)
        method.check(members)
        return method.fuse(members, run)

    def _unlike(self, different: Unlike, members: Members, run: Run) -> tuple[Fusion, Members]:
        a, b = members.names[0], different.model.path.name
        reason = f"{a} and {b} differ: {different.what}"
        refused = _no_outputs(members, run)
        if refused is not None:
            raise NnoptError(
                f"{reason}. So weights cannot be averaged, nor outputs be fused: {refused.message}",
                refused.hint or different.hint,
            )
        _because(run, f"{reason}. So their outputs are fused.")
        return _fusion("mean", run), members

    def _apart(self, layers: list[Layer], members: Members, run: Run) -> tuple[Fusion, Members]:
        if members.share_trunk is None and members.data is not None:
            aligned = _aligned(members, run)
            if aligned is not None:
                return _fusion("linear", run), aligned
        refused = _no_outputs(members, run)
        if refused is not None:
            a, b = members.names[:2]
            raise NnoptError(
                f"{a} and {b} have the same tensors, but were trained apart (median cosine of their layers "
                f"{_median(layers):.3f}): their average would be no network, and {refused.message}",
                "Say how they are computed, with --arch NET.py:NAME and --input SHAPE (or give .pt2 files): "
                "then their outputs are fused, or, with --align weights, their units put in one order before "
                "averaging. --method linear averages all the same.",
            )
        _because(run, "So their outputs are fused.")
        return _fusion("mean", run), members


@dataclass(frozen=True)
class Layer:
    """One weight of two or more dimensions: its name, and the least cosine between any two members."""

    name: str
    cosine: float


def likeness(members: Members) -> list[Layer]:
    """The cosine between corresponding weights, for each layer, the least of all pairs.

    Vectors (biases, norms) are left out: they are alike in any two networks. Independent weights of n
    elements have a cosine of about 1 / sqrt(n). At most `LOOKED_AT` chunks of a layer are read.
    """
    from nnopt_cli import Corresponding
    from nnopt_plugins.ensemble.formulas import cosine

    found = []
    for index, (name, first) in enumerate(members.models[0].unique().items()):
        if first.dtype.kind != "float" or sum(size > 1 for size in first.shape) < 2:
            continue
        own = tuple(model.weights[name] for model in members.models)
        gram = Corresponding(name, index, first.shape, own).gram(most=LOOKED_AT)
        if not gram.diagonal().all():
            continue  # one is all zero, and points nowhere
        pairs = [cosine(gram, i, j) for i in range(len(own)) for j in range(i)]
        found.append(Layer(name, min(pairs)))
    return found


def related(layers: list[Layer]) -> bool:
    """Whether members come from one ancestor. Without a layer to tell by, they count as related."""
    return not layers or (_median(layers) >= RELATED and min(layer.cosine for layer in layers) >= APART)


def _median(layers: list[Layer]) -> float:
    return median(layer.cosine for layer in layers)


def _least(layers: list[Layer]) -> str:
    worst = min(layers, key=lambda layer: layer.cosine)
    return f"least in {worst.name}, {worst.cosine:.3f}"


def _because(run: Run, sentence: str) -> None:
    run.facts["evidence"] = [*cast("list[str]", run.facts.get("evidence", [])), sentence]


def _registry(run: Run) -> Any:
    if run.registry is None:
        raise NnoptError("auto chooses among the installed fusions, and this run knows of none")
    return run.registry


def _fusion(name: str, run: Run) -> Fusion:
    found = _registry(run).build("fusion", name)
    assert isinstance(found, Fusion)
    return found


def _no_outputs(members: Members, run: Run) -> NnoptError | None:
    """Why outputs cannot be fused; None where they can."""
    if "mean" not in _registry(run).names("fusion"):
        return NnoptError("no plugin fuses outputs")
    mean = _fusion("mean", run)
    for model in members.models:
        if model.rung != "graph":
            known = (
                "the files hold weights only" if model.rung == "weights" else "no --input says what they take"
            )
            return NnoptError(f"their outputs cannot be fused, because {known}")
    try:
        mean.check(members)
    except NnoptError as error:
        return error
    return None


def _aligned(members: Members, run: Run) -> Members | None:
    """The members with their units in one order, if their average holds up on the choosing data."""
    from nnopt_plugins.ensemble.refresh import chosen_score

    assert members.data is not None
    known = _registry(run).names("alignment")
    wanted = [name for name in ALIGNMENTS if name in known]
    if not wanted or any(model.rung != "graph" for model in members.models):
        return None
    best = max(chosen_score(model, members.data, run) for model in members.models)
    figures = [f"best member {abs(best):.4f}"]
    for name in wanted:
        method = _registry(run).build("alignment", name)
        assert isinstance(method, Alignment)
        attempt = replace(run, notes=[], facts={})  # what it says counts only if it is taken
        try:
            aligned = replace(method.align(members, attempt), aligned=method)
        except NnoptError as error:
            _because(run, f"Their units cannot be put into one order: {error.message}.")
            return None
        merged = chosen_score(_fusion("linear", run).fuse(aligned, attempt), members.data, run)
        figures.append(f"{abs(merged):.4f} by {name}")
        said = f"{members.data.gate.name} on the choosing data: {', '.join(figures)}"
        if merged >= best - MARGIN * max(1.0, abs(best)):
            for note in attempt.notes:
                run.note(note)
            run.facts.update(attempt.facts)
            _because(run, f"With their units in one order their average holds up ({said}), so it is taken.")
            return aligned
    _because(
        run,
        f"Even with their units in one order their average does not hold up ({said}): they are too narrow "
        "for it, or were trained too differently.",
    )
    return None
