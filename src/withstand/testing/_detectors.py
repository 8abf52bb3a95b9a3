"""What every detection method must keep, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .._errors import DataError, ModelError, WithstandError
from ..detect import Detector, Method, fit, made, registry, settings_of
from ..models import Ensemble, Model, TorchModel
from ._attacks import _same, _state
from ._victims import Victim, suspicious, victim


def check_detector(method: Method) -> None:
    """Run a detection method through the conformance suite; raises AssertionError with what it
    broke.

    For each of its modalities: scores are finite and (B,), each row's by itself alone, the same
    whenever asked, and never above `highest`; no more is asked of the model than `passes` says; the
    state is tensors and survives a file, as the settings do; the gradient is its row's own, and
    there is none where `differentiable` is False; too few inputs are a DataError of one line;
    attacked, borderline or remote inputs of some kind score higher than benign ones; neither model,
    inputs nor global random state are changed. Inputs lie between 0 and 1, to which the method's
    settings must suit. Takes seconds.
    """
    assert method.modalities, "the method makes sense for no modality"
    # Models of text see embeddings, which are tables; a method for text alone sees code points.
    claimed = [modality for modality in method.modalities if modality != "text"]
    for modality in claimed or method.modalities:
        known = victim(modality)
        before = _state(known.nets, known.fitted, known.seen)
        try:
            _check(method, known)
        except AssertionError as error:
            raise AssertionError(f"{modality}: {error}") from None
        after = _state(known.nets, known.fitted, known.seen)
        _same(before, after, f"{modality}: model, inputs or random state changed")


def _check(method: Method, known: Victim) -> None:
    model, detector = _fitted(method, known)
    state = {name: value.clone() for name, value in detector.state.items()}
    with _counted(known) as asked:
        scores = detector.score(known.seen)
    _check_scores(method, scores, known.seen)
    own = 0 if method.needs == "input" else 1
    most = (own + method.passes) * len(known.seen)
    assert asked[0] <= most, f"{asked[0]} inputs asked of the model, passes says at most {most:g}"
    _check_rows(detector, known.seen, scores)
    _check_kept(detector, known.seen, scores)
    _check_gradient(detector, known.seen, scores)
    _check_few(method, model, known)
    _check_power(detector, known, scores)
    with _reseeded():
        again = fit(method, model, known.fitted, known.y).state
    assert state.keys() == again.keys(), "fitting twice gives two states"
    for name, value in state.items():
        assert _equal(value, again[name]), f"fitting twice gives two values of {name}"
        assert _equal(value, detector.state[name]), f"scoring changes the state's {name}"


def _fitted(method: Method, known: Victim) -> tuple[Model, Detector]:
    """The detector of one network, or of an ensemble where the method wants one."""
    models = [TorchModel(net) for net in known.nets]
    try:
        return models[0], fit(method, models[0], known.fitted, known.y)
    except ModelError as error:
        _check_told(error)
    except Exception as error:
        raise AssertionError(f"fit fails with {type(error).__name__}: {error}") from error
    ensemble = Ensemble(models)
    return ensemble, fit(method, ensemble, known.fitted, known.y)


def _check_scores(method: Method, scores: Tensor, x: Tensor) -> None:
    assert scores.shape == (len(x),), f"scores have the shape {tuple(scores.shape)}, not (B,)"
    assert scores.is_floating_point(), f"scores are {scores.dtype}, not floats"
    assert bool(scores.isfinite().all()), "benign scores are not finite"
    assert not scores.requires_grad, "scores have a graph where none was asked for"
    _check_range(method, scores, "benign")


def _check_range(method: Method, scores: Tensor, kind: str) -> None:
    if method.highest is not None:
        most = float(scores.max())
        within = most <= method.highest + 1e-5 * abs(method.highest)
        assert within, f"a score of {kind} inputs is {most:g}, highest says {method.highest:g}"


def _check_rows(detector: Detector, x: Tensor, scores: Tensor) -> None:
    with _reseeded():
        repeated = detector.score(x)
    assert torch.equal(repeated, scores), "the same inputs get other scores when repeated"
    order, half = torch.arange(len(x)).flip(0), len(x) // 2
    _close(detector.score(x[order]), scores[order], "the order of rows changes scores")
    among = torch.cat((x[:half], 1 - x[half:]))
    _close(detector.score(among)[:half], scores[:half], "the other rows change a row's score")
    _close(detector.score(x, batch_size=7), scores, "the size of the batch changes scores")
    _close(detector.score(x[:9], batch_size=1), scores[:9], "an input by itself scores otherwise")


def _close(found: Tensor, wanted: Tensor, message: str) -> None:
    assert found.shape == wanted.shape, f"{message}: {tuple(found.shape)}, not (B,)"
    near = (found - wanted).abs() <= 1e-3 * wanted.std() + 1e-4 * wanted.abs()
    # Kernels sum in an order that depends on the batch, and some scores turn on a last bit.
    assert float(near.float().mean()) > 0.8, message


def _check_kept(detector: Detector, x: Tensor, scores: Tensor) -> None:
    from safetensors.torch import load, save

    method = detector.method
    stored = {name: value.contiguous() for name, value in detector.state.items()}
    settings: dict[str, Any] = json.loads(json.dumps(settings_of(method)))
    name = type(method).__name__
    if registry().get(name) is type(method):
        again = made(name, settings)
    else:
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        again = type(method)(**plain)
    assert again == method, "the method is another one when made again from its settings"
    kept = replace(detector, method=again, state=load(save(stored)))
    assert torch.equal(kept.score(x), scores), "the scores are others once the state was stored"


def _check_gradient(detector: Detector, x: Tensor, scores: Tensor) -> None:
    x = x.clone().requires_grad_()
    out = detector.score(x)
    _close(out.detach(), scores, "scores are others where a gradient is wanted")
    if not detector.method.differentiable:
        assert not out.requires_grad, "differentiable is False, and the scores have a graph"
        return
    assert out.requires_grad, "the scores are cut off from the input; or differentiable is False"
    (slope,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    assert bool(slope.isfinite().all()), "the gradient is not finite"
    assert bool(slope.any()), "the gradient is zero everywhere"
    row = int(slope.flatten(1).any(1).nonzero()[0, 0])
    (alone,) = torch.autograd.grad(out[row], x)
    alone[row] = 0
    assert not bool(alone.any()), "a row's score has a gradient in another row"


def _check_few(method: Method, model: Model, known: Victim) -> None:
    for few in (1, 3):
        try:
            detector = fit(method, model, known.fitted[:few], known.y[:few])
        except DataError as error:
            _check_told(error)
        except Exception as error:
            kind = type(error).__name__
            raise AssertionError(f"{few} benign inputs raise {kind}, not DataError") from error
        else:
            finite = detector.score(known.seen).isfinite()
            assert bool(finite.all()), f"scores after fitting to {few} inputs are not finite"


def _check_told(error: WithstandError) -> None:
    assert len(str(error).splitlines()) == 1, f"an error is not one line: {str(error)!r}"


def _check_power(detector: Detector, known: Victim, scores: Tensor) -> None:
    limit, found = scores.quantile(0.95), {}
    for kind, other in suspicious(detector.model, known).items():
        higher = detector.score(other)
        assert bool(higher.isfinite().all()), f"scores of inputs that are {kind} are not finite"
        _check_range(detector.method, higher, kind)
        found[kind] = float((higher > limit).float().mean())
    told = ", ".join(f"{kind} {share:.0%}" for kind, share in found.items())
    # Of a score that tells nothing 5 % of each kind lie there, and one in four never do.
    assert max(found.values()) >= 0.25, f"nothing scores higher than the top 5 % of benign: {told}"


@contextmanager
def _counted(known: Victim) -> Iterator[list[int]]:
    """How many inputs the first network is asked, in a list of one number."""
    asked = [0]

    def count(net: Any, given: tuple[Tensor, ...]) -> None:
        asked[0] += len(given[0])

    hook = known.nets[0].register_forward_pre_hook(count)
    try:
        yield asked
    finally:
        hook.remove()


@contextmanager
def _reseeded() -> Iterator[None]:
    """Torch's generators as they are not otherwise, since a held model hides what is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
