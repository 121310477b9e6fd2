"""Gradient descent, its momenta, and a quasi-Newton method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from nnopt_cli import Optimizer, option
from nnopt_plugins.optimizers.base import Decaying

if TYPE_CHECKING:
    from torch import optim


class GD(Decaying):
    """Gradient descent on the whole data: one step per epoch, by the mean gradient of all samples.

    w - lr * g

    Cauchy 1847.
    """

    full_batch: ClassVar[bool] = True

    lr: float = option(0.1, help="Learning rate.", gt=0)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import SGD

        return SGD(groups, lr=lr, weight_decay=self.weight_decay)


class SGD(Decaying):
    """Stochastic gradient descent: a step per batch, with momentum if asked.

    v = momentum * v + (1 - dampening) * g (at first v = g); w - lr * v

    Robbins and Monro 1951; momentum as in Sutskever et al. 2013 (ICML), with lr outside of v as in PyTorch.
    """

    lr: float = option(0.01, help="Learning rate.", gt=0)
    momentum: float = option(0.0, help="Share of the last step's direction that is kept.", ge=0, lt=1)
    dampening: float = option(
        0.0, help="Share of the gradient that is left out of the direction.", ge=0, lt=1
    )
    nesterov: bool = option(False, help="Look ahead: the step is along g + momentum * v.")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not (self.momentum > 0 and self.dampening == 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        return self

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import SGD

        return SGD(
            groups,
            lr=lr,
            momentum=self.momentum,
            dampening=self.dampening,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


class Momentum(Decaying):
    """Stochastic gradient descent with momentum (heavy ball).

    v = momentum * v + g; w - lr * v

    Polyak 1964; Sutskever et al. 2013 (ICML).
    """

    lr: float = option(0.01, help="Learning rate.", gt=0)
    momentum: float = option(0.9, help="Share of the last step's direction that is kept.", gt=0, lt=1)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import SGD

        return SGD(groups, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay)


class Nesterov(Decaying):
    """Stochastic gradient descent with Nesterov's momentum: the gradient where the momentum will lead.

    v = momentum * v + g; w - lr * (g + momentum * v)

    Nesterov 1983; in this form Sutskever et al. 2013 (ICML).
    """

    lr: float = option(0.01, help="Learning rate.", gt=0)
    momentum: float = option(0.9, help="Share of the last step's direction that is kept.", gt=0, lt=1)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import SGD

        return SGD(groups, lr=lr, momentum=self.momentum, nesterov=True, weight_decay=self.weight_decay)


class LBFGS(Optimizer):
    """Quasi-Newton on the whole data: the inverse Hessian from the last steps. For small problems; no decay.

    w - lr * H g, with H from the differences of weights and gradients of `history` steps

    Liu and Nocedal 1989 (Math. Programming 45).
    """

    full_batch: ClassVar[bool] = True
    closure: ClassVar[bool] = True

    lr: float = option(1.0, help="Learning rate; a line search starts from it.", gt=0)
    iterations: int = option(20, help="Most iterations in one epoch.", ge=1)
    history: int = option(10, help="Steps that the curvature is estimated from.", ge=1)
    line_search: Literal["strong-wolfe", "none"] = option(
        "strong-wolfe", help="Find the length of a step by the strong Wolfe conditions, or take lr."
    )

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`. All groups become one: PyTorch's takes no more."""
        from torch.optim import LBFGS

        parameters = [parameter for group in groups for parameter in group["params"]]
        search = None if self.line_search == "none" else "strong_wolfe"
        return LBFGS(
            parameters,
            lr=lr,
            max_iter=self.iterations,
            history_size=self.history,
            line_search_fn=search,
        )
