"""The examples for clusters against the schemas of Kubernetes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDER = Path(__file__).parents[2] / "examples" / "canary"
OWN = {"v1", "apps/v1", "networking.k8s.io/v1"}


def test_what_is_of_kubernetes_is_valid(environment: Callable[[str], Path], tmp_path: Path) -> None:
    command = [environment("kubernetes").with_name("kubernetes-validate"), "--strict"]
    checked = 0
    for path in sorted(FOLDER.glob("*.yaml")):
        own = [one for one in yaml.safe_load_all(path.read_text()) if one["apiVersion"] in OWN]
        # The pods of a Rollout are those of a Deployment.
        own += [
            {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": one["metadata"],
                "spec": {key: one["spec"][key] for key in ("replicas", "selector", "template")},
            }
            for one in yaml.safe_load_all(path.read_text())
            if one["kind"] == "Rollout"
        ]  # fmt: skip
        if not own:
            continue
        place = tmp_path / path.name
        place.write_text(yaml.safe_dump_all(own))
        said = subprocess.run([*command, place], capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
        checked += len(own)
    assert checked == 12
    broken = tmp_path / "broken.yaml"
    broken.write_text(place.read_text().replace("containers:", "container:"))
    assert subprocess.run([*command, broken], capture_output=True).returncode != 0
