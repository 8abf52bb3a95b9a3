"""ONNX operators on torch: recurrent layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._onnx_ops import Inputs, Node, UnsupportedError, given, operator

# Where torch's gates stand among those of the standard, and the functions that both mean.
_GATES = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
_FUNCTIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@operator("LSTM", "GRU", "RNN")
def _recurrent(node: Node, inputs: Inputs) -> Any:
    node.only("layout", 0)
    node.only("direction", "forward", "bidirectional")
    node.only("clip", None)
    node.only("input_forget", 0)
    if node.op == "GRU":
        node.only("linear_before_reset", 1)
    x, weights, recurrent, bias = *inputs[:3], given(inputs, 3)
    ways, size = recurrent.shape[0], recurrent.shape[2]
    node.only("activations", None, _FUNCTIONS[node.op] * ways)
    if given(inputs, 4) is not None or given(inputs, 7) is not None:
        raise UnsupportedError(f"{node.op} with sequence lengths or peepholes")
    if bias is None:
        bias = x.new_zeros(ways, 2 * weights.shape[1])
    halves = bias.chunk(2, 1)
    ordered = [_ordered(node.op, part) for part in (weights, recurrent, *halves)]
    parameters = [part[way] for way in range(ways) for part in ordered]
    start = x.new_zeros(ways, x.shape[1], size)
    state = [start if given(inputs, k) is None else inputs[k] for k in (5, 6)]
    # On CUDA only a layer in training mode has gradients; without dropout that is all it does.
    rest = (parameters, True, 1, 0.0, True, ways == 2, False)
    if node.op == "LSTM":
        out, *last = torch.lstm(x, state, *rest)
    else:
        step = torch.gru if node.op == "GRU" else torch.rnn_tanh
        out, *last = step(x, state[0], *rest)
    return (torch.unflatten(out, 2, (ways, size)).transpose(1, 2), *last)


def _ordered(op: str, part: Tensor) -> Tensor:
    gates = _GATES[op]
    return torch.unflatten(part, 1, (len(gates), -1))[:, gates].flatten(1, 2)
