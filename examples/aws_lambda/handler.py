"""An AWS Lambda function: the model is loaded once for each process, then each event is one call.

The event is ``{"inputs": [...]}``, one sequence or several, as nested lists; so is the answer.
"""

from pathlib import Path

import numpy as np

import npylstm

MODEL = npylstm.load(Path(__file__).parent / "model.npz")


def handler(event, context):
    x = np.asarray(event["inputs"], np.float32)
    y = MODEL.predict(x[None] if x.ndim == 2 else x)
    return {"outputs": y.tolist(), "backend": MODEL.backend}
