"""Adam and its relatives: running means of the gradient and of its size, corrected for their start at 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import Optimizer, option
from nnopt_plugins.optimizers.base import Decaying

if TYPE_CHECKING:
    from torch import optim


class Moments(Optimizer, kind="optimizer"):
    """The options of all of them, which PyTorch's classes take alike but for the two betas.

    Class attributes:
        built: the name of the class in `torch.optim`.
    """

    built: ClassVar[str]

    beta1: float = option(0.9, help="Share of the mean gradient m that is kept.", ge=0, lt=1)
    beta2: float = option(0.999, help="Share of the mean squared gradient v that is kept.", ge=0, lt=1)
    eps: float = option(1e-8, help="Added to the divisor.", gt=0)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch import optim

        options = self.model_dump(exclude={"lr", "beta1", "beta2"})
        made: optim.Optimizer = getattr(optim, self.built)(
            groups, lr=lr, betas=(self.beta1, self.beta2), **options
        )
        return made


class Adam(Moments, Decaying):
    """Steps of about the same length for all weights.

    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    w - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Kingma and Ba 2015, arXiv:1412.6980; amsgrad: Reddi et al. 2018, arXiv:1904.09237.
    """

    built: ClassVar[str] = "Adam"

    lr: float = option(1e-3, help="Learning rate.", gt=0)
    amsgrad: bool = option(False, help="Divide by the largest v so far.")


class AdamW(Moments):
    """Adam with decoupled weight decay, which is not divided by the size of gradients.

    w * (1 - lr * weight_decay), then Adam's step without decay

    Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    name: ClassVar[str] = "adamw"
    built: ClassVar[str] = "AdamW"

    lr: float = option(1e-3, help="Learning rate.", gt=0)
    weight_decay: float = option(0.01, help="Decoupled decay: the weight loses lr times this share.", ge=0)
    amsgrad: bool = option(False, help="Divide by the largest v so far.")


class NAdam(Moments, Decaying):
    """Adam with Nesterov's momentum.

    mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2);
    w - lr * (mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) g / (1 - mu_1 ... mu_t)) / (sqrt(v') + eps),
    v' = v / (1 - beta2^t)

    Dozat 2016 (ICLR workshop).
    """

    built: ClassVar[str] = "NAdam"

    lr: float = option(2e-3, help="Learning rate.", gt=0)
    momentum_decay: float = option(4e-3, help="How fast the momentum comes up to beta1.", ge=0)


class RAdam(Moments, Decaying):
    """Adam that takes momentum steps until v can be trusted, so that it needs no warm-up.

    m' = m / (1 - beta1^t); w - lr m' where rho_t <= 5, else w - lr m' r sqrt(1 - beta2^t) / (sqrt(v) + eps),
    r^2 = (rho_t - 4)(rho_t - 2) rho / ((rho - 4)(rho - 2) rho_t), rho = 2 / (1 - beta2) - 1,
    rho_t = rho - 2 t beta2^t / (1 - beta2^t)

    Liu et al. 2020, arXiv:1908.03265 (with 4 for 5 there; PyTorch's 5 is followed).
    """

    built: ClassVar[str] = "RAdam"

    lr: float = option(1e-3, help="Learning rate.", gt=0)


class Adamax(Moments, Decaying):
    """Adam with the largest gradient of late in place of the mean square.

    u = max(beta2 u, |g| + eps); w - lr * m / (1 - beta1^t) / u

    Kingma and Ba 2015, arXiv:1412.6980, section 7.1.
    """

    built: ClassVar[str] = "Adamax"

    lr: float = option(2e-3, help="Learning rate.", gt=0)
