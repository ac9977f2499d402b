"""The encoder-decoder loop: the same numbers as a loop over predict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from forecast_models import RNNS, SOFTMAX, agree, arrays, graph, halves, last, numbers

import npylstm
from npylstm import Model, NpylstmError, ShapeError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.shaping import Concatenate
from npylstm.spec import Edge, TensorSpec


def decode_by_hand(
    encoder: Model, decoder: Model, x: Any, token: Any, steps: int, feed: Any = None
) -> Any:
    """The loop that everyone writes: token (batch, 1, ...) in, output and states out."""
    others = arrays(encoder.predict(x))[-(len(decoder.inputs) - 1) :]
    y = []
    for _ in range(steps):
        out, *states = arrays(decoder.predict([token, *others]))
        others = [*others[: len(others) - len(states)], *states]
        y.append(last(out))
        token = (y[-1] if feed is None else feed(y[-1]))[:, None]
    return np.stack(y, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", RNNS)
def test_decode_is_the_loop_over_predict(kind: str, dtype: str, backend: str) -> None:
    whole, encoder, decoder = halves(kind, backend, dtype=dtype)
    x = numbers(3, 6, 3, dtype=dtype)
    start = numbers(3, 4, seed=1, dtype=dtype)
    y = npylstm.decode(encoder, decoder, x, start, 10)
    agree(y, decode_by_hand(encoder, decoder, x, start[:, None], 10), backend)
    # The whole model, shown what was decoded, says the same.
    shown = np.concatenate([start[:, None], y[:, :-1]], 1)
    agree(whole.predict([x, shown]), y, backend)


@pytest.mark.parametrize("start", [np.float32([1, 0, -1, 2]), 0.0, 2, [[0.5, 0.5, 0, 1]]])
def test_the_first_token_is_broadcast(start: Any, backend: str) -> None:
    _, encoder, decoder = halves("gru", backend)
    x = numbers(3, 6, 3)
    token = np.array(np.broadcast_to(np.asarray(start, "float32"), (3, 4)))
    expected = decode_by_hand(encoder, decoder, x, token[:, None], 5)
    agree(npylstm.decode(encoder, decoder, x, start, 5), expected, backend)


@pytest.mark.parametrize("pinned", [1, 24])
def test_pinned_steps_do_not_matter_to_the_cut_decoder(pinned: int, backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    _, _, from_pinned = halves("lstm", backend, steps=(6, pinned))
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    agree(npylstm.decode(encoder, from_pinned, x, start, 5), expected, backend)


def test_a_decoder_may_take_one_step_at_a_time(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    inputs = (TensorSpec("d", ("batch", 1, 4)), *decoder.inputs[1:])
    pinned = Model(replace(decoder.spec, inputs=inputs), backend)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    agree(npylstm.decode(encoder, pinned, x, start, 5), expected, backend)


def test_a_function_stands_between_the_steps(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)

    def feed(y: Any) -> Any:
        return 1 - y

    expected = decode_by_hand(encoder, decoder, x, start[:, None], 7, feed)
    agree(npylstm.decode(encoder, decoder, x, start, 7, feed=feed), expected, backend)


def test_the_function_between_may_write_where_it_reads(backend: str) -> None:
    def in_place(y: Any) -> Any:
        y *= 0.5
        return y

    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 7, feed=lambda y: 0.5 * y)
    agree(npylstm.decode(encoder, decoder, x, start, 7, feed=in_place), expected, backend)


def one_hot(y: Any) -> Any:
    return np.eye(y.shape[1], dtype=y.dtype)[y.argmax(-1)]


def test_argmax_as_one_hot(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(5, 6, 3), np.eye(4, dtype="float32")[0]
    token = np.repeat(start[None, None], 5, 0)
    expected = decode_by_hand(encoder, decoder, x, token, 9, one_hot)
    y = npylstm.decode(encoder, decoder, x, start, 9, feed="argmax")
    agree(y, expected, backend)
    assert not np.allclose(y, npylstm.decode(encoder, decoder, x, start, 9))


def translator(
    backend: str, steps: Any = "steps", dtype: str = "float32", whole: bool = True
) -> tuple[Model, Model]:
    """Ids in, probabilities of seven ids out."""
    encoder = graph(
        {"x": ("batch", "steps")}, ("enc/h", "enc/c"), ("table", Embedding(7, 5), "x"),
        ("enc", LSTM(5, 8, return_state=True), "table"), dtype=dtype,
    )  # fmt: skip
    decoder = graph(
        {"d": ("batch", steps), "h": ("batch", 8), "c": ("batch", 8)},
        ("dense", "dec/h", "dec/c"), ("table", Embedding(7, 5), "d"),
        ("dec", LSTM(5, 8, return_state=True, return_sequences=True), "table", "h", "c"),
        ("scale", Arithmetic("multiply", 6.0), "dec"), ("dense", Dense(8, 7, SOFTMAX), "scale"),
        dtype=dtype,
    )  # fmt: skip
    inputs = (TensorSpec("d", ("batch", steps), whole), *decoder.inputs[1:])
    return Model(encoder, backend), Model(replace(decoder, inputs=inputs), backend)


IDS = np.random.default_rng(2).integers(0, 7, (6, 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", ["steps", 1])
@pytest.mark.parametrize("start", [3, [3] * 6, [0, 1, 2, 3, 4, 5], np.int64(3), 3.0])
def test_argmax_as_ids(start: Any, steps: Any, dtype: str, backend: str) -> None:
    encoder, decoder = translator(backend, steps, dtype)
    token = np.broadcast_to(start, 6)[:, None]
    expected = decode_by_hand(encoder, decoder, IDS, token, 12, lambda y: y.argmax(-1))
    y = npylstm.decode(encoder, decoder, IDS, start, 12, feed="argmax")
    agree(y, expected, backend)
    np.testing.assert_array_equal(y.argmax(-1), expected.argmax(-1))
    assert len({tuple(row) for row in y.argmax(-1)}) > 1  # the rows do not all say the same


@pytest.mark.parametrize("steps", ["steps", 1])
def test_ids_may_come_as_any_numbers(steps: Any, backend: str) -> None:
    encoder, decoder = translator(backend, steps)
    _, undeclared = translator(backend, steps, whole=False)
    expected = npylstm.decode(encoder, decoder, IDS, 3, 6, feed="argmax")
    agree(npylstm.decode(encoder, undeclared, IDS, 3, 6, feed="argmax"), expected, backend)


def test_a_function_samples_ids(backend: str) -> None:
    encoder, decoder = translator(backend)

    def least(y: Any) -> Any:
        return y.argmin(-1)

    expected = decode_by_hand(encoder, decoder, IDS, np.full((6, 1), 2), 8, least)
    agree(npylstm.decode(encoder, decoder, IDS, 2, 8, feed=least), expected, backend)


@pytest.mark.parametrize("index", range(7))
def test_decoding_stops_where_every_row_has_stopped(index: int, backend: str) -> None:
    encoder, decoder = translator(backend)
    for rows in (IDS, IDS[:1], IDS[2:4]):
        whole = npylstm.decode(encoder, decoder, rows, 3, 15, feed="argmax")
        seen = np.cumsum(whole.argmax(-1) == index, 1) > 0
        done = np.flatnonzero(seen.all(0))
        length = int(done[0]) + 1 if done.size else 15
        y = npylstm.decode(encoder, decoder, rows, 3, 15, feed="argmax", stop=index)
        agree(y, whole[:, :length], backend)


def test_some_rows_stop_early_and_some_never() -> None:
    """Or the test above would prove little."""
    encoder, decoder = translator("numpy")
    lengths = {
        npylstm.decode(encoder, decoder, IDS[r : r + 1], 3, 15, feed="argmax", stop=k).shape[1]
        for k in range(7)
        for r in range(6)
    }
    assert 15 in lengths
    assert len(lengths) > 2


def contextual(backend: str) -> tuple[Model, Model]:
    """A decoder that reads a context which stays and states which move."""
    encoder = graph(
        {"x": ("batch", "steps", 3)}, ("extra", "enc", "enc/h", "enc/c"),
        ("enc", LSTM(3, 8, return_state=True), "x"), ("extra", Dense(8, 2), "enc"),
    )  # fmt: skip
    decoder = graph(
        {"d": ("batch", "steps", 4), "k": ("batch", 8), "h": ("batch", 8), "c": ("batch", 8)},
        ("out", "dec/h", "dec/c"),
        ("dec", LSTM(4, 8, return_state=True), "d", "h", "c"), ("join", Concatenate(1), "dec", "k"),
        ("out", Dense(16, 4), "join"),
    )  # fmt: skip
    return Model(encoder, backend), Model(decoder, backend)


def test_further_outputs_of_the_encoder_are_counted_from_the_end(backend: str) -> None:
    encoder, decoder = contextual(backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = decode_by_hand(encoder, decoder, x, start[:, None], 8)
    agree(npylstm.decode(encoder, decoder, x, start, 8), expected, backend)


def test_an_encoder_may_have_several_inputs(backend: str) -> None:
    encoder = graph(
        {"x": ("batch", "steps", 3), "v": ("batch", 8)}, ("sum",),
        ("enc", GRU(3, 8), "x"), ("sum", Arithmetic("add"), "enc", "v"),
    )  # fmt: skip
    _, _, decoder = halves("gru", backend)
    x, v, start = numbers(2, 6, 3), numbers(2, 8), numbers(2, 4)
    model = Model(encoder, backend)
    expected = decode_by_hand(model, decoder, [x, v], start[:, None], 8)
    agree(npylstm.decode(model, decoder, [x, v], start, 8), expected, backend)
    agree(npylstm.decode(model, decoder, {"v": v, "x": x}, start, 8), expected, backend)


def test_states_are_joined_by_name() -> None:
    """In whatever order encoder and decoder give them, also with more between them."""
    _, encoder, decoder = halves("lstm")
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    for names in (("enc/c", "enc/h"), ("enc/h", "enc/c", "enc"), ("enc/c", "enc", "enc/h")):
        turned = with_outputs(encoder, *names)
        agree(npylstm.decode(turned, decoder, x, start, 5), expected, "numpy")
    turned = with_outputs(decoder, "dense", "dec/c", "dec/h")
    agree(npylstm.decode(encoder, turned, x, start, 5), expected, "numpy")


def test_states_of_other_names_are_not_exchanged() -> None:
    """An encoder from another file: by place, unless that makes a c of an h."""
    _, encoder, decoder = halves("lstm")
    edges = tuple(
        Edge(e.layer, tuple(t.replace("enc", "s") for t in e.inputs), e.outputs)
        for e in decoder.spec.edges
    )
    inputs = tuple(replace(t, name=t.name.replace("enc", "s")) for t in decoder.spec.inputs)
    other = Model(replace(decoder.spec, inputs=inputs, edges=edges), "numpy")
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    for names in (("enc/h", "enc/c"), ("enc/c", "enc/h")):
        agree(npylstm.decode(with_outputs(encoder, *names), other, x, start, 5), expected, "numpy")
    half = Model(replace(other.spec, outputs=("dense", "dec/h")), "numpy")
    agree(npylstm.decode(encoder, half, x, start, 1), expected[:, :1], "numpy")


def test_states_of_two_layers_are_not_exchanged() -> None:
    def stack(ends: tuple[str, ...], first: str, *states: str) -> Model:
        options: Any = {"return_sequences": True, "return_state": True}
        names = {first: ("batch", "steps", 4), **dict.fromkeys(states, ("batch", 4))}
        calls = [(f"{first}1", LSTM(4, 4, **options), first, *states[:2]),
                 (f"{first}2", LSTM(4, 4, **options), f"{first}1", *states[2:])]  # fmt: skip
        return Model(graph(names, ends, *calls), "numpy")

    ends = ("x1/h", "x1/c", "x2/h", "x2/c")
    decoder = stack(("d2", "d1/c", "d2/c", "d2/h", "d1/h"), "d", "s1", "s2", "s3", "s4")
    ordered = with_outputs(decoder, "d2", "d1/h", "d1/c", "d2/h", "d2/c")
    x, start = numbers(2, 6, 4), numbers(2, 4)
    encoder = stack(ends, "x")
    expected = decode_by_hand(encoder, ordered, x, start[:, None], 5)
    agree(npylstm.decode(encoder, decoder, x, start, 5), expected, "numpy")
    turned = with_outputs(encoder, "x1/c", "x1/h", "x2/h", "x2/c")
    with pytest.raises(ShapeError, match=r"'x1/c'.*'s1' \(the initial h of 'd1'\).*x1/h for s2"):
        npylstm.decode(turned, decoder, x, start, 5)


def with_outputs(model: Model, *names: str) -> Model:
    return Model(replace(model.spec, outputs=names), model.backend)


X3, START = np.zeros((2, 6, 3)), np.zeros((2, 4))


@pytest.mark.parametrize(
    ("encoder_outputs", "decoder_outputs", "x", "start", "options"),
    [
        (("enc/h",), None, X3, START, {}),
        (None, ("dense", "dec/h", "dec/c", "dec"), X3, START, {}),
        (("enc", "enc/c"), ("dec/h", "dense"), X3, START, {}),
        (None, None, X3[:, :, :2], START, {}),
        (None, None, X3, np.zeros((3, 4)), {}),
        (None, None, X3, np.zeros((2, 5)), {}),
        (None, None, X3, START, {"steps": -1}),
        (None, None, X3, START, {"feed": "softmax"}),
        (None, None, X3, START, {"feed": lambda y: y[:, :3]}),
        (None, None, X3, START, {"feed": lambda y: y[:1]}),
        (None, None, X3, START, {"stop": 1}),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_decoder_is_refused(
    encoder_outputs: Any, decoder_outputs: Any, x: Any, start: Any, options: Any, backend: str
) -> None:
    _, encoder, decoder = halves("lstm", backend)
    if encoder_outputs:
        encoder = with_outputs(encoder, *encoder_outputs)
    if decoder_outputs:
        decoder = with_outputs(decoder, *decoder_outputs)
    options = {"steps": 3, **options}
    with pytest.raises(NpylstmError):
        npylstm.decode(encoder, decoder, x, start, **options)


def test_ids_cannot_be_had_from_features_of_another_size(backend: str) -> None:
    """Five features in, four out: neither ids nor one-hot."""
    decoder = graph(
        {"d": ("batch", "steps", 5), "h": ("batch", 8)}, ("dense", "dec/h"),
        ("dec", GRU(5, 8, return_state=True), "d", "h"), ("dense", Dense(8, 4), "dec"),
    )  # fmt: skip
    _, encoder, _ = halves("gru", backend)
    decoder = Model(decoder, backend)
    for feed in ("argmax", None):
        with pytest.raises(NpylstmError, match="5"):
            npylstm.decode(encoder, decoder, X3, np.zeros((2, 5)), 3, feed=feed)
