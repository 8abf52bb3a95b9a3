"""Before an attack: is the model that is attacked the one that is meant, and is it one function?"""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...models import Detecting, Model, Randomized
from ...threat import Evading
from ._check import Case, Check, HandedIn, parts

_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
_COARSE = (torch.bfloat16, torch.float16, torch.uint8, torch.int8)


def handed_in(model: Model, x: Tensor) -> HandedIn:
    """What one call on x (B, ...) shows of a model before it is held; all is put back. 1 forward.

    Only for models of torch modules; of others nothing is known.
    """
    nets = [part for part in parts(model) if isinstance(part, nn.Module)]
    named = [(name, module) for net in nets for name, module in net.named_modules()]
    training = tuple(
        name or type(module).__name__
        for name, module in named
        if module.training and isinstance(module, _RANDOM)
    )
    state = [(name, value) for net in nets for name, value in net.state_dict().items()]
    before = [value.detach().clone() for _, value in state]
    modes = [(module, module.training) for _, module in named]
    devices = {value.device for _, value in state if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            for net in nets:
                net.eval()
            ask = model.labels if model.access == "labels" else model.scores
            ask(x)
            changed = tuple(
                name
                for (name, value), old in zip(state, before, strict=True)
                if not torch.equal(value, old)
            )
        finally:
            with torch.no_grad():
                for (_, value), old in zip(state, before, strict=True):
                    value.copy_(old)
            for module, mode in modes:
                module.training = mode
    return HandedIn(training=training, changed=changed)


def _training(case: Case) -> float:
    return float(len(case.handed_in.training))


def _changed(case: Case) -> float:
    return float(len(case.handed_in.changed))


def _restless(case: Case) -> float | None:
    """Largest relative difference of the scores between equal calls; 1 where the answer flips."""
    places = case.sample(32, 4)
    if not len(places) or not case.clean.is_floating_point():
        return None
    x = case.x[places]
    first, worst = case.scores(x), 0.0
    for _ in range(3):
        again = case.scores(x)
        if bool((case.threat.goal.decide(again) != case.threat.goal.decide(first)).any()):
            return 1.0
        worst = max(worst, _difference(again, first))
    return worst


def _alone(case: Case) -> float | None:
    """Largest relative difference of a row's scores alone and among others; 1 for a flip.

    None where equal calls differ already, and where each draw belongs to a whole batch by design.
    """
    places = case.sample(16, 3)
    random = isinstance(case.model, Randomized)
    if random or len(places) < 2 or not case.clean.is_floating_point():
        return None
    x = case.x[places]
    together = case.scores(x)
    if _difference(case.scores(x), together) > 1e-6:
        return None
    # By fours, and not alone: the kernels of one row round differently, which is no dependence.
    parts = [case.x[part] for part in torch.split(places, 4)]
    other = torch.cat([case.scores(part.flip(0)).flip(0) for part in parts])
    decide = case.threat.goal.decide
    if bool((decide(other) != decide(together)).any()):
        return 1.0
    return _difference(other, together)


def _difference(scores: Tensor, other: Tensor) -> float:
    gap = (scores.double() - other.double()).flatten(1).norm(dim=1)
    return float((gap / other.double().flatten(1).norm(dim=1).clamp_min(1e-12)).max())


def _probabilities(case: Case) -> float | None:
    return float(case.probabilities) if case.gradients else None


def _precision(case: Case) -> float | None:
    """Share of a tenth of the radius that the coarsest cast of the input loses."""
    places = case.sample(16, 2)
    if not len(places) or not case.gradients or not case.x.is_floating_point():
        return None
    x = case.x[places]
    with _Casts(x.shape) as casts:
        case.scores(x)
    if not casts.seen:
        return 0.0 if casts.looked else None
    sign = torch.randint(0, 2, x.shape, generator=case.generator(12)) * 2 - 1
    near = case.moved(places, sign.to(x), 0.1)
    size = float((near - x).norm())
    lost = [float(((near.to(kind) - near) - (x.to(kind) - x)).norm()) / size for kind in casts.seen]
    return max(lost) if size > 0 else 0.0


class _Casts(TorchFunctionMode):
    """Notes which functions turn a tensor of the input's size into one of a coarse type.

    A dispatch mode would see inside compiled programs too, at the price of importing the compiler,
    which takes longer than all checks together.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.size = shape.numel()
        self.looked = False
        self.seen: set[torch.dtype] = set()

    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ):
        out = func(*args, **(kwargs or {}))
        given = args[0] if args and isinstance(args[0], Tensor) else None
        # Only what has the input's size can be the input: later layers may well be coarse.
        if given is not None and given.numel() == self.size and isinstance(out, Tensor):
            self.looked = True
            if out.dtype in _COARSE and given.dtype not in _COARSE:
                self.seen.add(out.dtype)
        return out


def _optimising(case: Case) -> float | None:
    """How often a forward differentiates."""
    places = case.sample(4, 1)
    if not len(places) or not case.gradients:
        return None
    with (
        patch.object(torch.autograd, "grad", wraps=torch.autograd.grad) as grad,
        patch.object(torch.autograd, "backward", wraps=torch.autograd.backward) as backward,
    ):
        case.scores(case.x[places])
    return float(grad.call_count + backward.call_count)


def _unadapted(case: Case) -> float | None:
    return case.unadapted


def _ignored_detector(case: Case) -> float | None:
    model: object = case.model
    while model is not None:
        if isinstance(model, Detecting):
            return float(not isinstance(case.threat.goal, Evading))
        model = getattr(model, "model", None)
    return None


def _draws(case: Case) -> float | None:
    """Share of the examples that fool fewer than half of fresh, single draws."""
    if not isinstance(case.model, Randomized):
        return None
    model = case.model
    places = case.fooled.nonzero()[:, 0][: case.purse.rows(64, 20)]
    if not len(places):
        return None
    shown, wins = case.found.x_adv[places], torch.zeros(len(places), device=case.x.device)
    case.purse.spend(20 * len(places))
    for answer in model.each(shown):
        decided = case.threat.goal.decide(answer)
        wins += case.threat.goal.hit(decided, case.y[places]).to(wins)
    return float((wins < 10).float().mean())


CHECKS = (
    Check(
        name="handed in training",
        when="before",
        measure=_training,
        amber=0,
        meaning="number of dropout and batch norm layers that were handed in in training mode; "
        "they were evaluated in eval mode, and a service that runs them in training mode answers "
        "otherwise",
        fix="call eval() where the model is built, and see that the service does",
        source="Carlini et al. 2019",
    ),
    Check(
        name="side effects",
        when="before",
        measure=_changed,
        amber=0,
        meaning="number of parameters and buffers that one call in eval mode changes: what is "
        "attacked is another model after each query",
        fix="keep statistics out of the forward pass in eval mode",
        source="Carlini et al. 2019",
    ),
    Check(
        name="random answers",
        when="before",
        measure=_restless,
        amber=1e-4,
        meaning="largest relative difference between equal calls, 1 where an answer flips: attacks "
        "follow the noise",
        fix="wrap the model in Randomized, so that attacks average over its randomness",
        source="Croce et al. 2020, flags of AutoAttack",
    ),
    Check(
        name="batch dependence",
        when="before",
        measure=_alone,
        amber=1e-3,
        meaning="largest relative difference of a row's scores with other rows beside it, 1 where "
        "an answer flips: there is no such thing as the model's answer to an input",
        fix="use running statistics (eval mode) instead of those of the batch",
        source="Carlini et al. 2019",
    ),
    Check(
        name="probabilities",
        when="before",
        measure=_probabilities,
        amber=0,
        meaning="1 where the model answers with probabilities: rounding hides small differences, "
        "and tools that expect logits overestimate it",
        fix="return logits; here the logarithm of the probabilities was attacked",
        source="Carlini and Wagner 2017",
    ),
    Check(
        name="input precision",
        when="before",
        measure=_precision,
        amber=0.05,
        red=0.5,
        meaning="share of a change of a tenth of the radius that a cast of the input loses",
        fix="keep the first layer in float32, or attack what the cast leaves (a larger radius)",
        source="Lin et al. 2019",
    ),
    Check(
        name="optimisation inside",
        when="before",
        measure=_optimising,
        amber=0,
        meaning="how often one forward pass differentiates: a defence that adapts to its input "
        "needs an attack that knows it",
        fix="attack through an unrolled or frozen copy of the inner optimisation",
        source="Croce et al. 2022",
    ),
    Check(
        name="detector left out",
        when="before",
        measure=_ignored_detector,
        amber=0,
        red=0.5,
        meaning="1 where a detector stands beside the model and the goal does not have to evade it",
        fix="set the goal to Evading, so that success needs the detector's silence",
        source="Tramer et al. 2020",
    ),
    Check(
        name="not adaptively evaluated",
        when="before",
        measure=_unadapted,
        amber=0,
        meaning="1 where the model carries defences and the attack that knows of them did not run: "
        "the number says nothing of an attacker who does",
        fix="set threat.access to gradients, give a model with gradients, or more seconds",
        source="Tramer et al. 2020",
    ),
    Check(
        name="draws differ",
        when="after",
        measure=_draws,
        amber=0.1,
        meaning="share of the examples that fool fewer than half of 20 fresh draws of the model",
        fix="raise the draws of Randomized",
        source="Athalye et al. 2018",
    ),
)
