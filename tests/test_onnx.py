"""ONNX files: our own operators against ONNX Runtime, gradients, attacks, and what falls back."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from withstand import attacks
from withstand._errors import ModelError
from withstand.config import ModelConfig
from withstand.models import FunctionModel, TorchModel, describe, load_model
from withstand.models._onnx import OnnxScores, load_onnx
from withstand.models._onnx_graph import read_graph
from withstand.models._onnx_net import OnnxNet
from withstand.models._onnx_ops import OPERATORS
from withstand.threat import Linf, Threat

F32, F64, I64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def saved(
    path: Path,
    nodes: Sequence[Any],
    shape: Sequence[Any],
    arrays: dict[str, Any] | None = None,
    *,
    opset: int = 21,
    outputs: Sequence[tuple[str, int]] = (("y", F32),),
    kind: int = F32,
    domains: Sequence[str] = (),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, of, None) for name, of in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (arrays or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, str(path))
    return path


class Case(NamedTuple):
    op: str
    shape: tuple[int, ...]
    others: tuple[Any, ...]
    attributes: dict[str, Any]
    opset: int
    first: bool
    outputs: int

    @property
    def label(self) -> str:
        told = "-".join(f"{k}={v}" for k, v in self.attributes.items() if not hasattr(v, "dims"))
        return f"{self.op}-{self.opset}-{told}".replace(" ", "")


def case(
    op: str,
    shape: tuple[int, ...],
    *others: Any,
    opset: int = 21,
    first: bool = True,
    outputs: int = 1,
    **attributes: Any,
) -> Case:
    return Case(op, shape, others, attributes, opset, first, outputs)


RNG = np.random.default_rng(1)


def floats(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values: int) -> Any:
    return np.array(values, np.int64)


def number(value: float) -> Any:
    return np.array(value, np.float32)


ROW, IMAGE = (2, 5), (2, 3, 6, 7)
ELEMENTWISE = (
    "Abs Acos Asin Atan Ceil Cos Cosh Dropout Erf Exp Floor HardSwish Identity Log Mish Neg "
    "Reciprocal Relu Round Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh"
)
BINARY = "Add Sub Mul Div Pow Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mean Sum"
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
BATCH_NORM = (floats(3), floats(3), floats(3), np.abs(floats(3)) + 0.1)
HALF = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
STEPS = (5, 2, 3)
STATES = (None, floats(2, 2, 4), floats(2, 2, 4))
TWO_WAYS = (floats(2, 16, 3), floats(2, 16, 4), floats(2, 32), *STATES)
SCALES = np.array([1, 1, 2, 1.5], np.float32)

CASES = [
    *(case(op, ROW) for op in ELEMENTWISE.split()),
    *(case(op, ROW, floats(5)) for op in BINARY.split()),
    *(case(f"Reduce{op}", IMAGE, whole(1, -1)) for op in REDUCTIONS.split()),
    *(case(f"Reduce{op}", IMAGE, whole(2), keepdims=0) for op in REDUCTIONS.split()),
    case("ReduceMean", IMAGE, opset=13, axes=[2, 3]),
    case("ReduceProd", ROW, keepdims=0),
    case("ReduceMax", ROW),
    case("ReduceSum", ROW, noop_with_empty_axes=1),
    case("Mod", ROW, floats(5), fmod=1),
    case("IsNaN", ROW),
    case("LeakyRelu", ROW, alpha=0.2),
    case("PRelu", IMAGE, floats(3, 1, 1)),
    case("Elu", ROW, alpha=0.7),
    case("Celu", ROW, alpha=0.7),
    case("Selu", ROW),
    case("Selu", ROW, alpha=1.1, gamma=1.2),
    case("Gelu", ROW),
    case("Gelu", ROW, approximate="tanh"),
    case("HardSigmoid", ROW, alpha=0.3),
    case("ThresholdedRelu", ROW, alpha=0.4),
    case("Clip", ROW, number(-0.2), number(0.3)),
    case("Clip", ROW, None, number(0.3)),
    case("Clip", ROW, number(0.1)),
    case("Clip", ROW, opset=6, min=0.0, max=0.5),
    case("MatMul", ROW, floats(5, 3)),
    case("MatMul", (2, 3, 4, 5), floats(5, 3)),
    case("Gemm", ROW, floats(5, 3), floats(3)),
    case("Gemm", ROW, floats(3, 5), floats(1, 3), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", (5, 2), floats(5, 3), transA=1),
    case("Einsum", (2, 3, 4), floats(4, 5), equation="b i j, j k -> b k i"),
    case("Softmax", IMAGE, axis=1),
    case("Softmax", IMAGE),
    case("Softmax", IMAGE, opset=11, axis=1),
    case("LogSoftmax", IMAGE, opset=11),
    case("LogSoftmax", ROW),
    case("ArgMax", ROW, axis=1, keepdims=0),
    case("ArgMin", ROW, axis=1),
    case("CumSum", ROW, np.array(1)),
    case("Conv", IMAGE, floats(4, 3, 3, 3), floats(4)),
    case("Conv", IMAGE, floats(4, 3, 3, 2), strides=[2, 1], pads=[1, 0, 1, 0]),
    case("Conv", IMAGE, floats(4, 3, 3, 3), pads=[1, 0, 2, 1], dilations=[2, 1]),
    case("Conv", IMAGE, floats(6, 1, 3, 3), floats(6), group=3, auto_pad="SAME_UPPER"),
    case("Conv", IMAGE, floats(4, 3, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", IMAGE, floats(4, 3, 3, 3), auto_pad="VALID"),
    case("Conv", (2, 3, 9), floats(4, 3, 3), floats(4), pads=[1, 1]),
    case("Conv", (2, 2, 4, 5, 4), floats(3, 2, 2, 3, 2)),
    case("ConvTranspose", IMAGE, floats(3, 4, 3, 3), floats(4)),
    case(
        "ConvTranspose",
        IMAGE,
        floats(3, 2, 3, 3),
        floats(6),
        strides=[2, 3],
        pads=[1, 0, 0, 1],
        output_padding=[1, 2],
        group=3,
    ),
    case("ConvTranspose", (2, 3, 5), floats(3, 2, 4), strides=[2], pads=[1, 1], dilations=[2]),
    case("BatchNormalization", IMAGE, *BATCH_NORM, epsilon=1e-3),
    case("BatchNormalization", (4, 3), *BATCH_NORM, opset=9),
    case("LayerNormalization", IMAGE, floats(7), floats(7)),
    case("LayerNormalization", IMAGE, floats(6, 7), axis=-2, epsilon=1e-3),
    case("RMSNormalization", IMAGE, floats(7), opset=23),
    case("InstanceNormalization", IMAGE, floats(3), floats(3), epsilon=1e-3),
    case("GroupNormalization", (2, 6, 4), floats(6), floats(6), num_groups=3),
    case("GroupNormalization", (2, 6, 4), floats(3), floats(3), num_groups=3, opset=18),
    case("LRN", (2, 7, 3, 3), size=3, alpha=0.3, beta=0.6, bias=1.5),
    case("MaxPool", IMAGE, kernel_shape=[2, 3]),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 3], pads=[0, 1, 1, 0], ceil_mode=1),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", (2, 3, 9), kernel_shape=[3], strides=[2], auto_pad="SAME_LOWER"),
    case("MaxPool", (2, 1, 4, 5, 4), kernel_shape=[2, 2, 2]),
    case("AveragePool", IMAGE, kernel_shape=[2, 3]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 0, 1, 1]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", (2, 3, 9), kernel_shape=[2]),
    case("GlobalAveragePool", IMAGE),
    case("GlobalMaxPool", IMAGE),
    case("Shape", IMAGE),
    case("Shape", IMAGE, start=1, end=-1),
    case("Size", IMAGE),
    case("Reshape", IMAGE, whole(0, -1)),
    case("Reshape", IMAGE, whole(0, 3, 42)),
    case("Flatten", IMAGE),
    case("Flatten", IMAGE, axis=-2),
    case("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    case("Transpose", IMAGE),
    case("Squeeze", (2, 1, 3, 1), whole(1, -1)),
    case("Squeeze", (2, 1, 3, 1)),
    case("Squeeze", (2, 1, 3), axes=[1], opset=11),
    case("Unsqueeze", ROW, whole(-1, 0)),
    case("Unsqueeze", ROW, axes=[1], opset=11),
    case("Expand", (2, 1, 3), whole(1, 4, 1)),
    case("Tile", ROW, whole(1, 2)),
    case("Concat", ROW, floats(2, 3), axis=1),
    case("Concat", ROW, floats(2, 5), axis=-2),
    case("Split", ROW, whole(2, 3), axis=1, outputs=2),
    case("Split", ROW, axis=-1, num_outputs=2, outputs=2),
    case("Split", (4, 5), outputs=2, opset=11),
    case("Slice", IMAGE, whole(1, -3), whole(9, -1), whole(2, 3)),
    case("Slice", IMAGE, whole(-1), whole(-100), whole(3), whole(-2)),
    case("Slice", IMAGE, whole(0, 1), whole(2, 3)),
    case("Slice", IMAGE, starts=[1], ends=[2**31], axes=[1], opset=9),
    case("Gather", IMAGE, whole(2, -1, 0), axis=1),
    case("Gather", IMAGE, np.array([[0, 1], [2, -1]]), axis=2),
    case("Gather", ROW, np.array(3), axis=1),
    case("GatherElements", ROW, np.array([[0, -1], [2, 1]]), axis=1),
    case("Trilu", (4, 4), upper=0),
    case("Trilu", (4, 4), np.array(1)),
    case("DepthToSpace", (1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", (1, 2, 4, 6), blocksize=2),
    case("Pad", IMAGE, whole(0, 0, 1, 2, 0, 0, 3, 0)),
    case("Pad", IMAGE, whole(0, 0, 1, 2, 0, 0, 3, 0), number(0.7)),
    case("Pad", IMAGE, whole(0, 0, -1, 2, 0, 0, 3, -2)),
    case("Pad", IMAGE, whole(1, 2, 3, 1), None, whole(2, -1), mode="reflect"),
    case("Pad", IMAGE, whole(1, 2, 3, 1), None, whole(2, 3), mode="edge"),
    case("Pad", IMAGE, whole(1, 2, 3, 1), None, whole(2, 3), mode="wrap"),
    case("Pad", IMAGE, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.3, opset=10),
    case("Resize", IMAGE, None, SCALES, mode="nearest"),
    case("Resize", IMAGE, None, np.array([1, 1, 0.6, 1.7], np.float32), nearest_mode="floor"),
    case("Resize", IMAGE, None, None, whole(2, 3, 9, 5), nearest_mode="ceil"),
    case("Resize", IMAGE, None, None, whole(9, 5), axes=[2, 3], **HALF),
    case("Resize", IMAGE, None, SCALES, nearest_mode="round_prefer_ceil"),
    case("Resize", IMAGE, None, SCALES, **HALF),
    case(
        "Resize",
        IMAGE,
        None,
        None,
        whole(2, 3, 1, 5),
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    case(
        "Resize",
        IMAGE,
        None,
        None,
        whole(2, 3, 11, 4),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    case(
        "Resize", IMAGE, None, SCALES, mode="nearest", coordinate_transformation_mode="asymmetric"
    ),
    case("Resize", IMAGE, None, SCALES, mode="cubic"),
    case("Resize", IMAGE, SCALES, opset=10),
    case("Upsample", IMAGE, np.array([1, 1, 2, 3], np.float32), opset=9),
    case("Upsample", IMAGE, np.array([1, 1, 2, 3], np.float32), opset=9, mode="linear"),
    case("Where", ROW, floats(5), np.array([True, False, True, True, False]), first=False),
    case("Cast", ROW, to=I64),
    case("Cast", ROW, to=F64),
    case("CastLike", ROW, whole(1)),
    case("LSTM", STEPS, floats(1, 16, 3), floats(1, 16, 4), floats(1, 32), hidden_size=4),
    case("LSTM", STEPS, *TWO_WAYS, direction="bidirectional", hidden_size=4, outputs=3),
    case("GRU", STEPS, floats(1, 12, 3), floats(1, 12, 4), linear_before_reset=1, hidden_size=4),
    case("RNN", STEPS, floats(1, 4, 3), floats(1, 4, 4), floats(1, 8), hidden_size=4, outputs=2),
]


def written(path: Path, made: Case, kind: int = F32) -> Path:
    """The operator between the input and one output, which is cast to the input's type."""
    arrays = {f"c{k}": a for k, a in enumerate(made.others) if a is not None}
    if kind == F64:
        arrays = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in arrays.items()}
    others = [f"c{k}" if a is not None else "" for k, a in enumerate(made.others)]
    names = ["x", *others] if made.first else [*others[::-1], "x"]
    outs = [f"o{k}" for k in range(made.outputs)]
    node = helper.make_node(made.op, names, outs, **made.attributes)
    last = helper.make_node("Cast", outs[-1:], ["y"], to=kind)
    shape = made.shape
    return saved(
        path, [node, last], shape, arrays, opset=made.opset, outputs=[("y", kind)], kind=kind
    )


def reference(path: Path, x: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("made", CASES, ids=lambda made: made.label)
def test_operators_answer_as_onnx_runtime_does(made: Case, tmp_path: Path) -> None:
    path = written(tmp_path / "op.onnx", made)
    graph = read_graph(path, "op.onnx")
    assert not graph.missing
    # Softmax would come as its logarithm, which another test looks at.
    net = OnnxNet(graph)
    low, high = (0.05, 0.95) if made.op in ("Log", "Sqrt", "Pow", "ReduceLogSum") else (-0.9, 0.9)
    x = np.random.default_rng(0).uniform(low, high, made.shape).astype(np.float32)
    theirs = torch.from_numpy(reference(path, x))
    ours = net(torch.from_numpy(x)).detach()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_nothing_that_meets_the_data_stays_behind_on_the_cpu(tmp_path: Path) -> None:
    for made in CASES:
        net = OnnxNet(read_graph(written(tmp_path / "op.onnx", made), "op.onnx")).to("meta")
        net(torch.empty(made.shape, device="meta"))


def test_every_operator_is_tried_against_onnx_runtime() -> None:
    tried = {made.op for made in CASES}
    # Tried below, where they have inputs of other kinds.
    elsewhere = {"And", "Or", "Xor", "Not", "ConstantOfShape", "Range", "Swish"}
    whole = {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"),
        *("ConvInteger", "QLinearConv", "QLinearMatMul"),
    }
    left = {op for op in OPERATORS if not op.startswith("ai.onnx.ml.")} - tried - elsewhere - whole
    assert not left


def test_logic_and_shapes_of_other_kinds(tmp_path: Path) -> None:
    zero, one = number(0.0), np.array([1.5], np.float32)
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Less", ["x", "half"], ["b"]),
        helper.make_node("And", ["a", "b"], ["and"]),
        helper.make_node("Or", ["a", "b"], ["or"]),
        helper.make_node("Xor", ["and", "or"], ["xor"]),
        helper.make_node("Not", ["xor"], ["not"]),
        helper.make_node("Cast", ["not"], ["whole"], to=I64),
        helper.make_node("Mod", ["whole", "three"], ["mod"]),
        helper.make_node("Div", ["mod", "two"], ["div"]),
        helper.make_node("Cast", ["mod"], ["mask"], to=F32),
        helper.make_node("Cast", ["div"], ["rest"], to=F32),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["full"], value=numpy_helper.from_array(one)
        ),
        helper.make_node("Range", ["zero", "five", "step"], ["range"]),
        helper.make_node("Swish", ["x"], ["swish"], alpha=1.2),
        helper.make_node("Sum", ["mask", "rest", "full", "range", "swish"], ["y"]),
    ]
    arrays = {"zero": zero, "half": number(0.3), "three": whole(3), "two": whole(2)}
    arrays |= {"five": number(5), "step": number(1)}
    path = saved(tmp_path / "logic.onnx", nodes, ROW, arrays, opset=24)
    x = floats(*ROW)
    graph = read_graph(path, "logic.onnx")
    assert not graph.missing
    ours = OnnxNet(graph)(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(ours, reference(path, x), atol=1e-5)


SMOOTH = (
    "AveragePool Celu Conv ConvTranspose Einsum GRU Gelu Gemm GroupNormalization HardSwish "
    "InstanceNormalization LRN LSTM LayerNormalization LogSoftmax PRelu Pad RMSNormalization RNN "
    "ReduceL2 ReduceLogSumExp Resize Slice Softplus Split Upsample"
)


@pytest.mark.parametrize(
    "made", [made for made in CASES if made.op in SMOOTH.split()], ids=lambda made: made.label
)
def test_gradients_are_those_of_finite_differences(made: Case, tmp_path: Path) -> None:
    net = OnnxNet(read_graph(written(tmp_path / "op.onnx", made, F64), "op.onnx"))
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    x = np.random.default_rng(0).uniform(0.1, 0.9, made.shape)
    # What is nearest in place does not depend on the type, and its weights need none.
    point = torch.from_numpy(x).requires_grad_()
    assert torch.autograd.gradcheck(net, (point,), atol=1e-5, fast_mode=True)


class Small(nn.Module):
    """The usual layers of an image network, with a branch and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.group = nn.GroupNorm(2, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first((x - 0.5) / 0.25)))
        x = nn.functional.max_pool2d(x + self.group(self.second(x)), 2)
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
        tokens = nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.last(nn.functional.gelu(tokens).mean(1))


def exported(net: nn.Module, x: Tensor, path: Path, *, free: bool = True) -> Path:
    axes = {"x": {0: "n"}, "y": {0: "n"}} if free else None
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (x,),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
        )
    return path


def objective(scores: Tensor) -> Tensor:
    return scores[:, 0] - scores[:, 1].square()


@pytest.mark.parametrize("free", [True, False], ids=["free", "fixed"])
def test_a_network_has_its_own_gradients(free: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small()
    shown = torch.rand(2 if free else 1, 3, 8, 8)
    path = exported(net, shown, tmp_path / "net.onnx", free=free)
    model, own = load_onnx(path), TorchModel(net)
    assert isinstance(model, TorchModel), getattr(model, "note", "")
    x = torch.rand(5, 3, 8, 8)
    assert torch.allclose(model.scores(x), own.scores(x), atol=1e-5)
    ours, theirs = model.gradient(x, objective), own.gradient(x, objective)
    assert torch.allclose(ours.gradient, theirs.gradient, atol=1e-5)
    places = torch.tensor([[0, 4], [1, 2], [3, 0], [2, 2], [4, 1]])
    assert torch.allclose(model.jacobian(x, places)[1], own.jacobian(x, places)[1], atol=1e-5)
    assert torch.equal(model.scores(x)[:2], model.scores(x[:2]))
    told = describe(model)
    # BatchNorm may have been merged into the convolution before it.
    assert told["net"] == "OnnxNet"
    assert told["parameters"] > 500


def test_a_fixed_batch_of_several_is_filled_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small()
    path = exported(net, torch.rand(4, 3, 8, 8), tmp_path / "net.onnx", free=False)
    model, x = load_onnx(path), torch.rand(6, 3, 8, 8)
    queried = load_onnx(path, gradients=False)
    assert isinstance(queried, OnnxScores)
    for rows in (1, 4, 6):
        wanted = net(x[:rows])
        assert torch.allclose(model.scores(x[:rows]), wanted, atol=1e-5)
        assert torch.allclose(queried.scores(x[:rows]), wanted, atol=1e-5)


class Token(nn.Module):
    """Looks at the number of rows in a way that the exporter takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.last = nn.Parameter(torch.ones(1, 2)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat((self.token.expand(len(x), -1), x), 1))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_batch_that_is_only_said_to_be_free(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = Token(), torch.rand(7, 4)
    path = exported(net, torch.rand(rows, 4), tmp_path / "net.onnx")
    models = [load_onnx(path), load_onnx(path, gradients=False)]
    assert [type(model) for model in models] == [TorchModel, OnnxScores]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for model in (*models, load_onnx(path)):
        for count in (1, 5, 7):
            assert torch.allclose(model.scores(x[:count]), net(x[:count]), atol=1e-6)


def test_a_network_that_always_fails(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = saved(tmp_path / "net.onnx", [node], ("n", 4), {"shape": whole(7, -1)})
    with pytest.raises(ModelError, match="fail on random inputs of their own shape") as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


def test_batches_that_cannot_be_mapped_are_asked_one_by_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        # The size comes from the values, which a map over batches cannot follow.
        helper.make_node("Range", ["mean", "three", "one"], ["range"]),
        helper.make_node("ReduceSum", ["range"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["x", "sum"], ["y"]),
    ]
    arrays = {"three": number(3), "one": number(1)}
    path = saved(tmp_path / "net.onnx", nodes, (1, 4), arrays)
    model = load_onnx(path)
    assert isinstance(model, TorchModel)
    x = torch.rand(3, 4)
    assert torch.allclose(
        model.scores(x),
        torch.from_numpy(np.concatenate([reference(path, r[None].numpy()) for r in x])),
    )
    assert isinstance(model.net, OnnxNet)
    assert not model.net.mapped


def test_an_attack_finds_the_same_examples(digits: Any, tmp_path: Path) -> None:
    x, y = torch.from_numpy(digits.data.x[:20]), torch.from_numpy(digits.data.y[:20])
    exported(digits.net, x[:2], tmp_path / "net.onnx")
    config = ModelConfig.model_validate({"kind": "onnx", "weights": "net.onnx"})
    threat, attack = Threat(region=Linf(0.1)), attacks.APGD(steps=20)
    ours = attacks.run(attack, load_model(config, tmp_path), x, y, threat, seed=0)
    theirs = attacks.run(attack, digits.model, x, y, threat, seed=0)
    assert 5 < int(theirs.success.sum()) < 20
    assert torch.equal(ours.success, theirs.success)
    assert torch.equal(ours.ledger.forwards, theirs.ledger.forwards)
    assert torch.allclose(ours.x_adv, theirs.x_adv, atol=1e-4)


def test_probabilities_come_as_logarithms_that_do_not_saturate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        body[2].weight.mul_(1000)
    path = exported(nn.Sequential(body, nn.Softmax(1)), torch.rand(2, 4), tmp_path / "p.onnx")
    x = torch.rand(50, 4)
    for model in (load_onnx(path), load_onnx(path, gradients=False)):
        assert torch.equal(model.labels(x), body(x).argmax(1))
    model = load_onnx(path)
    wanted = TorchModel(body).gradient(x, lambda s: s[:, 0] - s[:, 1])
    ours = model.gradient(x, lambda s: s[:, 0] - s[:, 1])
    assert torch.allclose(ours.gradient, wanted.gradient, rtol=1e-3, atol=1e-2)
    assert torch.allclose(model.scores(x).exp().sum(1), torch.ones(50), atol=1e-5)


def unknown(path: Path) -> Path:
    nodes = [
        helper.make_node("Det", ["x"], ["det"]),
        helper.make_node("Unsqueeze", ["det", "one"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["both"], axis=1),
        helper.make_node("Mul", ["both", "signs"], ["y"]),
    ]
    arrays = {"one": whole(1), "signs": np.array([[1.0, -1.0]], np.float32)}
    return saved(path, nodes, ("n", 3, 3), arrays)


def test_an_unknown_operator_is_named_and_leaves_scores(tmp_path: Path) -> None:
    model = load_onnx(unknown(tmp_path / "net.onnx"), (-1, 1))
    assert isinstance(model, OnnxScores)
    assert model.access == "scores"
    assert model.note == "withstand has no operator Det"
    x = torch.rand(4, 3, 3) * 2 - 1
    assert torch.allclose(model.scores(x)[:, 0], torch.linalg.det(x), atol=1e-5)
    with pytest.raises(ModelError, match="no gradients: withstand has no operator Det; use access"):
        model.gradient(x, objective)
    y = model.labels(x)
    threat = Threat(region=Linf(0.5), access="scores")
    result = attacks.run(attacks.Square(queries=100), model, x, y, threat)
    assert bool(result.success.any())


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), "MaxPool with ind"),
        (
            helper.make_node("Resize", ["x", "", "s"], ["y"], antialias=1, mode="linear"),
            "antialias",
        ),
        (helper.make_node("CumSum", ["x", "one"], ["y"], reverse=1), "CumSum with reverse 1"),
    ],
    ids=["indices", "antialias", "reverse"],
)
def test_what_an_operator_cannot_do_is_named(node: Any, words: str, tmp_path: Path) -> None:
    arrays = {"s": np.array([1, 1, 0.5, 0.5], np.float32), "one": np.array(1)}
    model = load_onnx(saved(tmp_path / "net.onnx", [node], ("n", 1, 4, 4), arrays))
    assert isinstance(model, OnnxScores)
    assert words in model.note


def test_an_answer_that_differs_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(
        nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.rand(2, 4), tmp_path / "n.onnx"
    )
    assert isinstance(load_onnx(path), TorchModel)
    monkeypatch.setitem(OPERATORS, "Tanh", lambda node, inputs: 1.01 * torch.tanh(inputs[0]))
    model = load_onnx(path)
    assert isinstance(model, OnnxScores)
    assert "off those of ONNX Runtime" in model.note
    x = torch.rand(3, 4)
    assert torch.allclose(model.scores(x), torch.from_numpy(reference(path, x.numpy())))


def classifier(path: Path, *, binary: bool) -> tuple[Path, Any, Any]:
    """What skl2onnx writes for a scaler and a logistic regression, with a dictionary for a row."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    x, y = (x[:100], y[:100]) if binary else (x, y)
    x = x.astype(np.float32)
    fitted = LogisticRegression(max_iter=2000).fit((x - 1) * 0.5, y)
    rows = (-fitted.coef_, fitted.coef_) if binary else (fitted.coef_,)
    starts = (-fitted.intercept_, fitted.intercept_) if binary else (fitted.intercept_,)
    ml = "ai.onnx.ml"
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain=ml, offset=[1.0] * 4, scale=[0.5] * 4),
        helper.make_node(
            "LinearClassifier",
            ["scaled"],
            ["label", "raw"],
            domain=ml,
            classlabels_ints=[int(k) for k in fitted.classes_],
            coefficients=np.concatenate(rows).reshape(-1).tolist(),
            intercepts=np.concatenate(starts).tolist(),
            post_transform="LOGISTIC" if binary else "SOFTMAX",
        ),
        helper.make_node("Normalizer", ["raw"], ["p"], domain=ml, norm="L1"),
        helper.make_node(
            "ZipMap", ["p"], ["maps"], domain=ml, classlabels_int64s=list(map(int, fitted.classes_))
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F32, [None, 4])],
        [
            helper.make_tensor_value_info("label", I64, [None]),
            helper.make_value_info(
                "maps",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F32, None))
                ),
            ),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid(ml, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path, fitted, x


@pytest.mark.parametrize("binary", [True, False], ids=["two", "three"])
def test_classifiers_of_scikit_learn(binary: bool, tmp_path: Path) -> None:
    path, fitted, x = classifier(tmp_path / "iris.onnx", binary=binary)
    rows, wanted = torch.from_numpy(x), fitted.predict_proba((x - 1) * 0.5)
    queried = load_onnx(path, (0, 8), gradients=False)
    assert isinstance(queried, OnnxScores)
    assert np.allclose(queried.scores(rows).exp().numpy(), wanted, atol=1e-5)
    assert (queried.labels(rows).numpy() == fitted.predict((x - 1) * 0.5)).all()
    model = load_onnx(path, (0, 8))
    assert isinstance(model, TorchModel)
    assert np.allclose(model.scores(rows).numpy(), wanted, atol=1e-5)
    assert bool((model.gradient(rows, objective).gradient != 0).any())


def test_trees_in_onnx_answer_through_onnx_runtime(tmp_path: Path) -> None:
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[1.0, 0.0, 0.25, 0.75],
        post_transform="NONE",
    )
    outputs = [("label", I64), ("p", F32)]
    path = saved(
        tmp_path / "t.onnx", [tree], ("n", 2), opset=15, outputs=outputs, domains=["ai.onnx.ml"]
    )
    model = load_onnx(path)
    assert isinstance(model, OnnxScores)
    assert "ai.onnx.ml.TreeEnsembleClassifier" in model.note
    scores = model.scores(torch.tensor([[0.0, 0.2], [0.0, 0.9]]))
    assert torch.allclose(scores.exp(), torch.tensor([[1, 0], [0.25, 0.75]]))
    only = saved(
        tmp_path / "l.onnx", [tree], ("n", 2), opset=15, outputs=outputs[:1], domains=["ai.onnx.ml"]
    )
    voted = load_onnx(only)
    assert (voted.access, voted.labels(torch.tensor([[0.0, 0.9]])).tolist()) == ("labels", [1])


def test_operators_that_the_standard_defines_by_others(tmp_path: Path) -> None:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[0, 2, 3])
    model = load_onnx(saved(tmp_path / "n.onnx", [node], ("n", 3, 4, 4), opset=13))
    assert isinstance(model, TorchModel)


def test_functions_of_the_file(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets[:1]
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", F32, ["n", 3])],
        [helper.make_tensor_value_info("y", F32, ["n", 3])],
    )
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[twice])
    onnx.save(made, str(tmp_path / "f.onnx"))
    model, x = load_onnx(tmp_path / "f.onnx"), torch.rand(2, 3)
    assert isinstance(model, TorchModel)
    assert torch.equal(model.scores(x), 2 * x)


def test_other_types_of_input(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    x = torch.rand(2, 3)
    for kind, of in ((F64, torch.float64), (TensorProto.FLOAT16, torch.float16)):
        path = saved(tmp_path / "n.onnx", [relu], ("n", 3), kind=kind, outputs=[("y", kind)])
        model = load_onnx(path)
        assert isinstance(model, TorchModel)
        assert model.scores(x).dtype == of
        assert model.gradient(x, objective).gradient.dtype == torch.float32
    cast = [helper.make_node("Cast", ["x"], ["y"], to=F32)]
    path = saved(tmp_path / "n.onnx", cast, ("n", 3), kind=TensorProto.UINT8)
    whole = load_onnx(path, (0, 255))
    assert isinstance(whole, OnnxScores)
    assert whole.note == "its input is not of a floating type"
    assert whole.scores(torch.tensor([[3.0, 200, 7]])).tolist() == [[3, 200, 7]]


def test_sizes_that_the_file_leaves_open(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    path = exported(net, torch.rand(1, 1, 9, 9), tmp_path / "n.onnx")
    made = onnx.load(str(path))
    for dim in made.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    onnx.save(made, str(path))
    model = load_onnx(path)
    for size in (7, 20):
        x = torch.rand(2, 1, size, size)
        assert torch.allclose(model.scores(x), net(x), atol=1e-5)


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    path = exported(nn.Linear(4, 3), torch.rand(2, 4), tmp_path / "n.onnx")
    with pytest.raises(ModelError, match=r"takes inputs of shape \(4\), but \(2, 2\) came"):
        load_onnx(path).scores(torch.rand(3, 2, 2))
    two = saved(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], ("n", 3))
    made = onnx.load(str(two))
    made.graph.input.append(helper.make_tensor_value_info("z", F32, ["n", 3]))
    onnx.save(made, str(two))
    with pytest.raises(ModelError, match=r"take 2 inputs \(x, z\); only a network of one tensor"):
        load_onnx(two)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone.onnx are not there; correct model.weights"):
        load_onnx(tmp_path / "gone.onnx", name="gone.onnx")
    content = exported(nn.Linear(4, 3), torch.rand(2, 4), tmp_path / "n.onnx").read_bytes()
    for damaged in (b"", b"hello", content[:100], content[: len(content) // 2], content[:-20]):
        (tmp_path / "n.onnx").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"n.onnx cannot be (read as|run by) ONNX") as caught:
            load_onnx(tmp_path / "n.onnx", name="n.onnx")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gradients", [True, False])
def test_other_weights_are_told_of_as_another_model(tmp_path: Path, gradients: bool) -> None:
    told = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        folder = tmp_path / str(len(told))
        folder.mkdir()
        made = onnx.load(str(exported(nn.Linear(40, 30), torch.rand(2, 40), folder / "n.onnx")))
        onnx.save(made, str(folder / "e.onnx"), save_as_external_data=True, location="e.bin",
                  size_threshold=0)  # fmt: skip
        told.append(describe(load_onnx(folder / "e.onnx", gradients=gradients)))
    # The file itself is the same, since its weights lie beside it.
    assert len({(tmp_path / name / "e.onnx").read_bytes() for name in "012"}) == 1
    assert told[0] == told[1] != told[2]


def test_weights_that_are_not_beside_the_file(tmp_path: Path) -> None:
    made = onnx.load(str(exported(nn.Linear(40, 30), torch.rand(2, 40), tmp_path / "n.onnx")))
    onnx.save(
        made,
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location="e.bin",
        size_threshold=0,
    )
    assert isinstance(load_onnx(tmp_path / "e.onnx"), TorchModel)
    (tmp_path / "inner").mkdir()
    outside = onnx.load(str(tmp_path / "e.onnx"), load_external_data=False)
    for weight in outside.graph.initializer:
        weight.external_data[0].value = "../e.bin"
    (tmp_path / "inner" / "o.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(ModelError, match=r"o.onnx cannot be read as ONNX .* file inside"):
        load_onnx(tmp_path / "inner" / "o.onnx", name="o.onnx")
    (tmp_path / "e.bin").unlink()
    with pytest.raises(ModelError, match=r"e.onnx cannot be read as ONNX"):
        load_onnx(tmp_path / "e.onnx")


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = exported(nn.Linear(4, 3), torch.rand(2, 4), tmp_path / "n.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(load_onnx(known), TorchModel)
    words = (
        r"no operator Det; onnxruntime, which .* not installed; run pip install 'withstand\[onnx\]'"
    )
    with pytest.raises(ModelError, match=words):
        load_onnx(unknown(tmp_path / "u.onnx"), (-1, 1))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "withstand.models._onnx_graph")
    words = r"need onnx, which is not installed; run pip install 'withstand\[onnx\]'"
    with pytest.raises(ModelError, match=words):
        load_onnx(known)


def test_the_configuration_chooses(tmp_path: Path) -> None:
    exported(nn.Linear(4, 3), torch.rand(2, 4), tmp_path / "n.onnx")
    section = {"kind": "onnx", "weights": "n.onnx", "domain": [-1, 1]}
    model = load_model(ModelConfig.model_validate(section), tmp_path)
    assert isinstance(model, TorchModel)
    assert (model.domain.lower, model.domain.upper) == (-1, 1)
    section["access"] = "scores"
    queried = load_model(ModelConfig.model_validate(section), tmp_path)
    assert isinstance(queried, FunctionModel)
    assert queried.access == "scores"


def test_pictures_of_8_bits_need_a_domain_of_such(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=F32)
    path = saved(tmp_path / "net.onnx", [cast], ["n", 3], kind=TensorProto.UINT8)
    with pytest.raises(ModelError, match=r"whole numbers of 8 bits, .*domain: \[0, 255\]"):
        load_onnx(path)
    scores = load_onnx(path, (0, 255)).scores(torch.tensor([[0.0, 7.0, 255.0]]))
    assert scores.tolist() == [[0.0, 7.0, 255.0]]
