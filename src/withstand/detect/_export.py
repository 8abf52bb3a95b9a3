"""A model and its detector as one ONNX graph."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import ModelError, one_line
from ..evaluate import check_writable, write
from ..models import network_of
from ._contract import NEEDS
from ._detector import Detector
from ._observe import Observer

OPSET = 17
_TOLERANCE = 1e-4
_INT64 = 7
_OUTPUTS = ("scores", "suspicion")


def export(detector: Detector, path: str | Path, x: Tensor) -> Path:
    """Write model and calibrated detector as one ONNX file, from input x to scores and suspicion.

    scores: the model's (B, K). suspicion: the detector's score above its threshold (B,); what is
    above 0 is flagged. x: some inputs (B, ...), at least 2, by which the file is checked: ONNX
    Runtime must agree to 1e-4, relative to the largest value. Needs the extra [onnx]. Raises
    ModelError for what cannot be exported, DataError for a detector without a threshold and
    OutputError.
    """
    runtime, path = _runtime(), Path(path)
    check_writable(path.parent)
    name = type(detector.method).__name__
    if network_of(detector.model) is None:
        raise ModelError(
            f"a {type(detector.model).__name__} is no torch network; serve it beside the detector"
        )
    if len(x) < 2:
        raise ModelError(f"{len(x)} inputs cannot check a file; give at least 2")
    whole = _Whole(detector).eval()
    content = io.BytesIO()
    with detector.model.held(), torch.no_grad(), _searching():
        wanted = whole(x)
        try:
            # Of another number of inputs than those that it is checked by.
            _trace(whole, x[: len(x) // 2], content)
            answers = _answers(runtime, content.getvalue(), x)
        except Exception as error:
            raise ModelError(
                f"{name} on this model cannot be written as ONNX ({type(error).__name__}: "
                f"{one_line(error, 100)}); use a detector that is a network"
            ) from None
    for told, value, found in zip(_OUTPUTS, wanted, answers, strict=True):
        gap = float(np.abs(value.numpy() - found).max())
        if not gap <= _TOLERANCE * max(1.0, float(value.abs().max())):
            raise ModelError(
                f"the {told} of {name} in ONNX Runtime differ by {gap:.2g} from those here, the "
                f"limit is {_TOLERANCE:g}; use a detector that is a network"
            )
    return write(path, content.getvalue())


class _Whole(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.net, self.detector = network_of(detector.model), detector
        # A method that looks at the input only has no scores to show.
        needs = max(detector.method.needs, "scores", key=NEEDS.index)
        self.observer = Observer(model=detector.model, needs=needs, layers=detector.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.observer(x)
        return seen.scores, self.detector.suspicion_seen(seen)


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise ModelError(
            f"ONNX files need {error.name}, which is not installed; run pip install "
            "'withstand[onnx]'"
        ) from None
    return onnxruntime


def _answers(runtime: Any, content: bytes, x: Tensor) -> list[Any]:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {"x": x.cpu().numpy()})
    return found


def _trace(whole: nn.Module, x: Tensor, content: io.BytesIO) -> None:
    # Of what it cannot write it prints the whole graph.
    getattr(torch._C, "_jit_set_onnx_log_enabled", bool)(False)
    with warnings.catch_warnings():
        # The exporter that needs no further package warns that there is a newer one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (x,),
            content,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=list(_OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in ("x", *_OUTPUTS)},
        )


@contextmanager
def _searching() -> Iterator[None]:
    """Lets torch.searchsorted be written, for which the exporter has no form: as a count."""
    exporter: Any = torch.onnx

    @exporter.symbolic_helper.parse_args("v", "v", "i", "i", "v", "v")  # type: ignore[untyped-decorator]
    def counted(
        g: Any, places: Any, values: Any, out_int32: Any, right: Any, side: Any, sorter: Any
    ) -> Any:
        across = g.op("Unsqueeze", places, _axis(g, -2)), g.op("Unsqueeze", values, _axis(g, -1))
        # Those at or below the value, or only below it.
        below = "LessOrEqual" if right else "Less"
        found = g.op("Cast", g.op(below, *across), to_i=_INT64)
        return g.op("ReduceSum", found, _axis(g, -1), keepdims_i=0)

    exporter.register_custom_op_symbolic("aten::searchsorted", counted, OPSET)
    try:
        yield
    finally:
        exporter.unregister_custom_op_symbolic("aten::searchsorted", OPSET)


def _axis(g: Any, axis: int) -> Any:
    return g.op("Constant", value_t=torch.tensor([axis]))
