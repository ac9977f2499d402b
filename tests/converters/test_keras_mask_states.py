"""Keras' masks: states that are given, pairs of directions, and sessions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, run
from keras_masks import (
    BATCH,
    CELLS,
    FEATURES,
    MASK,
    STEPS,
    Quick,
    assert_close,
    assert_parity,
    assert_parity_in_all_ways,
    bare,
    cells,
    convert,
    frameworks,
    ids,
    make_cell,
    masked_input,
    padded,
    randomise,
)

from npylstm import Model, ShapeError, UnsupportedError

# Keras says so where a layer lets a mask go; that it does is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


# States that are given.


@cells
@frameworks
def test_a_given_state(framework: str, cell: str, tmp_path: Path) -> None:
    # Keras 3 passes over the mask then, Keras 2 obeys it.
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    count = 2 if cell == "lstm" else 1
    states = [k.Input((4,), name=f"state_{n}") for n in range(count)]
    options = {"return_sequences": True, "return_state": True}
    made = make_cell(k, cell, name="given", **options)(y, initial_state=states)
    plain = make_cell(k, cell, name="plain", return_sequences=True)(y)
    after = make_cell(k, cell, name="after")(made[0])
    model = randomise(k.Model([x, *states], [*made, plain, after]))
    rng = np.random.default_rng(4)
    begins = [rng.normal(size=(BATCH, 4)).astype("float32") for _ in states]
    ys = assert_parity_in_all_ways(framework, tmp_path, model, padded(), *begins)
    stands = np.array_equal(ys[1][6], begins[0][6])
    assert stands == (framework == "tf_keras")


@frameworks
def test_an_encoders_state_goes_on(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    a, b = (k.Input((None,), name=name) for name in "ab")
    embedding = L.Embedding(9, 5, mask_zero=True, name="shared")
    _, *state = L.LSTM(4, return_state=True, name="encoder")(embedding(a))
    y = L.LSTM(4, return_sequences=True, name="decoder")(embedding(b), initial_state=state)
    model = randomise(k.Model([a, b], L.Dense(3, activation="softmax", name="words")(y)))
    data = ids().astype("float32"), ids(MASK[::-1], seed=5).astype("float32")
    assert_parity(convert(model, "keras", tmp_path), model, *data)


# Pairs.


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@frameworks
def test_pairs(framework: str, merge_mode: str | None, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    outputs = []
    for cell in CELLS if merge_mode == "concat" else ("rnn",):
        for sequences in (False, True):
            inner = make_cell(k, cell, return_sequences=sequences)
            made = L.Bidirectional(inner, merge_mode=merge_mode, name=f"{cell}_{sequences}")(y)
            outputs += flat_tensors(made)
    model = randomise(k.Model(x, outputs))
    ys = assert_parity(convert(model, "keras", tmp_path), model, padded())
    assert not ys[0][6].any()
    assert not ys[-1][~MASK].any()


def flat_tensors(made: Any) -> list[Any]:
    return list(made) if isinstance(made, (list, tuple)) else [made]


@frameworks
def test_pairs_write_zeros_in_sequences(framework: str, tmp_path: Path) -> None:
    # Also where the layer inside was told otherwise, and where it is given a backward layer.
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    forward = L.LSTM(4, return_sequences=True)
    backward = L.LSTM(4, return_sequences=True, go_backwards=True)
    inner = L.GRU(3, return_sequences=True, zero_output_for_mask=False)
    made = [
        L.Bidirectional(forward, backward_layer=backward, name="own")(y),
        L.Bidirectional(inner, name="told")(y),
    ]
    model = randomise(k.Model(x, made))
    for values in assert_parity_in_all_ways(framework, tmp_path, model, padded()):
        assert not values[~MASK].any()
        assert values[MASK].all()


@frameworks
def test_pairs_with_states(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    made = L.Bidirectional(L.LSTM(4, return_state=True, return_sequences=True), name="pair")(y)
    state = L.Bidirectional(L.GRU(3, return_state=True), merge_mode="sum", name="last")(y)
    again = L.Bidirectional(L.LSTM(4, return_sequences=True), name="again")(
        made[0], initial_state=list(made[1:])
    )
    model = randomise(k.Model(x, [*made, *state, again]))
    assert_parity(convert(model, "keras", tmp_path), model, padded())


@frameworks
def test_a_pair_hands_its_mask_on(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    outputs = []
    for mode in ("concat", "sum", "mul", "ave"):
        pair = L.Bidirectional(L.SimpleRNN(4, return_sequences=True), merge_mode=mode)(y)
        outputs.append(L.SimpleRNN(3, return_sequences=True)(L.Dense(4)(pair)))
    model = randomise(k.Model(x, outputs))
    assert_parity(nc.from_keras(model), model, padded())


@frameworks
def test_a_pair_left_apart_hands_its_mask_on_twice(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    apart = L.Bidirectional(L.GRU(4, return_sequences=True), merge_mode=None)(y)
    model = k.Model(x, [L.LSTM(3, return_sequences=True)(half) for half in apart])
    assert_parity(nc.from_keras(randomise(model)), model, padded())


# States.


@cells
@frameworks
def test_states_after_masked_steps(framework: str, cell: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    made = make_cell(k, cell, name="cell", return_sequences=True, return_state=True)(y)
    model = randomise(k.Model(x, list(made)))
    theirs = run(model, [padded()])
    spec = nc.from_keras(model)
    for backend in BACKENDS:
        ours, state = Model(spec, backend).predict(padded(), return_state=True)
        for name, array in zip(spec.outputs, theirs, strict=True):
            assert_close(ours[name], array)
        for name, array in zip(state["cell"], theirs[1:], strict=True):
            assert_close(state["cell"][name], array)
            assert not state["cell"][name][6].any()


@cells
@frameworks
def test_a_given_state_is_carried_where_nothing_counts(framework: str, cell: str) -> None:
    model, spec = bare(framework, cell, "sequences")
    layer = model.layers[-1]
    (entry,) = spec.state_shapes()
    rng = np.random.default_rng(4)
    state = {n: rng.normal(size=(BATCH, *s)).astype("f4") for n, s in spec.state_shapes()[entry].items()}  # fmt: skip
    x = padded(5.0)
    as_tensor = keras.ops.convert_to_tensor
    theirs = np.array(layer(x, mask=as_tensor(MASK), initial_state=[as_tensor(a) for a in state.values()]))  # fmt: skip
    for backend in BACKENDS:
        ours, after = Model(spec, backend).predict(x, mask=MASK, state={entry: state}, return_state=True)  # fmt: skip
        assert_close(ours, theirs)
        for name, array in state.items():
            np.testing.assert_array_equal(after[entry][name][6], array[6])
            assert not np.array_equal(after[entry][name][5], array[5])


@cells
@frameworks
def test_a_sequence_cut_in_two(framework: str, cell: str) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Masking(), make_cell(k, cell)]
    spec = nc.from_keras(randomise(k.Sequential([k.Input((None, FEATURES)), *layers])))
    for backend in BACKENDS:
        model = Model(spec, backend)
        x = padded()
        whole, end = model.predict(x, return_state=True)
        _, middle = model.predict(x[:, :4], return_state=True)
        # The output of the second part begins at zero, the state does not.
        _, after = model.predict(x[:, 4:], state=middle, return_state=True)
        for entry, arrays in end.items():
            for name, array in arrays.items():
                assert_close(after[entry][name], array)
        assert np.abs(whole - model.predict(x[:, 4:])).max() > 1e-3


# Streams.


def streams(k: Any) -> dict[str, list[Any]]:
    L = Quick(k)
    return {
        "masking": [L.Masking(), L.LSTM(4, return_sequences=True)],
        "zeros": [L.Masking(), L.GRU(4, return_sequences=True, zero_output_for_mask=True)],
        "stack": [L.Masking(), L.LSTM(4, return_sequences=True), L.Dense(3), L.LayerNormalization(), L.SimpleRNN(4, return_sequences=True)],
        "last": [L.Masking(), L.LSTM(4, return_sequences=True), L.GRU(3)],
    }  # fmt: skip


@pytest.mark.parametrize("kind", streams(keras))
@frameworks
def test_sessions_push_as_one(framework: str, kind: str) -> None:
    k = FRAMEWORKS[framework]
    built = randomise(k.Sequential([k.Input((None, FEATURES)), *streams(k)[kind]]))
    for backend in BACKENDS:
        model = Model(nc.from_keras(built), backend)
        if kind != "zeros":  # what came out before is not part of the state
            with pytest.raises(UnsupportedError, match="repeats its last output at masked steps"):
                model.session(BATCH)
            continue
        x = padded()
        (theirs,) = run(built, [x])
        for cuts in ([0, 7], [0, 3, 7], [0, 1, 2, 6, 7], list(range(8))):
            session = model.session(BATCH)
            parts = [session.push(x[:, a:b]) for a, b in itertools.pairwise(cuts)]
            y = parts[-1] if kind == "last" else np.concatenate(parts, axis=1)
            assert_close(y, theirs)
        session = model.session(BATCH)
        steps = [session.step(np.ascontiguousarray(x[:, t])) for t in range(STEPS)]
        assert_close(steps[-1] if kind == "last" else np.stack(steps, axis=1), theirs)


@frameworks
def test_sessions_of_embeddings(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    options = {"return_sequences": True, "zero_output_for_mask": True}
    layers = [L.Embedding(9, 5, mask_zero=True), L.LSTM(4, **options), L.GRU(3, **options)]
    built = randomise(k.Sequential([k.Input((None,)), *layers]))
    x = ids().astype("float32")
    for backend in BACKENDS:
        session = Model(nc.from_keras(built), backend).session(BATCH)
        parts = [session.push(x[:, a:b]) for a, b in ((0, 2), (2, 3), (3, 7))]
        assert_close(np.concatenate(parts, axis=1), run(built, [x])[0])


def test_a_session_carries_state_over_masked_pushes() -> None:
    L = keras.layers
    layers = [L.Masking(), L.LSTM(4, return_sequences=True, zero_output_for_mask=True)]
    built = randomise(keras.Sequential([keras.Input((None, FEATURES)), *layers]))
    for backend in BACKENDS:
        model = Model(nc.from_keras(built), backend)
        x = padded(mask=np.ones((2, 4), bool))
        gaps, plain = model.session(2), model.session(2)
        for part in np.split(x, 2, axis=1):
            first = gaps.push(part)
            still = gaps.push(np.zeros((2, 3, FEATURES)))
            np.testing.assert_array_equal(still, 0)
            np.testing.assert_array_equal(plain.push(part), first)
        for entry, arrays in plain.state.items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(gaps.state[entry][name], array)


def test_a_mask_of_its_own_is_not_given_another(backend: str) -> None:
    layers = [keras.layers.Masking(), keras.layers.LSTM(4, name="lstm")]
    model = Model(
        nc.from_keras(keras.Sequential([keras.Input((None, FEATURES)), *layers])), backend
    )
    for given in ({"mask": MASK}, {"lengths": np.full(BATCH, 3)}):
        with pytest.raises(ShapeError, match="lstm has a mask that the model makes"):
            model.predict(padded(), **given)
