"""What a dataset, a loss and a metric are; splits, batches, the evaluation loop. Public to plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.lazy import exports

if TYPE_CHECKING:
    from nnopt_cli.data.batching import Batch as Batch
    from nnopt_cli.data.batching import Batches as Batches
    from nnopt_cli.data.batching import batches as batches
    from nnopt_cli.data.bundle import Data as Data
    from nnopt_cli.data.bundle import measure as measure
    from nnopt_cli.data.bundle import score as score
    from nnopt_cli.data.code import UserCode as UserCode
    from nnopt_cli.data.evaluation import Contestant as Contestant
    from nnopt_cli.data.evaluation import Evaluation as Evaluation
    from nnopt_cli.data.evaluation import Evaluations as Evaluations
    from nnopt_cli.data.evaluation import aligned as aligned
    from nnopt_cli.data.evaluation import evaluate as evaluate
    from nnopt_cli.data.evaluation import evaluate_all as evaluate_all
    from nnopt_cli.data.evidence import evidence as evidence
    from nnopt_cli.data.expected import Expected as Expected
    from nnopt_cli.data.expected import input_spec as input_spec
    from nnopt_cli.data.images import missing_extra as missing_extra
    from nnopt_cli.data.outputs import answer as answer
    from nnopt_cli.data.outputs import main_output as main_output
    from nnopt_cli.data.outputs import predict as predict
    from nnopt_cli.data.place import as_call as as_call
    from nnopt_cli.data.place import placed as placed
    from nnopt_cli.data.sampling import named_inputs as named_inputs
    from nnopt_cli.data.sampling import real_inputs as real_inputs
    from nnopt_cli.data.sampling import spread as spread
    from nnopt_cli.data.signals import activations as activations
    from nnopt_cli.data.signals import flat_inputs as flat_inputs
    from nnopt_cli.data.signals import gradients as gradients
    from nnopt_cli.data.source import Samples as Samples
    from nnopt_cli.data.source import Source as Source
    from nnopt_cli.data.source import Stream as Stream
    from nnopt_cli.data.source import as_source as as_source
    from nnopt_cli.data.table import Column as Column
    from nnopt_cli.data.table import Files as Files
    from nnopt_cli.data.table import Images as Images
    from nnopt_cli.data.table import Lists as Lists
    from nnopt_cli.data.table import Numbers as Numbers
    from nnopt_cli.data.table import Table as Table
    from nnopt_cli.data.table import Texts as Texts
    from nnopt_cli.data.task import Task as Task

_HOME = {
    "Batch": "batching",
    "Batches": "batching",
    "batches": "batching",
    "Data": "bundle",
    "measure": "bundle",
    "score": "bundle",
    "UserCode": "code",
    "Contestant": "evaluation",
    "Evaluation": "evaluation",
    "Evaluations": "evaluation",
    "aligned": "evaluation",
    "evaluate": "evaluation",
    "evaluate_all": "evaluation",
    "evidence": "evidence",
    "Expected": "expected",
    "input_spec": "expected",
    "missing_extra": "images",
    "answer": "outputs",
    "main_output": "outputs",
    "predict": "outputs",
    "as_call": "place",
    "placed": "place",
    "activations": "signals",
    "flat_inputs": "signals",
    "gradients": "signals",
    "named_inputs": "sampling",
    "real_inputs": "sampling",
    "spread": "sampling",
    "Samples": "source",
    "Source": "source",
    "Stream": "source",
    "as_source": "source",
    "Column": "table",
    "Files": "table",
    "Images": "table",
    "Lists": "table",
    "Numbers": "table",
    "Table": "table",
    "Texts": "table",
    "Task": "task",
}
__all__ = list(_HOME)

__getattr__ = exports(globals(), _HOME)
