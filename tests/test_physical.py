"""Views of the physical world, patches, and the attacks that go with them."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processes import withstand
from torch import Tensor, nn

from withstand import WithstandError, attacks
from withstand.attacks import Spatial, universal
from withstand.config import load_config
from withstand.data import load_sklearn
from withstand.evaluate import threat_from
from withstand.models import (
    Affine,
    Blur,
    FunctionModel,
    Jpeg,
    Light,
    Noise,
    Physical,
    TorchModel,
    Transform,
    describe,
    print_and_camera,
    warp,
)
from withstand.threat import L0, L1, L2, Box, Linf, Mask, Threat, frame, patch, stickers


class Passing(nn.Module):
    """Scores that are the picture itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def passing(**options: Any) -> TorchModel:
    return TorchModel(Passing(), **options)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth(channels: int, height: int, width: int) -> Tensor:
    """A colour gradient with a disc, which photographs resemble more than noise does."""
    down, right = np.mgrid[:height, :width] / max(height, width)
    disc = np.clip(8 * (0.3 - np.hypot(down - 0.4, right - 0.3)), 0, 0.5)
    planes = [0.8 * down + 0.1, 0.7 * right + disc, 0.9 - 0.5 * down - disc / 2][:channels]
    return torch.from_numpy(np.stack(planes).clip(0, 1)).float()[None]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


EVERY: dict[str, Transform] = {
    "affine": Affine(rotation=20, scale=(0.8, 1.2), translation=0.1, shear=10),
    "zeros": Affine(rotation=20, scale=(0.8, 1.2), fill="zeros"),
    "light": Light(brightness=(-0.1, 0.1), contrast=(0.8, 1.2), gamma=(0.7, 1.4)),
    "blur": Blur(sigma=(0.5, 1.5)),
    "noise": Noise(sigma=(0.02, 0.05)),
    "jpeg": Jpeg(quality=(60, 90)),
}


@pytest.mark.parametrize("shape", [(2, 1, 9, 14), (2, 3, 14, 9)], ids=["grey", "colour"])
def test_transforms_that_do_nothing_change_nothing(shape: tuple[int, ...]) -> None:
    x = pictures(*shape)
    for idle in (Affine(), Affine(fill="zeros"), Light(), Blur(sigma=(0, 0)), Noise(sigma=(0, 0))):
        assert torch.allclose(idle(x, rng()), x, atol=1e-5), idle
    fine = Jpeg(quality=(100, 100), subsample=False)
    assert (fine(x, rng()) - x).abs().max() < 5 / 255
    assert torch.allclose(Physical(passing(), []).view(x, 0), x)


def test_known_shifts_turns_and_scales() -> None:
    x = pictures(2, 3, 6, 9)
    moved = warp(x, right=2, down=-1, fill="zeros")
    assert torch.allclose(moved[:, :, :-1, 2:], x[:, :, 1:, :-2], atol=1e-5)
    assert float(moved[:, :, -1].abs().max()) < 1e-5
    assert float(moved[:, :, :, :2].abs().max()) < 1e-5
    edge = warp(x, right=2)
    assert torch.allclose(edge[..., 0], x[..., 0], atol=1e-5)
    square = pictures(2, 1, 8, 8)
    assert torch.allclose(warp(square, angle=90), torch.rot90(square, 1, (2, 3)), atol=1e-5)
    # Half a turn fits any picture; each row has its own.
    both = warp(x, angle=np.array([180.0, 0.0]))
    assert torch.allclose(both[0], x[0].flip(1, 2), atol=1e-5)
    assert torch.allclose(both[1], x[1], atol=1e-5)
    # A turned bar keeps its length in pixels, although the picture is not square.
    bar = torch.zeros(1, 1, 9, 21)
    bar[..., 4, 8:13] = 1
    turned = warp(bar, angle=90, fill="zeros")
    assert torch.allclose(turned[0, 0, 2:7, 10], torch.ones(5), atol=1e-4)
    assert abs(float(turned.sum()) - 5) < 1e-3
    wide = warp(bar, scale=2, fill="zeros")
    assert abs(float(wide.sum()) - 20) < 1e-3
    # Verticals lean, the middle stays.
    line = torch.zeros(1, 1, 9, 9)
    line[..., 4] = 1
    leant = warp(line, shear=45, fill="zeros")
    assert torch.allclose(leant[0, 0], torch.eye(9), atol=1e-4)
    # First sheared and turned, then shifted.
    expected = warp(warp(square, angle=90), right=1)
    assert torch.allclose(warp(square, angle=90, right=1), expected, atol=1e-5)


def test_light_noise_and_blur_do_what_they_say() -> None:
    x = pictures(1, 1, 12, 20)
    brighter = Light(brightness=(0.1, 0.1))(x, rng())
    assert torch.allclose(brighter, (x + 0.1).clamp(0, 1), atol=1e-6)
    flatter = Light(contrast=(0.5, 0.5))(x, rng())
    assert torch.allclose(flatter, 0.25 + x / 2, atol=1e-6)
    darker = Light(gamma=(2.2, 2.2))(x, rng())
    assert (darker - x**2.2).abs().max() < 0.02
    black = torch.zeros(1, 1, 2, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(Light(gamma=(0.5, 0.5))(black, rng()).sum(), black)
    assert bool((slope > 1).all() & (slope < 10).all())
    grey = torch.full((1, 3, 40, 40), 0.5)
    spread = Noise(sigma=(0.05, 0.05))(grey, rng()) - 0.5
    assert abs(float(spread.std()) - 0.05) < 0.003
    point = torch.zeros(1, 1, 15, 19)
    point[..., 7, 9] = 1
    blurred = Blur(sigma=(1.0, 1.0))(point, rng())
    assert abs(float(blurred.sum()) - 1) < 1e-5
    across = blurred.sum((0, 1, 2))
    assert abs(float((across * (torch.arange(19) - 9.0).square()).sum()) - 1) < 0.05
    assert torch.allclose(Blur(sigma=(2.0, 2.0))(grey, rng()), grey, atol=1e-6)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize(
    ("channels", "subsample"), [(1, True), (3, False), (3, True)], ids=["grey", "444", "420"]
)
def test_jpeg_is_libjpegs(channels: int, subsample: bool, quality: int) -> None:
    x = smooth(channels, 45, 70)
    levels = (255 * x[0]).round().byte().numpy()
    picture = Image.fromarray(levels[0] if channels == 1 else levels.transpose(1, 2, 0))
    file = io.BytesIO()
    chroma = {} if channels == 1 else {"subsampling": 2 if subsample else 0}
    picture.save(file, "JPEG", quality=quality, **chroma)
    decoded = np.asarray(Image.open(file), np.float32).reshape(45, 70, channels)
    theirs = torch.from_numpy(decoded.transpose(2, 0, 1))
    source = torch.from_numpy(levels)[None] / 255
    ours = 255 * Jpeg(quality=(quality, quality), subsample=subsample)(source, rng())[0]
    difference = (ours - theirs).abs()
    lost = (255 * source[0] - theirs).abs().mean()
    # libjpeg computes in integers, and rounds halves of colour planes up and down in turn.
    assert difference.mean() < (0.7 if subsample and channels == 3 else 0.3)
    assert difference.mean() < 0.5 * lost + 0.01
    assert difference.max() <= 12


def test_jpeg_passes_gradients_straight_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("withstand.models._jpeg._WAVE", 0.0)
    x = pictures(1, 1, 9, 11).requires_grad_()
    weight = pictures(1, 1, 9, 11, seed=1)
    (slope,) = torch.autograd.grad((Jpeg()(x, rng()) * weight).sum(), x)
    # The transform is orthonormal, so that without rounding nothing is left but the identity,
    # and what the padding repeats of the last row and column stays outside the cut.
    assert torch.allclose(slope, weight, atol=1e-5)
    with pytest.raises(WithstandError, match=r"pictures \(B, C, H, W\); the input has"):
        Jpeg()(pictures(1, 2, 8, 8)[0], rng())


@pytest.mark.parametrize("name", ["affine", "zeros", "light", "blur", "noise"])
@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (1, 3, 6, 4)], ids=["grey", "colour"])
def test_gradients_are_those_of_finite_differences(name: str, shape: tuple[int, ...]) -> None:
    # Away from 0 and 1, where the cut has a kink.
    x = (0.3 + 0.4 * pictures(*shape)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EVERY[name](x, rng()), (x,), atol=1e-6)


@pytest.mark.parametrize("transform", EVERY.values(), ids=EVERY.keys())
def test_a_draw_is_one_view_whatever_the_batch(transform: Transform) -> None:
    model = Physical(passing(), [transform], draws=3)
    x = pictures(5, 3, 17, 12)
    before, numbers = torch.get_rng_state(), np.random.get_state()
    views = [model.view(x, draw) for draw in range(6)]
    for draw, view in enumerate(views):
        assert view.shape == x.shape
        assert torch.equal(view, model.view(x, draw))
        assert torch.allclose(view[1:3], model.view(x[1:3], draw), atol=1e-6)
    for one, other in pairwise(views):
        assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.equal(views[0], Physical(passing(), [transform], seed=1).view(x, 0))
    torch.manual_seed(5)
    assert torch.equal(views[2], model.view(x, 2))
    torch.set_rng_state(before)
    scores = model.scores(x)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numbers[1], np.random.get_state()[1])  # type: ignore[arg-type]
    assert torch.allclose(model.scores(x[:2]), scores[:2], atol=1e-5)


def test_transforms_do_not_disturb_each_others_draws() -> None:
    x = pictures(1, 1, 8, 8)
    noise = Noise(sigma=(0.05, 0.05))
    alone = Physical(passing(), [noise]).view(x, 4) - x
    grey = torch.full_like(x, 0.5)
    once = Physical(passing(), [noise]).view(grey, 4) - grey
    twice = Physical(passing(), [noise, noise]).view(grey, 4) - grey
    assert not torch.allclose(twice, 2 * once, atol=1e-3)
    followed = Physical(passing(), [noise, Light(brightness=(0, 1e-9))]).view(x, 4) - x
    assert torch.allclose(alone, followed, atol=1e-5)


def test_attacks_see_the_mean_view_and_are_judged_by_others() -> None:
    weight = pictures(24, seed=3)
    model = Physical(passing(), [EVERY["affine"]], draws=4, combine="logits")
    x = pictures(2, 1, 4, 6)
    seen = model.gradient(x, lambda scores: scores @ weight)
    searched = torch.stack([model.view(x, draw) for draw in range(4)]).mean(0).flatten(1)
    judged = torch.stack([model.view(x, draw) for draw in range(4, 8)]).mean(0).flatten(1)
    assert torch.allclose(seen.scores, searched, atol=1e-6)
    assert torch.allclose(seen.values, searched @ weight, atol=1e-5)
    assert torch.allclose(model.scores(x), judged, atol=1e-6)
    step = 1e-2
    for place in ((0, 0, 1, 2), (1, 0, 3, 5)):
        up = x.clone()
        up[place] += step
        rise = model.gradient(up, lambda scores: scores @ weight).values - seen.values
        assert abs(float(rise[place[0]]) / step - float(seen.gradient[place])) < 1e-3
    _, rows = model.jacobian(x, torch.tensor([[0, 5], [1, 2]]))
    assert rows.shape == (2, 2, 1, 4, 6)
    assert describe(model)["model"]["model"]["net"] == "Passing"


def test_views_keep_to_the_unit_of_the_domain() -> None:
    x = pictures(2, 3, 8, 10)
    chain = print_and_camera(0.5)
    unit = Physical(passing(), chain).view(x, 1)
    bytes_ = Physical(passing(domain=(0, 255)), chain).view(255 * x, 1)
    assert torch.allclose(bytes_ / 255, unit, atol=2 / 255)
    lower = np.array([-2.0, -1.0, 0.0]).reshape(3, 1, 1)
    box = Box(lower, lower + 4)
    raw = x * 4 + torch.from_numpy(lower).float()
    again = (Physical(passing(domain=box), chain).view(raw, 1) - torch.from_numpy(lower)) / 4
    assert torch.allclose(again.float(), unit, atol=2 / 255)


def test_print_and_camera_from_nothing_to_unreadable() -> None:
    x = smooth(3, 32, 24)
    loss = []
    for severity in (0.0, 0.3, 1.0):
        model = Physical(passing(), print_and_camera(severity))
        views = torch.stack([model.view(x, draw) for draw in range(10)])
        assert bool(torch.isfinite(views).all())
        assert views.min() >= 0
        assert views.max() <= 1
        loss.append(float((views - x).abs().mean()))
    assert loss[0] < 0.02
    assert loss[0] < loss[1] < loss[2]
    x = pictures(1, 1, 8, 8).requires_grad_()
    view = Physical(passing(), print_and_camera(1.0)).view(x, 0)
    (slope,) = torch.autograd.grad(view.square().sum(), x)
    assert bool(torch.isfinite(slope).all())
    assert slope.abs().max() > 0


def test_queries_and_forwards_are_counted_exactly() -> None:
    rows: list[int] = []

    def function(x: Any) -> Any:
        rows.append(len(x))
        return np.stack((x.sum((1, 2, 3)), 1e3 + 0 * x.sum((1, 2, 3))), 1)

    model = Physical(FunctionModel(function, returns="scores"), [EVERY["affine"]], draws=3)
    x, y = pictures(5, 1, 6, 7), torch.ones(5, dtype=torch.long)
    threat = Threat(region=patch((1, 6, 7), 3, 2, 1, 4), access="scores", queries=9)
    result = attacks.run(attacks.Square(queries=50), model, x, y, threat)
    assert result.ledger.forwards.tolist() == [9] * 5
    assert sum(rows) == 3 * 9 * 5


def test_victims_are_left_as_they_were(digits: Any) -> None:
    net, x = digits.net.train(), torch.from_numpy(digits.data.x[:4])
    kept = x.clone()
    before = [(p.detach().clone(), p.grad.clone()) for p in net.parameters()]
    model = Physical(TorchModel(net), print_and_camera(), draws=2)
    y = torch.from_numpy(digits.data.y[:4])
    random = torch.get_rng_state()
    attacks.run(attacks.PGD(steps=2), model, x, y, Threat(region=patch((1, 8, 8), 3, 3, 0, 0)))
    assert net.training
    for parameter, (value, grad) in zip(net.parameters(), before, strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, grad)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), random)


def test_mistakes_are_told_in_one_line() -> None:
    makers = {
        "Affine's scale is": lambda: Affine(scale=(1.2, 0.8)),
        "Affine's rotation is -3": lambda: Affine(rotation=-3),
        "less than 90 degrees": lambda: Affine(shear=90),
        "Light's contrast": lambda: Light(contrast=(-1, 1)),
        "Light's gamma": lambda: Light(gamma=(0, 1)),
        "Blur's sigma": lambda: Blur(sigma=(0, float("inf"))),
        "Noise's sigma": lambda: Noise(sigma=(float("nan"), 1)),
        "Jpeg's quality": lambda: Jpeg(quality=(0, 50)),
        "severity is 2": lambda: print_and_camera(2),
        "seed is -1": lambda: Physical(passing(), [], seed=-1),
        "draws is 0": lambda: Physical(passing(), [], draws=0),
        "a domain with bounds": lambda: Physical(passing(domain=(-np.inf, np.inf)), []),
        r"pictures \(B, C, H, W\)": lambda: Physical(passing(), []).scores(torch.rand(2, 5)),
        "does not fit 6 x 7": lambda: patch((1, 6, 7), 3, 3, 4, 0),
        "has to lie inside": lambda: patch((1, 6, 7), 3, 3, 0, -1),
        "0 x 3": lambda: patch((1, 6, 7), 0, 3, 0, 0),
        "frame of 3": lambda: frame((1, 6, 7), 3),
        "no stickers": lambda: stickers((1, 6, 7), []),
        "the shape is": lambda: patch((6,), 1, 1, 0, 0),
        "span is nan": lambda: patch((6, 7), 1, 1, 0, 0, span=np.nan),
        "the tones are": lambda: stickers((6, 7), [(1, 1, 0, 0)], tones=()),
    }
    for words, make in makers.items():
        with pytest.raises(WithstandError, match=words) as error:
            make()
        assert "\n" not in str(error.value)


# -- patches


def free(region: Any) -> np.ndarray:
    (mask,) = (part for part in region if isinstance(part, Mask))
    return np.asarray(mask.free)


def test_patches_frames_and_stickers_are_where_they_should_be() -> None:
    assert np.argwhere(free(patch((3, 6, 9), 2, 3, 4, 6))).tolist() == [
        [4, 6], [4, 7], [4, 8], [5, 6], [5, 7], [5, 8]
    ]  # fmt: skip
    assert free(frame((1, 5, 8), 2)).sum() == 40 - 1 * 4
    assert free(frame((5, 8), 1))[1:-1, 1:-1].sum() == 0
    assert free(stickers((5, 8), [(2, 2, 0, 0), (2, 2, 1, 1), (1, 8, 4, 0)])).sum() == 7 + 8
    region = patch((3, 6, 9), 2, 3, 4, 6)
    x = pictures(2, 3, 6, 9).numpy()
    inside, outside = x.copy(), x.copy()
    inside[:, :, 4:, 6:] = 1
    outside[1, 0, 0, 0] += 0.1
    assert region.contains(x, inside).tolist() == [True, True]
    assert region.contains(x, outside).tolist() == [True, False]
    two = stickers((3, 6, 9), [(2, 3, 4, 6)], tones=(0, 1))
    assert two.contains(x, inside).all()
    inside[1, 2, 5, 8] = 0.5
    assert two.contains(x, inside).tolist() == [True, False]
    assert "0, 1" in two.describe()
    inside[0] = x[0]
    assert two.take([1, 0]).contains(x[[1, 0]], inside[[1, 0]]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("shape", "domain"), [((1, 6, 9), (0, 1)), ((3, 9, 6), (-1, 2))], ids=["grey", "colour"]
)
@pytest.mark.parametrize(
    "attack",
    [
        attacks.APGD(steps=20),
        attacks.PGD(steps=20),
        attacks.Square(queries=300),
        attacks.RandomNoise(draws=50),
        attacks.DDN(steps=30),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_an_attack_in_a_patch_changes_nothing_outside_it(
    attack: attacks.Attack, shape: tuple[int, ...], domain: tuple[float, float]
) -> None:
    span = float(domain[1] - domain[0])
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4))
    x = domain[0] + span * pictures(12, *shape)
    y = net(x).argmax(1)
    model = TorchModel(net, domain=domain)
    regions = [
        patch(shape, 4, 3, 1, 2, span=span),
        frame(shape, 1, span=span),
        stickers(shape, [(2, 2, 0, 0), (3, 2, 2, 3)], span=span),
    ]
    for region in regions:
        if "linf" not in attack.norms:
            region = L2(3.0 * span) & region
        result = attacks.run(attack, model, x, y, Threat(region=region, access=attack.needs))
        assert bool(result.success.any())
        moved = (result.x_adv != x).numpy()
        assert not (moved & ~np.broadcast_to(free(region), moved.shape)).any()
        assert moved[result.success.numpy()].any()
        assert result.x_adv.min() >= domain[0]
        assert result.x_adv.max() <= domain[1]


@pytest.mark.parametrize("span", [1.0, np.inf], ids=["span", "no-limit"])
@pytest.mark.parametrize(
    "attack",
    [attacks.APGD(steps=10), attacks.Square(queries=60), attacks.SparseRS(queries=60)],
    ids=lambda attack: type(attack).__name__,
)
def test_each_picture_has_a_patch_of_its_own_and_order_matters_not(
    digits: Any, attack: attacks.Attack, span: float
) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    free = np.zeros((60, 1, 8, 8), bool)
    for sample, (top, left) in enumerate(np.random.default_rng(0).integers(0, 5, (60, 2))):
        free[sample, :, top : top + 4, left : left + 4] = True
    threat = Threat(region=Mask(free) & Linf(span), access=attack.needs)
    result = attacks.run(attack, digits.model, x, y, threat, batch_size=60)
    assert int(result.success.sum()) > 20
    assert not ((result.x_adv != x).numpy() & ~free).any()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    mixed = attacks.run(attack, digits.model, x[order], y[order], threat.take(order), batch_size=16)
    assert torch.equal(mixed.x_adv, result.x_adv[order])


@pytest.mark.parametrize("ball", [Linf, L2, L1, L0], ids=["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize(
    "attack",
    [
        attacks.APGD(steps=20),
        attacks.PGD(steps=20),
        attacks.Square(queries=100),
        attacks.SparseRS(queries=100),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_an_infinite_radius_in_a_mask_is_the_widest_that_the_domain_allows(
    digits: Any, attack: attacks.Attack, ball: type
) -> None:
    if ball.__name__.lower() not in attack.norms:
        return
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    mask, widest = Mask(free(patch((1, 8, 8), 4, 4, 2, 2))), {Linf: 1.0, L2: 4.0}.get(ball, 16.0)
    infinite, finite = (
        attacks.run(attack, digits.model, x, y, Threat(region=mask & ball(radius), access=access))
        for access in [attack.needs]
        for radius in (np.inf, widest * (1 if ball in (Linf, L0) else 1 + 2e-6))
    )
    assert int(infinite.success.sum()) > 5
    assert torch.equal(infinite.x_adv, finite.x_adv)
    assert torch.equal(infinite.ledger.forwards, finite.ledger.forwards)
    maskless = Threat(region=ball(np.inf), access=attack.needs)
    with pytest.raises(WithstandError, match="finite"):
        attacks.run(attack, digits.model, x, y, maskless)


@pytest.mark.parametrize(
    "attack",
    [attacks.PGD(steps=10, step_size=1.0, random_start=False), attacks.Square(queries=300)],
    ids=["pgd", "square"],
)
def test_black_and_white_stickers_are_black_and_white(digits: Any, attack: attacks.Attack) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    region = stickers((1, 8, 8), [(3, 8, 0, 0), (2, 8, 6, 0)], tones=(0, 1))
    threat = Threat(region=region, access=attack.needs)
    result = attacks.run(attack, digits.model, x, y, threat)
    changed = result.x_adv[result.x_adv != x]
    assert int(result.success.sum()) > 30
    assert len(changed) > 0
    assert set(changed.tolist()) <= {0.0, 1.0}


def test_a_patch_made_under_views_holds_under_fresh_views(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    views = [
        Affine(rotation=10, translation=0.06),
        Light(brightness=(-0.2, 0.2), contrast=(0.7, 1.2)),
        Noise(sigma=(0.0, 0.05)),
    ]
    held_out = Physical(digits.model, views, draws=1, seed=99)

    def fooled(pictures: Tensor) -> float:
        answers = [digits.model.labels(held_out.view(pictures, n)) for n in range(60)]
        return float((torch.stack(answers) != y).float().mean())

    threat = Threat(region=patch((1, 8, 8), 3, 3, 5, 5))
    plain = attacks.run(attacks.APGD(steps=30), digits.model, x, y, threat)
    model = Physical(digits.model, views, draws=12)
    physical = attacks.run(attacks.APGD(steps=30), model, x, y, threat)
    random = attacks.run(attacks.RandomNoise(draws=1), digits.model, x, y, threat)
    # What is printed has to fool in every light; what fools one view barely does not.
    assert fooled(physical.x_adv) > fooled(plain.x_adv) + 0.08
    assert fooled(plain.x_adv) > fooled(random.x_adv) + 0.08
    # A patch that moves with the picture still counts as one outside which nothing changed.
    assert bool(threat.region.contains(x, physical.x_adv).all())


# -- turned and shifted pictures


def test_spatial_asks_the_whole_grid_once_and_finds_the_turn() -> None:
    asked: list[Tensor] = []
    x = torch.zeros(3, 1, 7, 11)
    x[0, 0, 3, 4:7] = 1
    x[1, 0, 3, 1:9] = 1

    def upright(x: Any) -> Any:
        """Class 1 where the middle column holds a bar of three."""
        asked.append(torch.from_numpy(x).clone())
        return (x[:, 0, 2:5, 5].sum(1) > 2.9).astype(np.int64)

    model = FunctionModel(upright, returns="labels")
    attack = Spatial(rotation=90, translation=0.0, angles=5, shifts=1, fill="zeros")
    threat = Threat(region=Linf(1.0), access="labels")
    result = attacks.run(attack, model, x, torch.zeros(3, dtype=torch.long), threat)
    assert [str(status) for status in result.status] == ["fooled", "fooled", "withstood"]
    # 45 degrees either way, then 90; the first query holds all four.
    assert result.ledger.forwards.tolist() == [5, 5, 5]
    assert sum(map(len, asked)) == 15
    places = (result.ledger.first_success[:2] - 2).tolist()
    assert [abs(attack.motion(place)[0]) for place in places] == [90, 90]
    turned = torch.rot90(x[:1, :, :, 2:9], 1, (2, 3))
    assert torch.allclose(result.x_adv[:1, :, :, 2:9], turned, atol=1e-5)


def test_spatial_grid_has_all_its_points_and_starts_mild() -> None:
    rows: list[int] = []

    def never(x: Any) -> Any:
        rows.append(len(x))
        return np.zeros(len(x), np.int64)

    x, y = pictures(5, 3, 8, 6), torch.zeros(5, dtype=torch.long)
    threat = Threat(region=Linf(1.0), access="labels")
    for attack, points in (
        (Spatial(angles=5, shifts=3), 44),
        (Spatial(angles=4, shifts=3, width=5), 36),
        (Spatial(angles=3, shifts=1, rotation=10), 2),
    ):
        rows.clear()
        result = attacks.run(
            attack, FunctionModel(never, returns="labels"), x, y, threat, batch_size=3
        )
        assert result.ledger.forwards.tolist() == [1 + points] * 5
        assert sum(rows) == 5 * (1 + points)
    attack = Spatial(angles=5, shifts=3)
    motions = np.array([attack.motion(place) for place in range(44)])
    size = np.square(motions / [30, 0.1, 0.1]).sum(1)
    assert (np.diff(size) >= -1e-9).all()
    assert len(np.unique(motions, axis=0)) == 44
    limited = attacks.run(
        Spatial(),
        FunctionModel(never, returns="labels"),
        x,
        y,
        Threat(region=Linf(1.0), access="labels", queries=20),
    )
    assert limited.ledger.forwards.tolist() == [20] * 5


def test_spatial_fools_digits_without_painting(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    threat = Threat(region=Linf(1.0), access="labels")
    attack = Spatial(angles=11, shifts=3)
    result = attacks.run(attack, digits.model, x, y, threat)
    fooled = torch.tensor([status == "fooled" for status in result.status])
    assert int(fooled.sum()) > 20
    for row in fooled.nonzero()[:, 0].tolist():
        angle, down, right = attack.motion(int(result.ledger.first_success[row]) - 2)
        again = warp(x[row : row + 1], angle=angle, down=8 * down, right=8 * right)
        assert torch.allclose(result.x_adv[row], again[0], atol=1e-5)
    small = attacks.run(
        Spatial(rotation=1, translation=0.0, angles=3, shifts=1), digits.model, x, y, threat
    )
    assert int(small.success.sum()) < int(result.success.sum()) / 2


def test_spatial_shifts_are_shares_of_each_side() -> None:
    x = pictures(1, 1, 4, 12)
    attack = Spatial(rotation=0, translation=0.25, angles=1, shifts=3, fill="zeros")
    wanted = torch.zeros_like(x)
    wanted[:, :, 1:, 3:] = x[:, :, :-1, :-3]

    def seen(points: Any) -> Any:
        return (np.abs(points - wanted.numpy()).max((1, 2, 3)) < 1e-4).astype(np.int64)

    model = FunctionModel(seen, returns="labels")
    threat = Threat(region=Linf(1.0), access="labels")
    result = attacks.run(attack, model, x, torch.zeros(1, dtype=torch.long), threat)
    assert bool(result.success)
    assert attack.motion(int(result.ledger.first_success) - 2) == (0.0, 0.25, 0.25)


# -- one change for all


@pytest.mark.parametrize("region", [Linf(0.2), L2(1.2)], ids=["linf", "l2"])
def test_a_universal_change_fools_digits_it_has_not_seen(digits: Any, region: Any) -> None:
    data = load_sklearn("digits")
    x, y = torch.from_numpy(data.x[:600]), torch.from_numpy(data.y[:600])
    kept, random = x.clone(), torch.get_rng_state()
    found = universal(digits.model, x, y, Threat(region=region), epochs=6, seed=1)
    again = universal(digits.model, x, y, Threat(region=region), epochs=6, seed=1)
    assert torch.equal(found.change, again.change)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), random)
    assert found.fooling_rate.value > found.control.value + 0.2
    assert found.fooling_rate.value > found.fitted_rate.value - 0.15
    assert found.fooling_rate.n + found.fitted_rate.n <= 600
    fresh = torch.from_numpy(digits.data.x)
    changed = found.apply(fresh)
    assert bool((region & digits.model.domain).contains(fresh, changed).all())
    wrong = (digits.model.labels(changed) != digits.model.labels(fresh)).float().mean()
    assert wrong > 0.2


def test_a_universal_change_keeps_to_a_patch_and_counts_its_questions(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    asked = {"scores": 0, "gradient": 0}

    class Counting(TorchModel):
        def scores(self, x: Tensor) -> Tensor:
            asked["scores"] += len(x)
            return super().scores(x)

        def gradient(self, x: Tensor, objective: Any) -> Any:
            asked["gradient"] += len(x)
            return super().gradient(x, objective)

    region = patch((1, 8, 8), 4, 4, 0, 4)
    found = universal(
        Counting(digits.net), x, y, Threat(region=region), epochs=3, held_out=0.4, batch_size=7
    )
    assert asked["gradient"] == found.backwards == 3 * 36
    assert asked["scores"] + asked["gradient"] == found.forwards
    seen, judged = found.fitted_rate.n, found.fooling_rate.n
    assert seen + judged == int((digits.model.labels(x) == y).sum()) < 60
    assert found.forwards == 60 + 3 * 36 + 3 * seen + 2 * judged
    assert not bool((found.change[:, ~torch.from_numpy(free(region))] != 0).any())
    assert bool(region.contains(x, found.apply(x)).all())
    assert found.fooling_rate.value >= found.control.value


def test_a_painted_patch_needs_no_radius(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    without, given = (
        attacks.universal(
            digits.model, x, y, Threat(region=patch((1, 8, 8), 4, 4, 0, 4, span=span)),
            epochs=1, paint=True,
        ).change
        for span in (np.inf, 1.0)
    )  # fmt: skip
    assert torch.equal(without, given)


def test_one_painted_patch_fools_digits_it_has_not_seen_in_fresh_views(digits: Any) -> None:
    data = load_sklearn("digits")
    x, y = torch.from_numpy(data.x[:400]), torch.from_numpy(data.y[:400])
    region = patch((1, 8, 8), 4, 4, 0, 4)
    model = Physical(digits.model, [Affine(rotation=10, translation=0.06)], draws=4)
    found = universal(model, x, y, Threat(region=region), paint=True, epochs=6, seed=1)
    assert found.fooling_rate.value > found.control.value + 0.15
    fresh = torch.from_numpy(digits.data.x)
    worn = found.apply(fresh)
    place = torch.from_numpy(free(region))
    # It looks alike wherever it sticks, and only there.
    assert torch.equal(worn[:, :, place], worn[:1, :, place].expand(60, 1, 16))
    assert torch.equal(worn[:, :, ~place], fresh[:, :, ~place])
    again = universal(digits.model, x, y, Threat(region=region), paint=True, epochs=6, seed=1)
    assert again.fooling_rate.value > again.control.value + 0.15


def test_a_linear_model_has_the_best_universal_change_that_theory_gives() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [3.0, -4.0, 0.0]])
    net = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(weight)
    model = TorchModel(net, domain=(-10, 10))
    x = torch.tensor([[1.0, 0.0, 0.0]]).repeat(20, 1) + 0.01 * pictures(20, 3)
    y = torch.ones(20, dtype=torch.long)
    found = universal(model, x, y, Threat(region=L2(0.7)), epochs=20)
    assert found.fooling_rate.value == 1
    direction = found.change / found.change.norm()
    assert torch.allclose(direction, torch.tensor([-0.6, 0.8, 0.0]), atol=1e-3)
    assert 0.69 < float(found.change.norm()) < 0.7
    short = universal(model, x, y, Threat(region=L2(0.5)), epochs=20)
    assert short.fooling_rate.value == 0


def test_what_has_no_universal_change_is_refused(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    box = FunctionModel(lambda x: x.sum((1, 2, 3))[:, None] * np.ones(3), returns="scores")
    threat = Threat(region=Linf(0.1))
    calls = {
        "needs gradients": lambda: universal(box, x, y, threat),
        "a finite Linf or L2 radius": lambda: universal(digits.model, x, y, Threat(region=L0(3.0))),
        "radius, the region is": lambda: universal(digits.model, x, y, threat.unbounded()),
        "differs between samples": lambda: universal(
            digits.model, x, y, Threat(region=Linf(np.linspace(0, 0.1, 60)))
        ),
        "give more than 0": lambda: universal(digits.model, x, y, threat, epochs=0),
        "as many labels as inputs": lambda: universal(digits.model, x, y[:-1], threat),
        "at least one sample": lambda: universal(digits.model, x, y, threat, held_out=1),
        "to paint, give a region": lambda: universal(
            digits.model, x, y, Threat(region=Linf(0.1)), paint=True
        ),
        "Spatial turns pictures": lambda: attacks.run(
            Spatial(), passing(), x.flatten(1), y, Threat(region=Linf(1.0))
        ),
        "rotation is 200": lambda: Spatial(rotation=200),
        "angles, shifts and width": lambda: Spatial(width=0),
    }
    for words, call in calls.items():
        with pytest.raises(WithstandError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


MODEL = """
import numpy
import torch


def build():
    data = numpy.load("data.npz")
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net
"""


def test_a_patch_may_take_any_value_of_whatever_domain(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    threat, attack = Threat(region=patch((1, 8, 8), 4, 4, 2, 2)), attacks.PGD(steps=10)
    unit = attacks.run(attack, digits.model, x, y, threat)
    wide = TorchModel(digits.net, domain=(0, 255), preprocess=lambda x: x / 255)
    of_bytes = attacks.run(attack, wide, 255 * x, y, threat)
    assert int(unit.success.sum()) > len(x) / 3
    assert abs(int(of_bytes.success.sum()) - int(unit.success.sum())) <= 2


@pytest.mark.parametrize(
    ("region", "free"),
    [
        ("{patches: [{height: 3, width: 2, top: 1, left: 4}]}", (slice(1, 4), slice(4, 6))),
        ("{frame: 1}", None),
        (
            "{patches: [{height: 3, width: 3, top: 0, left: 0}], tones: [0, 1]}",
            (slice(0, 3), slice(0, 3)),
        ),
        (
            "{norm: linf, eps: 0.25, patches: [{height: 6, width: 6, top: 1, left: 1}]}",
            (slice(1, 7), slice(1, 7)),
        ),
    ],
)
def test_the_file_names_patches_and_frames(
    digits: Any, tmp_path: Path, region: str, free: tuple[slice, slice] | None
) -> None:
    np.savez(tmp_path / "data.npz", x=digits.data.x, y=digits.data.y)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "withstand.yaml").write_text(
        "model: {kind: torch, factory: 'model.py:build', domain: [0, 1]}\n"
        f"data: {{kind: npz, path: data.npz}}\nthreat: {{region: {region}}}\n"
        "evaluate: {preset: smoke}\ngate: {robust_accuracy: {min: 0.01}, trust: {min: red}}\n"
    )
    done = withstand("evaluate", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "withstand-report" / "adversarial.npz") as stored:
        moved = (stored["x_adv"] != stored["x"]).any((0, 1))
        change = np.abs(stored["x_adv"] - stored["x"]).max()
        values = stored["x_adv"][stored["x_adv"] != stored["x"]]
        assert stored["fooled"].any()
    allowed = np.zeros((8, 8), bool)
    if free is None:
        allowed[:] = True
        allowed[1:-1, 1:-1] = False
    else:
        allowed[free] = True
    assert moved.any()
    assert not (moved & ~allowed).any()
    assert change <= (0.25 if "norm" in region else 1)
    if "tones" in region:
        assert set(np.unique(values)) <= {0.0, 1.0}
    judged = withstand("gate", "--report", "withstand-report", folder=tmp_path)
    assert judged.returncode in (0, 1, 3), judged.stderr


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("{patches: []}", "threat.region.patches are none"),
        (
            "{patches: [{height: 3, width: 2, top: 1, left: 4}], frame: 1}",
            "region.frame and patches",
        ),
        ("{frame: 1, tones: [0]}", "threat.region.tones are for patches"),
        ("{norm: linf, frame: 1}", "threat.region.eps is missing"),
        ("{}", "threat.region is missing"),
        ("{patches: [{height: 9, width: 2, top: 1, left: 4}]}", "a patch of 9 x 2 at row 1"),
        ("{frame: 4}", "a frame of 4 pixels does not fit 8 x 8"),
    ],
)
def test_a_patch_that_cannot_be_is_one_line(tmp_path: Path, region: str, words: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 1, 8, 8), np.float32), y=np.arange(4))
    path = tmp_path / "withstand.yaml"
    path.write_text(
        "model: {kind: torch, factory: 'model.py:build', domain: [0, 1]}\n"
        f"data: {{kind: npz, path: data.npz}}\nthreat: {{region: {region}}}\n"
    )
    with pytest.raises(WithstandError, match=words) as caught:
        threat_from(load_config(path), tmp_path)
    assert "\n" not in str(caught.value)
