"""Alignment: the units of networks that were trained apart, put into the order of the first one's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Alignment, NnoptError, UsageError, Weighting, option

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nnopt_cli import Members, Model, Run
    from nnopt_cli.graph import Coupling, Order

_NARROW = 0.02  # of the metric: what halfway may cost before the networks count as too narrow


class Matching(Alignment, kind="alignment"):
    """Permutations over the coupled channels of the graph; every permuted network is run against itself."""

    def align(self, members: Members, run: Run) -> Members:
        found = self.aligned(members, run)
        if members.data is not None and found is not members:
            measure_barrier(found, run)
        return found

    def aligned(self, members: Members, run: Run) -> Members:
        """The members in one order, without measuring what lies between them."""
        from nnopt_cli.graph import analyse, exchangeable

        require_one_graph(members)
        reference, *others = members.models
        program = reference.program()
        coupling = analyse(program)
        groups = exchangeable(coupling)
        if not groups:
            run.note("Nothing can be aligned: no channels of this graph may change places.")
            return members
        run.note(
            f"Aligned over {len(groups)} group{'s' * (len(groups) > 1)} of coupled channels "
            f"({sum(len(g.classes) for g in groups):,} units)."
        )
        moved = [reference]
        for model, name in zip(others, members.names[1:], strict=True):
            order = self.order(program, model.program(), coupling, members, run)
            moved.append(reordered(model, order, name))
        return replace(members, models=tuple(moved))

    @abstractmethod
    def order(
        self,
        reference: ExportedProgram,
        other: ExportedProgram,
        coupling: Coupling,
        members: Members,
        run: Run,
    ) -> Order:
        """The order of `other`'s channels that fits `reference`."""


class Weights(Matching):
    """Units that have alike weights correspond: weight matching, which needs no data.

    Ainsworth et al., "Git Re-Basin", arXiv:2209.04836, algorithm 1.
    """

    def order(
        self,
        reference: ExportedProgram,
        other: ExportedProgram,
        coupling: Coupling,
        members: Members,
        run: Run,
    ) -> Order:
        from nnopt_cli.graph import match_weights

        return match_weights(reference, other, coupling, run.seed)


class Activations(Matching):
    """Units that respond alike to the same inputs, and have alike weights, correspond: it needs `--data`.

    Li et al., "Convergent learning", arXiv:1511.07543; "Git Re-Basin", arXiv:2209.04836, section 3.1.
    """

    needs_data: ClassVar[bool] = True

    batches: int = option(16, help="How many batches of the data are looked at.", ge=1)
    weights: float = option(1.0, help="How much weights count; 0 for activations alone.", ge=0)

    def order(
        self,
        reference: ExportedProgram,
        other: ExportedProgram,
        coupling: Coupling,
        members: Members,
        run: Run,
    ) -> Order:
        from itertools import islice

        from nnopt_cli.data import flat_inputs, placed
        from nnopt_cli.graph import match_activations

        if members.data is None:
            raise UsageError("--align activations needs data", "Add --data, or take --align weights.")
        one, two = placed(reference, run.device), placed(other, run.device)
        feeds = (flat_inputs(one, b) for b in islice(members.data.plain.on(run.device), self.batches))
        return match_activations(one, two, coupling, feeds, self.weights)


def require_one_graph(members: Members) -> None:
    """Raise UsageError, which says what differs, where members are not of one architecture."""
    from nnopt_cli.graph import same_graph

    first, *others = (model.program() for model in members.models)
    for other, name in zip(others, members.names[1:], strict=True):
        apart = same_graph(first, other)
        if apart:
            raise UsageError(
                f"{members.names[0]} and {name} are of different architectures: {apart}",
                "Their outputs can be fused all the same: --method mean.",
            )


def reordered(model: Model, order: Order, name: str) -> Model:
    """The model in another order of channels. Raises NnoptError where it does not compute the same then."""
    from nnopt_cli.graph import check_permuted, permuted

    program = model.program()
    moved = permuted(program, order)
    found = check_permuted(program, moved, order)
    if not found.passed:
        raise NnoptError(
            f"{name}: with its channels in another order it computes something else (by "
            f"{found.difference:.1e} of its largest output); first at {found.culprit}",
            "A rule of the graph analysis is wrong: please report it. --method mean needs no alignment.",
        )
    changed = {
        key for key, tensor in moved.state_dict.items() if tensor is not program.state_dict[key]
    }  # the same objects stayed
    constants = any(moved.constants[key] is not program.constants[key] for key in program.constants)
    if constants or not changed <= set(model.weights):
        return model.with_program(moved, structure_changed=False)
    return model.map(lambda key, old: moved.state_dict[key].detach().to(old.dtype), sorted(changed))


def measure_barrier(members: Members, run: Run) -> None:
    """Note how much worse the mean of the aligned members is than they are, on the choosing data.

    The linear interpolation barrier of Frankle et al., arXiv:1912.05671, at its middle; batch norms are
    re-estimated, or all units' responses repaired (REPAIR, arXiv:2211.08403), whichever is better.
    """
    from nnopt_plugins.ensemble.refresh import chosen_score
    from nnopt_plugins.ensemble.statistics import reestimated, repaired

    assert members.data is not None
    evenly = replace(members, weighting=Weighting())
    ends = [chosen_score(model, members.data, run) for model in members.models]
    middle = reestimated(averaged(members.models), members.data, run)
    tried = [middle] if (other := repaired(middle, evenly, run)) is middle else [middle, other]
    found = max(chosen_score(each, members.data, run) for each in tried)
    barrier = sum(ends) / len(ends) - found
    metric = members.data.gate.name
    shown = ", ".join(f"{abs(end):.4f}" for end in ends)
    run.facts["barrier"] = barrier
    sentence = f"Halfway between the aligned members {metric} is {abs(found):.4f} (members: {shown})."
    if barrier > _NARROW * max(abs(end) for end in ends):
        sentence += (
            " These networks are too narrow to be averaged, or trained too differently: --method mean "
            "fuses their outputs instead."
        )
    run.note(sentence)


def averaged(models: tuple[Model, ...], names: set[str] | None = None) -> Model:
    """The first model with the mean of all models' floating tensors, or of those in `names`."""

    def mean(name: str, tensor: Tensor) -> Tensor:
        total = sum(model.weights[name].torch().double() for model in models)
        assert not isinstance(total, int)
        return (total / len(models)).to(tensor.dtype)

    first = models[0]
    chosen = [name for name in first.unique() if names is None or name in names]
    return first.map(mean, [name for name in chosen if first.weights[name].dtype.kind == "float"])
