"""What the evaluation itself noticed about whether its robust accuracy can be believed."""

from __future__ import annotations

from collections.abc import Sequence

from ._probe import Probe
from ._report import Finding, Surrogate, Trust, Verdict

RUGGED = 0.1
SATURATED = 0.1
_ENOUGH = 100
_NEVER = float("inf")


def judge(
    *,
    probe: Probe | None,
    missed: float | None,
    n: int,
    correct: int,
    by_noise: int | None,
    by_queries: int | None,
    by_transfer: int | None,
    surrogates: Sequence[Surrogate],
    unfinished: int,
) -> Trust:
    """The findings; counts are of samples.

    missed: share of the fooled that the sweep did not find; by_queries, by_transfer: fooled by
    queries alone or by surrogates' examples after gradients had failed; each None where it was not
    looked for. surrogates: what an attacker has who sees nothing of the model, else empty.
    """
    right = max(correct, 1)
    found = [
        Finding(
            check="sample size",
            value=float(n),
            threshold=float(_ENOUGH),
            verdict="green" if n >= _ENOUGH else "amber",
            meaning="with few samples the interval is wide, whatever the attack",
            fix=f"evaluate {_ENOUGH} or more",
        ),
        _share(
            "unfinished samples",
            unfinished / right,
            (0.0, 0.05),
            "the evaluation's own budget ended before these samples were fully attacked; they "
            "count as robust",
            "give more seconds or a larger budget",
        ),
    ]
    if by_noise is not None:
        found.append(
            _share(
                "random noise fools",
                by_noise / right,
                (0.5, _NEVER),
                "share of right answers that fall to noise without any search",
                "check preprocessing and the radius; an attacker needs no skill here",
            )
        )
    if probe is not None:
        found += _of_probe(probe)
    if missed is not None:
        found.append(
            _share(
                "sweep misses",
                missed,
                (RUGGED, 0.5),
                "share of the fooled for which the minimum-norm sweep found only larger changes: "
                "the loss is rugged, and the curve is too high away from the radius",
                "evaluate with preset thorough",
            )
        )
    if by_queries is not None:
        found.append(
            _share(
                "black box beats gradients",
                by_queries / right,
                (0.01, 0.05),
                "share that only a query attack fooled: the gradients mislead, and a better "
                "gradient attack may fool still more",
                "attack through the defence (Differentiable, Randomized) or without it",
            )
        )
    if by_transfer is not None:
        found.append(
            _share(
                "transfer beats gradients",
                by_transfer / right,
                (0.01, 0.05),
                "share that only examples made on surrogates fooled: the model's own gradients "
                "mislead, and a better gradient attack may fool still more",
                "attack through the defence (Differentiable, Randomized) or without it",
            )
        )
    if surrogates:
        found += _of_surrogates(surrogates, correct / n)
    return Trust(findings=tuple(found))


def _of_surrogates(surrogates: Sequence[Surrogate], accuracy: float) -> list[Finding]:
    behind = accuracy - max(surrogate.accuracy.value for surrogate in surrogates)
    return [
        Finding(
            check="surrogates",
            value=float(len(surrogates)),
            threshold=None,
            verdict="amber",
            meaning="examples come from these surrogates only: the number says nothing of an "
            "attacker with a better surrogate",
            fix="add surrogates of the model's own kind and of others, or evaluate with access "
            "labels or scores",
        ),
        _share(
            "surrogates' lag",
            max(behind, 0.0),
            (0.1, 0.3),
            "by how much the best surrogate is right less often than the model: examples made on "
            "a poor copy seldom carry over",
            "train a surrogate on more data, or on the model's answers (train_surrogate)",
        ),
    ]


def _of_probe(probe: Probe) -> list[Finding]:
    return [
        _share(
            "zero gradients",
            probe.zero_gradients,
            (0.0, 0.05),
            "share of inputs where the margin has no gradient: gradient attacks are blind there",
            "attack through the defence with Differentiable, or remove it for the evaluation",
        ),
        _share(
            "saturated cross-entropy",
            probe.saturated,
            (_NEVER, _NEVER),
            "share of inputs where cross-entropy has no gradient; the losses used here have one, "
            "but tools with plain cross-entropy overestimate this model",
            "none needed here",
        ),
        _share(
            "random answers",
            float(probe.restless),
            (0.5, 0.5),
            "1 if the same input was answered differently twice",
            "wrap the model in Randomized, so that attacks average over its randomness",
        ),
    ]


def _share(
    check: str, value: float, limits: tuple[float, float], meaning: str, fix: str
) -> Finding:
    """A finding that is amber above the first limit and red above the second."""
    amber, red = limits
    verdict: Verdict = "red" if value > red else "amber" if value > amber else "green"
    return Finding(
        check=check,
        value=float(value),
        threshold=None if amber == _NEVER else amber,
        verdict=verdict,
        meaning=meaning,
        fix=fix,
    )
