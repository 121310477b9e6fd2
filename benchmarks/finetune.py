"""Training steps of `nnopt finetune` against a loop written by hand: ResNet-20, batch 128, the same settings.

All sides train the same network on the same images in memory, in turn, a few steps at a time; the
median ratio of neighbouring stretches counts. The loop by hand has its images channels first or last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _timing import Report, arguments, interleaved, paired

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import torch  # noqa: E402
from nnopt_plugins.finetune.gradients import Gradients  # noqa: E402
from nnopt_plugins.finetune.masks import Masks  # noqa: E402
from nnopt_plugins.finetune.step import Stepper  # noqa: E402
from nnopt_plugins.optimizers.descent import Momentum  # noqa: E402
from resnet_cifar import resnet20  # noqa: E402

from nnopt_cli import DataOptions, Run, load  # noqa: E402
from nnopt_cli.graph import layers_of  # noqa: E402
from nnopt_cli.plugin.manager import Wanted, load_plugins  # noqa: E402

BATCH = 128
LR = 0.01


def by_hand(device: str, dtype: torch.dtype | None, last: bool, steps: int) -> Callable[[], None]:
    """The usual loop."""
    torch.manual_seed(0)
    module = resnet20().train().to(device)
    form = torch.channels_last if last else torch.contiguous_format
    module = module.to(memory_format=form)
    images = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=form)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9)

    def run() -> None:
        for _ in range(steps):
            with torch.autocast(device, dtype, enabled=dtype is not None):
                outputs = module(images)
            loss = torch.nn.functional.cross_entropy(outputs.float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return run


def ours(
    device: str,
    precision: str,
    last: bool,
    steps: int,
    folder: Path,
    sparsity: float = 0.0,
    masks: bool = True,
) -> Callable[[], None]:
    """The steps of the pass, with what it does beside: finite losses, gradients looked at, masks."""
    torch.manual_seed(0)
    source = resnet20()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in source.parameters():
            if value.dim() > 1:
                value.mul_((torch.rand(value.shape, generator=draw) >= sparsity).float())
    path = folder / f"net-{sparsity}.pt"
    torch.save(source.state_dict(), path)
    torch.save(
        {"x": torch.randn(BATCH * 2, 3, 32, 32), "y": torch.arange(BATCH * 2) % 10}, folder / "data.pt"
    )
    run = Run(
        device=device, threads=torch.get_num_threads(), registry=load_plugins(Wanted(allowed=frozenset()))
    )
    context = {"registry": run.registry, "allow_code": True}
    options = DataOptions.model_validate({"data": str(folder / "data.pt")}, context=context)
    model = load(path, resnet20)
    module = model.trainable()
    data: Any = options.open(run, model, module=module, training=True)
    module = module.to(device)
    if last:
        module = module.to(memory_format=torch.channels_last)
    layers = layers_of(module.train())
    stepper = Stepper(
        module=module, call=module, layers=layers, data=data, optimizer=Momentum(), lr=LR, regularizers=(),
        teachers=None, masks=Masks(layers if masks else []), clip=None, precision=precision, device=device,
    )  # fmt: skip
    form = torch.channels_last if last else torch.contiguous_format
    batch = next(iter(data.train.on(device)))
    batch = type(batch)((batch.args[0].contiguous(memory_format=form),), {}, batch.target, batch.size)
    gradients = Gradients(layers)

    def steps_of() -> None:
        waiting = []
        for step in range(100, 100 + steps):
            look = gradients if gradients.wanted(step) else None
            loss, _ = stepper.step([batch], LR, look)
            waiting.append(loss)
            if device == "cpu":
                float(loss)
        float(torch.stack(waiting).sum())

    return steps_of


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    given = arguments(__doc__, steps=2, device="cpu", precision="fp32")
    torch.set_num_threads(given.threads)
    report, dtype = Report(given.check), torch.bfloat16 if given.precision == "bf16" else None
    with TemporaryDirectory() as home:
        folder = Path(home)
        sides = {
            "nnopt": ours(given.device, given.precision, True, given.steps, folder, 0.9),
            "without masks": ours(given.device, given.precision, True, given.steps, folder, 0.9, False),
            "by hand": by_hand(given.device, dtype, True, given.steps),
            "by hand, channels first": by_hand(given.device, dtype, False, given.steps),
        }
        for side in sides.values():
            side()
        seconds = interleaved(sides, given.repeat)
    for name, times in seconds.items():
        time = min(times) / given.steps
        print(f"{name:<30} {time * 1e3:8.1f} ms a step, {BATCH / time:8,.0f} images/s")
    report.bar("throughput, against the loop by hand", paired(seconds, "nnopt", "by hand"), 0.95, least=True)
    report.bar(
        "the same, against the loop with channels first",
        paired(seconds, "nnopt", "by hand, channels first"),
        1.1,
        least=True,
    )
    cost = paired(seconds, "without masks", "nnopt") - 1
    report.bar("what masks cost, of a step", 100 * cost, 2.0, unit="%")
    report.finish()
