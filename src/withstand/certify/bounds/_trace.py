"""From a torch module to a graph of operations, by torch.fx."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..._errors import ModelError, one_line
from ...models import Model, Pipeline, TorchModel
from ...models._adapt import Adapted
from ._builder import BATCH, Builder, Value
from ._graph import Graph
from ._moves import Reshape
from ._supported import SUPPORTED

# Inputs that a graph is compared on and was not read with; a size that no axis is likely to have.
_OTHERS = 3


class _Reader(fx.Interpreter):
    """Runs a traced module on the builder's values; sizes and constants are plain values."""

    def __init__(self, module: fx.GraphModule, builder: Builder) -> None:
        super().__init__(module)
        # Else errors get a second line about the step.
        self.extra_traceback = False
        self.builder = builder

    def _read(self, key: Any, name: str, args: Any, kwargs: Any) -> Value | None:
        if not any(isinstance(a, Value) for a in _leaves((args, kwargs))):
            return None
        if key not in SUPPORTED:
            raise ModelError(
                f"bounds do not pass through {name}, only through linear layers, convolutions, "
                "pooling, batch norm, the ReLU family, sigmoid, tanh and moves; build the model "
                "from these, or certify it by smoothing"
            )
        try:
            found: Value = SUPPORTED[key](self.builder, *args, **kwargs)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"bounds do not pass through {name} as it is used here ({one_line(error)}); write "
                "it in another way, or certify the model by smoothing"
            ) from error
        return found

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        found = self._read(type(module), type(module).__name__, (*args, module), kwargs)
        return super().call_module(target, args, kwargs) if found is None else found

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is getattr and isinstance(args[0], Value):
            return getattr(args[0].example, args[1])
        found = self._read(target, getattr(target, "__name__", str(target)), args, kwargs)
        return super().call_function(target, args, kwargs) if found is None else found

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in ("size", "dim", "numel", "ndimension") and isinstance(args[0], Value):
            return getattr(args[0].example, target)(*args[1:], **kwargs)
        found = self._read(target, target, args, kwargs)
        return super().call_method(target, args, kwargs) if found is None else found


class _Watched(fx.Interpreter):
    """Runs a traced module as it is, and refuses what the builder's values would get wrong."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.written: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        for node in n.all_input_nodes:
            value = self.env[node]
            if isinstance(value, Tensor) and _written(value) != self.written[node]:
                raise ModelError(
                    f"{node.name} is changed in place and then used once more, by {n.name}; bounds "
                    "need steps out of place there, such as inplace=False"
                )
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.written[n] = _written(found)
        return found


def _written(value: Tensor) -> int:
    """How often it was written to; weights that were made in inference mode do not tell."""
    return 0 if value.is_inference() else value._version


class _Uncast(TorchFunctionMode):
    """Leaves numbers in the precision that they have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.float, Tensor.double):
            return args[0]
        return func(*args, **(kwargs or {}))


def _leaves(nested: Any) -> list[Any]:
    if isinstance(nested, Value) or not isinstance(nested, tuple | list | dict):
        return [nested]
    parts = nested.values() if isinstance(nested, dict) else nested
    return [leaf for part in parts for leaf in _leaves(part)]


def trace(net: nn.Module, x: Tensor) -> Graph:
    """The graph of a module for inputs like x (B, ...), sharing its parameters and statistics.

    As the module is in eval mode: dropout does nothing and batch norm uses its running statistics.
    Raises ModelError for an operation that is not supported, and where the graph's answers are not
    the module's.
    """
    # Inputs of its own, since all samples of a user's batch may be alike, and as far apart as raw
    # inputs are, so that every step has something to do.
    noise = torch.randn(BATCH + _OTHERS, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    drawn = x[:1] + noise.to(x) * x[:1].abs().amax().clamp(min=1)
    example, others = drawn[:BATCH], drawn[BATCH:]
    # Tensors of inference mode would not tell that they were written to.
    with TorchModel(net).held(), torch.inference_mode(False), torch.no_grad(), _Uncast():
        try:
            traced = fx.symbolic_trace(net)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model cannot be traced ({one_line(error)}); bounds need a forward whose "
                "steps do not depend on values. Certify it by smoothing instead"
            ) from error
        builder = Builder(example)
        output = _Reader(traced, builder).run(builder.input)
        if not isinstance(output, Value) or len(output.shape) > 1:
            raise ModelError("bounds need one tensor of scores (B, K) from the model")
        output = output if output.shape else builder.add(Reshape((1,)), output)
        graph = Graph(tuple(x.shape[1:]), tuple(builder.nodes), output.node)
        try:
            _Watched(traced).run(others.clone())
            alike = _alike(graph, net, example) and _alike(graph, net, others)
        except RuntimeError:
            # An axis of the samples was taken for another one.
            alike = False
        if not alike:
            raise ModelError(
                "the traced model answers otherwise than the model itself; look for steps that "
                "depend on values, on the batch or on chance"
            )
    return graph


def _alike(graph: Graph, net: nn.Module, x: Tensor) -> bool:
    """Whether both give the same scores for x (B, ...), up to rounding."""
    expected, found = net(x.clone()), graph(x)
    if len(found) != len(x) or found.numel() != expected.numel():
        return False
    apart = (found - expected.reshape(found.shape)).abs().amax()
    return bool(apart <= torch.finfo(found.dtype).eps ** 0.5 * expected.abs().amax())


class Served(nn.Module):
    """Raw input to scores: the steps before a net, and the net."""

    def __init__(self, steps: tuple[Callable[[Tensor], Tensor], ...], net: nn.Module) -> None:
        super().__init__()
        self.steps, self.net = steps, net
        self.modules_among = nn.ModuleList(s for s in steps if isinstance(s, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        out: Tensor = self.net(x)
        return out


class _Both(nn.Module):
    """One score of a net as those of two classes, whose lead has the sign that the answer turns on.

    Logarithms of probabilities are left out, which no answer depends on.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        probability = kind == "probability"
        self.net = net
        self.register_buffer("weight", torch.tensor([[-1.0 if probability else 0.0], [1.0]]))
        self.register_buffer("bias", torch.tensor([1.0 if probability else 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.net(x).reshape(-1, 1), self.weight, self.bias)


def served(model: nn.Module | Model) -> nn.Module:
    """A model from raw input to scores as one module, sharing its parameters."""
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, Adapted):
        own = served(model.model)
        return own if model.kind == "probabilities" else _Both(own, model.kind)
    steps: list[Callable[[Tensor], Tensor]] = []
    inner: object = model
    while isinstance(inner, Pipeline):
        steps += inner.steps
        inner = inner.model
    if not isinstance(inner, TorchModel):
        raise ModelError(
            f"bounds need a torch module inside, not {type(inner).__name__.lstrip('_')}; "
            "certify this model by smoothing"
        )
    if inner.preprocess is not None:
        steps.append(inner.preprocess)
    return Served(tuple(steps), inner.net) if steps else inner.net


def exact_graph(model: nn.Module | Model, x: Tensor) -> Graph:
    """The graph of a copy of the model in float64, for inputs like x (B, ...) in float64."""
    net = served(model)
    with TorchModel(net).held():
        copied = deepcopy(net).double().requires_grad_(False)
    return trace(copied.eval(), x)
