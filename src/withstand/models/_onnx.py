"""ONNX files as models: with gradients where every operator is known, else through ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError, listed, one_line
from ..threat import Box
from ._callable import FunctionModel
from ._onnx_ops import UnsupportedError
from ._onnx_quantised import ROUNDING, STORED
from ._protocol import Gradient, Model, Objective
from ._sloped import Sloped
from ._torch import TorchModel

if TYPE_CHECKING:
    from ._onnx_graph import Graph

_EXTRA = "run pip install 'withstand[onnx]'"
# Differences beyond these, relative to the largest answer, are no rounding.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
# Of a network that rounds only the slope is taken from ours.
_ROUNDED_TOLERANCE = 0.2
# Rows of a batch: first a number that nobody exports with, then those that many do.
_ROWS = (3, 1, 2, 4, 8, 16, 32, 64)
# Tried for sizes that the file leaves open: images, small images, sound.
_SIZES, _LARGEST = (32, 224, 64, 8, 16000), 1_000_000


class OnnxScores(FunctionModel):
    """A network in ONNX Runtime: queries only; `note` says why it has no gradients.

    digest: sha256 (hex) of the file and its weights.
    """

    def __init__(self, runtime: Runtime, *, domain: Box, note: str) -> None:
        returns = "labels" if runtime.graph.labels else "scores"
        super().__init__(runtime, returns=returns, domain=domain)  # type: ignore[arg-type]
        self.note, self.digest = note, runtime.graph.digest.hex()

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """There is none: raises ModelError."""
        raise ModelError(f"this model has no gradients: {self.note}; use access: scores or labels")

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """There is none: raises ModelError."""
        raise ModelError(f"this model has no gradients: {self.note}; use access: scores or labels")


def load_onnx(
    path: str | Path,
    domain: Sequence[float] | Box = (0.0, 1.0),
    *,
    name: str | None = None,
    gradients: bool = True,
) -> Model:
    """The network in an ONNX file, from raw input of one tensor to its first output of numbers.

    It runs on torch with gradients, compared with ONNX Runtime on random inputs of the domain if
    that is installed. Where an operator is unknown or the two differ, ONNX Runtime itself answers,
    with scores or labels and a `note` that says why; so it does if no gradients are asked for. A
    softmax at the end gives logarithms. A quantised network has gradients as if it did not round,
    and the answers of ONNX Runtime. A fixed batch size is filled up and mapped over.
    Raises ModelError for a file that is missing or damaged, and if a package is missing.
    """
    name = str(path) if name is None else name
    box = domain if isinstance(domain, Box) else Box(domain[0], domain[1])
    try:
        from onnx import TensorProto

        from ._onnx_graph import read_graph
    except ImportError:
        raise ModelError(f"weights {name} need onnx, which is not installed; {_EXTRA}") from None
    graph = read_graph(Path(path), name)
    if graph.type == TensorProto.UINT8 and float(np.max(np.subtract(box.upper, box.lower))) <= 1:
        # Cast to whole numbers, everything between black and white would be black.
        raise ModelError(
            f"weights {name} take whole numbers of 8 bits, but the domain is no wider than 1; set "
            "model.domain: [0, 255], and give raw values without data.scale"
        )
    runtime = _runtime(graph, Path(path), name)
    tried = None if runtime is None else _tried(graph, box, runtime.raw, name)
    why = "only its scores are asked for"
    if runtime is None or gradients:
        model, why = _with_gradients(graph, box, name, tried, runtime)
        if model is not None:
            return model
    if runtime is None:
        raise ModelError(
            f"weights {name} have no gradients: {why}; onnxruntime, which would give their scores, "
            f"is not installed; {_EXTRA}"
        )
    runtime.logarithms = tried is not None and _are_probabilities(tried[1])
    return OnnxScores(runtime, domain=box, note=why)


def _with_gradients(
    graph: Graph,
    domain: Box,
    name: str,
    tried: tuple[Tensor, Tensor] | None,
    runtime: Runtime | None,
) -> tuple[TorchModel | None, str]:
    """The network on torch, or None and why it cannot be had.

    One that rounds within, as a quantised one does, answers through ONNX Runtime: whoever rounds a
    value otherwise is off by a whole step from there on.
    """
    if graph.missing:
        few = "operator" if len(graph.missing) == 1 else "operators"
        return None, f"withstand has no {few} {listed(graph.missing, 4)}"
    if graph.labels:
        return None, "it answers with labels only"
    if graph.dtype is None:
        return None, "its input is not of a floating type"
    from ._onnx_net import OnnxNet

    net = OnnxNet(graph).eval()
    rounds = any(node.op in ROUNDING for node in graph.nodes)
    answers = net if runtime is None else runtime.tensors
    try:
        if tried is None:
            _tried(graph, domain, lambda x: _answer(net, x).numpy(), name)
            net.batch = graph.batch
            return TorchModel(Sloped(net, net) if rounds else net, domain=domain), ""
        out = _answer(net, tried[0])
    except UnsupportedError as error:
        return None, f"withstand has no operator {error}"
    except ModelError:
        raise
    except Exception as error:
        return None, f"withstand cannot run it ({type(error).__name__}: {one_line(error, 80)})"
    gap = _gap(out.exp() if net.logarithms else out, tried[1])
    tolerance = _HALF_TOLERANCE if graph.dtype.itemsize < 4 else _TOLERANCE
    rounds = rounds or (gap > tolerance and any(node.op in STORED for node in graph.nodes))
    if not gap <= (_ROUNDED_TOLERANCE if rounds else tolerance):
        return None, f"withstand's own answers are {gap:.2g} off those of ONNX Runtime"
    if runtime is not None:
        runtime.logarithms = net.logarithms
    return TorchModel(Sloped(answers, net).eval() if rounds else net, domain=domain), ""


def _tried(
    graph: Graph, domain: Box, ask: Callable[[Any], Any], name: str
) -> tuple[Tensor, Tensor] | None:
    """Random inputs of the domain and the answers to them, None if no guess at their size fits.

    A file that says it takes any batch may have been exported with one size all the same; that
    size is then found and noted in the graph. Raises ModelError for a file that always fails.
    """
    last: Exception | None = None
    for rows in _ROWS if graph.batch is None else _ROWS[:1]:
        for x in _probes(graph, domain, rows):
            try:
                answer = torch.from_numpy(ask(x.numpy()))
            except UnsupportedError:
                raise
            except Exception as error:
                last = error
                continue
            if rows != _ROWS[0]:
                graph.batch = rows
            return x, answer
    if last is not None and None not in (graph.shape or (None,))[1:]:
        raise ModelError(
            f"weights {name} fail on random inputs of their own shape: {one_line(last, 120)}; "
            "export the network again"
        )
    return None


def _are_probabilities(out: Tensor) -> bool:
    sums = out.double().sum(1) if out.ndim == 2 and out.shape[1] > 1 else torch.zeros(1)
    return bool((out >= 0).all()) and bool(((sums - 1).abs() <= 1e-3).all())


def _answer(net: Any, x: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = net(torch.as_tensor(x))
    return out


def _gap(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the largest answer; infinite for another shape."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.double(), theirs.double()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    apart = torch.where(same, 0.0, (ours - theirs).abs() / (1 + theirs.abs().amax()))
    return float(apart.nan_to_num(torch.inf).amax())


def _probes(graph: Graph, domain: Box, rows: int) -> Iterator[Tensor]:
    """Random inputs of the domain, one batch for each guess at the sizes that are left open."""
    if graph.shape is None:
        return
    sizes = graph.shape[1:]
    bounds = [
        np.nan_to_num(np.asarray(bound, np.float64), posinf=1, neginf=-1)
        for bound in (domain.lower, domain.upper)
    ]
    own = np.broadcast_shapes(*(bound.shape for bound in bounds))
    guesses = [[size or guess for size in sizes] for guess in _SIZES]
    if len(own) == len(sizes):
        guesses.insert(0, [size or its for size, its in zip(sizes, own, strict=True)])
    for guess in guesses if None in sizes else guesses[:1]:
        try:
            low, high = (np.broadcast_to(bound, guess) for bound in bounds)
        except ValueError:
            continue
        # A sound's length is no picture's.
        if None in sizes and low.size > _LARGEST:
            continue
        x = low + (high - low) * np.random.default_rng(0).random((rows, *guess))
        yield torch.from_numpy(x.astype(np.float32))


class Runtime:
    """ONNX Runtime as a function of a numpy batch (B, ...)."""

    def __init__(self, graph: Graph, session: Any) -> None:
        self.graph, self.session = graph, session
        self.type = _numpy_type(session.get_inputs()[0].type)
        self.logarithms = False

    def __call__(self, x: Any) -> Any:
        out = self.raw(x)
        # The smallest normal float keeps the logarithm of an impossible class finite.
        return np.log(np.maximum(out, np.finfo(np.float32).tiny)) if self.logarithms else out

    def tensors(self, x: Tensor) -> Tensor:
        """The same of tensors."""
        return torch.from_numpy(self(x.cpu().numpy())).to(x.device)

    def raw(self, x: Any) -> Any:
        """The answers as the file gives them, a row for each row of x."""
        x = x.astype(self.type)
        batch = self.graph.batch
        if batch is None:
            return self._run(x)
        filled = np.concatenate((x, np.repeat(x[-1:], -len(x) % batch, axis=0)))
        groups = [self._run(filled[k : k + batch]) for k in range(0, len(filled), batch)]
        return np.concatenate(groups)[: len(x)]

    def _run(self, x: Any) -> Any:
        (out,) = self.session.run([self.graph.output], {self.graph.input: x})
        return out


def _numpy_type(name: str) -> Any:
    # "tensor(float)" and its like.
    inner = name.partition("(")[2].rstrip(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(inner, inner))


def _runtime(graph: Graph, path: Path, name: str) -> Runtime | None:
    """The file in ONNX Runtime, None if that is not installed or cannot run it."""
    try:
        library: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    options = library.SessionOptions()
    # It would print its warnings, and its idle threads would spin.
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph.proto.SerializeToString() if graph.changed else str(path)
    try:
        session = library.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return Runtime(graph, session)
    except Exception as error:
        raise ModelError(
            f"weights {name} cannot be run by ONNX Runtime: {one_line(error, 120)}; export the "
            "network again, for an opset that it knows"
        ) from None
