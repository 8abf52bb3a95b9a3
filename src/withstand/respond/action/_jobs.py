"""Actions that take minutes or hours, and run beside the responder."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from ..._errors import one_line
from .._job import Job
from ._contract import Action, Arguments, Case, Outcome


class Working(Action[Arguments]):
    """An action that is commands of the command line, in a process that outlives the responder."""

    @abstractmethod
    def commands(self, case: Case) -> list[list[str]]:
        """The words of each, without the program's name."""

    @abstractmethod
    def ended(self, case: Case, codes: tuple[int, ...], log: str) -> Outcome:
        """What came of it."""

    def plan(self, case: Case, told: Arguments) -> list[str]:
        return [f"run withstand {' '.join(words)}" for words in self.commands(case)]

    def act(self, case: Case, told: Arguments) -> Outcome:
        job = self._job(case)
        now = job.progress
        if now.state in ("none", "lost"):
            job.start(self.commands(case), Path.cwd())
            now = job.progress
        if now.state != "ended":
            return Outcome(state="waiting", text=f"runs, with logs in {job.folder}")
        return self.ended(case, now.codes, job.log())

    def stop(self, case: Case) -> None:
        self._job(case).stop()

    def _job(self, case: Case) -> Job:
        return Job(case.folder / f"job-{case.step.number}")


class Replay(Working):
    """Show the recorded inputs to the configured models: `withstand incident replay`."""

    name = "replay"

    def commands(self, case: Case) -> list[list[str]]:
        asked = ["incident", "replay", str(case.incident.id), "--config", str(case.desk.path)]
        return [[*asked, "--quiet"]]

    def ended(self, case: Case, codes: tuple[int, ...], log: str) -> Outcome:
        if codes[-1:] != (0,):
            return Outcome(state="failed", text=f"replay: {_last(log)}")
        return Outcome(state="done", text=f"replayed; see {case.folder / 'replay.md'}")


class Retrain(Working):
    """Train the model on with the corpus, and ask the gate about what came of it.

    Runs `withstand harden` and `withstand gate --report` on its evaluation. Nothing is put in
    service: that takes a canary.
    """

    name = "retrain"

    def commands(self, case: Case) -> list[list[str]]:
        desk, told = case.desk, case.desk.config.respond
        config = desk.path if told.retrain.config is None else desk.root / told.retrain.config
        made = str((case.folder / "hardened").absolute())
        harden = ["harden", "--config", str(config), "--output", made, "--quiet"]
        if _trainable(desk.root / told.corpus):
            harden += ["--corpus", str((desk.root / told.corpus).absolute())]
        gate = ["gate", "--config", str(config), "--report", made, "--quiet"]
        gate += ["--output", str((case.folder / "gate").absolute())]
        return [harden, *([gate] if told.retrain.gate else [])]

    def ended(self, case: Case, codes: tuple[int, ...], log: str) -> Outcome:
        # By what was run: the configuration may be another one by now.
        asked = len(codes) > 1
        verb = "gate" if asked else "harden"
        verdict = {0: "pass", 1: "fail", 3: "inconclusive"}.get(codes[-1])
        if verdict != "pass":
            why = verdict if verdict else _last(log)
            return Outcome(state="failed", text=f"{verb}: {why}", detail={"codes": list(codes)})
        said = "the gate passes it" if asked else "no gate was asked"
        return Outcome(
            state="done",
            text=f"new weights in {case.folder / 'hardened'}; {said}",
            detail={"codes": list(codes)},
        )


def _trainable(corpus: Path) -> bool:
    """Whether a corpus has adversarial examples with a class, which training is shown."""
    from ...evidence import Corpus

    entries = Corpus(corpus).entries(kind="adversarial")
    return any(isinstance(entry.label, int) for entry in entries)


def _last(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "it said nothing"
