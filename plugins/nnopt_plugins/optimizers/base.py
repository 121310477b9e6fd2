"""What the optimizers share. In formulas w is a weight, g its gradient, and t counts steps from 1."""

from __future__ import annotations

from nnopt_cli import Optimizer, option


class Decaying(Optimizer, kind="optimizer"):
    """An optimizer with L2 decay: weight_decay * w is added to g before anything else."""

    weight_decay: float = option(0.0, help="L2 decay: this times the weight is added to the gradient.", ge=0)
