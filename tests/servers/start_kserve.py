"""KServe's model server with a model of our own: start_kserve.py PORT WEIGHTS FOLDER."""

import sys

import numpy as np
from classifier import classifier, onnx_classifier

port, weights = int(sys.argv[1]), sys.argv[2]
# KServe reads the command line itself when it is imported.
del sys.argv[1:]

from kserve import InferOutput, InferResponse, Model, ModelServer  # noqa: E402
from kserve.protocol.rest.server import RESTServer  # noqa: E402


def sklearn_classifier(path):
    """Scores and labels of rows."""
    made = classifier(path)
    return lambda rows: (made.predict_proba(rows), made.predict(rows))


class Digits(Model):
    """Scores and labels of the digits' classifier."""

    def __init__(self, name, classifier) -> None:
        super().__init__(name)
        self.ready, self.classifier = True, classifier

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            # The v1 protocol, of rows.
            scores, _ = self.classifier(np.array(payload["instances"]))
            return {"predictions": scores.tolist()}
        scores, label = self.classifier(payload.inputs[0].as_numpy())
        outputs = []
        for name, values, datatype in (
            ("scores", scores.astype("f4"), "FP32"),
            ("label", label, "INT64"),
        ):
            output = InferOutput(name, list(values.shape), datatype)
            output.set_data_from_numpy(values, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


server = ModelServer(http_port=port, enable_grpc=False)
server.register_model(Digits("digits", sklearn_classifier(weights)))
server.register_model(Digits("digits-onnx", onnx_classifier(weights)))
rest = RESTServer(
    "kserve.model_server:app", server.dataplane, server.model_repository_extension, port
)
# ModelServer.start would listen on 0.0.0.0, which nothing can change.
rest.config.host = "127.0.0.1"
rest.run()
