"""From a torch module to a graph of operations, by torch.fx."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..._errors import ModelError, one_line
from ...models import Model, Pipeline, TorchModel
from ._builder import BATCH, Builder, Value
from ._graph import Graph
from ._moves import Reshape
from ._supported import SUPPORTED, supported


class _Reader(fx.Interpreter):
    """Runs a traced module on the builder's values; sizes and constants are plain values."""

    def __init__(self, module: fx.GraphModule, builder: Builder) -> None:
        super().__init__(module)
        self.builder = builder

    def _read(self, key: Any, name: str, args: Any, kwargs: Any) -> Value | None:
        if not any(isinstance(a, Value) for a in _leaves((args, kwargs))):
            return None
        if key not in SUPPORTED:
            raise ModelError(
                f"bounds do not pass through {name}; they pass through {supported()}. Build the "
                "model from these, or certify it by smoothing"
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
    # Inputs of its own, since all samples of a user's batch may be alike.
    noise = torch.randn(BATCH, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    example = x[:1] + noise.to(x)
    with TorchModel(net).held(), torch.no_grad():
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
        expected = net(example.clone()).reshape(output.example.shape)
        if not torch.allclose(output.example, expected, rtol=1e-4, atol=1e-4):
            raise ModelError(
                "the traced model answers otherwise than the model itself; look for steps that "
                "depend on values, on the batch or on chance"
            )
    return Graph(tuple(x.shape[1:]), tuple(builder.nodes), output.node)


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


def served(model: nn.Module | Model) -> nn.Module:
    """A model from raw input to scores as one module, sharing its parameters."""
    if isinstance(model, nn.Module):
        return model
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
