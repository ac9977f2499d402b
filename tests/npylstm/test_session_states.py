"""The states of sessions: named, reset, copied, rolled back, split and joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain
from session_models import CHAINS, GRAPHS, X, agree, chain, graph, numbers, same

import npylstm
from npylstm import Model, NpylstmError, ShapeError, StateError
from npylstm.ops.cells import LSTM
from npylstm.ops.pointwise import Identity
from npylstm.ops.shaping import Reshape


@pytest.mark.parametrize("kind", CHAINS)
def test_states_are_named_and_begin_with_zeros(kind: str, backend: str) -> None:
    model = Model(chain(kind), backend)
    state = model.session(4).state
    expected = model.predict(np.zeros((4, 1, 3)), return_state=True)[1]
    assert {k: set(v) for k, v in state.items()} == {k: set(v) for k, v in expected.items()}
    for name, entries in state.items():
        for entry, array in entries.items():
            assert array.shape == expected[name][entry].shape
            assert array.dtype == np.float32
            assert not array.any()


def test_each_call_of_a_shared_layer_has_its_state(backend: str) -> None:
    model = Model(GRAPHS["shared"]("float32"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push([x, 2 * x])
    state = session.state
    assert set(state) == {"rnn", "rnn#2"}
    alone = Model(make_chain(LSTM(3, 4)), backend)
    alone = Model(
        replace(alone.spec, layers=(replace(model.spec["rnn"], name="layer_0"),)), backend
    )
    for name, given_x in (("rnn", x), ("rnn#2", 2 * x)):
        agree(state[name], alone.predict(given_x, return_state=True)[1]["layer_0"], backend)


def test_reset_begins_anew(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(3, 9, 3)
    fresh, session = model.session(3), model.session(3)
    session.push(x)
    session.reset()
    same(session.state, fresh.state)
    same(session.push(x), fresh.push(x))


@pytest.mark.parametrize("kind", ["begins elsewhere", "begins where it learned to"])
def test_reset_goes_back_to_where_the_model_begins(kind: str, backend: str) -> None:
    model = Model(GRAPHS[kind]("float32"), backend)
    x = numbers(3, 9, 3)
    session, mask = model.session(3), np.array([False, True, False])
    first = session.push(x)
    session.reset()
    same(session.push(x), first)
    session.reset(where=mask)
    same(session.push(x)[mask], first[mask])


def test_outputs_do_not_share_memory(backend: str) -> None:
    spec = graph(
        {"x": X}, ("rnn", "same", "flat"), ("rnn", LSTM(3, 4), "x"), ("same", Identity(), "rnn"),
        ("flat", Reshape(((0, 0), 4)), "rnn"),
    )  # fmt: skip
    session = Model(spec, backend).session(2)
    for y in (session.push(numbers(2, 3, 3)), session.step(numbers(2, 3))):
        kept = y["rnn"].copy()
        y["same"][:] = 7
        y["flat"][:] = 8
        same(y["rnn"], kept)


@pytest.mark.parametrize("kind", ["stacked", "projection", "gru before"])
def test_reset_of_some_rows_leaves_the_others(kind: str, backend: str) -> None:
    model = Model(chain(kind), backend)
    x = numbers(5, 9, 3)
    mask = np.array([True, False, True, False, False])
    for where in (mask, mask.tolist()):
        session, going = model.session(5), model.session(5)
        session.push(x)
        going.push(x)
        session.reset(where=where)
        y, expected = session.push(x), going.push(x)
        same(y[~mask], expected[~mask])
        same(y[mask], model.session(5).push(x)[mask])


def test_a_mask_of_no_rows_resets_none(backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.push(numbers(2, 3, 3))
    before = session.state
    session.reset(where=np.zeros(2, bool))
    same(session.state, before)
    session.reset(where=np.ones(2, bool))
    assert not any(a.any() for a in session.state["layer_0"].values())


def test_states_come_and_go_as_copies(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push(x)
    kept = session.state
    taken = session.state
    for entries in taken.values():
        for array in entries.values():
            array[:] = 5
    same(session.state, kept)
    session.state = taken
    for entries in taken.values():
        for array in entries.values():
            array[:] = 6
    assert all((a == 5).all() for entries in session.state.values() for a in entries.values())


def test_a_state_rolls_back(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push(x[:, :4])
    state = session.state
    first = session.push(x[:, 4:])
    after = session.state
    session.state = state
    same(session.push(x[:, 4:]), first)
    same(session.state, after)


def test_states_of_sessions_and_of_predict_are_the_same_thing(backend: str) -> None:
    for kind in ("stacked", "projection"):
        model = Model(chain(kind), backend)
        x = numbers(2, 9, 3)
        _, state = model.predict(x[:, :4], return_state=True)
        session = model.session(2)
        session.state = state
        agree(session.push(x[:, 4:]), model.predict(x[:, 4:], state=state), backend)
        agree(session.state, model.predict(x, return_state=True)[1], backend)


def test_states_may_be_lists_and_of_other_types(backend: str) -> None:
    session = Model(chain("gru"), backend).session(2)
    values = numbers(2, 5)
    session.state = {"layer_0": {"h": values.astype("float64").tolist()}}
    same(session.state, {"layer_0": {"h": values}})


def test_predict_knows_nothing_of_sessions(backend: str) -> None:
    model = Model(chain("stateful"), backend)
    x = numbers(2, 9, 3)
    before = model.predict(x)
    session = model.session(2)
    session.push(x)
    same(model.predict(x), before)
    assert not np.array_equal(session.push(x), before)


def test_a_copy_goes_its_own_way(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x, other = numbers(2, 9, 3), numbers(2, 9, 3, seed=1)
    session = model.session(2)
    session.push(x[:, :4])
    copy = session.copy()
    assert copy.model is model
    assert copy.batch_size == 2
    agree(copy.push(other), model.predict(np.concatenate([x[:, :4], other], 1)), backend)
    agree(session.push(x[:, 4:]), model.predict(x), backend)


def test_a_copy_keeps_its_view_of_nan(backend: str) -> None:
    copy = Model(chain("lstm"), backend).session(1, nan="raise").copy()
    with pytest.raises(ShapeError):
        copy.step([[0.0, np.nan, 0.0]])


# Along the batch.


@pytest.mark.parametrize("sizes", [None, [1, 2, 2], [4, 1], [5]])
@pytest.mark.parametrize("kind", ["stacked", "projection", "rnn"])
def test_sessions_split_and_join(kind: str, sizes: Any, backend: str) -> None:
    model = Model(chain(kind), backend)
    x = numbers(5, 12, 3)
    whole = model.session(5)
    whole.push(x[:, :5])
    before = whole.state
    parts = whole.split() if sizes is None else whole.split(sizes)
    assert [p.batch_size for p in parts] == (sizes or [1] * 5)
    assert all(p.model is model for p in parts)
    rows = np.cumsum([0, *(sizes or [1] * 5)])
    y = [p.push(x[a:b, 5:9]) for p, a, b in zip(parts, rows, rows[1:], strict=False)]
    same(whole.state, before)  # the parts are copies
    agree(np.concatenate(y), whole.push(x[:, 5:9]), backend)
    joined = npylstm.Session.join(parts)
    assert joined.batch_size == 5
    assert joined.model is model
    agree(joined.state, whole.state, backend)
    agree(joined.push(x[:, 9:]), whole.push(x[:, 9:]), backend)
    assert not np.array_equal(parts[0].state["layer_0"]["h"], joined.state["layer_0"]["h"][:1])


def test_joining_keeps_the_order_given(backend: str) -> None:
    model = Model(chain("lstm"), backend)
    session = model.session(3)
    session.push(numbers(3, 4, 3))
    h = session.state["layer_0"]["h"]
    joined = npylstm.Session.join([session.split()[k] for k in (2, 0, 1, 2)])
    same(joined.state["layer_0"]["h"], h[[2, 0, 1, 2]])


@pytest.mark.parametrize("sizes", [[1, 1], [2, 2], [3, 0], [4, -1], []])
def test_sizes_that_are_not_the_batch_are_refused(sizes: list[int], backend: str) -> None:
    session = Model(chain("lstm"), backend).session(3)
    with pytest.raises(NpylstmError, match="3"):
        session.split(sizes)


def test_only_sessions_of_one_model_are_joined(backend: str) -> None:
    a, b = Model(chain("lstm"), backend), Model(chain("gru"), backend)
    for wrong in ([a.session(), b.session()], []):
        with pytest.raises(StateError):
            npylstm.Session.join(wrong)
