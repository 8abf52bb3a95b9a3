"""A runtime for MLServer that serves the ONNX graph."""

from classifier import onnx_classifier
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from mlserver.utils import get_model_uri


class Digits(MLModel):
    """Scores and labels of the digits' classifier."""

    async def load(self) -> bool:
        """Open the graph beside the weights."""
        self._classifier = onnx_classifier(await get_model_uri(self._settings))
        return True

    async def predict(self, payload):
        """The answer to a request."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        outputs = zip(("scores", "label"), self._classifier(rows), strict=True)
        return InferenceResponse(
            model_name=self.name,
            id=payload.id,
            outputs=[NumpyCodec.encode_output(name, values) for name, values in outputs],
        )
