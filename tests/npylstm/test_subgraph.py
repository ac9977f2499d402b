"""Models cut in two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain, make_layer
from forecast_models import RNNS, agree, arrays, halves, numbers, seq2seq

import npylstm
from npylstm import FormatError, Model, ModelSpec
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.pointwise import Identity
from npylstm.spec import Case, Edge, LayerSpec, TensorSpec


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", RNNS)
def test_the_parts_are_the_whole(kind: str, dtype: str, backend: str) -> None:
    whole, encoder, decoder = halves(kind, backend, dtype=dtype)
    x, d = numbers(3, 6, 3, dtype=dtype), numbers(3, 9, 4, seed=1, dtype=dtype)
    states = arrays(encoder.predict(x))
    y = decoder.predict([d, *states])
    np.testing.assert_array_equal(y["dense"], whole.predict([x, d]), strict=True)


def test_a_subgraph_is_named_as_it_was_asked_for() -> None:
    spec = seq2seq()
    decoder = spec.subgraph(inputs=["d", "enc/h", "enc/c"], outputs=["dense", "dec/h", "dec/c"])
    assert [t.name for t in decoder.inputs] == ["d", "enc/h", "enc/c"]
    assert [t.shape for t in decoder.inputs][1:] == [("batch", 8), ("batch", 8)]
    assert decoder.outputs == ("dense", "dec/h", "dec/c")
    assert [layer.name for layer in decoder.layers] == ["dec", "dense"]
    assert [layer.name for layer in spec.layers] == ["enc", "dec", "dense"]
    for layer in decoder.layers:
        assert layer.layer == spec[layer.name].layer
        for key, array in layer.weights.items():
            np.testing.assert_array_equal(array, spec[layer.name].weights[key], strict=True)
    turned = spec.subgraph(inputs=["enc/c", "d", "enc/h"], outputs=["dec/c", "dense"])
    assert [t.name for t in turned.inputs] == ["enc/c", "d", "enc/h"]
    assert turned.outputs == ("dec/c", "dense")


def test_unused_layers_are_dropped() -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True), GRU(5, 4, return_sequences=True), Dense(4, 2), Identity()
    )
    for inputs, outputs, kept in (
        (["x"], ["layer_0"], [0]),
        (["layer_0"], ["layer_1"], [1]),
        (["layer_1"], ["layer_3"], [2, 3]),
        (["layer_0"], ["layer_1", "layer_2"], [1, 2]),
        (["x"], ["layer_3"], [0, 1, 2, 3]),
    ):
        part = spec.subgraph(inputs=inputs, outputs=outputs)
        assert [layer.name for layer in part.layers] == [f"layer_{k}" for k in kept]
        assert [edge.layer for edge in part.edges] == [f"layer_{k}" for k in kept]


@pytest.mark.parametrize("at", range(3))
def test_a_chain_cut_in_two_is_the_chain(at: int, backend: str) -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True), GRU(5, 4, return_sequences=True), Dense(4, 2),
        SimpleRNN(2, 3), shape=("batch", 24, 3),
    )  # fmt: skip
    head = spec.subgraph(inputs=["x"], outputs=[f"layer_{at}"])
    tail = spec.subgraph(inputs=[f"layer_{at}"], outputs=["layer_3"])
    x = numbers(2, 24, 3)
    middle = Model(head, backend).predict(x)
    agree(Model(tail, backend).predict(middle), Model(spec, backend).predict(x), backend)


def test_pinned_steps_become_free(backend: str) -> None:
    spec = seq2seq(steps=(24, 12))
    whole = Model(seq2seq(), backend)
    encoder = spec.subgraph(inputs=["x"], outputs=["enc/h", "enc/c"])
    decoder = spec.subgraph(inputs=["d", "enc/h", "enc/c"], outputs=["dense"])
    for part, features in ((encoder, 3), (decoder, 4)):
        batch, steps, size = part.inputs[0].shape
        assert (batch, size) == ("batch", features)
        assert isinstance(steps, str)
    x, d = numbers(2, 5, 3), numbers(2, 7, 4)
    states = arrays(Model(encoder, backend).predict(x))
    agree(Model(decoder, backend).predict([d, *states]), whole.predict([x, d]), backend)


def test_pinned_ids_become_free(backend: str) -> None:
    layers = [Embedding(9, 4), LSTM(4, 5)]
    free = make_chain(*layers, shape=("batch", "steps"))
    spec = replace(free, inputs=(TensorSpec("x", ("batch", 24), integer=True),))
    part = spec.subgraph(inputs=["x"], outputs=["layer_1"])
    assert part.inputs[0].whole
    ids = np.arange(10).reshape(2, 5) % 9
    agree(Model(part, backend).predict(ids), Model(free, backend).predict(ids), backend)


def test_both_inputs_keep_steps_of_their_own(backend: str) -> None:
    """Encoder and decoder together, freed of their pinned steps, may still differ in length."""
    spec = seq2seq(steps=(24, 12)).subgraph(inputs=["x", "d"], outputs=["dense"])
    x, d = numbers(2, 24, 3), numbers(2, 12, 4)
    agree(Model(spec, backend).predict([x, d]), Model(seq2seq(), backend).predict([x, d]), backend)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["d", "enc/h"], ["dense"], "enc/c|'x'"),
        (["enc/h", "enc/c"], ["dense"], "'d'"),
        (["x"], ["dense"], "'d'"),
        (["d"], ["dense"], "enc|'x'"),
        (["d", "enc/h", "enc/c"], ["nowhere"], "nowhere"),
        (["nowhere", "d", "enc/h", "enc/c"], ["dense"], "nowhere"),
        (["x"], ["enc/q"], "enc/q"),
        (["x"], [], "output"),
        (["x", "x"], ["enc/h"], "'?x'?|twice"),
    ],
)
def test_what_is_missing_is_named(inputs: Any, outputs: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        seq2seq().subgraph(inputs=inputs, outputs=outputs)


def test_parts_carry_no_cases_and_leave_the_whole_as_it_was() -> None:
    spec = seq2seq()
    x, d = numbers(2, 5, 3), numbers(2, 7, 4)
    y = Model(spec, "numpy").predict([x, d])
    spec = spec.with_cases([Case({"x": x, "d": d}, {"dense": y})])
    before = spec.to_json()
    part = spec.subgraph(inputs=["x"], outputs=["enc/h"])
    assert part.cases == ()
    assert len(spec.cases) == 1
    assert spec.to_json() == before


def test_parts_are_saved_and_read(tmp_path: Any, backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    read = []
    for name, model in (("encoder", encoder), ("decoder", decoder)):
        model.save(tmp_path / f"{name}.npz")
        read.append(npylstm.load(tmp_path / f"{name}.npz", backend))
    assert [t.name for t in read[1].inputs] == ["d", "enc/h", "enc/c"]
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    np.testing.assert_array_equal(npylstm.decode(*read, x, start, 5), expected, strict=True)


def test_a_call_of_a_shared_layer_can_be_cut_out(backend: str) -> None:
    made = make_layer("rnn", GRU(3, 3, return_sequences=True), np.random.default_rng(0))
    edges = (Edge("rnn", ("x",), ("rnn",)), Edge("rnn", ("rnn",), ("rnn#2",)))
    inputs = (TensorSpec("x", ("batch", "steps", 3)),)
    spec = ModelSpec((made,), edges, inputs, ("rnn#2",))
    second = Model(spec.subgraph(inputs=["rnn"], outputs=["rnn#2"]), backend)
    first = Model(spec.subgraph(inputs=["x"], outputs=["rnn"]), backend)
    x = numbers(2, 5, 3)
    agree(second.predict(first.predict(x)), Model(spec, backend).predict(x), backend)
    assert set(second.session(2).state) == {"rnn#2"}


def test_parts_have_the_weights_of_the_whole_in_memory_once() -> None:
    spec = seq2seq()
    part = spec.subgraph(inputs=["x"], outputs=["enc/h"])
    assert isinstance(part["enc"], LayerSpec)
    for key, array in part["enc"].weights.items():
        assert np.shares_memory(array, spec["enc"].weights[key])
