"""Fusions in output space: all members in one graph, and a layer that makes one output of theirs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nnopt_cli import Fusion, NnoptError, UsageError, option

if TYPE_CHECKING:
    from nnopt_cli import Members, Model, Run
    from nnopt_plugins.ensemble.outputs_networks import Combine, Meaning

Kind = Literal["auto", "classification", "multi-label", "regression"]
_FULL = 64  # classes up to which stacking reads every class for every class


class OutputFusion(Fusion, kind="fusion"):
    """One graph that holds all members; a trunk that is the same in several is stored and computed once."""

    space: ClassVar[Literal["weights", "outputs"]] = "outputs"
    needs: ClassVar[Literal["weights", "module", "graph"]] = "graph"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "multi-label", "regression")

    task: Kind = option(
        "auto",
        help="What the outputs mean; by default what --data say, without data classes where an output holds "
        "several numbers, else values.",
    )

    def check(self, members: Members) -> None:
        """Inputs and outputs of all members' graphs, held against each other."""
        from nnopt_plugins.ensemble.outputs_meaning import check_signatures, meaning

        if members.weighting.patterns:
            glob, numbers = members.weighting.patterns[0]
            row = ",".join(f"{number:g}" for number in numbers)
            raise UsageError(
                f"--weights {glob}={row}: outputs have no tensors of such names",
                "Give one number per member.",
            )
        weights = members.weighting.everywhere
        if weights is not None and min(weights) < 0:
            raise UsageError("--weights: a share of the outputs cannot be negative")
        check_signatures(members)
        found = meaning(members, self.task)
        if found.task not in self.tasks:
            raise UsageError(
                f"--method {self.name} is for {' and '.join(self.tasks)}, and these outputs are "
                f"taken for {found.task}",
                f"--method mean suits {found.task}; {self.name}:task=… says otherwise.",
            )

    def fuse(self, members: Members, run: Run) -> Model:
        """The first member's model with the graph that holds all of them."""
        from nnopt_cli.data import main_output
        from nnopt_cli.graph import fused
        from nnopt_plugins.ensemble.outputs_meaning import meaning, said
        from nnopt_plugins.ensemble.trunk import with_shared_trunk

        found = meaning(members, self.task)
        said(found, members, run)
        if members.share_trunk is not None:
            members = with_shared_trunk(members, self._network, found, run)
        programs = [model.program() for model in members.models]
        made = fused(programs, self.network(members, found, run), main_output)
        run.facts["shared"] = {
            "layers": made.shared.layers,
            "operators": made.shared.operators,
            "parameters": made.shared.elements,
        }
        if made.shared.layers:
            run.note(
                f"{made.shared.layers} layers that several members have alike are stored and computed once."
            )
        model = members.models[0].with_program(made.program, structure_changed=True)
        return replace(model, arch=None)  # no source builds it

    def _network(self, members: Members, meaning: Meaning) -> Combine:
        """A network to compare candidates with: equal weights."""
        from nnopt_plugins.ensemble.outputs_networks import MeanProbabilities

        return MeanProbabilities(meaning, shares(members))

    @abstractmethod
    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        """What combines the outputs."""


def shares(members: Members) -> list[float]:
    """The weights that were given, else equal ones."""
    given = members.weighting.everywhere
    return list(given) if given is not None else [1 / len(members.models)] * len(members.models)


class Mean(OutputFusion):
    """The mean of the members' probabilities (of their values in regression): the default.

    Never worse in expected log loss than its members on average, by Jensen's inequality; Lakshminarayanan et
    al., "Deep ensembles", arXiv:1612.01474. It gives log probabilities, which serve as logits.
    """

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_networks import MeanProbabilities

        return MeanProbabilities(meaning, shares(members))


class Logits(OutputFusion):
    """The mean of the members' logits as they are, so that the more confident member counts more."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "multi-label")

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_networks import MeanLogits

        return MeanLogits(meaning, shares(members))


class Geometric(OutputFusion):
    """The geometric mean of the members' probabilities, normalised: a product of experts.

    Genest and Zidek, "Combining probability distributions", Statistical Science 1986: the logarithmic pool.
    For equal temperatures its classes are those of the mean of logits.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "multi-label")

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_networks import MeanGeometric

        return MeanGeometric(meaning, shares(members))


class Vote(OutputFusion):
    """The class that most members name; between classes named equally often the mean probability decides."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "multi-label")

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_networks import Votes

        return Votes(meaning, shares(members))


class Learnt(OutputFusion, kind="fusion"):
    """Fitted on held-out data, which no member may have learnt from."""

    needs_data: ClassVar[bool] = True

    def check(self, members: Members) -> None:
        super().check(members)
        if members.weighting.given():
            raise UsageError(f"--weights: {self.name} fits them to the data", "Leave --weights out.")

    def _outputs(self, members: Members, meaning: Meaning, run: Run) -> tuple[Any, Any]:
        """Members x rows x classes, as logits; and the targets."""
        from nnopt_plugins.ensemble.outputs_fit import answers

        assert members.data is not None
        outputs, target = answers(members.models, members.data, run)
        if len(target) < 20:
            raise NnoptError(
                f"--method {self.name}: {len(target)} rows are too few to fit anything to",
                "Give more --data, or take --method mean, which learns nothing.",
            )
        for place, probabilities in enumerate(meaning.probabilities):
            if probabilities and meaning.task == "classification":
                outputs[place] = outputs[place].clamp_min(1e-38).log()
            elif probabilities:
                outputs[place] = outputs[place].logit(eps=1e-7)
        return outputs, target


class Weighted(Learnt):
    """The weighted mean of the members' probabilities; weights and temperatures are fitted on held-out data.

    Fitted by least log loss (squared error in regression). Temperatures: Guo et al., arXiv:1706.04599.
    """

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_fit import fit_weights
        from nnopt_plugins.ensemble.outputs_networks import MeanProbabilities

        weights, temperatures = fit_weights(*self._outputs(members, meaning, run), meaning.task)
        run.facts["weights"] = weights
        run.facts["temperatures"] = temperatures
        shown = ", ".join(
            f"{name} {weight:.3f}" + (f" at temperature {heat:.2f}" if heat != 1.0 else "")
            for name, weight, heat in zip(members.names, weights, temperatures, strict=True)
        )
        run.note(f"Fitted on --data: {shown}.")
        return MeanProbabilities(meaning, weights, temperatures)


class Stacking(Learnt):
    """A linear layer over all members' log probabilities (or values), fitted on held-out data.

    Wolpert, "Stacked generalization", Neural Networks 1992. It starts from the mean and is kept near it, by a
    penalty that cross-validation chooses.
    """

    def network(self, members: Members, meaning: Meaning, run: Run) -> Combine:
        from nnopt_plugins.ensemble.outputs_fit import fit_stack
        from nnopt_plugins.ensemble.outputs_networks import Stack

        outputs, target = self._outputs(members, meaning, run)
        full = outputs.shape[-1] <= _FULL
        matrix, bias, penalty = fit_stack(outputs, target, meaning.task, full, run.seed)
        run.facts["penalty"] = penalty
        run.note(
            f"Fitted on {len(target):,} rows of --data: {matrix.numel() + bias.numel():,} numbers, penalty "
            f"{penalty:g} chosen by cross-validation."
        )
        return Stack(meaning, matrix, bias)
