"""Side by side with the peers: same network, same images, one process, interleaved, ratios."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import autoattack
import canary
import certified
import fraud
import guard_queries
import peers
import tables
import torch
from detectors import rejection, stopped
from detectors_cost import cost
from detectors_members import members
from detectors_peers import detectors
from diagnosis import diagnosis
from endpoint import endpoint
from evidence import evidence
from guard import passing, upgrading
from guard_adaptive import adapting
from guard_detectors import in_line
from guard_floor import floor
from guard_socket import over_socket
from guard_sweeps import sweeps
from harden import hardening
from labels import decisions
from measure import table
from minimum import minimum_norm, smallest
from namesakes import namesakes
from networks import DATA
from overhead import overhead
from recipes import active, recipes, unseen
from scores import scores
from smoothing import sequential, speed
from transfer import transferred
from trees import trees
from trees_exact import exact

from withstand import __version__

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "autoattack": autoattack.chosen,
    "held-out": autoattack.held_out,
    "masked": autoattack.masked,
    "overhead": overhead,
    "diagnosis": diagnosis,
    "minimum-norm": minimum_norm,
    "smallest": smallest,
    "decisions": decisions,
    "scores": scores,
    "namesakes": namesakes,
    "transfer": transferred,
    "trees": trees,
    "tables": tables.tables,
    "tables-valid": tables.valid,
    "trees-exact": exact,
    "endpoint": endpoint,
    "evidence": evidence,
    "smoothing": speed,
    "sequential": sequential,
    "harden": hardening,
    "recipes": recipes,
    "active": active,
    "certified": certified.certified,
    "unseen": unseen,
    "detectors": stopped,
    "rejection": rejection,
    "detectors-peers": detectors,
    "detectors-cost": cost,
    "detectors-members": members,
    "guard-detectors": in_line,
    "guard": passing,
    "guard-floor": floor,
    "guard-json": upgrading,
    "guard-queries": guard_queries.seen,
    "guard-socket": over_socket,
    "guard-benign": guard_queries.benign,
    "guard-adaptive": adapting,
    "guard-sweeps": sweeps,
    "canary": canary.rollouts,
    "canary-answers": canary.answers,
    "fraud": fraud.simulated,
    "fraud-handbook": fraud.handbook,
    "fraud-phishing": fraud.phishing,
    "fraud-factor": fraud.factor,
}
# What parts without images look at.
TABLES = {
    **dict.fromkeys(("tables", "tables-valid", "trees-exact", "fraud-phishing"), "phishing_url"),
    **dict.fromkeys(("fraud-handbook", "fraud-factor"), "fraud_handbook_2018-07-11_08-14"),
    **dict.fromkeys(("fraud",), "examples/fraud/simulate.py"),
}


def conditions() -> dict[str, Any]:
    """Under which the figures hold."""
    return {
        "withstand": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, CPU, {torch.get_num_threads()} thread",
        "data": "MNIST test images in order",
        "seeds": "0 where nothing else is said",
        **peers.versions(),
    }


def main() -> None:
    """Run the named parts, or all, and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part")
    names = parser.parse_args().parts or list(PARTS)
    if not (DATA / "mnist.npz").exists():
        print(f"skipped: no {DATA / 'mnist.npz'}; set WITHSTAND_DATA to the folder that has it")
        return
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        rows = PARTS[name]()
        what, _, note = (PARTS[name].__doc__ or "").strip().partition("\n\n")
        part = {
            "what": what,
            "note": " ".join(note.split()),
            "conditions": conditions() | ({"data": TABLES[name]} if name in TABLES else {}),
            "rows": rows,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(part, indent=2) + "\n")
        print(f"\n{_shown(part)}", flush=True)
    files = [RESULTS / f"{name}.json" for name in PARTS]
    parts = [json.loads(file.read_text()) for file in files if file.exists()]
    told = "\n".join(f"- {key}: {value}" for key, value in conditions().items())
    shown = "\n".join(f"## {_shown(part)}" for part in parts)
    (RESULTS / "README.md").write_text(f"# Results\n\n{told}\n\n{shown.rstrip()}\n")


def _shown(part: dict[str, Any]) -> str:
    note = f"{part['note']}\n\n" if part.get("note") else ""
    return f"{part['what']}\n\n{note}{table(part['rows'])}"


if __name__ == "__main__":
    main()
