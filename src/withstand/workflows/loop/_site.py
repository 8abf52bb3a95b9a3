"""What the loop's folder holds before anything is served."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from ...guard import Keys, Secrets
from ...guard.queries import calibrate
from ...redteam import make_key, sign
from ._models import make
from ._processes import free_port

EPS = 0.15
QUERIES = 60
CLIENTS = 40
PROBED = (60, 60)
"""The first of the probed test images, and how many of them there are."""

KEY = "WITHSTAND_LOOP_KEY"
"""The variable with the red team's API key."""

LEARN = """\
name: learn
about: What an incident has shown becomes a better model.
steps:
  - {name: Train against such attacks and ask the gate, action: retrain, timeout: 600}
  - {name: Keep what fooled the model, action: add_to_corpus}
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A folder, the ports of its parts, and the ids of the attacker's and the red team's keys."""

    folder: Path
    ports: dict[str, int]
    attacker: str
    red: str
    secret: str

    @property
    def config(self) -> Path:
        """Its withstand.yaml."""
        return self.folder / "withstand.yaml"


def lay_out(folder: Path) -> Site:
    """Make models, keys, the signed scope and withstand.yaml in an empty folder."""
    import numpy as np

    make(folder)
    data = np.load(folder / "data.npz")
    benign = data["x_train"].reshape(len(data["x_train"]), -1).astype(np.float32)
    calibrate(benign).save(folder / "queries")
    first, count = PROBED
    probes = slice(first, first + count + 20)
    np.savez(folder / "probes.npz", x=data["x_test"][probes], y=data["y_test"][probes])
    names = ("v1", "v2", "v3", "guard", "admin", "monitor", "pager")
    ports = {name: free_port() for name in names}
    keys = Keys(folder / "keys.json", Secrets(folder / "secrets").get("pepper"))
    shown = [keys.make(f"client-{number}") for number in range(CLIENTS)]
    _secret(folder / "clients.keys", "\n".join(shown))
    _secret(folder / "attacker.key", keys.make("newcomer"))
    red = keys.make("red-team")
    by = {key.tenant: key.id for key in keys}
    site = Site(folder=folder, ports=ports, attacker=by["newcomer"], red=by["red-team"], secret=red)
    # The guard and the red team must have the same one from the beginning.
    Secrets(folder / "secrets").get("experiment")
    (folder / "runbooks").mkdir()
    (folder / "runbooks" / "learn.yaml").write_text(LEARN)
    public = _permit(site)
    write_config(site, public, canary="v2")
    return site


def write_config(site: Site, signer: str, *, canary: str) -> None:
    """Write withstand.yaml, with this version as the one that is let in."""
    site.config.write_text(yaml.safe_dump(_config(site, signer, canary), sort_keys=False))


def write_release(site: Site) -> Path:
    """Write what the gate is asked about: version v3, shown the corpus of the incident first."""
    told = yaml.safe_load(site.config.read_text())
    kept = {name: told[name] for name in ("data", "threat", "gate")}
    kept["data"]["limit"] = 80
    evaluate = {"preset": "smoke", "corpus": "corpus"}
    path = site.folder / "release.yaml"
    content = {"model": _model("build", "v3"), "evaluate": evaluate, **kept}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _config(site: Site, signer: str, canary: str) -> dict[str, Any]:
    ports = {name: f"127.0.0.1:{port}" for name, port in site.ports.items()}
    data = {"kind": "npz", "path": "data.npz", "layout": "none"}
    return {
        "model": _model("build", "v1"),
        "data": {**data, "x": "x_test", "y": "y_test", "limit": 100},
        "threat": {"access": "gradients", "region": {"norm": "linf", "eps": EPS}},
        "evaluate": {"preset": "smoke"},
        "harden": {
            "recipe": "pgd", "steps": 3, "epochs": 12, "batch_size": 64, "held_out": 0.2,
            "data": {**data, "x": "x_train", "y": "y_train"},
        },
        "gate": {
            "clean_accuracy": {"min": 0.9}, "robust_accuracy": {"min": 0.3},
            "trust": {"min": "amber"},
        },
        "guard": {
            "listen": ports["guard"], "admin": ports["admin"], "keys": "keys.json",
            "secrets": "secrets", "state": "state", "mode": "shadow",
            "upstream": f"http://{ports['v1']}",
            "throttle": {"requests": 1, "seconds": 1},
            "evidence": {"folder": "evidence", "inputs": "flagged"},
            "models": {
                "digits": {
                    "version": "v1",
                    "queries": {"calibration": "queries"},
                    "canary": {
                        "upstream": f"http://{ports[canary]}", "version": canary,
                        "steps": [20, 50, 100], "step_seconds": 3, "alpha": 0.1,
                        "compare": {
                            "fooled": {"least": 20}, "errors": {"more": 0.05, "least": 50},
                        },
                    },
                }
            },
        },
        "monitor": {
            "folder": "monitor", "listen": ports["monitor"], "every": 1,
            "slos": {
                "fooling": {"sli": "M1", "budget": 500, "model": "digits"},
            },
            "receivers": {"pager": {"webhook": f"http://{ports['pager']}/page", "least": "page"}},
        },
        "respond": {
            "folder": "incidents", "corpus": "corpus", "every": 1,
            "automatic": ["attack-by-one-client"],
            "replay": {
                "models": {"v1": _model("build", "v1"), "v2": _model("lean", "v2")},
                "shape": [1, 8, 8],
            },
        },
        "redteam": {
            "signers": {"owner": signer},
            "target": {
                "kind": "http", "url": f"http://{ports['guard']}", "access": "scores",
                "http": {"name": "digits", "input": "x", "headers": {"x-api-key": f"${KEY}"}},
            },
            "data": {"kind": "npz", "path": "probes.npz", "layout": "none"},
            "inputs": PROBED[1], "benign": 20, "eps": EPS,
            "attacks": [{"name": "Square", "options": {"queries": QUERIES - 1}}],
        },
    }  # fmt: skip


def _model(factory: str, weights: str) -> dict[str, Any]:
    return {
        "kind": "torch", "factory": f"model.py:{factory}", "weights": f"{weights}.safetensors"
    }  # fmt: skip


def _permit(site: Site) -> str:
    """Sign what the red team may do here; the public key, hex."""
    now = datetime.now(UTC)
    scope = {
        "name": "loop", "who": "whoever runs this demonstration", "environment": "staging",
        "key": site.red,
        "targets": [{"url": f"http://127.0.0.1:{site.ports['guard']}", "models": ["digits"]}],
        "attacks": ["Square"], "regions": [{"norm": "linf", "eps": EPS}],
        "begins": (now - timedelta(minutes=1)).isoformat(),
        "expires": (now + timedelta(hours=1)).isoformat(),
        "caps": {"queries": 30_000, "per_input": QUERIES, "per_second": 400},
        # One machine does everything here, with models that are trained beside the traffic.
        "safety": {"answer": 5.0, "added": 2.0, "lag": 5.0},
    }  # fmt: skip
    path = site.folder / "scope.yaml"
    path.write_text(yaml.safe_dump(scope, sort_keys=False))
    public = make_key(site.folder / "owner.key")
    sign(path, site.folder / "owner.key")
    return public


def _secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text + "\n")


def endings(log: Path) -> list[dict[str, Any]]:
    """How the attacker's searches ended, those that have."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
