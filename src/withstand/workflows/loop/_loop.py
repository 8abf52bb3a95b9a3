"""The whole loop on one machine: from a model in service, through an attack, to a better model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..._errors import OperationError
from ...config import load_operations
from ...monitor import Alerts, Campaign, Store
from ...redteam import Runs
from ...respond import (
    Desk,
    GuardClient,
    Incidents,
    Step,
    approve,
    resolve,
    run_runbook,
    write_postmortem,
)
from ...stats import Interval
from ._facts import (
    DETECT,
    ROLL_BACK,
    LoopReport,
    Stage,
    canary_fell,
    checked,
    first_query,
    fooled,
    records,
)
from ._pager import Pager
from ._processes import Processes, answers, until
from ._site import EPS, KEY, Site, endings, lay_out, write_config, write_release

Tell = Callable[[Stage], None]

_BENIGN, _ATTACK = 30.0, 40.0
_PROGRAMS = Path(__file__).parent
_WHO = "demo"


def run_loop(folder: Path, tell: Tell = lambda stage: None) -> LoopReport:
    """Serve, guard, attack, page, roll back, replay, retrain, gate, promote, write it down.

    Everything goes to an empty folder; tell: hears of each stage as it ends. Raises OperationError
    where a stage does not happen; no process is left behind, however it ends.
    """
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise OperationError(f"{folder} is not empty; give another folder, or remove it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    loop = _Loop(folder, tell)
    try:
        return loop.run()
    finally:
        loop.end()


class _Loop:
    def __init__(self, folder: Path, tell: Tell) -> None:
        self._folder, self._tell = folder, tell
        self._stages: list[Stage] = []
        self._began = time.monotonic()
        self._processes: Processes | None = None
        self._pager: Pager | None = None

    def end(self) -> None:
        if self._processes is not None:
            self._processes.end()
        if self._pager is not None:
            self._pager.close()
            self._pager = None

    def run(self) -> LoopReport:
        site = lay_out(self._folder)
        self._stage("train", "a stable version v1 and a leaner version v2")
        self._site = site
        self._processes = processes = Processes(
            self._folder / "logs",
            {KEY: site.secret, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            jobs=self._folder,
        )
        self._serve(site, processes)
        self._stage("serve", "v1 behind the guard, monitor and responder beside it")
        store = Store(self._folder / "monitor")
        guard = GuardClient.from_file(site.config)
        guard.canary_act("start", "digits", identity="v2", who=_WHO, why="a leaner model")
        self._stage("canary", "v2 has 20 % of the clients")

        campaign, detect = self._attack(site, processes, store)
        incident, steps = self._answer(store, campaign)
        self._stage("respond", f"incident {incident}: {', '.join(steps)}")

        self._probe(processes, "probe-v2")
        until(lambda: canary_fell(records(self._folder)) is not None, "the rollback", processes)
        # What was under way has been answered by then.
        time.sleep(1.5)
        fell = canary_fell(records(self._folder))
        runs = Runs(store).all()
        self._stage(
            "roll back",
            f"v2 is fooled by {fooled(runs, 'canary')} of the probes, v1 by "
            f"{fooled(runs, 'control')}; its last answer came {fell:.2f} s after the decision",
        )
        processes.stop("v2")

        self._learn(store, incident)
        before, after = self._promote(site, processes, store, guard)
        postmortem = self._write(incident)
        # All of them have to be over, so that the evidence is closed.
        self.end()
        count = checked(self._folder, site.attacker, incident, postmortem)
        self._stage("verify", f"{count} records of evidence, unbroken; every stage is in it")
        report = LoopReport(
            stages=tuple(self._stages), detect=detect, roll_back=fell or 0.0, before=before,
            after=after, records=count,
            files={
                "postmortem": str(postmortem),
                "replay": str(Desk(site.config).folder(incident) / "replay.md"),
                "weights": str(self._folder / "v3.safetensors"),
                "evidence": str(self._folder / "evidence"),
            },
        )  # fmt: skip
        if report.detect > DETECT:
            raise OperationError(f"the page took {detect:.1f} s, more than {DETECT:g}")
        if report.roll_back > ROLL_BACK:
            raise OperationError(f"the rollback took {report.roll_back:.2f} s; {ROLL_BACK:g} may")
        return report

    def _stage(self, name: str, text: str) -> None:
        now = time.monotonic()
        stage = Stage(name=name, seconds=round(now - self._began, 1), text=text)
        self._began = now
        self._stages.append(stage)
        self._tell(stage)

    def _serve(self, site: Site, processes: Processes) -> None:
        ports, config = site.ports, str(site.config)
        self._pager = Pager(ports["pager"], self._folder / "logs" / "pages.jsonl")
        for version, factory in (("v1", "build"), ("v2", "lean")):
            self._model(processes, version, factory)
        processes.verb("guard", "guard", "serve", "--config", config)
        processes.verb("monitor", "monitor", "run", "--config", config)
        processes.verb("responder", "incident", "watch", "--config", config)
        until(lambda: self._up("v1") and self._up("v2"), "a model server's answer", processes)
        until(lambda: answers(ports["admin"], "/health/ready"), "the guard's answer", processes)
        until(lambda: answers(ports["monitor"], "/health"), "the monitor's answer", processes)
        processes.program(
            "clients", str(_PROGRAMS / "_clients.py"), "benign", str(ports["guard"]),
            str(self._folder / "clients.keys"), str(self._folder / "data.npz"), str(_BENIGN),
            str(self._folder / "logs" / "clients.json"),
        )  # fmt: skip

    def _model(self, processes: Processes, version: str, factory: str) -> None:
        processes.program(
            version, str(_PROGRAMS / "_server.py"), str(self._folder), factory,
            f"{version}.safetensors", str(self._site.ports[version]),
        )  # fmt: skip

    def _up(self, version: str) -> bool:
        return answers(self._site.ports[version], "/v2/health/ready")

    def _attack(self, site: Site, processes: Processes, store: Store) -> tuple[Campaign, float]:
        """Let somebody attack, and wait for the page."""
        processes.program(
            "attacker", str(_PROGRAMS / "_clients.py"), "attack", str(site.ports["guard"]),
            str(self._folder / "attacker.key"), str(self._folder / "data.npz"), str(EPS),
            str(_ATTACK), str(self._folder / "logs" / "attacker.jsonl"),
        )  # fmt: skip
        pager = self._pager
        assert pager is not None

        def paged() -> tuple[Campaign, float] | None:
            for one in Alerts(store).campaigns():
                if site.attacker in one.keys and (wall := pager.paged(one.id)):
                    return one, wall
            return None

        campaign, wall = until(paged, "the page", processes, 2 * DETECT)
        detect = wall - first_query(records(self._folder), site.attacker)
        self._stage("page", f"{detect:.1f} s after the attacker's first query")
        return campaign, detect

    def _answer(self, store: Store, campaign: Campaign) -> tuple[int, list[str]]:
        """Wait for the runbook, agree to what it asks for, and wait for its end."""
        assert self._processes is not None
        incidents, processes = Incidents(store), self._processes

        def step(*states: str) -> tuple[int, Step] | None:
            for one in incidents.all():
                for each in incidents.steps(one.id) if one.campaign == campaign.id else ():
                    if each.state in states and each.action == "block":
                        return one.id, each
            return None

        identity, asked = until(lambda: step("approval"), "the runbook", processes)
        self._alone(lambda desk: approve(desk, identity, asked.number, who=_WHO))

        return identity, [one.action for one in self._done(incidents, identity)]

    def _done(self, incidents: Incidents, identity: int) -> list[Step]:
        """Wait for the end of all steps, which the responder takes; all must be done."""
        assert self._processes is not None

        def over() -> list[Step] | None:
            steps = incidents.steps(identity)
            ended = all(one.state in ("done", "failed", "skipped") for one in steps)
            return steps if ended else None

        steps: list[Step] = until(over, "the runbook's end", self._processes, 180.0)
        failed = next((one for one in steps if one.state != "done"), None)
        if failed is not None:
            raise OperationError(f"step {failed.name!r} is {failed.state}: {failed.result}")
        return steps

    def _alone(self, work: Callable[[Desk], object]) -> None:
        """Do something about an incident between two passes of the responder."""
        desk, end = Desk(self._site.config), time.monotonic() + 30
        while True:
            try:
                work(desk)
            except OperationError as error:
                if "somebody else" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    def _probe(self, processes: Processes, name: str) -> None:
        # It ends early, with exit code 3, as soon as the rollout is decided.
        processes.run(
            name, "redteam", "run", "--arms", "--quiet", "--config", str(self._site.config),
            codes=(0, 3),
        )  # fmt: skip

    def _learn(self, store: Store, incident: int) -> None:
        """What the incident has brought becomes a new version, which the gate passes."""
        assert self._processes is not None
        self._alone(lambda desk: run_runbook(desk, incident, "learn", who=_WHO))
        steps = {one.action: one for one in self._done(Incidents(store), incident)}
        made = Desk(self._site.config).folder(incident) / "hardened" / "weights.safetensors"
        shutil.copyfile(made, self._folder / "v3.safetensors")
        self._processes.run("gate", "gate", "--quiet", "--config", str(write_release(self._site)))
        self._stage("retrain", f"{steps['add_to_corpus'].result}; {steps['retrain'].result}")

    def _promote(
        self, site: Site, processes: Processes, store: Store, guard: GuardClient
    ) -> tuple[Interval, Interval]:
        """Let the new version in, step by step; the fooled shares of the old one and of it."""
        self._model(processes, "v3", "build")
        until(lambda: self._up("v3"), "the new version's answer", processes)
        signer = load_operations(site.config).redteam.signers["owner"]
        write_config(site, signer, canary="v3")
        guard.reload()
        known = {run.id for run in Runs(store).all()}
        guard.canary_act("start", "digits", identity="v3", who=_WHO, why="hardened")
        self._probe(processes, "probe-v3")

        def promoted() -> bool:
            told = guard.canary()["models"]["digits"]
            if told["state"] not in ("running", "promoted"):
                raise OperationError(f"v3 is {told['state']}: {told['why']}")
            return bool(told["state"] == "promoted")

        until(promoted, "the promotion", processes)
        runs = [run for run in Runs(store).all() if run.id not in known]
        before, after = (fooled(runs, arm) for arm in ("control", "canary"))
        self._stage("promote", f"v3 is fooled by {after} of the probes, v1 by {before}")
        return before, after

    def _write(self, incident: int) -> Path:
        path = self._folder / "postmortem.md"
        self._alone(lambda desk: resolve(desk, incident, who=_WHO, why="v3 is in service"))
        write_postmortem(Desk(self._site.config), incident, path, who=_WHO)
        ended = [one["ending"] for one in endings(self._folder / "logs" / "attacker.jsonl")]
        self._stage(
            "postmortem",
            f"{path.name}; the attacker has fooled v1 {ended.count('fooled')} times, and was "
            f"refused {sum(one.startswith('status') for one in ended)} times",
        )
        return path
