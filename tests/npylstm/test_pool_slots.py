"""Streams of a pool that are found once, and keys that are the same as in the last call."""

from __future__ import annotations

import numpy as np
import pytest
from pool_models import make

from npylstm import Pool, ShapeError, StateError


@pytest.fixture
def pool(backend: str) -> Pool:
    pool = make("lstm", backend, "float32").pool(8)
    pool.add(list("abcdef"))
    return pool


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3)).astype("float32")


def test_slots_are_the_streams_of_their_keys(pool: Pool) -> None:
    slots, x = pool.slots(["e", "b"]), inputs(2)
    assert len(slots) == 2
    made = [pool.step(slots, x), pool.step(slots, x)]
    pool.reset(["e", "b"])
    np.testing.assert_array_equal(pool.step(["e", "b"], x), made[0])
    np.testing.assert_array_equal(pool.step(("e", "b"), x), made[1])
    assert list(pool.snapshot(slots)) == ["e", "b"]
    pool.reset(slots)
    np.testing.assert_array_equal(pool.push(slots, x[:, None]).reshape(made[0].shape), made[0])


def test_slots_end_with_the_first_of_their_streams(pool: Pool) -> None:
    slots, others = pool.slots(["a", "b"]), pool.slots(["c"])
    pool.remove("b")
    pool.step(others, inputs(1))
    with pytest.raises(StateError, match="a stream was removed; ask the pool for slots again"):
        pool.step(slots, inputs(2))
    pool.add("b")  # perhaps in the same row
    with pytest.raises(StateError, match="a stream was removed"):
        pool.step(slots, inputs(2))


def test_slots_of_another_pool_are_refused(pool: Pool) -> None:
    other = pool.model.pool(8)
    other.add(["a"])
    with pytest.raises(StateError, match="another pool's"):
        pool.step(other.slots("a"), inputs(1))


def test_slots_can_be_removed(pool: Pool) -> None:
    pool.remove(pool.slots(["f", "a"]))
    assert pool.keys == list("bcde")
    pool.add(["x", "y", "z", "w"])
    assert len(pool) == 8


def test_unknown_keys_have_no_slots(pool: Pool) -> None:
    with pytest.raises(StateError, match="key 'q': not in the pool"):
        pool.slots(["a", "q"])


def test_keys_of_the_last_call_are_looked_up_when_streams_change(pool: Pool) -> None:
    keys, x = ["a", "b"], inputs(2)
    first = pool.step(keys, x)
    pool.remove("a")
    with pytest.raises(StateError, match="key 'a': not in the pool"):
        pool.step(keys, x)
    pool.remove("b")
    pool.add(["b", "a"])  # in other rows than before
    np.testing.assert_array_equal(pool.step(keys, x), first)
    keys.reverse()
    pool.reset(keys)
    np.testing.assert_array_equal(pool.step(keys, x[::-1]), first[::-1])


@pytest.mark.parametrize("keys", [[np.zeros(2)], [[]], ["a", np.zeros(2)]])
def test_keys_that_compare_in_their_own_way(pool: Pool, keys: list[object]) -> None:
    pool.step(["a"], inputs(1))
    with pytest.raises(StateError, match="not in the pool"):
        pool.step(keys, inputs(len(keys)))


def test_an_output_is_filled(pool: Pool) -> None:
    slots, x = pool.slots(["a", "c"]), inputs(2)
    expected = pool.step(slots, x)
    pool.reset(slots)
    out = np.full_like(expected, np.nan)
    assert pool.step(slots, x, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_an_output_that_does_not_fit_changes_no_state(pool: Pool) -> None:
    slots, x = pool.slots(["a", "c"]), inputs(2)
    expected = pool.step(slots, x)
    pool.reset(slots)
    with pytest.raises(ShapeError, match="out: expected a contiguous array"):
        pool.step(slots, x, out=np.zeros((3, expected.shape[1]), "float32"))
    np.testing.assert_array_equal(pool.step(slots, x), expected)
