"""ONNX files, in the types and numbers of bits that they are deployed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from nnopt_cli import NnoptError, UsageError, option
from nnopt_plugins.export.options import SixteenBit, parse_size

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Job, Model
    from nnopt_cli.graph import Parity

_TOLERANCE = {"fp16": 2e-2, "bf16": 5e-2}  # of the largest output; fp32 keeps 1e-4, float64 1e-9
_FULL = 1e-4


class Onnx(SixteenBit):
    """An ONNX file, run and compared in ONNX Runtime.

    Batch norms are folded into the convolutions and linear maps before them, constants are folded.
    """

    name = "onnx"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    needs: ClassVar[Literal["weights", "module", "graph"]] = "graph"
    runs_in: ClassVar[str] = "ONNX Runtime"

    opset: int | None = option(
        None, help="ONNX: version of the operator set; by default the exporter's own choice."
    )
    external_data: str = option(
        "1GB", help="ONNX: from this size on weights are kept in a file beside the model.", metavar="SIZE"
    )
    quantize: Literal["weights", "dynamic", "static"] | None = option(
        None,
        help="ONNX: 8-bit integers. weights: stored so, computed in fp32; dynamic: matrix products, "
        "activations measured as they come; static: all, activations measured on --data beforehand.",
    )
    calibration: Literal["min-max", "percentile", "entropy"] = option(
        "min-max", help="ONNX, static: how the range of an activation follows from the data."
    )
    per_channel: bool = option(True, help="ONNX, quantized: a scale for every output channel of a weight.")

    @field_validator("external_data")
    @classmethod
    def _bytes(cls, text: str) -> str:
        if parse_size(text) > 1_900_000_000:
            raise ValueError("must be below 2 GB, which is the most that one ONNX file holds")
        return text

    @model_validator(mode="after")
    def _one_way(self) -> Onnx:
        if self.dtype and self.quantize:
            raise ValueError("--dtype and --quantize contradict each other: give one of them")
        usual = type(self).model_fields["calibration"].default
        if self.quantize != "static" and self.calibration != usual:
            raise ValueError("--calibration is for --quantize static")
        return self

    @property
    def needs_data(self) -> bool:
        """Whether it cannot work without `--data`."""
        return self.quantize == "static"

    def export(self, model: Model, path: Path, job: Job) -> None:
        """Write it in fp32 first, then in what was asked for."""
        from nnopt_cli.graph import to_onnx

        limit = parse_size(self.external_data)
        if not self.quantize and not self.dtype:
            to_onnx(
                model.program(),
                path,
                opset=self.opset,
                external=limit,
                spec=model.inputs,
                strings=job.strings,
            )
            return
        with TemporaryDirectory(prefix="nnopt-") as folder:
            plain = Path(folder, "plain.onnx")
            to_onnx(model.program(), plain, opset=self.opset, spec=model.inputs, strings=job.strings)
            self._convert(plain, path, model, job, limit)

    def _convert(self, plain: Path, path: Path, model: Model, job: Job, limit: int) -> None:
        from nnopt_plugins.export import precision, quantize

        try:
            if self.dtype:
                made, islands = precision.converted(plain, self.dtype)
                job.run.note(islands)
                quantize.save(made, path, limit)
                precision.check_loads(path)
            elif self.quantize == "weights":
                made, count = quantize.weights_only(plain, self.per_channel)
                job.run.note(f"{count} weights are stored as 8-bit integers; everything is computed in fp32.")
                quantize.save(made, path, limit)
            elif self.quantize == "dynamic":
                quantize.dynamic(plain, path, self.per_channel, limit)
            else:
                if job.data is None:
                    raise UsageError("--quantize static needs data to measure activations on", "Add --data.")
                feeds = quantize.feeds(job.data, plain, job.samples)
                seen = sum(len(next(iter(feed.values()))) for feed in feeds)
                job.run.note(f"Activations were measured on {seen} samples ({self.calibration}).")
                quantize.static(plain, path, feeds, self.calibration, self.per_channel, limit)
        except (NnoptError, OSError):
            raise
        except Exception as error:  # converter and quantizer raise whatever their parts do
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            what = f"--dtype {self.dtype}" if self.dtype else f"--quantize {self.quantize}"
            raise NnoptError(f"{what}: this model cannot be converted: {text}") from error

    def verify(self, model: Model, path: Path, job: Job) -> Parity:
        """`onnx.checker`, then ONNX Runtime against PyTorch."""
        from dataclasses import replace

        import onnx

        from nnopt_cli.data import real_inputs
        from nnopt_cli.graph import onnx_side, program_side, verify

        want = program_side(model.program())
        try:
            onnx.checker.check_model(path, full_check=False)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise NnoptError(f"the ONNX file is not valid: {str(error).strip().splitlines()[0]}") from error
        got = onnx_side(path, "the ONNX file", job.run.threads)
        data = real_inputs(job.data, want.spec) if job.data is not None else ()
        tolerance = job.tolerance or _TOLERANCE.get(self.dtype or "", _full(model))
        found = verify(
            want, got, tolerance=tolerance, measure="noise" if self.quantize else "difference", data=data
        )
        return replace(found, against="PyTorch, run in ONNX Runtime")

    def opened(self, path: Path, job: Job) -> Callable[..., Any]:
        """In ONNX Runtime: positional inputs in order, others by name; a tensor, or outputs by name."""
        from nnopt_cli.graph import onnx_side

        side = onnx_side(path, threads=job.run.threads)
        names = [each.name for each in side.spec.inputs]

        def call(*args: Tensor, **kwargs: Tensor) -> Any:
            rest = [name for name in names if name not in kwargs]
            given = {**dict(zip(rest, args, strict=True)), **kwargs}
            device = given[names[0]].device
            found = [each.to(device) for each in side.call([given[name].cpu() for name in names])]
            return found[0] if len(found) == 1 else dict(zip(side.outputs, found, strict=True))

        return call


def _full(model: Model) -> float:
    kinds = {weight.dtype.name for weight in model.weights.values()}
    return 2e-2 if {"float16", "bfloat16"} & kinds else _FULL
