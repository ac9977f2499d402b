"""What the tests of Keras hold one model against another for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import BACKENDS, FRAMEWORKS, assert_parity, flat, refused, run
from keras_own_suite import (
    EXACT,
    IDS,
    MASKING,
    PAD,
    SEQUENCES,
    Make,
    assert_case,
    assert_near,
    begun,
    cell,
    chained,
    fixed,
    frameworks,
    functional,
    heads_of,
    known,
    layer,
    marks,
    masked_heads,
    pair,
    plain,
    reset,
    rnn,
    sequential,
    summing,
    timed,
    weighted,
)

from npylstm import Model, ShapeError, UnsupportedError

# Keras says so where a layer lets a mask go, where there is one value to attend to, and of an
# option that has another successor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed .rms_scaling=True., which is deprecated"),
]
cells = pytest.mark.parametrize("class_name", ["LSTM", "GRU", "SimpleRNN"])


# What the suites hold one model against another for.


def ours(model: Any, *xs: np.ndarray, **options: Any) -> Iterable[list[np.ndarray]]:
    """What npylstm makes of a model, in either back end, after parity with the framework."""
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, run(model, list(xs)))])
    for backend in BACKENDS:
        yield flat(Model(spec, backend).predict(list(xs) if len(xs) > 1 else xs[0], **options))


def noise(*shape: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype("float32")


MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
}


@pytest.mark.parametrize("options", [{"return_sequences": True}, {"return_state": True}], ids=str)
@pytest.mark.parametrize("mode", MERGES)
@frameworks
def test_a_pair_merges_what_its_halves_give(
    framework: str, mode: str, options: dict[str, bool]
) -> None:
    k, x = FRAMEWORKS[framework], noise(2, 3, 5)
    apart, merged = (
        functional(plain(pair(layer("LSTM", 3, **options), merge_mode=m)), (3, 5))(k)
        for m in (None, mode)
    )
    merged.set_weights(weighted(apart).get_weights())
    for (a, b, *states), (y, *same) in zip(ours(apart, x), ours(merged, x), strict=True):
        assert_near(y, MERGES[mode](a, b))
        assert len(same) == len(states) == (4 if "return_state" in options else 0)
        assert_near(same, states)


@frameworks
def test_the_last_output_of_a_masked_pair_is_its_states(framework: str) -> None:
    x = noise(2, 3, 5)
    x[0, 2] = 0
    call = plain(pair(layer("LSTM", 3, return_state=True)), masked=True)
    model = weighted(functional(call, (3, 5))(FRAMEWORKS[framework]))
    for y, forward, _, backward, _ in ours(model, x):
        np.testing.assert_array_equal(y, np.concatenate([forward, backward], axis=1))


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
@frameworks
def test_what_a_pair_puts_out_at_masked_steps(framework: str, class_name: str) -> None:
    x = noise(2, 3, 5)
    x[0, 2] = 0
    model = sequential(MASKING, pair(layer(class_name, 3, **SEQUENCES)), shape=(3, 5))
    for (y,) in ours(weighted(model(FRAMEWORKS[framework])), x):
        assert y[0, :2].all()
        assert y[1].all()
        np.testing.assert_array_equal(y[0, 2], 0)


@cells
@frameworks
def test_padding_in_front_behind_and_between_is_the_same(framework: str, class_name: str) -> None:
    k = FRAMEWORKS[framework]
    model = k.Sequential([
        k.Input(batch_shape=(2, 3)), k.layers.Embedding(4, 4, mask_zero=True),
        getattr(k.layers, class_name)(2, stateful=True),
    ])  # fmt: skip
    weighted(model)
    left, right = [[0, 1, 1], [0, 0, 1]], [[1, 1, 0], [1, 0, 0]]
    between, full = [[1, 0, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]
    theirs = []
    for ids in (left, right, between, full):
        reset(model)
        theirs.append(run(model, [np.array(ids, "float32")])[0])
    again = run(model, [np.array(full, "float32")])[0]
    spec = nc.from_keras(model)
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        ys = [loaded.predict(np.array(ids, "float32")) for ids in (left, right, between)]
        assert all(np.array_equal(ys[0], y) for y in ys)
        for y, other in zip(ys, theirs, strict=False):
            assert_near(y, other)
        y, state = loaded.predict(np.array(full), return_state=True)
        assert_near(y, theirs[3])
        second = loaded.predict(np.array(full), state=state)
        assert_near(second, again)
        assert np.abs(second - y).max() > 1e-3  # the state went on


@cells
@frameworks
def test_a_masked_end_is_as_if_it_were_cut_off(framework: str, class_name: str) -> None:
    # Backwards, what is masked comes first.
    x = np.random.default_rng(5).normal(size=(8, 7, 4)).astype("float32")
    mask = np.arange(7) < np.full((8, 1), 5)
    options = {"go_backwards": True, **SEQUENCES}
    model = weighted(
        sequential(layer(class_name, 4, **options), shape=(None, 4))(FRAMEWORKS[framework])
    )
    spec = nc.from_keras(model)
    assert_parity(spec, [([x[:, :5]], run(model, [x[:, :5]]))])
    theirs = np.array(model.layers[-1](x, mask=keras.ops.convert_to_tensor(mask)))
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        y = loaded.predict(x, mask=mask)
        assert_near(y, theirs)
        np.testing.assert_array_equal(y, loaded.predict(x, lengths=np.full(8, 5)))
        assert_near(y[:, -5:], loaded.predict(x[:, :5]))


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
@frameworks
def test_lengths_are_as_if_each_row_ran_alone(framework: str, class_name: str) -> None:
    steps = 20
    ids = np.random.default_rng(0).integers(0, 100, (steps, steps)).astype("int32")
    k = FRAMEWORKS[framework]
    inner = layer(class_name, 32, **SEQUENCES)
    built = weighted(sequential(layer("Embedding", 100, 32), inner, shape=(None,), **IDS)(k))
    spec = nc.from_keras(built)
    assert_parity(spec, [([ids], run(built, [ids]))])
    lengths = np.arange(1, steps + 1)
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        y = loaded.predict(ids, lengths=lengths)
        for row, length in zip(range(steps), lengths, strict=True):
            assert_near(y[row, :length], loaded.predict(ids[row : row + 1, :length])[0])


@cells
@frameworks
def test_a_row_in_which_nothing_counts(framework: str, class_name: str) -> None:
    ids = np.random.default_rng(6).integers(0, 20, (8, 5)).astype("int32")
    ids[0] = 0
    words = layer("Embedding", 20, 4, mask_zero=True)
    model = sequential(words, layer(class_name, 2), shape=(5,), **IDS)
    for (y,) in ours(weighted(model(FRAMEWORKS[framework])), ids):
        assert not y[0].any()
        assert y[1:].all()


@pytest.mark.parametrize("unroll", [True, False])
@frameworks
def test_zeros_at_masked_steps_and_nothing_else_changed(framework: str, unroll: bool) -> None:
    inner = rnn(layer("SimpleRNNCell", 5), zero_output_for_mask=True, unroll=unroll, **SEQUENCES)
    model = weighted(sequential(MASKING, inner, shape=(5, 5))(FRAMEWORKS[framework]))
    full = np.ones((6, 5, 5), "float32")
    cut = full.copy()
    cut[5, 3:] = 0
    for (whole,), (y,) in zip(ours(model, full), ours(model, cut), strict=True):
        assert whole[5, 3:].all()
        np.testing.assert_array_equal(y[5, 3:], 0)
        np.testing.assert_array_equal(y[5, :3], whole[5, :3])
        np.testing.assert_array_equal(y[:5], whole[:5])


@cells
@pytest.mark.parametrize("go_backwards", [False, True])
def test_time_first_is_the_same_turned(class_name: str, go_backwards: bool) -> None:
    x = noise(6, 4, 10)
    options = {"go_backwards": go_backwards, **SEQUENCES}
    batch_first, time_first = (
        fixed(plain(layer(class_name, 8, time_major=major, **options)), shape)(tf_keras)
        for major, shape in ((False, (6, 4, 10)), (True, (4, 6, 10)))
    )
    time_first.set_weights(weighted(batch_first).get_weights())
    turned = np.ascontiguousarray(np.swapaxes(x, 0, 1))
    for (a,), (b,) in zip(ours(batch_first, x), ours(time_first, turned), strict=True):
        assert_near(np.swapaxes(b, 0, 1), a)


def test_a_pair_with_time_first_and_masks() -> None:
    # A cell that adds one: lengths 1 and 2 of 3.
    one = {"activation": "linear", **SEQUENCES}
    for time_major in (False, True):
        made = pair(
            cell("SimpleRNN", 1, (1.0, 0.0, 1.0), time_major=time_major, **one),
            cell("SimpleRNN", 1, (1.0, 0.0, 1.0), time_major=time_major, go_backwards=True, **one),
        )
        x = np.where(marks("100", "110")[..., None], np.float32(0), np.float32(PAD))
        x = np.swapaxes(x, 0, 1) if time_major else x
        y = np.array([[[1, 1], [0, 0], [0, 0]], [[1, 1], [1, 1], [0, 0]]], "float64")
        y = np.swapaxes(y, 0, 1) if time_major else y
        model = fixed(plain(chained(layer("Masking", PAD), made)), x.shape)(tf_keras)
        assert_case(model, [x], known(made, x, y, atol=EXACT))


@cells
def test_states_set_by_hand(class_name: str) -> None:
    # reset_states(values) of tf_keras.
    model = weighted(fixed(plain(layer(class_name, 3, stateful=True)), (2, 3, 4))(tf_keras))
    x, ones = noise(2, 3, 4), np.ones((2, 3), "float32")
    made = model.layers[-1]
    made.reset_states([ones] * len(made.states) if len(made.states) > 1 else ones)
    (theirs,) = run(model, [x])
    for backend in BACKENDS:
        session = Model(nc.from_keras(model), backend).session(2)
        assert all(not a.any() for arrays in session.state.values() for a in arrays.values())
        session.state = {e: dict.fromkeys(arrays, ones) for e, arrays in session.state.items()}
        assert_near(session.push(x), theirs)
        session.reset()
        assert np.abs(session.push(x) - theirs).max() > 1e-3


@pytest.mark.parametrize("stateful", [False, True])
@frameworks
def test_a_state_of_constants_is_refused(framework: str, stateful: bool) -> None:
    k = FRAMEWORKS[framework]
    inputs = k.Input(batch_shape=(12, None, 8))
    gru = k.layers.GRU(16, return_sequences=True, stateful=stateful)
    model = k.Model(inputs, gru(inputs, initial_state=keras.ops.ones((12, 16))))
    assert any("is called with" in reason for reason in refused(model))


@pytest.mark.parametrize("wrapped", [False, True])
@frameworks
def test_stateful_layers_that_get_a_state(framework: str, wrapped: bool) -> None:
    # tf_keras goes on from the last call, whatever it is given; Keras 3 takes what it is given. A
    # call of npylstm's knows nothing of the last one, and what goes on is refused.
    make = layer("SimpleRNN", 1, stateful=True)
    shapes = [(1, 1)] * (2 if wrapped else 1)
    model = fixed(begun(pair(make) if wrapped else make), (1, 1, 1), *shapes)(FRAMEWORKS[framework])
    weighted(model)
    xs = [np.ones((1, 1, 1), "float32"), *[np.ones((1, 1), "float32")] * len(shapes)]
    first, second = run(model, xs), run(model, xs)
    reset(model)
    assert_near(run(model, xs), first)
    assert (np.abs(first[0] - second[0]).max() > 1e-3) == (framework == "tf_keras")
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, first)])
    for backend in BACKENDS:
        with pytest.raises(UnsupportedError, match="cannot run on a stream"):
            Model(spec, backend).session(1)


@frameworks
def test_a_stateful_model_does_not_change_its_batch(framework: str) -> None:
    model = fixed(plain(rnn(summing(2), stateful=True)), (4, 5, 3))(FRAMEWORKS[framework])
    for backend in BACKENDS:
        session = Model(nc.from_keras(model), backend).session(4)
        session.push(noise(4, 5, 3))
        with pytest.raises(ShapeError):
            session.push(noise(1, 5, 3))


@frameworks
def test_masks_at_each_step_change_what_comes_out(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = np.array([[[1, 1], [0, 1]], [[1, 0], [1, 1]], [[1, 0], [1, 1]]], "float32")[..., None]
    inner = timed(layer("LSTM", 4, **SEQUENCES))
    plain, masked = (
        sequential(*makes, shape=(2, 2, 1))(k) for makes in ((inner,), (MASKING, inner))
    )
    masked.set_weights(weighted(plain).get_weights())
    for (a,), (b,) in zip(ours(plain, x), ours(masked, x), strict=True):
        assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("use_causal_mask", [False, True])
@frameworks
def test_heads_take_masks_as_if_they_were_given(framework: str, use_causal_mask: bool) -> None:
    query = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 1, 2], [1, 0, 0, 0, 0]], "int32")
    value = np.array([[5, 4, 0], [3, 0, 0], [2, 1, 1]], "int32")
    mask = (query > 0)[:, :, None] & (value > 0)[:, None, :]
    if use_causal_mask:
        mask &= np.tril(np.ones((5, 3), bool))

    def explicit(k: Any) -> Any:
        q, v = k.Input((5,), dtype="int32"), k.Input((3,), dtype="int32")
        m = k.Input((5, 3))
        ys = [k.layers.Embedding(9, 8)(t) for t in (q, v)]
        return k.Model([q, v, m], heads_of(2, 2)(k)(*ys, attention_mask=m))

    k = FRAMEWORKS[framework]
    options = {"use_causal_mask": True} if use_causal_mask else {}
    implied, given = functional(masked_heads(**options), (5,), (3,), dtype="int32")(k), explicit(k)
    given.set_weights(weighted(implied).get_weights())
    pairs = zip(
        ours(implied, query, value), ours(given, query, value, mask.astype("float32")), strict=True
    )
    for (a,), (b,) in pairs:
        counts = mask.any(axis=-1)  # a query that sees nothing gets the mean of what is masked
        assert_near(a[counts], b[counts])


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (3,)), ((1, 2), (3, 3)), (1, (3, 2))], ids=["last", "both", "first"]
)
@frameworks
def test_unit_normalization(framework: str, axis: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(7).normal(size=(2, *shape)).astype("float32")
    model = sequential(layer("UnitNormalization", axis=axis), shape=shape)(FRAMEWORKS[framework])
    for (y,) in ours(model, x):
        squares = (y**2).sum(axis=axis)
        np.testing.assert_allclose(squares, np.ones_like(squares), atol=1e-6, rtol=0)


# Cells and wrappers of the suites' own: code, which npylstm has not got.


@keras.saving.register_keras_serializable("own_suite")
class OneState(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight((shape[-1], self.units), "ones")

    def call(self, x: Any, states: Sequence[Any]) -> Any:
        y = keras.ops.matmul(x, self.kernel) + states[0]
        return y, [y]


@keras.saving.register_keras_serializable("own_suite")
class MaskedDense(keras.layers.Dense):  # type: ignore[misc]
    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        y = super().call(x)
        return y if mask is None else y * keras.ops.cast(mask, y.dtype)[..., None]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (rnn(lambda k: OneState(2)), "OneState"),
        (rnn(lambda k: OneState(2), return_state=True, return_sequences=True), "OneState"),
        (pair(rnn(lambda k: OneState(2))), "OneState"),
        (timed(lambda k: MaskedDense(1)), "MaskedDense"),
    ],
)  # fmt: skip
def test_cells_of_ones_own_are_refused_by_name(make: Make, reason: str) -> None:
    assert any(reason in line for line in refused(functional(plain(make), (3, 4))(keras)))
