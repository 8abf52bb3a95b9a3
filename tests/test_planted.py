"""Every planted defect shows by a direct measurement what its name says, and nothing else broke."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import WithstandError
from withstand.testing import planted
from withstand.testing.planted import PLANTED, Planted

EPS = 0.3
NETS = [defect for defect in PLANTED if defect.kind != "attack"]
# One draw of dropout costs accuracy by design; a constant has none.
ACCURATE = [defect for defect in NETS if defect.name not in ("constant", "dropout_on")]
# Overfitting is trained for, twenty seconds long.
SLOW = {"fgsm_overfit": pytest.mark.slow}
FAST = [defect for defect in NETS if defect.name != "fgsm_overfit"]


def by_name(defect: Planted) -> str:
    return defect.name


def marked(defects: list[Planted]) -> list[Any]:
    return [pytest.param(d, id=d.name, marks=SLOW.get(d.name, ())) for d in defects]


@pytest.fixture(scope="module")
def net(sound: Any) -> nn.Module:
    found: nn.Module = sound().net
    return found


@pytest.fixture(scope="module")
def unseen(sound: Any) -> tuple[Tensor, Tensor]:
    data = sound().unseen
    return torch.from_numpy(data.x[:200]), torch.from_numpy(data.y[:200])


@pytest.fixture(scope="module")
def made(sound: Any) -> Callable[[str], nn.Module]:
    """The sound network with the defect of this name, made once."""
    kept: dict[str, nn.Module] = {}

    def make(name: str) -> nn.Module:
        if name not in kept:
            kept[name] = plant(next(d for d in PLANTED if d.name == name), sound())
        return kept[name]

    return make


def plant(defect: Planted, sound: Any) -> nn.Module:
    given = (sound.net, sound.x, sound.y) if defect.needs_data else (sound.net,)
    found: nn.Module = defect.plant(*given)
    return found


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    loss = cross_entropy(net(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean())


def attacked(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """One full step along the sign, or many of an eighth, each clipped to the ball and the box."""
    size, moved = EPS if steps == 1 else EPS / 8, x
    for _ in range(steps):
        moved = moved + size * gradient(net, moved, y).sign()
        moved = moved.clamp(x - EPS, x + EPS).clamp(0, 1)
    return moved


def test_the_table_names_every_function_once() -> None:
    names = [defect.name for defect in PLANTED]
    functions = {n for n in planted.__all__ if n[0].islower()}
    assert len(set(names)) == len(names)
    assert set(names) - {"partly_detached"} == functions
    assert all(defect.checks for defect in PLANTED)
    assert {defect.kind for defect in PLANTED} == {"defence", "training", "wrapper", "attack"}


@pytest.mark.parametrize("defect", marked(NETS))
def test_answers_in_the_same_form(defect: Planted, made: Any, unseen: Any) -> None:
    x, _ = unseen
    out = made(defect.name)(x[:5])
    assert out.shape == (5, 10)
    assert out.dtype == torch.float32
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("defect", marked(ACCURATE))
def test_clean_accuracy_stays_within_5_points(
    defect: Planted, made: Any, net: nn.Module, unseen: Any
) -> None:
    defective = made(defect.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        here = accuracy(defective.eval(), *unseen)
    assert here >= accuracy(net, *unseen) - 0.05


@pytest.mark.parametrize("defect", FAST, ids=by_name)
def test_planted_again_is_the_same_and_leaves_the_network(
    defect: Planted, sound: Any, made: Any
) -> None:
    first = made(defect.name).state_dict()
    base, state = sound(), torch.get_rng_state()
    base.net.train()
    base.net[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in base.net.state_dict().items()}
    layers = [(name, id(layer)) for name, layer in base.net.named_modules()]
    try:
        defective = plant(defect, base)
        shared = {id(m) for m in base.net.modules()} & {id(m) for m in defective.modules()}
        assert not shared
        assert all(torch.equal(before[k], v) for k, v in base.net.state_dict().items())
        assert layers == [(name, id(layer)) for name, layer in base.net.named_modules()]
        assert all(module.training for module in base.net.modules())
        assert not base.net[0].weight.requires_grad
        assert base.net[2].weight.requires_grad
        assert all(p.grad is None for p in base.net.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        assert defective.training == (defect.name == "training_mode")
        again = defective.state_dict()
        assert list(again) == list(first)
        assert all(torch.equal(again[key], first[key]) for key in first)
    finally:
        base.net.eval().requires_grad_()


@pytest.mark.parametrize("name", ["zero_gradient", "quantiser"])
def test_gradient_is_exactly_zero(name: str, made: Any, unseen: Any) -> None:
    assert not bool(gradient(made(name), *unseen).any())


def test_zero_gradient_answers_as_before(made: Any, net: nn.Module, unseen: Any) -> None:
    assert torch.equal(made("zero_gradient")(unseen[0]), net(unseen[0]))


@pytest.mark.parametrize("name", ["jpeg", "thermometer"])
def test_no_gradient_leads_to_the_input(name: str, made: Any, unseen: Any) -> None:
    x = unseen[0][:5].clone().requires_grad_()
    scores = made(name)(x).sum()
    assert torch.autograd.grad(scores, x, allow_unused=True) == (None,) or not scores.requires_grad


def test_detached_cuts_the_input_but_not_the_weights(made: Any, unseen: Any) -> None:
    x = unseen[0][:5].clone().requires_grad_()
    last = list(made("detached").parameters())[-1]
    through, behind = torch.autograd.grad(
        made("detached")(x).square().sum(), (x, last), allow_unused=True
    )
    assert through is None
    assert bool(behind.any())


def test_partly_detached_points_elsewhere(made: Any, net: nn.Module, unseen: Any) -> None:
    seen, true = (gradient(n, *unseen).flatten(1) for n in (made("partly_detached"), net))
    assert torch.allclose(made("partly_detached")(unseen[0]), net(unseen[0]), atol=1e-5)
    assert bool(seen.any(1).float().mean() > 0.9)
    assert float(torch.cosine_similarity(seen, true).median()) < 0.6


@pytest.mark.parametrize("levels", [2, 16])
@pytest.mark.parametrize("make", [planted.quantiser, planted.thermometer])
def test_levels_are_those_of_rounding(make: Any, levels: int) -> None:
    x = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    rounded = make(nn.Identity(), levels=levels)(x)
    assert torch.allclose(rounded, (x * (levels - 1)).round() / (levels - 1), atol=1e-6)
    assert len(rounded.unique()) == levels


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_loses_a_little(channels: int) -> None:
    ramp = torch.linspace(0, 1, 32).expand(2, channels, 32, 32).contiguous()
    seen = planted.jpeg(nn.Identity(), quality=90)(ramp)
    assert seen.shape == ramp.shape
    assert 0.5 / 255 < float((seen - ramp).abs().max()) < 0.05
    assert torch.equal((255 * seen).round() / 255, seen)


def test_jpeg_refuses_what_is_no_picture() -> None:
    with pytest.raises(WithstandError, match=r"\(2, 64\)"):
        planted.jpeg(nn.Identity())(torch.rand(2, 64))


def test_scaled_is_the_same_times_100(made: Any, net: nn.Module, unseen: Any) -> None:
    assert torch.equal(made("scaled")(unseen[0]), 100 * net(unseen[0]))


@pytest.mark.parametrize("name", ["scaled", "distilled"])
def test_cross_entropy_is_saturated(name: str, made: Any, net: nn.Module, unseen: Any) -> None:
    flat = [(gradient(n, *unseen).flatten(1) == 0).all(1) for n in (made(name), net)]
    assert float(flat[0].double().mean()) > 0.8
    assert not bool(flat[1].any())


def test_distilled_is_sound_at_its_temperature(made: Any, net: nn.Module, unseen: Any) -> None:
    with torch.no_grad():
        sure = [float(z.softmax(1).amax(1).mean()) for z in (made("distilled")(unseen[0]) / 100,)]
        teacher = float(net(unseen[0]).softmax(1).amax(1).mean())
    assert sure[0] == pytest.approx(teacher, abs=0.1)


def test_kwta_keeps_the_k_largest() -> None:
    layers = planted.kwta(nn.Sequential(nn.Flatten(), nn.ReLU()), ratio=0.25)
    x = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    out, flat = layers(x), x.flatten(1)
    assert torch.equal((out != 0).sum(1), torch.full((6,), 8))
    assert torch.equal(out[out != 0], flat[out != 0])
    assert bool((out.sum(1) >= flat.topk(8).values.sum(1) - 1e-5).all())


def test_kwta_jumps(made: Any, net: nn.Module, unseen: Any) -> None:
    """A small step changes the loss by something else than the gradient says."""
    x, y = unseen[0].double(), unseen[1]
    step = 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    wrong = []
    for seen in (deepcopy(made("kwta")).double(), deepcopy(net).double()):
        loss = [cross_entropy(seen(p), y, reduction="none").detach() for p in (x, x + step)]
        said = (gradient(seen, x, y) * step).flatten(1).sum(1)
        wrong.append(float(((loss[1] - loss[0] - said).abs() > 0.5 * said.abs()).double().mean()))
    assert wrong[0] > 0.1
    assert wrong[1] < 0.05


@pytest.mark.parametrize("name", ["dropout_on", "random_resize"])
def test_answers_differ_in_eval_mode(name: str, made: Any, unseen: Any) -> None:
    defective, x = made(name).eval(), unseen[0]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        answers = [defective(x) for _ in range(5)]
        torch.manual_seed(0)
        assert torch.equal(defective(x), answers[0])
    assert all(not torch.allclose(a, b, atol=1e-2) for a, b in pairwise(answers))


def test_dropout_of_its_own_stays_on() -> None:
    own = nn.Sequential(nn.Dropout(0.5), nn.Flatten())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = planted.dropout_on(own)(torch.ones(4, 1, 50, 50))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert float((out == 0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_random_resize_keeps_the_shape_and_the_light() -> None:
    draws = planted.random_resize(nn.Identity())
    x = torch.ones(2, 3, 20, 20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        light = [float(draws(x).mean()) for _ in range(200)]
    assert draws(x).shape == x.shape
    assert min(light) == pytest.approx(0.9**2, abs=0.03)
    assert max(light) == pytest.approx(1.0, abs=0.03)


def test_training_mode_is_sound_after_eval(made: Any, net: nn.Module, unseen: Any) -> None:
    defective, x = made("training_mode"), unseen[0]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        assert not torch.allclose(defective.train()(x), defective(x), atol=1e-2)
        assert torch.allclose(defective.eval()(x), net(x), atol=1e-5)
    defective.train()


def test_training_mode_uses_what_the_network_has() -> None:
    own = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    assert len(planted.training_mode(own)) == 2
    assert planted.training_mode(own).training


@pytest.mark.parametrize("own", [False, True])
def test_batch_norm_depends_on_the_batch(own: bool, sound: Any, unseen: Any) -> None:
    base = sound()
    net = nn.Sequential(nn.BatchNorm2d(1), base.net).eval() if own else base.net
    defective, (x, _) = planted.batch_norm_training(net, base.x).eval(), unseen
    with torch.no_grad():
        alone = torch.cat([defective(row) for row in x[:20].split(1)])
        together = defective(x)[:20]
        assert not torch.allclose(alone, together, atol=1e-1)
        assert torch.equal(defective(x)[:20], together)


def test_batch_norm_put_in_changes_nothing_on_all_inputs(sound: Any) -> None:
    base = sound()
    with torch.no_grad():
        defective = planted.batch_norm_training(base.net, base.x)
        assert torch.allclose(defective(base.x), base.net(base.x), atol=0.05)


def test_softmax_sums_to_one(made: Any, net: nn.Module, unseen: Any) -> None:
    out = made("softmax_output")(unseen[0])
    assert torch.allclose(out.sum(1), torch.ones(200))
    assert torch.allclose(out, net(unseen[0]).softmax(1))


def test_constant_gives_one_answer(made: Any, unseen: Any) -> None:
    out = made("constant")(unseen[0])
    assert torch.equal(out, out[:1].expand(200, 10))


def test_bf16_stem_swallows_small_changes(made: Any, net: nn.Module) -> None:
    x = torch.full((4, 1, 8, 8), 0.75)
    moved = x + 1e-3
    assert torch.equal(made("bf16_stem")(moved), made("bf16_stem")(x))
    assert not torch.equal(net(moved), net(x))
    assert torch.allclose(made("bf16_stem")(x), net(x), rtol=0.05, atol=0.2)


@pytest.mark.slow
def test_fgsm_overfit_withstands_one_step_only(made: Any, unseen: Any) -> None:
    defective, (x, y) = made("fgsm_overfit"), unseen
    assert accuracy(defective, attacked(defective, x, y, 1), y) > 0.5
    assert accuracy(defective, attacked(defective, x, y, 40), y) < 0.05


@pytest.mark.slow
def test_fgsm_overfit_says_when_it_does_not_come_about(sound: Any) -> None:
    base = sound()
    with pytest.raises(WithstandError, match=r"after 1 steps at eps 0.01.*larger eps"):
        planted.fgsm_overfit(base.net, base.x, base.y, eps=0.01, steps=1)


@pytest.mark.parametrize("make", [planted.wrong_sign, planted.last_iterate])
def test_attacks_keep_to_ball_and_box(make: Any, net: nn.Module, unseen: Any) -> None:
    x, y = unseen
    found = make(0.1, steps=5)(net, x, y)
    assert float((found - x).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert not found.requires_grad


def test_wrong_sign_goes_down(net: nn.Module, unseen: Any) -> None:
    x, y = unseen
    found = planted.wrong_sign(0.1)(net, x, y)
    with torch.no_grad():
        assert cross_entropy(net(found), y) < 0.5 * cross_entropy(net(x), y)
    assert accuracy(net, found, y) >= accuracy(net, x, y)


def test_last_iterate_loses_successes(net: nn.Module, unseen: Any) -> None:
    x, y = unseen
    fooled: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = net(x)
            fooled.append(out.argmax(1) != y)
            return out

    last = planted.last_iterate(0.1)(Watched(), x, y)
    lost = torch.stack(fooled).any(0) & (net(last).argmax(1) == y)
    assert float(lost.double().mean()) > 0.1


@pytest.mark.parametrize(
    "make", [planted.detached, planted.bf16_stem, planted.dropout_on, planted.training_mode]
)
def test_a_network_without_layers_is_refused(make: Any) -> None:
    with pytest.raises(WithstandError, match=r"0 modules nn\.Conv"):
        make(nn.Flatten())


def test_kwta_without_relus_is_refused() -> None:
    with pytest.raises(WithstandError, match=r"0 modules nn\.ReLU"):
        planted.kwta(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "make", [planted.detached, planted.bf16_stem, planted.dropout_on, planted.zero_gradient]
)
def test_a_single_layer_will_do(make: Any) -> None:
    assert make(nn.Linear(4, 2))(torch.rand(3, 4)).shape == (3, 2)
