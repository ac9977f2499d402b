"""Write the files of this folder: what PyTorch's newer exporter and tf2onnx make.

Needs torch, onnxscript, tensorflow, tf_keras and tf2onnx, and tests/ on the path:

    PYTHONPATH=tests python tests/data/onnx/make.py
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx_modules import export, randomise

HERE = Path(__file__).parent
DYNAMO = ("lstm_last", "tagger", "convolved", "encoder_decoder", "made_zeros", "sequence_first")


def write(name, model):
    """Write a model without the traces of where it was made."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    onnx.save(model, HERE / f"{name}.onnx")


def projected():
    import io

    class Projected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.LSTM(3, 4, proj_size=2, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    file = io.BytesIO()
    torch.onnx.export(randomise(Projected()), (torch.rand(2, 6, 3),), dynamo=True, verbose=False).save(file)
    return onnx.load_model_from_string(file.getvalue())


def keras_models():
    import tensorflow as tf
    import tf2onnx

    k, layers = tf.keras, tf.keras.layers
    rng = np.random.default_rng(0)
    for name, made in {
        "gru": [layers.GRU(4, return_sequences=True), layers.Dense(2)],
        "gru_reset_before": [layers.GRU(4, reset_after=False)],
        "simple_rnn": [layers.SimpleRNN(4, return_sequences=True)],
        "lstm": [layers.LSTM(4, return_sequences=True), layers.LSTM(3)],
        "lstm_hard_sigmoid": [layers.LSTM(4, recurrent_activation="hard_sigmoid")],
        "lstm_masked": [layers.Masking(0.0), layers.LSTM(4, return_sequences=True)],
        "bidirectional": [layers.Bidirectional(layers.GRU(4, return_sequences=True))],
    }.items():
        model = k.Sequential([layers.Input((None, 3)), *made])
        model.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in model.get_weights()])
        signature = [tf.TensorSpec((None, None, 3), name="x")]
        write(f"keras_{name}", tf2onnx.convert.from_keras(model, signature, opset=15)[0])


def keras_3_models():
    """A mask and initial states as inputs, written by Keras itself."""
    import tempfile

    import keras

    for kind, options in {"GRU": {"go_backwards": True}, "LSTM": {"zero_output_for_mask": True}}.items():
        x, mask = keras.Input((None, 3), name="x"), keras.Input((None,), dtype="bool", name="mask")
        initial = [keras.Input((4,), name=name) for name in ("h", "c")[: 2 if kind == "LSTM" else 1]]
        layer = getattr(keras.layers, kind)(4, return_sequences=True, return_state=True, **options)
        model = keras.Model([x, *initial, mask], layer(x, initial_state=initial, mask=mask))
        rng = np.random.default_rng(0)
        model.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in model.get_weights()])
        model([np.zeros([d or 1 for d in tensor.shape]) for tensor in model.inputs])
        with tempfile.TemporaryDirectory() as folder:
            model.export(f"{folder}/model.onnx", format="onnx", opset_version=17)
            write(f"keras3_{kind.lower()}_masked", onnx.load(f"{folder}/model.onnx"))


if __name__ == "__main__":
    for name in DYNAMO:
        write(f"torch_{name}", onnx.load_model_from_string(export(name, dynamo=True)))
    write("torch_projected", projected())
    keras_models()
    keras_3_models()
