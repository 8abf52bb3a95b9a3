"""What clients may ask of the guard, as OpenAPI 3.1 describes it."""

from __future__ import annotations

from typing import Any

from .._version import __version__
from .wire import DATATYPES, Limits

_LIMITS = Limits()
_NAME = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9._-]+$"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}
_PLAIN = {"type": ["string", "number", "boolean", "null"]}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": _PLAIN,
    "maxProperties": _LIMITS.parameters,
}
_NUMBERS = {"type": "array", "items": {"$ref": "#/components/schemas/Nested"}}
_JSON, _RAW = "application/json", "application/octet-stream"

_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
    },
    "Nested": {"anyOf": [{"type": ["number", "boolean", "string"]}, _NUMBERS]},
    "Input": {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "datatype": {"enum": [*DATATYPES, "BYTES"]},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "minItems": 1,
                "maxItems": _LIMITS.axes,
            },
            "parameters": _PARAMETERS,
            "data": {**_NUMBERS, "description": "flat, or nested exactly as the shape"},
        },
        "required": ["name", "datatype", "shape"],
        "additionalProperties": False,
    },
    "Wanted": {
        "type": "object",
        "properties": {"name": _TEXT, "parameters": _PARAMETERS},
        "required": ["name"],
        "additionalProperties": False,
    },
    "InferenceRequest": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "parameters": _PARAMETERS,
            "inputs": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Input"},
                "minItems": 1,
                "maxItems": _LIMITS.inputs,
            },
            "outputs": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Wanted"},
                "maxItems": _LIMITS.inputs,
            },
        },
        "required": ["inputs"],
        "additionalProperties": False,
    },
    "InferenceResponse": {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["outputs"],
    },
    "Rows": {
        "type": "object",
        "properties": {"instances": _NUMBERS},
        "required": ["instances"],
        "additionalProperties": False,
    },
    "Invocations": {
        "type": "object",
        "properties": {
            "inputs": _NUMBERS,
            "instances": _NUMBERS,
            "dataframe_split": {
                "type": "object",
                "properties": {
                    "columns": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "data": _NUMBERS,
                    "index": {"type": "array"},
                },
                "required": ["columns", "data"],
                "additionalProperties": False,
            },
            "dataframe_records": {
                "type": "array",
                "items": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {"type": "number"},
                },
                "minItems": 1,
            },
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    },
    "Predictions": {
        "type": "object",
        "properties": {"predictions": {"type": "array"}},
        "required": ["predictions"],
    },
}

_REFUSED = {
    400: "what was sent is not what the protocol or the model takes",
    401: "no valid API key",
    403: "refused",
    404: "there is no such model or path",
    408: "the request took too long to come",
    413: "the request is too large",
    415: "the body is compressed",
    429: "the quota is used up",
    431: "the headers are too long",
    500: "this request could not be answered",
    502: "the model server gave no answer",
    503: "try again later",
    504: "the model server gave no answer in time",
}


def openapi() -> dict[str, Any]:
    """The description of the port for clients; what is not in it is not there."""
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    paths: dict[str, Any] = {
        "/v2/health/live": _get("Is the model server alive?"),
        "/v2/health/ready": _get("Is the model server ready?"),
        "/v2": _get("What the model server tells of itself.", key=True),
        "/v1/models/{model}": _get("Is the model ready? (KServe v1)", "model"),
        "/v1/models/{model}:predict": _post("Predict (KServe v1).", "Rows", "Predictions", "model"),
        "/invocations": _post("Predict (MLflow).", "Invocations", "Predictions"),
    }
    paths |= {path: _get("Is the server alive? (MLflow)") for path in ("/ping", "/health")}
    paths["/version"] = _get("The server's version (MLflow).")
    for base, names in ((model, ("model",)), (version, ("model", "version"))):
        paths[base] = _get("What the model's inputs and outputs are.", *names, key=True)
        paths[f"{base}/ready"] = _get("Is the model ready?", *names)
        infer = _post("Predict.", "InferenceRequest", "InferenceResponse", *names)
        infer["post"]["requestBody"]["content"][_RAW] = {
            "schema": {"type": "string", "format": "binary"}
        }
        infer["post"]["parameters"].append(
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "bytes of the JSON before raw tensors",
                "schema": {"type": "integer", "minimum": 1},
            }
        )
        paths[f"{base}/infer"] = infer
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "withstand guard",
            "version": __version__,
            "description": "The Open Inference Protocol v2, KServe v1 and MLflow, as far as the "
            "guard lets them through.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _get(summary: str, *names: str, key: bool = False) -> dict[str, Any]:
    return {"get": _operation(summary, names, "what the model server answers", None, key)}


def _post(summary: str, asked: str, answered: str, *names: str) -> dict[str, Any]:
    told = _operation(summary, names, "what the model answers", answered, True)
    told["requestBody"] = {"required": True, "content": {_JSON: _ref(asked)}}
    return {"post": told}


def _operation(
    summary: str, names: tuple[str, ...], found: str, answered: str | None, key: bool
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": found}
    if answered is not None:
        good["content"] = {_JSON: _ref(answered)}
    responses: dict[str, Any] = {"200": good}
    for status, why in _REFUSED.items():
        responses[str(status)] = {"description": why, "content": {_JSON: _ref("Error")}}
    responses["default"] = {"description": "what the model server answers instead"}
    told: dict[str, Any] = {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _NAME} for name in names
        ],
        "responses": responses,
    }
    if key:
        told["security"] = [{"key": []}, {"bearer": []}, {}]
    return told


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}
