"""A classifier of benign against adversarial, trained on attacks that it makes itself."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..._errors import ConfigError, DataError
from ...attacks import PGD, run
from ...models import TorchModel
from ...threat import Linf, Threat
from .._contract import Method, Needs, Observation, State
from ._answers import two
from ._features import enough

_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class Learned(Method):
    """A network on activations and sorted class scores, trained against PGD (Metzen et al. 2017).

    Attack-aware: `fit` attacks benign inputs by PGD in Linf at each of the radii, in units of the
    input, both up to where it fools the model and with all its steps, and learns to tell what fools
    the model from the benign inputs. It says little about other attacks and smaller radii, and
    falls to an attacker who knows it. hidden: units of the hidden layer, 0 for logistic regression.
    examples: benign inputs that are attacked, evenly spread. No extra pass; fitting costs
    2 * examples * radii * steps forwards and backwards.
    """

    layers: tuple[str, ...] | None = None
    radii: tuple[float, ...] = (8 / 255, 0.1, 0.3)
    steps: int = 10
    examples: int = 1000
    hidden: int = 32
    seed: int = 0
    needs: ClassVar[Needs] = "activations"
    attack_aware: ClassVar[bool] = True
    reference: ClassVar[str] = "Metzen et al. 2017"

    def __post_init__(self) -> None:
        if not self.radii or min(self.radii) <= 0:
            raise ConfigError(f"radii are {list(self.radii)}; give at least one, all above 0")
        for name, least in (("steps", 1), ("examples", _FEWEST), ("hidden", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {least}")

    def fit(self, seen: Observation) -> State:
        enough(len(seen.x), _FEWEST, "a learned detector")
        benign = _features(seen)
        mean, spread = benign.mean(0), benign.std(0)
        spread = spread.clamp_min(1e-3 * float(spread.max()) + 1e-12)
        bad = self._fooling(seen)
        x = torch.cat(((benign - mean) / spread, (bad - mean) / spread))
        y = torch.cat((torch.zeros(len(benign)), torch.ones(len(bad))))
        return {"mean": mean, "spread": spread} | self._trained(x.cpu(), y)

    def score(self, state: State, seen: Observation) -> Tensor:
        found = (_features(seen) - state["mean"]) / state["spread"]
        depth = sum(name.startswith("weight") for name in state)
        for i in range(depth):
            found = found @ state[f"weight{i}"] + state[f"bias{i}"]
            found = found.relu() if i + 1 < depth else found
        return found[:, 0]

    def _fooling(self, seen: Observation) -> Tensor:
        """The features of examples that change the model's answer."""
        assert seen.look is not None
        some = torch.arange(min(self.examples, len(seen.x))) * len(seen.x)
        some = (some // min(self.examples, len(seen.x))).to(seen.x.device)
        x, y = seen.x[some], two(seen.scores[some]).argmax(1)
        # What inputs may be is not told, and the benign ones show it well enough.
        model = TorchModel(_Asking(seen), domain=(float(seen.x.min()), float(seen.x.max())))
        found = []
        for radius in self.radii:
            threat = Threat(region=Linf(radius))
            with torch.enable_grad():
                just = run(PGD(steps=self.steps), model, x, y, threat, seed=self.seed)
            for part in torch.split(just.x_adv[just.success], 256):
                with torch.no_grad():
                    found.append(_features(seen.look(part)))
            # Those stop where they fool; an attacker may go on, and then the model is surer of it.
            for part, label in zip(torch.split(x, 256), torch.split(y, 256), strict=True):
                far = self._climbed(model, part, label, radius)
                with torch.no_grad():
                    shown = seen.look(far)
                    found.append(_features(shown)[two(shown.scores).argmax(1) != label])
        fooling = sum(map(len, found))
        if fooling < _FEWEST:
            raise DataError(
                f"PGD fools the model with {fooling} of {2 * len(x) * len(self.radii)} examples, "
                f"too few to learn from; at least {_FEWEST} must, so give larger radii or more of "
                "them"
            )
        return torch.cat(found)

    def _climbed(self, model: TorchModel, x: Tensor, y: Tensor, radius: float) -> Tensor:
        """The last points of PGD from x."""
        assert isinstance(model.domain.lower, float)
        assert isinstance(model.domain.upper, float)
        low = (x - radius).clamp_min(model.domain.lower)
        high = (x + radius).clamp_max(model.domain.upper)
        made = x
        for _ in range(self.steps):
            slope = model.gradient(made, lambda scores: _loss(scores, y)).gradient
            moved = made + 2.5 * radius / self.steps * slope.sign()
            made = torch.minimum(torch.maximum(moved, low), high)
        return made

    def _trained(self, x: Tensor, y: Tensor) -> State:
        """The layers of what tells 1 from 0; deterministic, from scikit-learn."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier

        if self.hidden:
            net = MLPClassifier((self.hidden,), alpha=1e-3, max_iter=100, random_state=self.seed)
            with warnings.catch_warnings():
                # Stopping early is the better detector.
                warnings.simplefilter("ignore", ConvergenceWarning)
                net.fit(x.numpy(), y.numpy())
            weights, biases = net.coefs_, net.intercepts_
        else:
            line = LogisticRegression(class_weight="balanced", max_iter=1000)
            line.fit(x.numpy(), y.numpy())
            weights, biases = [line.coef_.T], [line.intercept_]
        state: State = {}
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            state[f"weight{i}"] = torch.from_numpy(weight).float()
            state[f"bias{i}"] = torch.from_numpy(bias).float()
        return state


class _Asking(nn.Module):
    """The model that was observed, as a module."""

    def __init__(self, seen: Observation) -> None:
        super().__init__()
        self.ask = seen.ask
        self.here = nn.Parameter(seen.x.new_zeros(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x)


def _loss(scores: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(two(scores), y, reduction="none")


def _features(seen: Observation) -> Tensor:
    """Activations and the ten highest log-probabilities (B, F)."""
    scores = two(seen.scores).log_softmax(1)
    best = scores.topk(min(10, scores.shape[1]), dim=1).values
    return torch.cat((*seen.activations.values(), best), 1)
