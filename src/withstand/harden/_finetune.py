"""From an incident to a better model: a short fine-tuning on a corpus, and whether it did harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .._errors import DataError
from ..data import Dataset
from ..evidence import Corpus, content_digest
from ..models import TorchModel
from ..stats import Interval, clopper_pearson, paired_difference
from ..threat import Box
from ._batches import derived, samples
from ._contract import Moment, Recipe
from ._crafting import faced
from ._harden import harden
from ._replay import Examples, Replay, examples
from ._result import Hardened
from ._schedule import adam
from ._watch import withstood

Outcome = Literal["pass", "fail", "inconclusive"]
KEPT_OUT = 0.25
_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Change:
    """A share before and after on the same samples, and what is asked of the change.

    change: after minus before, with its interval; least: what the whole interval must reach.
    """

    metric: str
    before: Interval
    after: Interval
    change: Interval
    least: float

    @property
    def outcome(self) -> Outcome:
        """pass if the whole interval reaches the least, fail if it stays below, else inconclusive.

        Without data it is inconclusive; where all was right before and is after, it is a pass.
        """
        if not self.change.n:
            return "inconclusive"
        if self.change.low >= self.least or self.before.value == self.after.value == 1:
            return "pass"
        return "fail" if self.change.high < self.least else "inconclusive"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        figures = {name: getattr(self, name).to_dict() for name in ("before", "after", "change")}
        return {"metric": self.metric, "outcome": self.outcome, "least": self.least, **figures}


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A fine-tuned module and its regression check.

    changes: clean_accuracy, robust_accuracy (under PGD of 20 steps, an upper bound) and
    corpus_accuracy (kept examples answered right) of inputs that no part of the training has seen;
    learnt: kept examples trained on that are right before and after.
    """

    hardened: Hardened
    changes: tuple[Change, ...]
    learnt: Change

    @property
    def outcome(self) -> Outcome:
        """fail if one check fails, pass if all pass, else inconclusive."""
        outcomes = {change.outcome for change in self.changes}
        if "fail" in outcomes:
            return "fail"
        return "pass" if outcomes == {"pass"} else "inconclusive"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, less the weights."""
        return {
            "outcome": self.outcome,
            "changes": [change.to_dict() for change in self.changes],
            "learnt": self.learnt.to_dict(),
            "training": self.hardened.to_dict(),
        }


def unseen(digest: str, share: float) -> bool:
    """Whether an original, known by its digest, is kept from the training."""
    return int(digest[:8], 16) < share * 2**32


def finetune(
    net: nn.Module | TorchModel,
    data: Dataset,
    corpus: Corpus | str | Path,
    recipe: Recipe,
    *,
    checked: Dataset | None = None,
    version: int | None = None,
    share: float = 0.25,
    kept_out: float = KEPT_OUT,
    clean_drop: float = 0.02,
    robust_drop: float = 0.05,
    epochs: int = 3,
    seed: int = 0,
    domain: Sequence[float] | Box = (0.0, 1.0),
    **training: Any,
) -> Finetuned:
    """Train a module a little further on a corpus and fresh data, and check it for regressions.

    checked: samples to check on, `data` if not given; share: weight of kept examples; kept_out:
    share of all originals, chosen by their digests, that neither are trained on nor any example
    made from them: what is checked are those alone; clean_drop, robust_drop: the most that may be
    lost; version: of the corpus, its newest if not given; training: more for `harden`. Raises
    DataError where no kept example is left to train on, and whatever `harden` raises.
    """
    if not isinstance(data, Dataset):
        raise DataError(
            f"data is a {type(data).__name__}; give a data set, such as from_arrays(x, y), whose "
            "samples can be told from those of the corpus"
        )
    box = net.domain if isinstance(net, TorchModel) else _box(domain)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    kept = examples(corpus, data.x.shape[1:], box, version)
    apart = [unseen(original, kept_out) for original in kept.originals]
    known = kept.take([row for row, far in enumerate(apart) if not far])
    others = _one_each(kept.take([row for row, far in enumerate(apart) if far]))
    if not len(known):
        raise DataError(
            f"all {len(kept)} kept examples are held back for the check; give more examples, or a "
            f"kept_out below {kept_out:g}"
        )
    data, judged = _split(data, checked, kept_out)
    settings: dict[str, Any] = {"optimizer": adam(5e-4), "ema": 0.99, **training}
    hardened = harden(
        net,
        data,
        Replay(recipe=recipe, kept=known, share=share),
        epochs=epochs,
        seed=seed,
        domain=box,
        **settings,
    )
    after = TorchModel(hardened.net, domain=hardened.domain, preprocess=hardened.preprocess)
    before = (
        net
        if isinstance(net, TorchModel)
        else TorchModel(net, domain=after.domain, preprocess=after.preprocess)
    )
    found = [_right(model, judged, others, known, recipe, seed) for model in (before, after)]
    least = {"clean_accuracy": -clean_drop, "robust_accuracy": -robust_drop, "corpus_accuracy": 0.0}
    return Finetuned(
        hardened=hardened,
        changes=tuple(
            _change(name, getattr(found[0], name), getattr(found[1], name), floor)
            for name, floor in least.items()
        ),
        learnt=_change("learnt", found[0].learnt, found[1].learnt, 0.0),
    )


class _Right(NamedTuple):
    """Which samples and which examples are right."""

    clean_accuracy: Tensor
    robust_accuracy: Tensor
    corpus_accuracy: Tensor
    learnt: Tensor


def _right(
    model: TorchModel,
    judged: Dataset,
    others: Examples,
    known: Examples,
    recipe: Recipe,
    seed: int,
) -> _Right:
    x, y = samples(judged)
    noise = torch.Generator(model.device).manual_seed(derived(seed, "regression"))
    at = Moment(done=1.0, scale=1.0, noise=noise, domain=model.domain)
    whole = faced(model.net, model.preprocess)
    with model.held():
        x, y = x.to(model.device), y.to(model.device)
        seen = withstood(whole, x, y, recipe.regions, at, steps=_STEPS)
        kept = [
            model.labels(some.x.to(model.device)).cpu() == some.y if len(some) else some.y > 0
            for some in (others, known)
        ]
    return _Right(seen.clean.cpu(), seen.multi.cpu(), *kept)


def _change(metric: str, before: Tensor, after: Tensor, least: float) -> Change:
    n = len(before)
    more, fewer = int((after & ~before).sum()), int((before & ~after).sum())
    change = paired_difference(more, fewer, n, 0.95) if n else clopper_pearson(0, 0)
    shares = [clopper_pearson(int(right.sum()), n) for right in (before, after)]
    return Change(metric=metric, before=shares[0], after=shares[1], change=change, least=least)


def _split(data: Dataset, checked: Dataset | None, share: float) -> tuple[Dataset, Dataset]:
    """What is trained on, and what is checked: originals of the same digests are never in both."""
    of_checked = data if checked is None else checked
    trained = [not unseen(content_digest(row), share) for row in data.x]
    judged = [unseen(content_digest(row), share) for row in of_checked.x]
    if not any(trained) or not any(judged):
        raise DataError(
            f"kept_out is {share:g}: it leaves {sum(trained)} of {len(data)} samples to train on "
            f"and {sum(judged)} of {len(of_checked)} to check; give more samples or another share"
        )
    return data.take(trained), of_checked.take(judged)


def _one_each(kept: Examples) -> Examples:
    """One example of each original: more of them would not be independent."""
    first = {original: row for row, original in reversed(list(enumerate(kept.originals)))}
    return kept.take(sorted(first.values()))


def _box(domain: Sequence[float] | Box) -> Box:
    return domain if isinstance(domain, Box) else Box(domain[0], domain[1])
