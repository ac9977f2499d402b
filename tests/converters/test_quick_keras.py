"""tf_keras as the tests build it gives the shapes and the numbers of tf_keras as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# The same models, weights and inputs in two processes: one is quick, one is not.
PROGRAM = """
import sys
import numpy as np, tf_keras
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "quick":
    import quick_keras
    quick_keras.build_quickly()
L, found = tf_keras.layers, {}
for number, layers in enumerate([
    [L.LSTM(4, return_sequences=True), L.GRU(3)],
    [L.Masking(), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.SimpleRNN(2, go_backwards=True)],
    [L.GRU(4, reset_after=False, return_sequences=True), L.LSTM(3, unroll=True)],
    [L.Masking(), L.LSTM(4, return_sequences=True, stateful=True), L.TimeDistributed(L.Dense(2))],
    [L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)],
]):
    model = tf_keras.Sequential([tf_keras.Input((5, 3), batch_size=2), *layers])
    rng = np.random.default_rng(number)
    model.set_weights([rng.normal(size=w.shape).astype("f4") for w in model.get_weights()])
    x = rng.normal(size=(2, 5, 3)).astype("f4")
    x[1, 3:] = 0
    found[f"{number} eager"] = model(x).numpy()
    model.reset_states()
    found[f"{number} graph"] = model.predict(x, verbose=0)
    found[f"{number} shape"] = np.array([d or 0 for layer in model.layers for d in layer.output_shape])
x = tf_keras.Input((5, 3), batch_size=2)
y, *states = L.LSTM(4, return_sequences=True, return_state=True)(x)
z, last = L.GRU(4, return_state=True)(y, initial_state=states[0])
first = L.SimpleRNN(4, time_major=True, return_sequences=True, dtype="float64")(x)
deep, (h, c), end = L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_state=True)(y)
model = tf_keras.Model(x, [y, *states, z, last, first, deep, h, c, end])
rng = np.random.default_rng(9)
model.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
arrays = model(rng.normal(size=(2, 5, 3)).astype("f4"))
for n, (symbolic, array) in enumerate(zip(model.outputs, arrays)):
    found[f"output {n}"], found[f"shape {n}"] = array.numpy(), np.array(symbolic.shape.as_list())
    assert symbolic.dtype == array.dtype
np.savez(sys.argv[3], **found)
"""


def test_shapes_and_numbers_are_those_of_tf_keras(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="tf_keras is an optional package")
    found = {}
    for how in ("quick", "as it is"):
        target = tmp_path / f"{how}.npz"
        command = [sys.executable, "-c", PROGRAM, str(root / "tests"), how, str(target)]
        subprocess.run(command, check=True, capture_output=True)
        found[how] = np.load(target)
    assert set(found["quick"]) == set(found["as it is"])
    assert len(found["quick"].files) == 15 + 2 * 10
    for name in found["quick"]:
        np.testing.assert_array_equal(found["quick"][name], found["as it is"][name], err_msg=name)
