"""First convolutions of pictures: cheaper input gradients, and nothing else changed by that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from withstand.models import TorchModel

NETS = {
    "grey": lambda: nn.Conv2d(1, 6, 4, stride=2, padding=1),
    "colour": lambda: nn.Conv2d(3, 6, 3),
    "dilated": lambda: nn.Conv2d(2, 6, 3, padding=2, dilation=2, bias=False),
    "reflecting": lambda: nn.Conv2d(3, 6, 5, padding=2, padding_mode="reflect"),
    "oblong": lambda: nn.Conv2d(3, 6, (1, 5), stride=(1, 3)),
    "wide": lambda: nn.Conv2d(4, 6, 3),
    "grouped": lambda: nn.Conv2d(3, 6, 3, groups=3),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def total(scores: Tensor) -> Tensor:
    return scores.square().sum(1)


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_the_same_but_for_rounding(name: str) -> None:
    torch.manual_seed(0)
    first = NETS[name]()
    net = nn.Sequential(first, nn.ReLU(inplace=True), nn.Conv2d(6, 4, 2), nn.Flatten())
    x = torch.rand(5, first.in_channels, 16, 14)
    model = TorchModel(net, preprocess=lambda x: (x - 0.5) / 0.3)
    expected = model.gradient(x, total)
    with model.held():
        found = model.gradient(x, total)
    assert torch.equal(found.scores, expected.scores)
    assert torch.allclose(found.gradient, expected.gradient, rtol=1e-4, atol=1e-4)
    assert not first._forward_hooks
    # A row's gradient is its own, however many are asked for beside it.
    with model.held():
        assert torch.equal(model.gradient(x[:2], total).gradient, found.gradient[:2])


class _Named(nn.Module):
    """Names what it gives to its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(input=x).flatten(1)


def test_a_convolution_that_is_called_by_name_is_left_alone() -> None:
    model, x = TorchModel(_Named()), torch.rand(2, 1, 9, 9)
    expected = model.gradient(x, total).gradient
    with model.held():
        assert torch.equal(model.gradient(x, total).gradient, expected)


class _Told(nn.Module):
    """Tells whether the library is on where the gradient passes."""

    def __init__(self, told: list[bool]) -> None:
        super().__init__()
        self.told = told

    def forward(self, x: Tensor) -> Tensor:
        def look(gradient: Tensor) -> None:
            self.told.append(torch._C._get_mkldnn_enabled())

        x = x * 1
        if x.requires_grad:
            x.register_hook(look)
        return x


def test_the_library_is_off_for_the_first_gradient_alone() -> None:
    told: list[bool] = []
    before = (_Told(told), nn.ReLU(), nn.Conv2d(1, 4, 3))
    after = (_Told(told), nn.Conv2d(4, 2, 3), _Told(told), nn.Flatten())
    model, x = TorchModel(nn.Sequential(*before, *after)), torch.rand(2, 1, 9, 9)
    with model.held():
        model.jacobian(x, torch.tensor([[0, 1], [2, 3]]))
        assert told == [True] * 6
        torch.set_num_threads(2)
        model.gradient(x, total)
    assert told == [True] * 9


def test_an_error_in_the_middle_leaves_it_on() -> None:
    first = nn.Conv2d(1, 4, 3)
    told: list[bool] = []
    net = nn.Sequential(first, nn.Flatten())
    model = TorchModel(net)

    def fail(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        def raising(gradient: Tensor) -> None:
            told.append(torch._C._get_mkldnn_enabled())
            raise RuntimeError("in the middle")

        out.register_hook(raising)

    x = torch.rand(2, 1, 9, 9)
    with model.held():
        first.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            model.gradient(x, total)
    # It was off by then.
    assert told == [False]
    assert torch._C._get_mkldnn_enabled()


def test_whoever_has_turned_it_off_finds_it_off() -> None:
    model, x = TorchModel(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())), torch.rand(2, 1, 9, 9)
    torch._C._set_mkldnn_enabled(False)
    try:
        with model.held():
            model.gradient(x, total)
            assert not torch._C._get_mkldnn_enabled()
        assert not torch._C._get_mkldnn_enabled()
    finally:
        torch._C._set_mkldnn_enabled(True)
