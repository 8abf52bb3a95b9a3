"""The examples for clusters: configurations load, and what is not of Kubernetes is in form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from withstand.config import load_guard
from withstand.guard.serve._canaries import FIGURES

FOLDER = Path(__file__).parents[1] / "examples" / "canary"
EVERY = {
    f"{path.stem}: {one['kind']} {one['metadata']['name']}": one
    for path in sorted(FOLDER.glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
}

TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
NUMBER = {"type": "number"}


def form(needed: str, **properties: Any) -> dict[str, Any]:
    """An object that has these properties and no others; needed: those it must have."""
    return {
        "type": "object", "properties": properties, "required": needed.split(),
        "additionalProperties": False,
    }  # fmt: skip


def some(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


METADATA = form("name", name=TEXT, annotations={"type": "object"}, labels={"type": "object"})
PAIR = form("key value", key=TEXT, value=TEXT)
# Of each kind the fields that its documentation names, as far as the examples use them.
FORMS = {
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): form(
        "metrics",
        args=some(
            form("name", name=TEXT, valueFrom=form(
                "secretKeyRef", secretKeyRef=form("name key", name=TEXT, key=TEXT))),
        ),
        metrics=some(
            form(
                "name provider successCondition failureCondition inconclusiveLimit failureLimit "
                "consecutiveErrorLimit",
                name=TEXT, successCondition=TEXT, failureCondition=TEXT, interval=TEXT,
                count=COUNT, failureLimit=COUNT, inconclusiveLimit=COUNT,
                consecutiveErrorLimit=COUNT,
                provider=form("web", web=form(
                    "url jsonPath", url=TEXT, timeoutSeconds=COUNT, headers=some(PAIR),
                    jsonPath=TEXT)),
            )
        ),
    ),
    ("argoproj.io/v1alpha1", "Rollout"): form(
        "selector strategy template", replicas=COUNT, selector={"type": "object"},
        strategy=form("canary", canary=form(
            "steps stableService canaryService", stableService=TEXT, canaryService=TEXT,
            steps=some({"oneOf": [
                form("setWeight", setWeight=COUNT), form("pause", pause=form("", duration=TEXT)),
                form("analysis", analysis=form("templates", templates=some(
                    form("templateName", templateName=TEXT)))),
            ]}))),
        template={"type": "object"},
    ),
    ("flagger.app/v1beta1", "Canary"): form(
        "targetRef service analysis",
        targetRef=form("apiVersion kind name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        service=form("port", port=COUNT),
        analysis=form(
            "interval threshold webhooks", interval=TEXT, threshold=COUNT, maxWeight=COUNT,
            stepWeight=COUNT, metrics=some(form(
                "name thresholdRange interval", name=TEXT, interval=TEXT,
                templateRef=form("name", name=TEXT, namespace=TEXT),
                thresholdRange={**form("", min=NUMBER, max=NUMBER), "minProperties": 1},
                templateVariables={"type": "object", "additionalProperties": TEXT})),
            webhooks=some(form(
                "name type url", name=TEXT, url=TEXT, timeout=TEXT, metadata={"type": "object"},
                type={"enum": ["confirm-rollout", "pre-rollout", "rollout", "post-rollout",
                               "confirm-traffic-increase", "confirm-promotion", "rollback",
                               "event"]})),
        ),
    ),
    ("flagger.app/v1beta1", "MetricTemplate"): form(
        "provider query", query=TEXT,
        provider=form(
            "type address", address=TEXT, region=TEXT, secretRef=form("name", name=TEXT),
            insecureSkipVerify={"type": "boolean"},
            type={"enum": ["prometheus", "datadog", "cloudwatch", "newrelic", "graphite",
                           "influxdb", "stackdriver", "dynatrace", "keptn", "splunk"]}),
    ),
    ("serving.kserve.io/v1beta1", "InferenceService"): form(
        "predictor",
        predictor=form("model", minReplicas=COUNT, model=form(
            "modelFormat storageUri", modelFormat=form("name", name=TEXT), protocolVersion=TEXT,
            storageUri=TEXT, env=some(form("name value", name=TEXT, value=TEXT)))),
    ),
}  # fmt: skip
CUSTOM = [name for name, one in EVERY.items() if (one["apiVersion"], one["kind"]) in FORMS]


@pytest.mark.parametrize("name", CUSTOM)
def test_what_is_not_of_kubernetes_has_the_documented_fields(name: str) -> None:
    one = EVERY[name]
    told = form(
        "apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=METADATA,
        spec=FORMS[one["apiVersion"], one["kind"]],
    )  # fmt: skip
    jsonschema.validate(one, told)


def test_every_kind_of_theirs_is_looked_at() -> None:
    kinds = {EVERY[name]["kind"] for name in CUSTOM}
    assert kinds == {kind for _, kind in FORMS}
    own = {one["kind"] for name, one in EVERY.items() if name not in CUSTOM}
    assert own == {
        "ConfigMap", "Deployment", "NetworkPolicy", "Service", "StatefulSet",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in EVERY if "ConfigMap" in name])
def test_their_configurations_load_and_name_what_is_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text(EVERY[name]["data"]["withstand.yaml"])
    config = load_guard(tmp_path / "withstand.yaml")
    canary = config.line("digits").canary
    assert canary is not None
    assert canary.version == "2"
    services = {one["metadata"]["name"] for one in EVERY.values() if one["kind"] == "Service"}
    assert canary.upstream.removeprefix("http://").split(":")[0] in services


def test_the_controllers_ask_where_the_judge_listens() -> None:
    judge = yaml.safe_load(EVERY["judge: ConfigMap digits-judge"]["data"]["withstand.yaml"])[
        "guard"
    ]
    port = judge["analysis"].rpartition(":")[2]
    where = f"http://digits-judge:{port}/analysis/digits"
    assert "digits" in judge["models"]
    (metric,) = EVERY["argo-rollouts: AnalysisTemplate digits-robustness"]["spec"]["metrics"]
    assert metric["provider"]["web"]["url"] == where
    asked = {
        hook["type"]: hook["url"]
        for hook in EVERY["flagger: Canary digits"]["spec"]["analysis"]["webhooks"]
    }
    assert asked == {
        "confirm-traffic-increase": f"{where}/passed",
        "confirm-promotion": f"{where}/passed",
        "rollback": f"{where}/failed",
    }
    # The one measurement beside the webhooks: a figure that the judge has, of the target's model.
    canary = EVERY["flagger: Canary digits"]["spec"]
    (measured,) = canary["analysis"]["metrics"]
    template = EVERY[f"flagger: MetricTemplate {measured['templateRef']['name']}"]["spec"]
    query = template["query"].strip().replace("{{ target }}", canary["targetRef"]["name"])
    assert query == 'max(withstand_canary_verdict{model="digits", verdict="fail"})'
    assert FIGURES["canary_verdict"][1] == ("model", "verdict")
    assert measured["thresholdRange"] == {"max": 0}
    service = EVERY["judge: Service digits-judge"]["spec"]["ports"][0]
    assert str(service["port"]) == port
