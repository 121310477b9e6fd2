"""The pass `prune`: options, and what is done with them on bare weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nnopt_cli import (
    Criterion,
    DataOptions,
    Granularity,
    Grouping,
    NnoptError,
    Pass,
    Pattern,
    Structure,
    TensorFilter,
    UsageError,
    match,
    option,
)
from nnopt_plugins.prune.criteria import Magnitude
from nnopt_plugins.prune.granularities import WeightGranularity
from nnopt_plugins.prune.options import StructureBudget
from nnopt_plugins.prune.sparsity import Share, Sparsity, assign, target
from nnopt_plugins.prune.structures import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nnopt_cli import ChunkEdit, Model, Run, Selection
    from nnopt_plugins.prune.bracket import Cut
    from nnopt_plugins.prune.finite import NonFinite
    from nnopt_plugins.prune.source import Item, Scorer, Source


class Prune(StructureBudget, TensorFilter, DataOptions, Pass):
    """Set the least important weights to zero, or remove the least important channels, heads or layers.

    Of single weights, exactly as many as asked for become zero and the others keep every bit; zeros
    alone make no dense file smaller and no dense kernel faster. Channels, heads and layers are removed
    from the model's graph, which becomes smaller and faster; what is left is checked to compute the same.
    """

    suffix: ClassVar[str] = "pruned"

    sparsity: Sparsity = option(
        (),
        help="Fraction of the prunable weights to be zero, or of the channels, heads or layers to remove: "
        "0.5, 50%, or for some tensors 'layer4.*=0.8'.",
        short="-s",
        metavar="FRACTION|GLOB=FRACTION",
    )
    criterion: Criterion = option(Magnitude(), help="How importance is scored.")
    granularity: Granularity = option(
        WeightGranularity(),
        help="What is removed at once: weight, N:M such as 2:4, a block such as 4x4; "
        "on a graph also channel, head or layer.",
    )
    scope: Literal["global", "layer"] | None = option(
        None,
        help="Over what scores compete: all tensors together (the default for weights), or each layer on its "
        "own (the default for channels and heads).",
    )
    non_finite: Literal["refuse", "keep"] = option(
        "refuse",
        help="What to do about NaN and infinite weights: refuse the model, or leave them as they are.",
    )

    def table(self) -> dict[str, Any]:
        out = super().table()
        if len(self.sparsity) == 1 and self.sparsity[0].pattern is None:
            out["sparsity"] = self.sparsity[0].value
        return out

    def check(self, model: Model) -> None:
        """Refuse options that contradict each other, and patterns that match no tensor. Raises UsageError."""
        if isinstance(self.granularity, Structure | Layer):
            from nnopt_plugins.prune.budget import read_budget

            read_budget(self)
        else:
            self._check()
        patterns = [share.pattern for share in self.sparsity if share.pattern]
        for pattern in (*self.include, *self.exclude, *patterns):
            match(model.weights, pattern)
        if model.graph is None:  # a graph would have to be read first
            self._assigned(model, self._selected(model).names)

    def run(self, model: Model, run: Run) -> Model:
        """Choose what to prune (reads the weights) and return the model with the edit on it.

        Raises:
            UsageError: the options contradict each other or name no tensor.
            NnoptError: nothing is prunable, or weights are NaN or infinite and `non_finite` is `refuse`.
        """
        from nnopt_plugins.prune.source import Item

        if isinstance(self.granularity, Structure | Layer):
            from nnopt_plugins.prune.structured import prune_structure

            return prune_structure(self, model, run)
        self._check()
        run.selection = selection = self._selected(model)
        places = {name: index for index, name in enumerate(model.unique())}
        items = {name: Item(name, model.weights[name], places[name]) for name in selection.names}
        run.facts["prunable"] = sum(item.weight.numel for item in items.values())
        if isinstance(self.granularity, Pattern):
            return model.edit(self._pattern_edits(self.granularity, list(items.values()), run))
        return model.edit(self._cut_edits(model, items, run))

    def _check(self) -> None:
        self.check_unused(self.granularity.spec())
        if self.data is not None:
            raise UsageError(
                f"--data does not go with --granularity {self.granularity.spec()}",
                "With --granularity channel, head or layer the metric is measured on it before and after.",
            )
        if isinstance(self.granularity, Pattern):
            if self.sparsity:
                raise UsageError(
                    f"--sparsity does not go with --granularity {self.granularity.spec()}: "
                    "the pattern itself says how much of every tensor goes",
                    "Leave --sparsity out. To prune only some tensors, use --include or --exclude.",
                )
            if self.scope is not None:
                raise UsageError(
                    f"--scope does not go with --granularity {self.granularity.spec()}: "
                    "the weights of each small group compete with one another only",
                    "Leave --scope out.",
                )
        elif not isinstance(self.granularity, Grouping):
            raise UsageError(f"the granularity {self.granularity.name!r} needs more than bare weights")
        elif not self.sparsity:
            raise UsageError(
                "--sparsity is missing", "For example --sparsity 0.5 makes half of the weights zero."
            )

    def _selected(self, model: Model) -> Selection:
        """The prunable tensors. Raises NnoptError where there are none, UsageError if the options say so."""
        selection = self.select(model)
        if not any(model.weights[name].numel for name in selection.names):
            raise (UsageError if self.include or self.exclude else NnoptError)(
                "there is nothing to prune: no tensor is both prunable and included",
                f"{selection.rule} `nnopt inspect FILE` shows each tensor and why it is left out.",
            )
        return selection

    def _assigned(self, model: Model, names: Iterable[str]) -> dict[Share, list[str]]:
        """Which of `names` have which sparsity. Raises UsageError where none has any."""
        aliases: dict[int, list[str]] = {}
        for name, weight in model.weights.items():
            aliases.setdefault(id(weight), []).append(name)
        assigned = assign({name: aliases[id(model.weights[name])] for name in names}, self.sparsity)
        for share in self.sparsity:
            if share.pattern and not assigned[share]:
                match(model.weights, share.pattern)
        if self.sparsity and not any(assigned.values()):
            raise UsageError(
                "there is nothing to prune: nothing that --sparsity names is prunable",
                "Add a sparsity for all tensors, such as --sparsity 0.5, or name others; "
                "`nnopt inspect FILE` shows each tensor and why it is left out.",
            )
        return assigned

    def _pattern_edits(self, pattern: Pattern, items: list[Item], run: Run) -> dict[str, ChunkEdit]:
        from nnopt_plugins.prune.edits import PatternEdit
        from nnopt_plugins.prune.finite import NonFinite, scan
        from nnopt_plugins.prune.parts import Desk
        from nnopt_plugins.prune.source import Scorer, key_for

        found = NonFinite()
        scan(items, run.threads, found)
        self._judge(found, run)
        if run.device not in ("cpu", "auto"):
            run.note(f"The {pattern.spec()} pattern was computed on the CPU, while writing.")
        desk = Desk()
        _remark(pattern, items, run)
        return {
            item.name: PatternEdit(
                item,
                Scorer(self.criterion, key_for(self.criterion, [item]), run.seed),
                pattern,
                desk,
                finite=self.criterion.by_magnitude and not found.total(),
            )
            for item in items
        }

    def _cut_edits(self, model: Model, items: dict[str, Item], run: Run) -> dict[str, ChunkEdit]:
        from nnopt_plugins.prune.edits import CutEdit
        from nnopt_plugins.prune.finite import NonFinite
        from nnopt_plugins.prune.parts import Desk
        from nnopt_plugins.prune.source import Scorer, key_for

        assert isinstance(self.granularity, Grouping)
        found, desk = NonFinite(), Desk()
        edits: dict[str, ChunkEdit] = {}
        rows: list[dict[str, Any]] = []
        with run.progress("Selecting", sum(item.weight.nbytes for item in items.values())) as tick:
            for share, rivals in self._rivals(model, items, run):
                scorer = Scorer(
                    self.criterion,
                    key_for(self.criterion, rivals, self.granularity),
                    run.seed,
                    self.granularity,
                )
                cut, groups = self._find(rivals, scorer, share, found, run, tick)
                rows.append(_facts(share, groups, cut, scorer))
                for tensor, item in enumerate(rivals):
                    edits[item.name] = CutEdit(cut, tensor, item, scorer, self.granularity, desk)
        self._judge(found, run)
        _report(rows, run)
        if missing := sum(max(0, row["target"] - row["achieved"]) for row in rows):
            run.note(self._unreached(missing, found))
        _remark(self.granularity, [item for item in items.values() if item.name in edits], run)
        return edits

    def _rivals(self, model: Model, items: dict[str, Item], run: Run) -> list[tuple[Share, list[Item]]]:
        """Which tensors compete with one another, and their sparsity."""
        assigned = self._assigned(model, items)
        for share, names in assigned.items():
            if share.pattern and not names:
                matched = match(model.weights, share.pattern)
                run.note(
                    f"--sparsity {str(share)!r} changes nothing: "
                    f"what it matches ({matched[0]}, …) is not prunable or has another sparsity."
                )
        idle = len(items) - sum(map(len, assigned.values()))
        if idle:
            run.note(f"{idle} prunable tensors match no pattern of --sparsity and were left as they are.")
        rivals = [(share, [items[name] for name in names]) for share, names in assigned.items()]
        if self.scope == "layer":
            rivals = [(share, [item]) for share, some in rivals for item in some]
        kept = [(share, [item for item in some if item.weight.numel]) for share, some in rivals]
        return [(share, some) for share, some in kept if some]

    def _find(
        self,
        rivals: list[Item],
        scorer: Scorer,
        share: Share,
        found: NonFinite,
        run: Run,
        tick: Callable[[int], None],
    ) -> tuple[Cut, int]:
        """The cut among `rivals`, and how many groups compete."""
        from nnopt_plugins.prune.bracket import Finder
        from nnopt_plugins.prune.source import Source

        source = Source(rivals, scorer)
        k = target(share.value, source.groups)
        if run.device not in ("cpu", "auto"):
            cut = self._find_on_device(source, k, found, run)
            if cut is not None:
                return cut, source.groups
        finder = Finder(source, run.seed, run.threads, found.add, tick)
        return finder.find(k), source.groups

    def _find_on_device(self, source: Source, k: int, found: NonFinite, run: Run) -> Cut | None:
        """The same cut from another device; None where only the CPU can do it, with a note that says why."""
        from nnopt_plugins.prune.device import DeviceFinder, fits

        why = fits(source, run.device)
        if why:
            run.note(f"Selected on the CPU: {why}.")
            return None
        return DeviceFinder(source, run.device, run.seed, found.add).find(k)

    def _unreached(self, missing: int, found: NonFinite) -> str:
        """What the summary says where fewer could go than were asked for."""
        why = ["they are not finite"] * bool(found.total())
        why += [f"the criterion {self.criterion.name!r} scores them NaN"] * (not self.criterion.by_magnitude)
        what = "weights" if self.granularity.name == "weight" else f"groups of {self.granularity.spec()}"
        return (
            f"--sparsity was not reached: {missing:,} {what} fewer are zero than it asks for; the others "
            f"that are not zero must stay, because {' or '.join(why)}."
        )

    def _judge(self, found: NonFinite, run: Run) -> None:
        if self.non_finite == "refuse":
            found.refuse()
        elif found.total():
            run.note(f"Not finite, left as they are: {found.describe()}.")
            run.facts["non_finite"] = found.total()


def _remark(granularity: Grouping | Pattern, items: Sequence[Item], run: Run) -> None:
    """Note what does not come out even."""
    uneven = [(item.name, text) for item in items if (text := granularity.remark(item.weight.shape))]
    if uneven:
        shown = "; ".join(f"{name}: {text}" for name, text in uneven[:3])
        more = f"; and {len(uneven) - 3} more" if len(uneven) > 3 else ""
        run.note(
            f"{granularity.spec()} does not divide {len(uneven)} of {len(items)} tensors ({shown}{more})."
        )


def _facts(share: Share, groups: int, cut: Cut, scorer: Scorer) -> dict[str, Any]:
    return {
        "for": share.pattern or "*",
        "sparsity": share.value,
        "groups": groups,
        "target": target(share.value, groups),
        "achieved": cut.pruned,
        "threshold": scorer.key.value(cut.key) if cut.pruned else None,
        "ties": cut.ties,
        "ties_pruned": cut.ties_pruned,
    }


def _report(rows: Sequence[dict[str, Any]], run: Run) -> None:
    """Sums for the record; thresholds one by one unless there are as many as tensors."""
    sums = {key: sum(row[key] for row in rows) for key in ("groups", "target", "achieved", "ties")}
    run.facts.update(sums)
    if len(rows) == 1:
        run.facts["threshold"] = rows[0]["threshold"]
    elif len(rows) <= 16:
        run.facts["cuts"] = list(rows)
    over = sums["achieved"] - sums["target"]
    if over > 0:
        run.note(f"{over:,} more were zero already than --sparsity asks for; none is brought back.")
