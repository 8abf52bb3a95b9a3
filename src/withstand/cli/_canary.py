"""withstand guard canary"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..guard.canary import Prober, Probes
    from ..respond import CanaryVerb, GuardClient

canary = typer.Typer(
    help="Let a new version of a model in, step by step.", no_args_is_help=True, name="canary"
)

_Config = Annotated[Path, typer.Option(help="The configuration with the section guard.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Why = Annotated[str, typer.Option(help="What evidence shall say of the reason.")]
_Model = Annotated[str, typer.Option(help="Which model; needed where several have a canary.")]
_Id = Annotated[
    str, typer.Option("--id", help="A name of this order: given twice, it counts once.")
]
_FILE = Path("withstand.yaml")
_CODES = {"pass": 0, "fail": 1}


@canary.callback()
def _group() -> None:
    """Let a new version of a model in, step by step."""


@canary.command()
def status(config: _Config = _FILE, model: _Model = "", json: _Json = False) -> None:
    """How far it is; exit code 0 passed, 1 failed, 3 not known yet."""
    import json as plain

    name, told = _one(_client(config), model)
    put(plain.dumps({"model": name, **told}, indent=2) + "\n" if json else _table(name, told))
    raise typer.Exit(_CODES.get(told["verdict"], 3))


def _order(verb: CanaryVerb, said: str) -> None:
    """A verb that orders something of the guard."""

    def order(
        why: _Why, config: _Config = _FILE, model: _Model = "", identity: _Id = "",
        json: _Json = False,
    ) -> None:  # fmt: skip
        import getpass
        import json as plain

        told = _client(config).canary_act(
            verb, model, identity=identity, who=getpass.getuser(), why=why
        )
        if json:
            put(plain.dumps(told) + "\n")
        else:
            already = "" if told["new"] else "; it was already"
            typer.echo(
                f"{told['model']}: {told['state']} at {told['weight']:g} %{already}", err=True
            )

    canary.command(verb, help=said)(order)


_order("start", "Begin at the first step, with nothing known.")
_order("freeze", "Stay at this weight; what is worse is still rolled back.")
_order("resume", "Go on after a freeze.")
_order("rollback", "Give all traffic back to the stable version, at once.")
_order("promote", "Give it all traffic now, whatever was shown: your word, and in evidence.")


@canary.command()
def probe(
    data: Annotated[
        Path, typer.Argument(help="An .npz file with x, y and, without corpus, x_adv.")
    ],
    config: _Config = _FILE,
    corpus: Annotated[
        Path | None, typer.Option(help="A corpus: what was made of the inputs x to fool.")
    ] = None,
    model: _Model = "",
    limit: Annotated[int, typer.Option(min=1, help="So many inputs at most.")] = 1000,
    json: _Json = False,
) -> None:
    """Ask both arms about the same inputs, and tell the guard how often each was fooled.

    Where the guard wants a key, WITHSTAND_KEY has it. An input that was told once in a rollout does
    not count again. Exit code as for status.
    """
    import json as plain

    client = _client(config)
    name, _ = _one(client, model)
    totals = {"wrong": [0] * 4, "fooled": [0] * 4}
    refused = told = 0
    for batch in _prober(config, name).run(_probes(data, corpus, limit)):
        running = True
        for outcome in batch.outcomes(name):
            # It may end with what one of them shows, and then takes no more.
            if running:
                answer = client.change("/canary/outcomes", outcome)
                told += bool(answer["new"])
                running = answer["state"] in ("running", "frozen")
        totals = {
            sli: [one + more for one, more in zip(totals[sli], counts, strict=True)]
            for sli, counts in (("wrong", batch.wrong), ("fooled", batch.fooled))
        }
        refused += batch.refused
        if not running:
            break
    _, found = _one(client, name)
    shown = {
        sli: {
            "tried": sum(counts),
            "canary": counts[0] + counts[1],
            "control": counts[0] + counts[2],
        }
        for sli, counts in totals.items()
    }
    if json:
        kept = {key: found[key] for key in ("state", "weight", "verdict", "compared")}
        counts = {"refused": refused, "counted": told}
        put(plain.dumps({"model": name, **shown, **counts, **kept}) + "\n")
    else:
        lines = [
            f"{sli}: canary {one['canary']}, control {one['control']} of {one['tried']}\n"
            for sli, one in shown.items()
        ]
        more = f"{refused} inputs were refused\n" if refused else ""
        put("".join(lines) + more + _table(name, found))
    raise typer.Exit(_CODES.get(found["verdict"], 3))


def _table(name: str, told: dict[str, Any]) -> str:
    lines = [
        f"{name}: {told['state']} at {told['weight']:g} % "
        f"(step {told['step'] + 1} of {len(told['steps'])}), verdict {told['verdict'] or 'none'}"
    ]
    if told["why"]:
        lines.append(f"by {told['who']}: {told['why']}")
    for sli, one in told["compared"].items():
        evidence = one["evidence"]
        label = f" (class {one['label']})" if "label" in one else ""
        lines.append(
            f"  {sli:<8} {one['verdict']:<13} canary {_share(one['canary'])}, control "
            f"{_share(one['control'])}{label}; {one['pairs']} of at least {one['least']} pairs; "
            f"evidence {evidence['not_worse']:.4g} of {evidence['needed']:.4g} that it is no "
            f"worse, {evidence['worse']:.4g} of {evidence['enough']:.4g} that it is"
        )
    return "\n".join(lines) + "\n"


def _share(told: dict[str, Any]) -> str:
    if not told["n"]:
        return "no data"
    return f"{100 * told['value']:.1f} % [{100 * told['low']:.1f}, {100 * told['high']:.1f}]"


def _client(config: Path) -> GuardClient:
    from ..respond import GuardClient

    return GuardClient.from_file(config)


def _one(client: GuardClient, model: str) -> tuple[str, dict[str, Any]]:
    from .._errors import OperationError, listed

    found = client.canary()["models"]
    name = model or (next(iter(found)) if len(found) == 1 else "")
    if name not in found:
        raise OperationError(
            f"model {name!r} has no canary; those that have one: {listed(found)}; see guard.canary"
        )
    return name, found[name]


def _prober(config: Path, model: str) -> Prober:
    import os
    import secrets
    import time

    from .._errors import ConfigError
    from ..config import host_and_port, load_guard

    try:
        from ..guard import Experiment, Experiments, Keys, Secrets
        from ..guard.canary import CANARY, CONTROL, Prober
    except ModuleNotFoundError as error:
        raise ConfigError(f"the guard needs {error.name}; pip install 'withstand[serve]'") from None
    told = load_guard(config)
    kept, key, headers = Secrets(config.parent / told.secrets), "open", {}
    if told.keys is not None:
        secret = os.environ.get("WITHSTAND_KEY", "")
        found = Keys(config.parent / told.keys, kept.get("pepper")).find(secret)
        if found is None:
            raise ConfigError(
                "WITHSTAND_KEY is no key of this guard; see `withstand guard key add`"
            )
        key, headers = found.id, {"x-api-key": secret}
    signer, run = Experiments(kept.get("experiment")), f"canary-{secrets.token_hex(6)}"
    passes = {
        arm: {
            **headers,
            "x-withstand-experiment": signer.sign(
                Experiment(id=run, key=key, until=time.time() + 3600, arm=arm)
            ),
        }
        for arm in (CANARY, CONTROL)
    }
    line = told.line("" if model == "*" else model)
    declared = line.inputs[0] if line.inputs else None
    host, port = host_and_port(told.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Prober(
        host, port, "any" if model == "*" else model, passes,
        name="x" if declared is None else declared.name,
        datatype="FP32" if declared is None else declared.datatype,
    )  # fmt: skip


def _probes(data: Path, corpus: Path | None, limit: int) -> Probes:
    import numpy as np

    from .._errors import DataError
    from ..data import read_npz
    from ..guard.canary import Probes

    if corpus is None:
        x, y, changed = read_npz(data, ("x", "y", "x_adv"))
        return Probes(clean=x[:limit], adversarial=changed[:limit], labels=y[:limit])
    from ..evidence import Corpus, content_digest

    x, y = read_npz(data, ("x", "y"))
    places = {content_digest(one): place for place, one in enumerate(x)}
    kept = Corpus(corpus)
    # One of each original: several would be no independent inputs.
    found = {one.original: one for one in kept.entries(originals=places.keys(), kind="adversarial")}
    entries = list(found.values())[:limit]
    if not entries:
        raise DataError(f"corpus {corpus} has nothing that was made of the inputs of {data}")
    among = [places[str(entry.original)] for entry in entries]
    return Probes(clean=x[among], adversarial=np.stack(kept.read(entries)), labels=y[among])
