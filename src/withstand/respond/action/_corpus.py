"""What an incident leaves behind for tests and training."""

from __future__ import annotations

from .._to_corpus import add_to_corpus
from ._contract import Action, Arguments, Case, Outcome


class AddToCorpus(Action[Arguments]):
    """Add the inputs that a person has confirmed, or that the replay proves wrong, to the corpus.

    Whatever else clients have sent stays out: they must not choose what a model is trained on.
    """

    name = "add_to_corpus"

    def plan(self, case: Case, told: Arguments) -> list[str]:
        folder = case.desk.root / case.desk.config.respond.corpus
        return [f"add the confirmed and proven inputs of the incident to {folder}"]

    def act(self, case: Case, told: Arguments) -> Outcome:
        added = add_to_corpus(case.desk, case.incident)
        return Outcome(state="done", text=str(added), detail=vars(added))
