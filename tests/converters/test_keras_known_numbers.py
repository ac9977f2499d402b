"""Recurrent layers give the numbers that the tests of Keras print."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from keras_graphs import BACKENDS, FRAMEWORKS, assert_parity, convert, flat, run
from keras_known_numbers import GIVEN_STATES, KNOWN, MASKED, TWICE
from keras_own_suite import PAD, Known, assert_case, assert_known, assert_near, reset, tensors

from npylstm import Model, UnsupportedError

# Keras says so where a layer lets a mask go, where there is one value to attend to, and of an
# option that has another successor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed .rms_scaling=True., which is deprecated"),
]


# Models of a row.


def build(
    framework: str, row: Known, *, masked: bool = False, given: bool = False
) -> tuple[Any, list[np.ndarray]]:
    """A model of the layer, and what goes in; ``given``: its states are inputs."""
    k = FRAMEWORKS[framework]
    shape = {"batch_shape": row.x.shape} if row.calls > 1 else {"shape": row.x.shape[1:]}
    inputs, xs = [k.Input(**shape, dtype=row.x.dtype.name)], [row.x]
    x = inputs[0]
    if masked:
        assert row.mask is not None
        xs = [np.where(row.mask[..., None], row.x, np.float32(PAD))]
        x = k.layers.Masking(PAD)(x)
    options = {}
    if given:
        inputs += [k.Input(a.shape[1:]) for a in row.state]
        xs += row.state
        options["initial_state"] = inputs[1:] if len(row.state) > 1 else inputs[1]
    ys = tensors(row.make(k)(x, **options))
    return k.Model(inputs if given else inputs[0], ys if len(ys) > 1 else ys[0]), xs


def over(rows: dict[str, Known]) -> pytest.MarkDecorator:
    """Every row in every framework that has it."""
    cases = [(f, name) for f in FRAMEWORKS for name, row in rows.items() if f in row.only]
    return pytest.mark.parametrize(("framework", "name"), cases)


# Printed numbers.


@over(KNOWN)
def test_known_numbers(framework: str, name: str) -> None:
    row = KNOWN[name]
    assert_case(*build(framework, row), row)


@over(GIVEN_STATES)
def test_known_numbers_from_a_given_state(framework: str, name: str) -> None:
    row = GIVEN_STATES[name]
    model, xs = build(framework, row, given=True)
    theirs = assert_case(model, xs, row)
    bare, _ = build(framework, row)
    spec = nc.from_keras(bare)
    ((entry, shapes),) = spec.state_shapes().items()
    state = {entry: dict(zip(shapes, row.state, strict=True))}
    for backend in BACKENDS:
        y = flat(Model(spec, backend).predict(row.x, state=state))
        assert_known(y, row)
        assert_near(y, theirs)


@over(MASKED)
def test_known_numbers_of_masked_steps(framework: str, name: str) -> None:
    row = MASKED[name]
    model, xs = build(framework, row, masked=True)
    theirs = assert_case(model, xs, row)
    bare, _ = build(framework, row)
    spec = nc.from_keras(bare)
    for backend in BACKENDS:
        y = flat(Model(spec, backend).predict(row.x, mask=row.mask))
        assert_known(y, row)
        assert_near(y, theirs)


@over(TWICE)
def test_known_numbers_of_a_second_call(framework: str, name: str) -> None:
    row = TWICE[name]
    model, xs = build(framework, row)
    first, second = run(model, xs), run(model, xs)
    assert_known(second, row)
    if framework in row.resets:
        reset(model)
        assert_near(run(model, xs), first)
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, first)])
    for backend in BACKENDS:
        ours = Model(spec, backend)
        y, state = ours.predict(row.x, return_state=True)
        assert_near(y, first)
        y = flat(ours.predict(row.x, state=state))
        assert_known(y, row)
        assert_near(y, second)
        if not row.streams:  # the backward half begins at the end
            with pytest.raises(UnsupportedError):
                ours.session(len(row.x))
            continue
        session = ours.session(len(row.x))
        for _ in range(2):
            assert_near(session.push(row.x), first)
            assert_known(flat(session.push(row.x)), row)
            session.reset()


FILED: list[tuple[dict[str, Known], str]] = [
    (KNOWN, "lstm last, implementation 2"),
    (KNOWN, "lstm no bias, implementation 1"),
    (KNOWN, "gru last"),
    (KNOWN, "gru reset before"),
    (KNOWN, "rnn backwards, unroll True"),
    (KNOWN, "sum sequences and state"),
    (KNOWN, "two states sequences and state"),
    (KNOWN, "stack of two states, return_sequences, return_state"),
    (KNOWN, "pair with states"),
    (KNOWN, "pair mul, backward layer"),
    (KNOWN, "dense at each step"),
    (GIVEN_STATES, "pair"),
    (GIVEN_STATES, "lstm backwards"),
    (MASKED, "lstm zeros"),
    (MASKED, "pair"),
    (TWICE, "gru"),
]

# Keras 3 itself cannot read a functional model with masks from HDF5.
FILES = [
    pytest.param(framework, way, rows, name, id=f"{framework}-{way}-{name}")
    for framework, way in itertools.product(FRAMEWORKS, ("keras", "h5", "json"))
    for rows, name in FILED
    if (framework, way) != ("keras3", "h5") or rows is not MASKED
]


@pytest.mark.parametrize(("framework", "way", "rows", "name"), FILES)
def test_known_numbers_from_files(
    framework: str, way: str, rows: dict[str, Known], name: str, tmp_path: Path
) -> None:
    row = rows[name]
    model, xs = build(framework, row, masked=rows is MASKED, given=rows is GIVEN_STATES)
    spec = convert(model, way, tmp_path)
    for backend in BACKENDS:
        ours = Model(spec, backend)
        x: Any = xs if len(xs) > 1 else xs[0]
        if rows is TWICE:
            _, state = ours.predict(x, return_state=True)
            assert_known(flat(ours.predict(x, state=state)), row)
        else:
            assert_known(flat(ours.predict(x)), row)
