"""Quantised ONNX networks: answers of ONNX Runtime, gradients as if nothing was rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from withstand.attacks import APGD, run
from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.models import OnnxScores, Sloped, TorchModel, load_onnx, straight_through
from withstand.models._onnx_graph import read_graph
from withstand.models._onnx_net import OnnxNet
from withstand.threat import Linf, Threat

RNG = np.random.default_rng(4)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def saved(path: Path, nodes: list[Any], shape: tuple[int, ...], arrays: dict[str, Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


def f32(*values: float) -> Any:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def whole(*shape: int, kind: Any = np.int8) -> Any:
    return RNG.integers(-100, 100, shape).astype(kind)


IN = [node("QuantizeLinear", "x s z", "q")]
INPUT = {"s": f32(0.02), "z": np.array(128, np.uint8)}
OUT = {"os": f32(0.3), "oz": np.array(120, np.uint8)}
LAST = [node("DequantizeLinear", "o os oz", "y")]
GRAPHS: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any]]] = {
    "there and back": ([*IN, node("DequantizeLinear", "q s z", "y")], (2, 5), INPUT),
    "without a zero point": (
        [node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")],
        (2, 5),
        {"s": f32(0.02)},
    ),
    "to a named type": (
        [
            node("QuantizeLinear", "x s", "q", output_dtype=TensorProto.INT16),
            node("DequantizeLinear", "q s", "y"),
        ],
        (2, 5),
        {"s": f32(0.0003)},
    ),
    "along an axis": (
        [
            node("QuantizeLinear", "x s z", "q", axis=1),
            node("DequantizeLinear", "q s z", "y", axis=1),
        ],
        (2, 3, 4, 4),
        {"s": f32(0.02, 0.005, 0.1), "z": np.array([0, 7, -3], np.int8)},
    ),
    "matrix of whole numbers": (
        [
            node("DynamicQuantizeLinear", "x", "q s z"),
            node("MatMulInteger", "q w z wz", "i"),
            node("Cast", "i", "f", to=TensorProto.FLOAT),
            node("Mul", "f s", "y"),
        ],
        (2, 5),
        {"w": whole(5, 4), "wz": np.array([1, 0, -2, 3], np.int8)},
    ),
    "matrix without zero points": (
        [
            node("DynamicQuantizeLinear", "x", "q s z"),
            node("MatMulInteger", "q w", "i"),
            node("Cast", "i", "y", to=TensorProto.FLOAT),
        ],
        (2, 5),
        {"w": whole(5, 4, kind=np.uint8)},
    ),
    "convolution of whole numbers": (
        [
            *IN,
            node("ConvInteger", "q w z wz", "i", pads=[1, 1, 1, 1]),
            node("Cast", "i", "y", to=TensorProto.FLOAT),
        ],
        (2, 3, 5, 6),
        INPUT | {"w": whole(4, 3, 3, 3, kind=np.uint8), "wz": np.array(3, np.uint8)},
    ),
    "quantised convolution": (
        [*IN, node("QLinearConv", "q s z w ws wz os oz b", "o", strides=[2, 2]), *LAST],
        (2, 3, 6, 6),
        INPUT
        | OUT
        | {"w": whole(4, 3, 3, 3), "ws": f32(0.01, 0.02, 0.005, 0.01)}
        | {"wz": np.zeros(4, np.int8), "b": whole(4, kind=np.int32)},
    ),
    "quantised matrix": (
        [*IN, node("QLinearMatMul", "q s z w ws wz os oz", "o"), *LAST],
        (2, 5),
        INPUT | OUT | {"w": whole(5, 4), "ws": f32(0.02), "wz": np.array(5, np.int8)},
    ),
    "weights alone": (
        [node("DequantizeLinear", "w s z", "r", axis=0), node("Conv", "x r", "y")],
        (2, 3, 5, 5),
        {"w": whole(4, 3, 3, 3), "s": f32(0.1, 0.2, 0.3, 0.1), "z": whole(4)},
    ),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_whole_numbers_are_those_of_onnx_runtime(what: str, tmp_path: Path) -> None:
    nodes, shape, arrays = GRAPHS[what]
    path = saved(tmp_path / "net.onnx", nodes, shape, arrays)
    graph = read_graph(path, "net.onnx")
    assert not graph.missing
    x = RNG.uniform(-1, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["y"], {"x": x})
    point = torch.from_numpy(x).requires_grad_()
    ours = OnnxNet(graph)(point)
    # One step of an output, where a sum lies between two.
    step = 0.3 if "o" in {name for each in nodes for name in each.output} else 1e-4
    gap = np.abs(ours.detach().numpy() - theirs)
    assert (gap > 1e-4).mean() <= 0.02
    assert gap.max() <= 1.01 * step
    ours.sum().backward()
    assert point.grad is not None
    assert bool(point.grad.isfinite().all())
    assert bool((point.grad != 0).any())


def test_the_slope_is_that_of_the_network_which_does_not_round(tmp_path: Path) -> None:
    nodes, shape, arrays = GRAPHS["quantised matrix"]
    arrays = arrays | {"os": f32(3.0)}
    net = OnnxNet(read_graph(saved(tmp_path / "n.onnx", nodes, shape, arrays), "n"))
    x = torch.zeros(shape, requires_grad=True)
    net(x).sum().backward()
    weights = 0.02 * (arrays["w"].astype(np.float32) - 5)
    assert torch.allclose(x.grad, torch.from_numpy(weights.sum(1)).expand(shape), atol=1e-5)  # type: ignore[arg-type]


def test_zeros_alone_have_a_gradient_that_is_a_number(tmp_path: Path) -> None:
    nodes, shape, arrays = GRAPHS["matrix of whole numbers"]
    net = OnnxNet(read_graph(saved(tmp_path / "n.onnx", nodes, shape, arrays), "n"))
    x = torch.zeros(shape, requires_grad=True)
    out = net(x)
    out.sum().backward()
    assert bool((out == 0).all())
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_weights_of_whole_numbers_are_made_real_once(tmp_path: Path) -> None:
    nodes, shape, arrays = GRAPHS["weights alone"]
    path = saved(tmp_path / "n.onnx", nodes, shape, arrays)
    net = OnnxNet(read_graph(path, "n"))
    assert [step.op for step, _ in net.steps] == ["Conv"]
    # Nothing is rounded on the way, so that it is a network like any other.
    model = load_onnx(path, (-1, 1))
    assert isinstance(model, TorchModel)
    assert not isinstance(model.net, Sloped)


def test_what_onnx_runtime_rounds_beside_such_weights_is_its_answer(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", "w s z", "r", axis=1), node("MatMul", "x r", "y")]
    arrays = {"w": whole(5, 4), "s": f32(0.1, 0.2, 0.3, 0.1), "z": whole(4)}
    path = saved(tmp_path / "n.onnx", nodes, ("n", 5), arrays)  # type: ignore[arg-type]
    model, x = load_onnx(path, (-1, 1)), RNG.uniform(-1, 1, (6, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (served,) = session.run(["y"], {"x": x})
    assert model.access == "gradients"
    assert np.allclose(model.scores(torch.from_numpy(x)).detach().numpy(), served, atol=1e-4)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (node("QuantizeLinear", "x s z", "q", axis=0, block_size=2), "block_size"),
        (node("QuantizeLinear", "x s", "q", output_dtype=TensorProto.UINT16), "8, 16 or 32 bits"),
    ],
)
def test_what_is_not_known_is_named_and_leaves_scores(
    made: Any, words: str, tmp_path: Path
) -> None:
    blocks = "block_size" in words
    scale = np.full((2, 4), 0.1, np.float32) if blocks else f32(0.01)
    arrays = {"s": scale, "z": np.zeros(scale.shape, np.uint8)}
    back = {"axis": 0, "block_size": 2} if blocks else {}
    last = node("DequantizeLinear", "q s z" if blocks else "q s", "y", **back)
    model = load_onnx(saved(tmp_path / "n.onnx", [made, last], (4, 4), arrays), (0, 1))
    assert isinstance(model, OnnxScores)
    assert words in model.note


def quantised(net: nn.Module, x: Tensor, folder: Path, *, dynamic: bool) -> Path:
    """The network in whole numbers of 8 bits, as ONNX Runtime's own tool makes them."""
    from onnxruntime import quantization

    plain, path = folder / "plain.onnx", folder / "quantised.onnx"
    free = {"x": {0: "n"}, "y": {0: "n"}}
    torch.onnx.export(
        net.eval(), (x[:2],), str(plain), dynamo=False, input_names=["x"], output_names=["y"],
        dynamic_axes=free,
    )  # fmt: skip

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"x": x.numpy()}])

        def get_next(self) -> Any:
            return next(self.left, None)

    if dynamic:
        quantization.quantize_dynamic(str(plain), str(path))
    else:
        quantization.quantize_static(str(plain), str(path), Reader(), per_channel=True)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_quantised_network_is_attacked_like_the_one_it_was_made_of(
    dynamic: bool, digits: Any, tmp_path: Path
) -> None:
    data = digits.data.head(60)
    x = torch.from_numpy(data.x)
    path = quantised(digits.net, x, tmp_path, dynamic=dynamic)
    model = load_onnx(path)
    assert model.access == "gradients"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (served,) = session.run(["y"], {"x": data.x})
    assert np.array_equal(model.scores(x).detach().numpy(), served)
    threat = Threat(region=Linf(0.08))
    found, y = APGD(steps=20), torch.from_numpy(data.y)
    whole = run(found, model, x, y, threat)
    plain = run(found, TorchModel(digits.net), x, y, threat)
    blind = run(found, TorchModel(_Rounded(load_onnx(path))), x, y, threat)
    assert abs(int(whole.success.sum()) - int(plain.success.sum())) <= 3
    assert whole.success.sum() > 10
    assert blind.success.sum() < 0.7 * whole.success.sum()
    (answers,) = session.run(["y"], {"x": whole.x_adv.numpy()})
    fooled = whole.success.numpy()
    assert (answers.argmax(1)[fooled] != data.y[fooled]).all()


class _Rounded(nn.Module):
    """The network as it is, whose gradient is 0 wherever there is one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.answers = model.net.answers

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.answers(x.detach())
        return answers + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_report_on_a_quantised_network_does_not_take_its_slope_for_a_defect(
    digits: Any, tmp_path: Path
) -> None:
    data = digits.data.head(60)
    path = quantised(digits.net, torch.from_numpy(data.x), tmp_path, dynamic=False)
    model = load_onnx(path)
    report = evaluate(model, data, Threat(region=Linf(0.05)), preset="smoke")
    assert [f.check for f in report.trust.findings if f.verdict == "red"] == []
    wrapped = straight_through(model)
    assert isinstance(wrapped, TorchModel)
    assert isinstance(wrapped.net, Sloped)
    x = from_arrays(data.x, data.y).x[:4]
    point = torch.from_numpy(x)
    ask = model.gradient(point, lambda scores: scores[:, 0])
    again = wrapped.gradient(point, lambda scores: scores[:, 0])
    assert torch.equal(ask.gradient, again.gradient)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_onnx_runtime_the_network_on_torch_answers(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.from_numpy(digits.data.x[:20])
    path = quantised(digits.net, x, tmp_path, dynamic=False)
    served = load_onnx(path).scores(x)
    monkeypatch.setattr("withstand.models._onnx._runtime", lambda *given: None)
    alone = load_onnx(path)
    assert isinstance(alone, TorchModel)
    assert isinstance(alone.net, Sloped)
    assert (alone.scores(x).argmax(1) == served.argmax(1)).float().mean() > 0.9
