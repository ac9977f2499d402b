"""Whether threads share a call is decided by its work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain

from npylstm import Model
from npylstm.activations import TANH
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.convolution import Conv1D
from npylstm.ops.convolution_nd import Convolution
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.external import External
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.products import Dot, Einsum, MatMul
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.runtime import predictor, sharing
from npylstm.runtime.sharing import Work, useful_threads, work_of

TWO_WAYS = Bidirectional(LSTM(3, 5), LSTM(3, 5, go_backwards=True))
PAIR = ((2, 7, 3), (2, 9, 3))
# The operation, the shapes of its inputs, its multiplications and steps.
COUNTS: list[tuple[Operation, tuple[tuple[int, ...], ...], int, int]] = [
    (LSTM(3, 5), ((2, 7, 3),), 2 * 7 * 4 * 5 * (3 + 5), 7),
    (GRU(3, 5, time_major=True), ((7, 2, 3),), 2 * 7 * 3 * 5 * (3 + 5), 7),
    (LSTM(3, 5, projection=2), ((2, 7, 3),), 2 * 7 * 5 * (4 * (3 + 2) + 2), 7),
    (TWO_WAYS, ((2, 7, 3),), 2 * 2 * 7 * 4 * 5 * (3 + 5), 7),
    (Dense(3, 5), ((2, 7, 3),), 2 * 7 * 3 * 5, 1),
    (Conv1D(3, 5, 4), ((2, 7, 3),), 2 * 7 * 4 * 3 * 5, 1),
    (Convolution(3, 5, (2, 2), channels_first=True), ((2, 3, 6, 7),), 2 * 42 * 4 * 3 * 5, 1),
    (Attention(), PAIR, 2 * 7 * 9 * (3 + 3), 1),
    (MultiHeadAttention(3, 3, 3, 2, 4, 5, 6), PAIR,
     2 * (7 * 3 * 8 + 9 * 3 * 8 + 9 * 3 * 10 + 7 * 10 * 6 + 2 * 7 * 9 * (4 + 5)), 1),
    (MatMul(), ((2, 7, 3), (2, 3, 9)), 2 * 7 * 9 * 3, 1),
    (Dot((2, 2)), PAIR, 2 * 7 * 9 * 3, 1),
    (Einsum("btn,bsn->bts"), PAIR, 2 * 7 * 9 * 3, 1),
    (TimeDistributed(Dense(3, 5)), ((2, 7, 4, 3),), 2 * 7 * 4 * 3 * 5, 1),
    (TimeDistributed(LSTM(3, 5)), ((2, 7, 4, 3),), 2 * 7 * 4 * 4 * 5 * (3 + 5), 4),
    (Embedding(100, 5), ((2, 7),), 0, 1),
    (ActivationLayer(TANH), ((2, 7, 3),), 0, 1),
]  # fmt: skip


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case[0].kind)
def test_multiplications(case: tuple[Operation, Any, int, int]) -> None:
    operation, shapes, count, steps = case
    assert operation.multiplications(shapes) == count
    assert operation.sequential_steps(shapes) == steps


def test_the_work_of_a_user_function_is_unknown() -> None:
    assert External("f").multiplications([(2, 3)]) > 1 << 60


def test_work_of_a_model() -> None:
    spec = make_chain(LSTM(3, 5, return_sequences=True), Dense(5, 4))
    products = 2 * 7 * (4 * 5 * (3 + 5) + 5 * 4)
    elements = 2 * 7 * (5 + 4) * sharing._PER_ELEMENT
    work = products + elements
    assert work_of(spec, {"x": (2, 7, 3)}, {"layer_1"}) == Work(work, work)
    assert work_of(spec, {"x": (2, 7, 3)}, {"layer_0", "layer_1"}) == Work(work, work // 7)
    assert work_of(spec, {"x": (2, 7, 4)}, {}) == Work(0, 0)  # the call will refuse it


def test_layers_that_numpy_computes() -> None:
    spec = make_chain(LSTM(3, 5), External("f"), shape=("batch", "steps", 3))
    names = [
        {*Model(spec, backend, custom={"f": np.tanh})._engine.in_numpy}
        for backend in ("numpy", COMPILED)
    ]
    assert names == [{"layer_0", "layer_1"}, {"layer_1"}]


@pytest.mark.parametrize(
    ("work", "threads", "useful"),
    [
        (Work(99, 10), 2, 1), (Work(100, 9), 2, 1), (Work(100, 10), 2, 2), (Work(100, 10), 3, 2),
        (Work(160, 20), 4, 3), (Work(1000, 15), 9, 3), (Work(1000, 100), 9, 6),
        (Work(1000, 100), 1, 1), (Work(0, 0), 2, 1),
    ],
)  # fmt: skip
def test_each_thread_has_half_of_the_least_work(
    work: Work, threads: int, useful: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sharing.LEAST_WORK, "rows", Work(100, 10))
    monkeypatch.setattr(sharing, "most_threads", lambda: 6)
    assert useful_threads("rows", work, threads) == useful


def test_predict_starts_threads_for_enough_work(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(make_chain(LSTM(3, 5)), backend)
    x = np.ones((4, 7, 3), np.float32)
    work = work_of(model.spec, {"x": x.shape}, model._engine.in_numpy)
    used: list[int] = []

    def note(shared: str, work: Work, threads: int) -> int:
        used.append(useful_threads(shared, work, threads))
        return used[-1]

    monkeypatch.setattr(predictor, "useful_threads", note)
    for least, expected in ((work.call + 1, 1), (work.call, 2)):
        for shared in sharing.LEAST_WORK:
            monkeypatch.setitem(sharing.LEAST_WORK, shared, Work(least, 1))
        model = Model(model.spec, backend)
        for options in ({}, {"lengths": [7, 7, 7, 7]}):
            np.testing.assert_allclose(
                model.predict(x, threads=2, **options), model.predict(x), rtol=1e-6
            )
        assert used == [expected, expected]
        used.clear()
