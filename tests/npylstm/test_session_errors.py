"""Wrong inputs, states and masks of sessions are named and move nothing; NaN stays in its row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from session_models import DTYPES, GRAPHS, X, agree, chain, graph, numbers, same

from npylstm import Model, ModelSpec, NpylstmError, ShapeError, StateError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.dense import Embedding


def bad_outs() -> dict[str, Any]:
    read_only = np.zeros((2, 2), "float32")
    read_only.flags.writeable = False
    return {
        "another shape": np.zeros((2, 3), "float32"),
        "another type": np.zeros((2, 2), "float64"),
        "another order": np.zeros((2, 2), "float32", order="F"),
        "gaps": np.zeros((2, 4), "float32")[:, ::2],
        "read only": read_only,
        "a list": [[0.0, 0.0], [0.0, 0.0]],
    }


@pytest.mark.parametrize("kind", bad_outs())
def test_an_array_that_cannot_take_the_output_is_refused(kind: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 3, 3))
    before, out = session.state, bad_outs()[kind]
    kept = np.array(out)
    for call, x in ((session.step, numbers(2, 3)), (session.push, numbers(2, 4, 3))):
        with pytest.raises(NpylstmError, match="out"):
            call(x, out=out)
        same(session.state, before)
    np.testing.assert_array_equal(out, kept)


def test_out_is_for_one_output(backend: str) -> None:
    session = Model(GRAPHS["states"]("float32"), backend).session(2)
    for call, x in ((session.step, numbers(2, 3)), (session.push, numbers(2, 4, 3))):
        with pytest.raises(NpylstmError, match="out"):
            call(x, out=np.zeros((2, 4), "float32"))
    assert not session.state["rnn"]["h"].any()


# Errors, after which nothing has moved.

STATIC = GRAPHS["static"]
WRONG: dict[str, Any] = {
    "rows": np.zeros((3, 4, 3)),
    "features": np.zeros((2, 4, 5)),
    "no time axis": np.zeros((2, 3)),
    "no steps": np.zeros((2, 0, 3)),
    "complex": np.zeros((2, 4, 3), complex),
    "words": np.full((2, 4, 3), "a"),
    "ragged": [[[1, 2, 3]], [[1, 2]]],
    "none": None,
    "another name": {"y": np.zeros((2, 4, 3))},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs_are_named_and_move_nothing(wrong: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(ShapeError, match="^inputs: " if wrong == "another name" else "^x: "):
        session.push(WRONG[wrong])
    same(session.state, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 3)), r"^x: .*\(3, 3\)"),
        (np.zeros((2, 5)), r"^x: .*\(2, 5\)"),
        (np.zeros((2, 1, 3)), r"^x: .*\(2, 1, 3\)"),
        (np.zeros(3), r"^x: .*\(3,\)"),
        (np.zeros((2, 3), complex), "^x: expected real numbers, got complex128"),
        (np.full((2, 3), "a"), "^x: expected real numbers"),
        ([[1, 2, 3], [1, 2]], "^x: .*ragged"),
        ({"y": np.zeros((2, 3))}, "inputs: expected"),
    ],
)
def test_wrong_steps_are_named_and_move_nothing(wrong: Any, message: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(ShapeError, match=message):
        session.step(wrong)
    out = np.full((2, 2), 9, "float32")
    with pytest.raises(ShapeError, match=message):
        session.step(wrong, out=out)
    assert (out == 9).all()
    same(session.state, before)


@pytest.mark.parametrize(
    "wrong",
    [
        [np.zeros((2, 4, 3)), np.zeros((3, 2))],
        [np.zeros((3, 4, 3)), np.zeros((2, 2))],
        [np.zeros((3, 4, 3)), np.zeros((3, 2))],
        [np.zeros((2, 4, 3)), np.zeros((2, 4, 2))],
        [np.zeros((2, 4, 3))],
        {"x": np.zeros((2, 4, 3))},
        np.zeros((2, 4, 3)),
    ],
)
def test_several_wrong_inputs_move_nothing(wrong: Any, backend: str) -> None:
    session = Model(STATIC("float32"), backend).session(2)
    session.push([numbers(2, 5, 3), numbers(2, 2)])
    before = session.state
    with pytest.raises(ShapeError):
        session.push(wrong)
    same(session.state, before)


def late_error(whole: bool) -> ModelSpec:
    """A graph in which ids are looked up after the recurrent layer has computed."""
    spec = graph(
        {"x": X, "ids": ("batch", "steps")}, ("out",),
        ("rnn", LSTM(3, 4, return_sequences=True), "x"), ("table", Embedding(7, 4), "ids"),
        ("sum", Arithmetic("add"), "rnn", "table"), ("out", GRU(4, 2), "sum"),
    )  # fmt: skip
    return replace(spec, inputs=(spec.inputs[0], replace(spec.inputs[1], integer=whole)))


@pytest.mark.parametrize("whole", [False, True])
def test_inputs_that_share_their_steps_are_all_sequences(whole: bool, backend: str) -> None:
    model = Model(late_error(whole), backend)
    x, ids = numbers(2, 5, 3), np.array([[0, 1, 2, 3, 6]] * 2)
    session = model.session(2)
    for t in range(5):
        y = session.step([x[:, t], ids[:, t]])
    agree(y, model.predict([x, ids]), backend)


def test_an_error_in_the_middle_of_the_model_moves_nothing(backend: str) -> None:
    session = Model(late_error(whole=True), backend).session(2)
    x, ids = numbers(2, 5, 3), np.array([[0, 1, 2, 3, 6]] * 2)
    session.push([x, ids])
    before = session.state
    with pytest.raises(ShapeError, match="table: id 7"):
        session.push([x, ids + 1])
    with pytest.raises(ShapeError, match="table: id 7"):
        session.step([x[:, 0], np.array([0, 7])])
    same(session.state, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("layer_2"),
        lambda s: s.update(layer_9=s["layer_0"]),
        lambda s: s.update(layer_3={"h": np.zeros((2, 2))}),
        lambda s: s["layer_0"].pop("c"),
        lambda s: s["layer_1"].update(c=np.zeros((2, 9))),
        lambda s: s["layer_2"].update(h=np.zeros((3, 4))),
        lambda s: s["layer_2"].update(h=np.zeros(4)),
        lambda s: s["layer_2"].update(h=s["layer_1"]["h"]),
        lambda s: s["layer_2"].update(h=np.zeros((2, 4), complex)),
        lambda s: s["layer_2"].update(h="no"),
        lambda s: s.update(layer_2=3),
    ],
)
def test_wrong_states_are_refused_whole(change: Any, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before, wrong = session.state, session.state
    wrong["layer_0"]["h"] += 1  # right, but must not be taken over alone
    change(wrong)
    with pytest.raises(StateError, match="state"):
        session.state = wrong
    same(session.state, before)


@pytest.mark.parametrize(
    "where", [np.ones(3, bool), np.ones((2, 1), bool), [0, 1], [1.0, 0.0], 1, "no"]
)
def test_wrong_masks_are_refused(where: Any, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(NpylstmError, match="where"):
        session.reset(where=where)
    same(session.state, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"nan": "ignore"}, "nan.*'ignore'"),
    ],
)
def test_impossible_sessions_are_refused(options: Any, message: str, backend: str) -> None:
    with pytest.raises(NpylstmError, match=message):
        Model(chain("lstm"), backend).session(**options)


# NaN.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["stacked", "projection", "gru", "gru before", "rnn", "select"])
def test_nan_passes_and_stays_in_its_row(kind: str, dtype: str, backend: str) -> None:
    model = Model(chain(kind, dtype), backend)
    x = numbers(6, 9, 3, dtype=dtype)
    clean, session = model.session(6), model.session(6)
    broken = x.copy()
    broken[2, 4, 1] = np.nan
    others = np.arange(6) != 2
    y, expected = session.push(broken), clean.push(x)
    agree(y[others], expected[others], backend)
    late = y[2, 4:] if y.ndim == 3 else y[2]
    assert np.isnan(late).all()
    if y.ndim == 3:
        agree(y[2, :4], expected[2, :4], backend)
    y, expected = session.step(x[:, 0]), clean.step(x[:, 0])  # it is in the state
    assert np.isnan(y[2]).all()
    agree(y[others], expected[others], backend)
    session.reset(where=~others)
    agree(session.step(x[:, 1])[2:3], model.session(1).step(x[2:3, 1]), backend)


def test_nan_may_be_refused(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    session = model.session(2, nan="raise")
    x = numbers(2, 5, 3)
    session.push(x)
    before = session.state
    broken = x.copy()
    broken[1, 3, 2] = np.nan
    with pytest.raises(ShapeError, match=r"^x: .*nan"):
        session.push(broken)
    with pytest.raises(ShapeError, match=r"^x: .*nan"):
        session.step(broken[:, 3])
    same(session.state, before)
    going = model.session(2)
    going.push(x)
    same(session.push(x), going.push(x))
    broken[1, 3, 2] = np.inf  # a number to the framework
    same(session.push(broken), going.push(broken))


def test_nan_in_a_static_input_may_be_refused_too(backend: str) -> None:
    session = Model(STATIC("float32"), backend).session(2, nan="raise")
    v = numbers(2, 2)
    v[1, 0] = np.nan
    with pytest.raises(ShapeError, match=r"^v: .*nan"):
        session.push([numbers(2, 3, 3), v])
    assert not session.state["rnn"]["h"].any()
