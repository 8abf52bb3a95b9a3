"""A campaign: permitted attacks on an endpoint, input by input."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import ConfigError, ModelError, OperationError
from ..config import RedteamConfig
from ..guard import Experiment, Experiments
from ..monitor import Act, Audit, Observation, Observations, Store
from ._brakes import Brakes, HaltError, RefusedError
from ._impact import Impact, Watched
from ._plan import Probing, check_permitted, endpoint, probings
from ._purse import CapError, InputSpentError, Purse
from ._results import Ending, Found, Results
from ._runs import Run, Runs, RunState
from ._sightings import flagged_probes
from ._signature import Signed

if TYPE_CHECKING:
    from torch import Tensor

    from ..threat import Threat
    from ._target import Target

ARMS = ("control", "canary")
_EXPERIMENT = "x-withstand-experiment"
_PASS = 3600.0
_REFUSED = 3
_TRIED = ("fooled", "withstood")


class Guarded(Watched, Protocol):
    """A guard that tells how it is, and takes what the arms of a canary have shown."""

    def change(self, target: str, content: dict[str, str]) -> dict[str, Any]:
        """What a POST with the token answers; raises OperationError."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a campaign finds what it needs.

    root: folder that relative paths count from. guard: None where the scope wants none. evidence:
    the guard's log, None where it cannot be read. experiments: signs the passes, None for queries
    without.
    """

    root: Path
    store: Store
    guard: Guarded | None = None
    evidence: Path | None = None
    experiments: Experiments | None = None


@dataclass
class _Going:
    """One run under way."""

    run: Run
    arm: str
    results: Results
    found: dict[str, Found] = field(default_factory=dict)

    def tried(self) -> list[Found]:
        """Those inputs that were attacked, and answered at least once."""
        return [
            one
            for one in self.found.values()
            if one.ending in _TRIED or (one.ending == "refused" and one.queries > 1)
        ]


class Campaign:
    """All that a configuration asks for, once; what was killed goes on where it was.

    arms: attack both arms of a canary with the same inputs, and tell the guard what came of it.
    Raises OperationError before the first query for what the scope does not permit.
    """

    def __init__(
        self, config: RedteamConfig, signed: Signed, site: Site, *, arms: bool = False,
        who: str = "redteam",
    ) -> None:  # fmt: skip
        scope = signed.scope
        check_permitted(config, scope, time.time())
        if config.data is None or config.target is None:
            raise ConfigError("redteam.data is missing; name the inputs that are attacked")
        if scope.safety.guard and site.guard is None:
            raise OperationError(
                "the scope wants a guard's figures, and there is no section guard; add it, or have "
                "safety.guard: false signed"
            )
        if arms and (site.guard is None or scope.surprise):
            raise OperationError("the arms of a canary need a guard, and queries with a pass")
        if site.experiments is None and not scope.surprise:
            raise OperationError("there is no secret for the pass; see guard.secrets")
        self._config, self._signed, self._site, self._who = config, signed, site, who
        self._arms = ARMS if arms else ("",)
        impact = None if site.guard is None else Impact(site.guard, scope.safety)
        self.brakes = Brakes(scope, site.store.folder, impact)
        self._purse = Purse(site.store, signed.digest, scope.caps)
        self._runs, self._results = Runs(site.store), Results(site.store)
        self._observations = Observations(site.store)

    def run(self, progress: Callable[[Run], None] = lambda run: None) -> list[Run]:
        """Attack, and return the runs as they ended; one campaign at a time on a store."""
        from ._target import Target

        assert self._config.target is not None
        with _alone(self._site.store.folder):
            self.brakes.check()
            self._told("redteam run")
            target = Target(self._config.target, self.brakes, self._purse)
            try:
                return self._all(target, progress)
            finally:
                self._purse.settle()
                target.close()

    def _all(self, target: Target, progress: Callable[[Run], None]) -> list[Run]:
        import torch

        from ..data import load

        config = self._config
        assert config.data is not None
        data = load(config.data, self._site.root)
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        ended: list[Run] = []
        for place, probing in enumerate(probings(config, self._signed.scope)):
            going = [self._begun(probing, arm) for arm in self._arms]
            shown = self._examples(probing, x[: config.inputs], y[: config.inputs])
            stopped = ""
            try:
                if place == 0:
                    self._benign(target, going, x, y)
                self._attack(target, going, probing, (x, y, shown), progress)
            except (HaltError, CapError, ModelError) as error:
                stopped = str(error)
            for one in going:
                self._settle(one, stopped)
            ended += [one.run for one in going]
            if stopped:
                break
        return ended

    def _attack(
        self, target: Target, going: list[_Going], probing: Probing,
        data: tuple[Tensor, Tensor, Tensor | None], progress: Callable[[Run], None],
    ) -> None:  # fmt: skip
        x, y, shown = data
        refused = 0
        for i in range(min(self._config.inputs, len(x))):
            for one in going:
                name = str(i)
                if name in one.found:
                    continue
                target.next(one.run.id, name, self._headers(one))
                example = None if shown is None else shown[i : i + 1]
                found = self._one(target, one, probing, name, (x[i : i + 1], y[i : i + 1], example))
                self._keep(one, found)
                progress(one.run)
                refused = refused + 1 if found.ending == "refused" else 0
                if refused >= _REFUSED:
                    raise HaltError(
                        "the guard refuses the red team's key; lift what was ordered against it, "
                        "or wait until its flags fade"
                    )
            self._compare(going, str(i))

    def _one(
        self, target: Target, going: _Going, probing: Probing, name: str,
        data: tuple[Tensor, Tensor, Tensor | None],
    ) -> Found:  # fmt: skip
        """The attack on one input (1, ...)."""
        from ..attacks import Status, run
        from ..threat import Budget

        x, y, example = data
        caps, spent = self._signed.scope.caps, self._purse.spent(going.run.id, name)
        # Half an attack that finds nothing shows nothing.
        ending: Ending = "cut" if spent else "withstood"
        distance = None
        try:
            if spent >= caps.per_input:
                pass
            elif probing.attack is None:
                assert example is not None
                if int(target.labels(x)[0]) != int(y[0]):
                    ending = "already wrong"
                elif int(target.labels(example)[0]) != int(y[0]):
                    ending = "fooled"
            else:
                result = run(
                    probing.attack, target, x, y, self._threat(target), seed=self._config.seed,
                    budget=Budget(forwards=caps.per_input - spent), batch_size=1,
                )  # fmt: skip
                if result.status[0] is Status.ALREADY_WRONG:
                    ending = "already wrong"
                elif bool(result.success[0]):
                    ending, distance = "fooled", float(result.distance[0])
        except InputSpentError:
            pass
        except RefusedError:
            ending = "refused"
        return self._found(going, name, ending, distance)

    def _benign(self, target: Target, going: list[_Going], x: Tensor, y: Tensor) -> None:
        """Send the inputs that are not attacked, one by one, as they are."""
        first = self._config.inputs
        for i in range(first, min(first + self._config.benign, len(x))):
            for one in going:
                name = f"b{i}"
                if name in one.found:
                    continue
                target.next(one.run.id, name, self._headers(one))
                try:
                    target.labels(x[i : i + 1])
                except (RefusedError, InputSpentError):
                    continue
                self._keep(one, self._found(one, name, "clean", None))

    def _found(self, going: _Going, name: str, ending: Ending, distance: float | None) -> Found:
        self._purse.settle()
        queries = self._purse.spent(going.run.id, name)
        return Found(
            input=name, ending=ending, wall=time.time(), queries=queries, distance=distance
        )

    def _keep(self, going: _Going, found: Found) -> None:
        """Write down what an input has shown, and tell the monitor and the canary."""
        going.results.put(going.run.id, found)
        going.found[found.input] = found
        if found.ending != "clean" and found in going.tried():
            fooled = found.ending == "fooled"
            self._observations.add([self._seen("M1", going, found, bad=fooled)])
        self._write(going)

    def _settle(self, going: _Going, stopped: str) -> None:
        """Tell what the guard has seen of it, and close the run."""
        asked = [one.input for one in (*going.tried(), *self._clean(going))]
        flagged: dict[str, bool] = {}
        if asked and self._site.experiments is not None and not self._signed.scope.surprise:
            flagged = flagged_probes(
                self._site.evidence, going.run.id, self._signed.scope.key,
                going.run.began - 1, asked,
            )  # fmt: skip
        self._observations.add(
            [
                self._seen(sli, going, one, bad=flagged[one.input] == bad)
                for sli, kind, bad in (
                    ("M2", going.tried(), False),
                    ("M3", self._clean(going), True),
                )
                for one in kind
                if one.input in flagged
            ]
        )
        detected = sum(flagged.get(one.input, False) for one in going.tried())
        state: RunState = "stopped" if stopped else "done"
        going.run = replace(
            going.run, state=state, stopped=stopped, ended=time.time(), detected=detected
        )
        self._write(going)

    def _clean(self, going: _Going) -> list[Found]:
        return [one for one in going.found.values() if one.ending == "clean"]

    def _seen(self, sli: str, going: _Going, found: Found, *, bad: bool) -> Observation:
        run, scope = going.run, self._signed.scope
        attack, norm, eps = run.attack.split()
        labels = {"attack": attack, "norm": norm, "eps": eps, "environment": scope.environment}
        # What the canary shows says nothing of what serves the clients.
        model = f"{run.model}@canary" if going.arm == "canary" else run.model
        return Observation(
            sli=sli, wall=found.wall, source=f"probe:{run.id}:{found.input}:{sli}", bad=bad,
            model=model, labels=labels | ({"arm": going.arm} if going.arm else {}),
        )  # fmt: skip

    def _compare(self, going: list[_Going], name: str) -> None:
        """Tell the guard how both arms did on an input; HaltError once the rollout is decided."""
        if not self._arms[0] or self._site.guard is None:
            return
        found = [one.found[name] for one in going if one.found[name].ending in _TRIED]
        if len(found) < len(going):
            return
        fooled = dict(zip(self._arms, (one.ending == "fooled" for one in found), strict=True))
        told = {"both": all(fooled.values())}
        told |= {arm: fooled[arm] and not told["both"] for arm in self._arms}
        try:
            answer = self._site.guard.change(
                "/canary/outcomes",
                {
                    "model": going[0].run.model, "arm": "pairs", "tried": "1", "sli": "fooled",
                    "source": f"{going[0].run.id}:{name}",
                    **{key: str(int(value)) for key, value in told.items()},
                },
            )  # fmt: skip
        except OperationError as error:
            # It was decided, or ended by somebody, while both arms were attacked.
            raise HaltError(str(error)) from None
        if answer.get("state") not in ("running", "frozen"):
            raise HaltError(f"the canary is {answer.get('state')}")

    def _write(self, going: _Going) -> None:
        tried = going.tried()
        going.run = replace(
            going.run,
            queries=self._purse.spent(going.run.id),
            tried=len(tried),
            fooled=sum(one.ending == "fooled" for one in tried),
        )
        self._runs.put(going.run)

    def _begun(self, probing: Probing, arm: str) -> _Going:
        """A new run, or one that was killed."""
        url, model = endpoint(self._config)
        attack = f"{probing.name} {self._config.norm} {self._config.eps:g}"
        now, end = datetime.now(UTC), f"-{arm or 'all'}"
        for run in self._runs.all():
            same = (run.scope, run.target, run.model, run.attack) == (
                self._signed.digest, url, model, attack,
            )  # fmt: skip
            if run.state == "running" and same and run.id.endswith(end):
                return _Going(run, arm, self._results, self._results.of(run.id))
        run = Run(
            id=f"{self._signed.scope.name}-{now:%Y%m%dT%H%M%S}-{os.urandom(2).hex()}{end}",
            target=url, attack=attack, began=now.timestamp(), scope=self._signed.digest,
            who=self._signed.signer, most=self._signed.scope.caps.queries, model=model,
        )  # fmt: skip
        self._runs.put(run)
        return _Going(run, arm, self._results)

    def _headers(self, going: _Going) -> dict[str, str]:
        experiments, scope = self._site.experiments, self._signed.scope
        if experiments is None or scope.surprise:
            return {}
        until = min(scope.expires.timestamp(), time.time() + _PASS)
        told = Experiment(id=going.run.id, key=scope.key, until=until, arm=going.arm)
        return {_EXPERIMENT: experiments.sign(told)}

    def _examples(self, probing: Probing, x: Tensor, y: Tensor) -> Tensor | None:
        """What surrogates give, one example for each input; None for attacks that ask."""
        if probing.attack is not None:
            return None
        from ..attacks import TransferPGD, craft
        from ..models import load_model

        spec = self._config.surrogates[0]
        model = load_model(spec, self._site.root)
        return craft(TransferPGD(), model, x, y, self._region("gradients"), seed=self._config.seed)

    def _threat(self, target: Target) -> Threat:
        return self._region(target.access)

    def _region(self, access: Any) -> Threat:
        from ..threat import L0, L1, L2, Frozen, Linf, Region, Threat

        balls = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
        region: Region = balls[self._config.norm](self._config.eps)
        if self._config.frozen:
            region = region & Frozen(tuple(self._config.frozen))
        return Threat(region=region, access=access)

    def _told(self, action: str) -> None:
        url, model = endpoint(self._config)
        detail = {"scope": self._signed.digest, "signer": self._signed.signer, "model": model}
        Audit(self._site.store).add(
            Act(who=self._who, role="system", action=action, about=url, detail=detail)
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the place of the one campaign; raises OperationError where another one has it."""
    with (folder / "redteam.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OperationError(
                f"a campaign is under way on {folder}; wait, or run `withstand redteam stop`"
            ) from None
        yield
