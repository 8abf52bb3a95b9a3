"""NVIDIA's client with one answer of each kind: ask_tritonclient.py PORT INPUT SCORES ROWS.npy."""

import json
import sys

import numpy as np
import tritonclient.http as triton

port, name, scores, rows = int(sys.argv[1]), sys.argv[2], sys.argv[3], np.load(sys.argv[4])
client = triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=4)
told = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready() and client.is_model_ready("digits"),
    "server": client.get_server_metadata()["name"],
    "model": client.get_model_metadata("digits")["name"],
    "answers": {},
}


def asked(x, binary, wanted, ask=client.infer):
    tensor = triton.InferInput(name, list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    outputs = [triton.InferRequestedOutput(scores, binary_data=wanted)]
    return ask("digits", [tensor], outputs=outputs if wanted is not None else None, request_id="7")


for binary in (False, True):
    for wanted in (False, True, None):
        answer = asked(rows, binary, wanted)
        content = answer.get_response()
        # Some servers give other outputs where none is named.
        first = content["outputs"][0]["name"]
        assert content["id"] == "7"
        assert wanted is None or first == scores
        told["answers"][f"{binary} {wanted}"] = [first, answer.as_numpy(first).tolist()]
later = [asked(rows, True, True, client.async_infer) for _ in range(4)]
for number, answer in enumerate(later):
    told["answers"][f"later {number}"] = [scores, answer.get_result().as_numpy(scores).tolist()]
try:
    asked(rows[:, :60], True, True)
except triton.InferenceServerException as error:
    told["error"] = [error.status(), error.message()]
json.dump(told, sys.stdout)
