"""Encoders and decoders of Keras, as in the article on sequence to sequence, cut apart and joined."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from keras_graph_models import built
from keras_graphs import BACKENDS, FRAMEWORKS, WAYS, assert_parity, convert, randomise, run

import npylstm
from npylstm import FormatError, Model

SEQ2SEQ = {"steps": 24, "units": 75}


@functools.cache
def make_seq2seq(framework: str) -> tuple[Any, Any, Any]:
    """The trained model, and the encoder and one-step decoder that the article cuts by hand."""
    k = FRAMEWORKS[framework]
    L, (steps, units) = k.layers, SEQ2SEQ.values()
    e_input = k.Input((steps, 1), name="input_1")
    _, *e_state = L.LSTM(units, return_state=True, name="lstm")(e_input)
    d_input = k.Input((steps, 1), name="input_2")
    d_lstm = L.LSTM(units, return_sequences=True, return_state=True, name="lstm_1")
    d_output, _, _ = d_lstm(d_input, initial_state=e_state)
    d_dense = L.Dense(1, activation="linear", name="dense")
    model = k.Model([e_input, d_input], d_dense(d_output))
    randomise(model, 24)
    step, h, c = k.Input((1, 1), name="step"), k.Input((units,), name="h"), k.Input((units,), name="c")  # fmt: skip
    y, *state = d_lstm(step, initial_state=[h, c])
    return model, k.Model(e_input, e_state), k.Model([step, h, c], [d_dense(y), *state])


def cut(spec: Any) -> tuple[Any, Any]:
    encoder = spec.subgraph(inputs=["input_1"], outputs=["lstm/h", "lstm/c"])
    decoder = spec.subgraph(inputs=["input_2", "lstm/h", "lstm/c"], outputs=["dense", "lstm_1/h", "lstm_1/c"])  # fmt: skip
    return encoder, decoder


def keras_loop(encoder: Any, decoder: Any, x: np.ndarray, steps: int) -> np.ndarray:
    token, states, ys = np.zeros((len(x), 1, 1), "float32"), run(encoder, [x]), []
    for _ in range(steps):
        token, *states = run(decoder, [token, *states])
        ys.append(token)
    return np.concatenate(ys, axis=1)


def assert_rounding(ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> None:
    """The rule of ``npylstm/parity.py``: a difference of the size of the rounding errors."""
    assert ours.shape == theirs.shape == exact.shape
    noise = np.sqrt(np.mean((ours - exact) ** 2))
    limit = 64 * max(noise, np.finfo(ours.dtype).eps * np.abs(exact).max())
    assert limit < 1e-3
    assert np.abs(ours - theirs).max() <= limit


def sines(count: int) -> np.ndarray:
    phases = np.linspace(-6, 6, count)[:, None] + 0.127 * np.arange(SEQ2SEQ["steps"])
    return np.sin(phases)[..., None].astype("float32")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_articles_seq2seq(framework: str, way: str, tmp_path: Path) -> None:
    model, keras_encoder, keras_decoder = make_seq2seq(framework)
    x = sines(4)
    teacher = np.cos(x)
    spec = convert(model, way, tmp_path)
    assert_parity(spec, [([x, teacher], run(model, [x, teacher]))])
    encoder, decoder = cut(spec)
    states = run(keras_encoder, [x])
    assert_parity(encoder, [([x], states)])
    step = [teacher[:, :1], *states]
    assert_parity(decoder, [(step, run(keras_decoder, step))])
    theirs = keras_loop(keras_encoder, keras_decoder, x, 24)
    assert np.ptp(theirs, axis=1).min() > 0.005  # not a fixed point
    parts = [Model(part.astype("float64"), "numpy") for part in (encoder, decoder)]
    exact = npylstm.decode(*parts, x, start=0.0, steps=24)
    for backend in BACKENDS:
        ours = npylstm.decode(
            Model(encoder, backend), Model(decoder, backend), x, start=[0.0], steps=24
        )
        assert ours.dtype == np.float32
        assert_rounding(ours, theirs, exact)


def test_what_is_cut_out() -> None:
    spec = nc.from_keras(make_seq2seq("keras3")[0])
    encoder, decoder = cut(spec)
    assert [t.name for t in encoder.inputs] == ["input_1"]
    assert encoder.inputs[0].shape == ("batch", "steps", 1)  # pinned to 24 where it was trained
    assert encoder.outputs == ("lstm/h", "lstm/c")
    assert [layer.name for layer in encoder.layers] == ["lstm"]
    assert [t.name for t in decoder.inputs] == ["input_2", "lstm/h", "lstm/c"]
    assert [t.shape for t in decoder.inputs] == [
        ("batch", "steps", 1),
        ("batch", 75),
        ("batch", 75),
    ]
    assert decoder.outputs == ("dense", "lstm_1/h", "lstm_1/c")
    assert {layer.name for layer in decoder.layers} == {"lstm_1", "dense"}
    assert decoder.cases == ()
    np.testing.assert_array_equal(decoder["dense"].weights["kernel"], spec["dense"].weights["kernel"])  # fmt: skip
    with pytest.raises(FormatError, match=r"lstm/h|lstm|input_1"):
        spec.subgraph(inputs=["input_2"], outputs=["dense"])
    with pytest.raises(npylstm.NpylstmError, match="lstm_7"):
        spec.subgraph(inputs=["input_1"], outputs=["lstm_7/h"])
    with pytest.raises(npylstm.NpylstmError, match="input_7"):
        spec.subgraph(inputs=["input_7"], outputs=["lstm/h"])


def test_what_is_cut_out_is_a_file_of_its_own(tmp_path: Path, backend: str) -> None:
    model, keras_encoder, keras_decoder = make_seq2seq("tf_keras")
    x, parts = sines(3), []
    for name, part in zip("ed", cut(nc.from_keras(model)), strict=True):
        npylstm.save(part, tmp_path / f"{name}.npz")
        parts.append(npylstm.load(tmp_path / f"{name}.npz", backend))
    ours = npylstm.decode(*parts, x, start=np.zeros((3, 1)), steps=24)
    theirs = keras_loop(keras_encoder, keras_decoder, x, 24)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("siamese", ["a"], ["lstm"]),
        ("siamese", ["lstm", "lstm#2"], ["dense"]),
        ("siamese", ["lstm", "b"], ["difference", "lstm#2"]),
        ("attention", ["a", "b"], ["context"]),
        ("attention", ["encoder", "decoder"], ["out", "scores"]),
        ("a_nested_model_called_twice", ["encoder.lstm#2", "b"], ["minus"]),
    ],
)
def test_parts_of_other_graphs(
    name: str, inputs: list[str], outputs: list[str], backend: str
) -> None:
    """A part, fed with what the whole computes there, gives what the whole computes."""
    model, (run_, _) = built("keras3", name)
    spec = nc.from_keras(model)
    names = [t.name for t in spec.inputs]
    fed = dict(zip(names, run_[0], strict=True))
    inner = sorted({*inputs, *outputs, *spec.outputs} - set(names))
    whole = Model(spec.subgraph(inputs=names, outputs=inner), backend).predict(fed)
    known = {**fed, **(whole if isinstance(whole, dict) else {inner[0]: whole})}
    part = Model(spec.subgraph(inputs=inputs, outputs=outputs), backend)
    y = part.predict({n: known[n] for n in inputs} if len(inputs) > 1 else known[inputs[0]])
    for tensor in outputs:
        value = y[tensor] if isinstance(y, dict) else y
        np.testing.assert_allclose(value, known[tensor], atol=1e-6, rtol=0)
    assert {t.name for t in part.inputs} == set(inputs)


# An encoder and a decoder in files of their own, decoding characters.

VOCABULARY = 11


@functools.cache
def make_translator(framework: str, kind: str, ids: bool) -> tuple[Any, Any]:
    """Two models for the usual loop: states out of one, token and states into the other."""
    k = FRAMEWORKS[framework]
    L, units = k.layers, 16
    cell = functools.partial(getattr(L, kind), units, return_state=True)
    x = k.Input((None, VOCABULARY), name="characters")
    seen, *state = cell(name="encoder_cell")(x)
    encoder = k.Model(x, state if kind == "LSTM" else [seen, *state])
    t = k.Input((None,), dtype="int32", name="token") if ids else k.Input((None, VOCABULARY), name="token")  # fmt: skip
    token = L.Embedding(VOCABULARY, 6, name="embedding")(t) if ids else t
    given = [k.Input((units,), name=f"state_{n}") for n in range(len(state))]
    y, *after = cell(return_sequences=True, name="decoder_cell")(token, initial_state=given)
    y = L.Dense(VOCABULARY, activation="softmax", name="dense")(y)
    decoder = k.Model([t, *given], [y, *after])
    scale = {"LSTM": 4, "GRU": 8 if ids else 4, "SimpleRNN": 1.5}[kind]  # decided, never at rest
    for seed, model in enumerate((encoder, decoder)):
        randomise(model, seed)
        model.set_weights([scale * w if w.ndim == 2 else w / 2 for w in model.get_weights()])
    return encoder, decoder


def greedy(encoder: Any, decoder: Any, x: np.ndarray, steps: int, ids: bool) -> np.ndarray:
    states = run(encoder, [x])[-(len(decoder.inputs) - 1) :]
    one_hot, tokens = np.eye(VOCABULARY, dtype="float32"), np.zeros(len(x), int)
    given = []
    for _ in range(steps):
        token = tokens[:, None].astype("int32") if ids else one_hot[tokens][:, None]
        y, *states = run(decoder, [token, *states])
        tokens = y[:, -1].argmax(-1)
        given.append(y[:, -1])
    return np.stack(given, axis=1)


@pytest.mark.parametrize("form", ["h5", "keras"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("ids", [False, True], ids=["one-hot", "ids"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_encoder_and_decoder_in_two_files(
    framework: str, ids: bool, kind: str, form: str, tmp_path: Path, backend: str
) -> None:
    pair = make_translator(framework, kind, ids)
    x = np.eye(VOCABULARY, dtype="float32")[np.random.default_rng(5).integers(0, VOCABULARY, (4, 9))]  # fmt: skip
    theirs = greedy(*pair, x, 30, ids)
    tokens = theirs.argmax(-1)
    assert min(len(set(row)) for row in tokens) >= 2
    assert len({tuple(row) for row in tokens}) == 4
    models = []
    for name, model in zip(("encoder", "decoder"), pair, strict=True):
        model.save(tmp_path / f"{name}.{form}")
        models.append(Model(nc.convert(tmp_path / f"{name}.{form}"), backend))
    start = 0 if ids else np.eye(VOCABULARY)[0]
    ours = npylstm.decode(*models, x, start, 30, feed="argmax")
    np.testing.assert_array_equal(ours.argmax(-1), tokens)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_decoding_by_a_function_and_with_a_stop(backend: str) -> None:
    encoder, decoder = (Model(nc.from_keras(m), backend) for m in make_translator("keras3", "LSTM", False))  # fmt: skip
    x = np.eye(VOCABULARY, dtype="float32")[np.random.default_rng(10).integers(0, VOCABULARY, (3, 9))]  # fmt: skip
    start, one_hot = np.eye(VOCABULARY)[0], np.eye(VOCABULARY, dtype="float32")
    by_word = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax")
    by_hand = npylstm.decode(encoder, decoder, x, start, 20, feed=lambda y: one_hot[y.argmax(-1)])
    np.testing.assert_array_equal(by_hand, by_word)
    tokens = by_word.argmax(-1)
    ends = {t: [int(np.argmax(row == t)) for row in tokens if t in row] for t in range(VOCABULARY)}
    stop, needed = next((t, max(at) + 1) for t, at in ends.items() if len(at) == 3 and max(at) < 19)
    ended = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax", stop=stop)
    assert ended.shape[1] == needed
    np.testing.assert_array_equal(ended, by_word[:, :needed])
    never = next(t for t, at in ends.items() if not at)
    whole = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax", stop=never)
    np.testing.assert_array_equal(whole, by_word)
