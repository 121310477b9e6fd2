"""nnopt: make trained PyTorch models smaller, faster or better.

This module is the public API. Names are imported on first use, so that `import nnopt_cli` stays
light; everything not named here (or in `nnopt_cli.testing`) is private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.lazy import exports

if TYPE_CHECKING:
    from nnopt_cli.errors import ComponentError as ComponentError
    from nnopt_cli.errors import GateMissedError as GateMissedError
    from nnopt_cli.errors import NnoptError as NnoptError
    from nnopt_cli.errors import UnreadableError as UnreadableError
    from nnopt_cli.errors import UsageError as UsageError
    from nnopt_cli.formats.state import load_state as load_state
    from nnopt_cli.formats.state import save_state as save_state
    from nnopt_cli.formats.threads import in_threads as in_threads
    from nnopt_cli.formats.weight import CHUNK_BYTES as CHUNK_BYTES
    from nnopt_cli.formats.weight import Array as Array
    from nnopt_cli.formats.weight import ChunkEdit as ChunkEdit
    from nnopt_cli.formats.weight import MemoryWeight as MemoryWeight
    from nnopt_cli.formats.weight import Weight as Weight
    from nnopt_cli.graph.layers import Layer as Layer
    from nnopt_cli.model.alike import Unlike as Unlike
    from nnopt_cli.model.alike import unlike as unlike
    from nnopt_cli.model.blend import Corresponding as Corresponding
    from nnopt_cli.model.io import save as save
    from nnopt_cli.model.model import Model as Model
    from nnopt_cli.model.naming import Selection as Selection
    from nnopt_cli.model.naming import match as match
    from nnopt_cli.model.naming import suggest as suggest
    from nnopt_cli.plugin.component import Component as Component
    from nnopt_cli.plugin.component import option as option
    from nnopt_cli.plugin.data import DataOptions as DataOptions
    from nnopt_cli.plugin.exporter import Exporter as Exporter
    from nnopt_cli.plugin.exporter import Job as Job
    from nnopt_cli.plugin.filter import TensorFilter as TensorFilter
    from nnopt_cli.plugin.fusion import Alignment as Alignment
    from nnopt_cli.plugin.fusion import Fusion as Fusion
    from nnopt_cli.plugin.fusion import Members as Members
    from nnopt_cli.plugin.fusion import WeightFusion as WeightFusion
    from nnopt_cli.plugin.fusion import Weighting as Weighting
    from nnopt_cli.plugin.hookspecs import hookimpl as hookimpl
    from nnopt_cli.plugin.kinds import Criterion as Criterion
    from nnopt_cli.plugin.kinds import Dataset as Dataset
    from nnopt_cli.plugin.kinds import Granularity as Granularity
    from nnopt_cli.plugin.kinds import Grouping as Grouping
    from nnopt_cli.plugin.kinds import Loader as Loader
    from nnopt_cli.plugin.kinds import Loss as Loss
    from nnopt_cli.plugin.kinds import Metric as Metric
    from nnopt_cli.plugin.kinds import Pass as Pass
    from nnopt_cli.plugin.kinds import Pattern as Pattern
    from nnopt_cli.plugin.kinds import Structure as Structure
    from nnopt_cli.plugin.kinds import Where as Where
    from nnopt_cli.plugin.opening import load as load
    from nnopt_cli.plugin.training import Initializer as Initializer
    from nnopt_cli.plugin.training import LearningRateSchedule as LearningRateSchedule
    from nnopt_cli.plugin.training import Optimizer as Optimizer
    from nnopt_cli.plugin.training import Regularizer as Regularizer
    from nnopt_cli.run import Run as Run

__version__ = "0.1.0"

_HOME = {
    "ComponentError": "errors",
    "GateMissedError": "errors",
    "NnoptError": "errors",
    "UnreadableError": "errors",
    "UsageError": "errors",
    "load_state": "formats.state",
    "save_state": "formats.state",
    "in_threads": "formats.threads",
    "Array": "formats.weight",
    "CHUNK_BYTES": "formats.weight",
    "ChunkEdit": "formats.weight",
    "MemoryWeight": "formats.weight",
    "Weight": "formats.weight",
    "Layer": "graph.layers",
    "Unlike": "model.alike",
    "unlike": "model.alike",
    "Corresponding": "model.blend",
    "load": "plugin.opening",
    "save": "model.io",
    "Model": "model.model",
    "Selection": "model.naming",
    "match": "model.naming",
    "suggest": "model.naming",
    "Component": "plugin.component",
    "option": "plugin.component",
    "DataOptions": "plugin.data",
    "Exporter": "plugin.exporter",
    "Job": "plugin.exporter",
    "TensorFilter": "plugin.filter",
    "Alignment": "plugin.fusion",
    "Fusion": "plugin.fusion",
    "Members": "plugin.fusion",
    "WeightFusion": "plugin.fusion",
    "Weighting": "plugin.fusion",
    "hookimpl": "plugin.hookspecs",
    "Criterion": "plugin.kinds",
    "Dataset": "plugin.kinds",
    "Granularity": "plugin.kinds",
    "Grouping": "plugin.kinds",
    "Loader": "plugin.kinds",
    "Loss": "plugin.kinds",
    "Metric": "plugin.kinds",
    "Pass": "plugin.kinds",
    "Pattern": "plugin.kinds",
    "Structure": "plugin.kinds",
    "Where": "plugin.kinds",
    "Initializer": "plugin.training",
    "LearningRateSchedule": "plugin.training",
    "Optimizer": "plugin.training",
    "Regularizer": "plugin.training",
    "Run": "run",
}
__all__ = [*_HOME, "__version__"]
__getattr__ = exports(globals(), _HOME)
