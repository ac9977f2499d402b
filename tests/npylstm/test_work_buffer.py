"""Parts of a buffer that are used again: no two in use overlap."""

from __future__ import annotations

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain
from hypothesis import given
from hypothesis import strategies as st

from npylstm import Model
from npylstm.kernels.packing import ALIGNMENT
from npylstm.ops.dense import Dense
from npylstm.runtime.work_buffer import WorkBuffer

# A size reserves a part; None releases one of the parts, or shares it first.
STEPS = st.lists(st.one_of(st.integers(0, 100), st.none()), max_size=40)


@given(STEPS, st.randoms(use_true_random=False))
def test_parts_in_use_do_not_overlap(steps: list[int | None], random: object) -> None:
    buffer, used = WorkBuffer(), []
    for size in steps:
        if size is not None:
            start = buffer.reserve(size)
            assert start % ALIGNMENT == 0
            assert all(start + size <= a or start >= b for a, b in used if b > a)
            assert start + size <= buffer.size
            used.append((start, start + max(size, 1)))
        elif used:
            start, stop = used.pop(random.randrange(len(used)))  # type: ignore[attr-defined]
            if random.random() < 0.3:  # type: ignore[attr-defined]
                buffer.share(start)
                buffer.release(start)
                used.append((start, stop))
            else:
                buffer.release(start)
    for start, _ in used:
        buffer.release(start)
    whole = buffer.size
    assert not whole or buffer.reserve(whole) == 0  # all is free, in one part
    assert buffer.size == whole


def test_appended_parts_are_never_used_again() -> None:
    buffer = WorkBuffer()
    flag = buffer.append(1)
    first = buffer.reserve(10)
    buffer.release(first)
    assert buffer.reserve(ALIGNMENT) == first != flag


@pytest.mark.parametrize("layers", [10, 40])
def test_a_deep_model_needs_no_more_memory_than_its_widest_layers(layers: int) -> None:
    model = Model(make_chain(*[Dense(100, 100)] * layers, shape=("batch", 100)), COMPILED)
    model.predict(np.zeros((64, 100), "float32"))
    (segment,) = model._engine._runs
    (program,) = segment._programs.values()
    # Input and output stay; between them one tensor is read and one written, with a block of each.
    assert program.work_size < 6 * 64 * 112
