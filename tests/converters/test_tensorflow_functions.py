"""Functions of SavedModels: converted by their operations, compared with TensorFlow."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.tensorflow.rows import ROWS
from npylstm_converters.tensorflow.support import operation_table

import npylstm
from npylstm import NpylstmError, UnsupportedError
from npylstm.cli import main

pytest.importorskip("onnx")
PAGE = (Path(__file__).parent.parent.parent / "docs/tensorflow.md").read_text(encoding="utf-8")
# Sums of a few dozen float32 products per output, in another order than TensorFlow's.
ROUNDING = 1e-5
RNG = np.random.default_rng(0)


def randomise(model: Any) -> Any:
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            (w + rng.normal(0, 0.3, w.shape)).astype(w.dtype) if w.dtype.kind == "f" else w
            for w in model.get_weights()
        ]
    )
    return model


def check(folder: Path, *inputs: Any, key: str | None = None) -> npylstm.ModelSpec:
    """Convert a folder; its outputs are those of TensorFlow's own loader."""
    import tensorflow as tf

    spec = nc.convert(folder, **({"key": key} if key else {}))
    function = tf.saved_model.load(str(folder)).signatures["serving_default"]
    types = function.structured_input_signature[1]
    names = [tensor.name for tensor in spec.inputs]
    feeds = {n: tf.cast(x, types[n].dtype) for n, x in zip(names, inputs, strict=True)}
    expected = {name: y.numpy() for name, y in function(**feeds).items()}
    assert set(spec.outputs) == set(expected)
    made = npylstm.Model(spec).predict(dict(zip(names, inputs, strict=True)))
    made = made if isinstance(made, dict) else {spec.outputs[0]: made}
    for name, y in expected.items():
        scale = float(np.abs(y).max())
        np.testing.assert_allclose(made[name], y, rtol=0, atol=ROUNDING * scale, err_msg=name)
    return spec


def kinds(spec: npylstm.ModelSpec) -> list[str]:
    return [layer.kind for layer in spec.layers]


def exported(folder: Path, *layers: Any, shape: Any = (None, 3), dtype: str = "float32") -> Path:
    import keras

    model = randomise(keras.Sequential([keras.Input(shape, dtype=dtype), *layers]))
    model.export(folder / "exported", verbose=False)
    return folder / "exported"


X = RNG.normal(size=(3, 8, 3)).astype(np.float32)
IDS = np.array([[1, 4, 9, 2, 0, 0], [3, 0, 0, 0, 0, 0], [2, 2, 5, 7, 9, 1]])


# --- exports of Keras 3 ---------------------------------------------------------------------------
def test_an_lstm_is_recognised_and_streams(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    folder = exported(tmp_path, layers.LSTM(4, return_sequences=True), layers.Dense(2))
    spec = check(folder, X)
    assert kinds(spec) == ["transpose", "lstm", "transpose", "dense"]
    model = npylstm.Model(spec)
    session = model.session(batch_size=3)
    parts = [session.push(X[:, :3]), session.push(X[:, 3:])]
    np.testing.assert_array_equal(np.concatenate(parts, 1), model.predict(X))
    sources = {entry["source"] for entry in spec.provenance["tensors"]}
    assert len(sources) == 5  # kernel, recurrent kernel and bias of the cell; kernel and bias
    assert spec.provenance["framework"] == "TensorFlow"
    assert spec.provenance["proof"] == "proven"


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru(tmp_path: Path, reset_after: bool) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    gru = layers.GRU(4, reset_after=reset_after, go_backwards=True)
    assert "gru" in kinds(check(exported(tmp_path, gru, layers.Dense(2, "softmax")), X))


def test_masks_become_those_of_layers(tmp_path: Path) -> None:
    """Samples of other lengths: where the mask is zero, states are kept and outputs repeated."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    own = [
        layers.Embedding(10, 5, mask_zero=True),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(3, activation="relu"),
        layers.Dense(2),
    ]
    spec = check(exported(tmp_path, *own, shape=(None,), dtype="int32"), IDS)
    assert [k for k in kinds(spec) if k in ("lstm", "gru", "simple_rnn", "scan")] == [
        "lstm", "lstm", "gru", "simple_rnn",
    ]  # fmt: skip
    assert spec.inputs[0].integer


def test_what_stands_around_recurrent_layers(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    own = [
        layers.Conv1D(6, 3, activation="relu", padding="same"),
        layers.MaxPooling1D(2),
        layers.BatchNormalization(),
        layers.DepthwiseConv1D(3, depth_multiplier=2),
        layers.AveragePooling1D(2, padding="same"),
        layers.LayerNormalization(),
        layers.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True),
        layers.TimeDistributed(layers.Dense(3, activation="elu")),
        layers.LeakyReLU(0.3),
        layers.Dropout(0.5),
        layers.GlobalMaxPooling1D(),
        layers.RepeatVector(4),
        layers.ZeroPadding1D((1, 2)),
        layers.Cropping1D((0, 1)),
        layers.Flatten(),
        layers.Dense(2, activation="tanh"),
    ]
    x = RNG.normal(size=(3, 20, 3)).astype(np.float32)
    check(exported(tmp_path, *own, shape=(20, 3)), x)


def test_cells_and_states_that_are_no_layer_run_step_by_step(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    cells = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)
    spec = check(exported(tmp_path, cells), X)
    assert "scan" in kinds(spec)
    read = [e["weights"] for e in spec.provenance["tensors"] if "lstm_cell" in e["source"]]
    assert len(read) == 3
    assert all("lstm" in name for weights in read for name in weights)


def test_several_inputs_and_outputs_in_the_order_of_the_signature(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    z, a = keras.Input((None, 3), name="z"), keras.Input((None, 2), name="a")
    y, *state = layers.LSTM(4, return_state=True)(z)
    seen = layers.LSTM(4, return_sequences=True)(a, initial_state=state)
    both = layers.Attention()([seen, seen])
    model = randomise(keras.Model([z, a], {"seen": layers.Concatenate()([seen, both]), "y": y}))
    model.export(tmp_path / "m", verbose=False)
    a_values = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    spec = nc.convert(tmp_path / "m")
    values = {"z": X, "a": a_values}
    check(tmp_path / "m", *(values[tensor.name] for tensor in spec.inputs))


# --- other programs -------------------------------------------------------------------------------
def test_a_loop_of_the_users_own(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Own(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(2)
            self.w = tf.Variable(rng.normal(0, 0.4, (3, 8)).astype("f4"))
            self.u = tf.Variable(rng.normal(0, 0.4, (8, 8)).astype("f4"))
            self.b = tf.Variable(rng.normal(0, 0.4, 8).astype("f4"))

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, None, 3), tf.float32, "x")]
        )
        def run(self, x: Any) -> Any:
            count = tf.shape(x)[1]
            steps = tf.TensorArray(tf.float32, size=count)
            x = tf.transpose(x, [1, 0, 2])

            def step(t: Any, h: Any, steps: Any) -> Any:
                h = tf.tanh(x[t] @ self.w + h @ self.u + self.b)
                return t + 1, h, steps.write(t, h)

            h = tf.zeros((tf.shape(x)[1], 8))
            _, h, steps = tf.while_loop(lambda t, *_: t < count, step, (0, h, steps))
            return {"last": h, "all": tf.transpose(steps.stack(), [1, 0, 2])[..., ::2]}

    own = Own()
    tf.saved_model.save(own, str(tmp_path / "m"), signatures=own.run)
    assert "simple_rnn" in kinds(check(tmp_path / "m", X))


def test_a_loop_over_a_range_of_steps(tmp_path: Path) -> None:
    """The body adds the step of the range, which is an argument that never changes."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(3)
    w, u, b = (rng.normal(0, 0.4, shape).astype("f4") for shape in ((3, 5), (5, 5), 5))

    def run(x: Any) -> Any:
        h = tf.zeros((tf.shape(x)[0], 5))
        kept = tf.TensorArray(tf.float32, size=tf.shape(x)[1])
        for t in tf.range(tf.shape(x)[1]):
            h = tf.tanh(x[:, t] @ w + h @ u + b)
            kept = kept.write(t, h)
        return {"all": tf.transpose(kept.stack(), [1, 0, 2]), "last": h}

    spec = check(saved(tmp_path, run, (None, None, 3)), X)
    assert "simple_rnn" in kinds(spec)
    assert npylstm.Model(spec).session().push(X[:1])["all"].shape == (1, 8, 5)


def saved(tmp_path: Path, function: Any, shape: Any = (None, 6, 3)) -> Path:
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.f)
    return tmp_path / "m"


def test_slices_as_python_means_them(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def slices(x: Any) -> Any:
        return {
            "a": x[:, 1:-1, ::-1], "b": x[..., -1], "c": x[:, tf.newaxis, 2], "d": x[:, ::2][..., :2],
            "e": x[:, -2:, tf.newaxis, 0], "f": x[..., 1, :], "g": x[:, 5:1:-2, 1:],
        }  # fmt: skip

    check(saved(tmp_path, slices), X[:, :6])


def test_operations_whose_rules_differ_from_those_of_onnx(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def operations(x: Any) -> Any:
        ids = tf.cast(3 * x[..., 0], tf.int32)
        parts = tf.split(x, [1, -1, 1], axis=1)
        return {
            "one_hot": tf.one_hot(ids, 4, on_value=2.0, off_value=-1.0),  # also of negative ids
            "floor": tf.cast(ids // 2, tf.float32) + x[..., 1] // 0.3,
            "mod": tf.cast(ids % 3, tf.float32),
            "no_nan": tf.math.divide_no_nan(x, tf.nn.relu(x)),
            "parts": parts[1] * parts[0] + parts[2],
            "any": tf.cast(tf.reduce_any(x > 1, axis=[1, 2]), tf.float32),
            "top": tf.math.top_k(x, 2).values,
            "products": tf.matmul(x, x, transpose_b=True),
            "clipped": tf.clip_by_value(x, -0.5, 0.5) + tf.nn.relu6(9 * x),
            "squares": tf.math.squared_difference(x, 1.0) * tf.math.rsqrt(1 + tf.square(x)),
            "padded": tf.pad(x, [[0, 0], [1, 2], [0, 0]], constant_values=3.0),
            "reflected": tf.pad(x, [[0, 0], [2, 1], [0, 0]], mode="REFLECT"),
            "where": tf.where(x > 0, x, tf.zeros_like(x)),
            "total": tf.cumsum(x, axis=1, exclusive=True, reverse=True),
            "gathered": tf.gather(x, [2, 0], axis=2),
        }

    check(saved(tmp_path, operations), X[:, :6])


# --- refusals -------------------------------------------------------------------------------------
def test_every_reason_and_the_other_ways_are_named(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    folder = saved(tmp_path, lambda x: tf.math.lgamma(x) + tf.math.digamma(x))
    with pytest.raises(UnsupportedError) as caught:
        nc.convert(folder)
    text = str(caught.value)
    assert re.search("Lgamma .*: is not supported", text)
    assert re.search("Digamma .*: is not supported", text)
    assert "--architecture model.json" in text


def test_a_state_kept_in_a_variable_is_refused(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    total = tf.Variable(np.zeros((6, 3), np.float32))

    def kept(x: Any) -> Any:
        return tf.tanh(total.assign_add(x[0])) + x

    import tensorflow

    module = tensorflow.Module()
    module.total, module.f = total, tf.function(kept, [tf.TensorSpec((None, 6, 3), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.f)
    with pytest.raises(UnsupportedError, match="keeps values between calls in a variable"):
        nc.convert(tmp_path / "m")


def test_a_loop_that_ends_by_its_values_is_refused(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def halved(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_max(y) > 0.1, lambda y: (y / 2,), (x,))[0]

    with pytest.raises(UnsupportedError, match="when it ends"):
        nc.convert(saved(tmp_path, halved))


@pytest.mark.parametrize(("start", "step"), [(0.0, 1.5), (0.0, 1.0), (1, 1), (0, 2)])
def test_a_loop_that_counts_otherwise_is_refused(tmp_path: Path, start: Any, step: Any) -> None:
    tf = pytest.importorskip("tensorflow")

    def counted(x: Any) -> Any:
        def body(t: Any, y: Any) -> Any:
            return t + step, tf.tanh(y)

        return tf.while_loop(lambda t, _: t < type(start)(6), body, (start, x))[1]

    with pytest.raises(UnsupportedError, match="expected an integer that counts 0, 1, 2"):
        nc.convert(saved(tmp_path, counted))


def test_a_list_of_another_length_than_the_loop_is_refused(tmp_path: Path) -> None:
    """What the loop does not write would be zeros."""
    tf = pytest.importorskip("tensorflow")

    def partly(x: Any) -> Any:
        steps = tf.TensorArray(tf.float32, size=tf.shape(x)[1], element_shape=(None, 3))

        def step(t: Any, steps: Any) -> Any:
            return t + 1, steps.write(t, x[:, 0])

        return tf.while_loop(lambda t, _: t < 2, step, (0, steps))[1].stack()

    with pytest.raises(UnsupportedError, match="length may not be the number of its steps"):
        nc.convert(saved(tmp_path, partly, (None, None, 3)))


def test_the_onnx_package_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow")
    folder = saved(tmp_path, lambda x: tf.tanh(x))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NpylstmError, match=r"pip install 'npylstm\[onnx\]'"):
        nc.convert(folder)


# --- recording, the command line, the page --------------------------------------------------------
def test_convert_records_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras = pytest.importorskip("keras")
    folder = exported(tmp_path, keras.layers.GRU(4), keras.layers.Dense(2))
    made = tmp_path / "m.npz"
    assert main(["convert", str(folder), str(made), "--record", "2"]) == 0
    assert "against TensorFlow" in capsys.readouterr().out
    assert main(["verify", str(made), "--against", str(folder)]) == 0
    assert main(["info", str(folder)]) == 0
    assert "gru" in capsys.readouterr().out
    again = nc.convert(folder, key="serve")  # another signature of the same function
    assert again.outputs == npylstm.load(made).spec.outputs


def test_functions_with_effects_are_not_run(tmp_path: Path) -> None:
    """TensorFlow would run the operation although no output needs it."""
    tf = pytest.importorskip("tensorflow")

    def writes(x: Any) -> Any:
        tf.io.write_file(str(tmp_path / "written"), "text")
        return tf.tanh(x)

    folder = saved(tmp_path, writes)
    spec = nc.convert(folder)
    importer = nc.find_importer(folder)
    with pytest.raises(NpylstmError, match="WriteFile, which is not run"):
        importer.runner(folder, spec)
    assert not (tmp_path / "written").exists()


def test_the_table_of_operations_is_the_one_that_the_rows_give() -> None:
    listed = PAGE.partition("<!-- operations -->\n")[2].partition("\n<!-- end of operations -->")[0]
    assert listed == operation_table(), "python -m npylstm_converters.tensorflow.support"
    assert all(name in listed for name in ROWS)
