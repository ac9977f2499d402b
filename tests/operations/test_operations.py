"""Every kind of layer keeps what it declares; and the check itself can fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from operations.case import MAJOR, SEQUENCE, Case, Refused
from operations.cases import CASES, REFUSED
from operations.check import check_operation
from operations.oracles import softmax
from operations.probe import Probe
from operations.refused import missed_streams, mixes_samples
from operations.time_claims import assignments

from npylstm import FormatError
from npylstm.ops import OPERATIONS
from npylstm.ops.arithmetic import Reduce
from npylstm.ops.attention import Attention
from npylstm.ops.axis_map import FIXED, AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.cells import LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.products import Dot
from npylstm.ops.shapes import Shape, batch_axes

Array = np.ndarray[Any, Any]
Made = tuple[tuple[Array, ...], dict[str, Array]]
State = Mapping[str, Array]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation(case: Case) -> None:
    check_operation(case.layer, *case.shapes, **case.options)


def test_every_kind_has_cases() -> None:
    assert {case.layer.kind for case in CASES} == set(OPERATIONS)


def test_every_case_has_a_name_of_its_own() -> None:
    names = [str(case) for case in CASES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_what_would_mix_samples_is_refused(refused: Refused) -> None:
    try:
        shapes = refused.layer.output_shapes(refused.shapes)
    except FormatError:
        pass
    else:  # a model refuses what pairs sample with sample
        assert any(batch_axes(shape) > 1 for shape in shapes)
    if refused.mixes:
        assert mixes_samples(Probe(refused.layer, refused.shapes, **refused.options))


# --- Layers that lie -----------------------------------------------------------------------------


class WrongShape(Identity):
    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], 4),)


class WrongSymbol(Identity):
    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (tuple("other" if size == "steps" else size for size in inputs[0]),)


class WrongNames(Identity):
    def output_names(self) -> tuple[str, ...]:
        return ("", "mask")


class WrongState(SimpleRNN):
    def forward(self, *args: Any, **options: Any) -> Made:
        outputs, state = super().forward(*args, **options)
        return outputs, {name: array[:, :1] for name, array in state.items()}


class AcrossTime(ActivationLayer):
    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0])),)


class AcrossSamples(Identity):
    moves_elements = False

    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        e = np.exp(inputs[0])
        return (e / e.sum(0),), {}


class NextSample(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return (np.roll(inputs[0], 1, axis=0),), {}


class CountsSamples(Identity):
    moves_elements = False

    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return (inputs[0] / len(inputs[0]),), {}


class PeeksAhead(SimpleRNN):
    def forward(self, packed: State, inputs: Sequence[Array], *rest: Any, **options: Any) -> Made:
        x = inputs[0].copy()
        x[:, :-1] += x[:, 1:]
        return super().forward(packed, [x, *inputs[1:]], *rest, **options)


class PeeksAtOneNumber(SimpleRNN):
    def forward(self, packed: State, inputs: Sequence[Array], *rest: Any, **options: Any) -> Made:
        (y, *others), state = super().forward(packed, inputs, *rest, **options)
        y[:, 0, 0] += np.maximum(inputs[0][:, -1, 0], 0)
        return (y, *others), state


class NewestOfAll(Reduce):
    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        (axes,) = super().axis_map(shapes)
        return (axes._replace(mixed={}, last=frozenset(axes.mixed)),)


class FixedIsNot(Reduce):
    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        (axes,) = super().axis_map(shapes)
        return (axes._replace(mixed={}, unread=frozenset({0})),)


class ShiftsTime(Identity):
    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        first, second, *rest = AxisMap.same(len(shapes[0])).sources
        return (AxisMap((first, (), second, *rest[1:])),)


class CausalWithoutState(Conv1D):
    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0])),)


class IgnoresBias(Dense):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return super().forward({**packed, "bias": np.zeros(self.units)}, inputs, state)


class SwapsGates(LSTM):
    def pack(self, weights: State) -> dict[str, Array]:
        return super().pack({**weights, "U_i": weights["U_f"]})


class WritesInput(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        inputs[0][...] *= 0.5
        return (inputs[0].copy(),), {}


class WritesState(SimpleRNN):
    def forward(self, packed: State, inputs: Sequence[Array], state: State, **options: Any) -> Made:
        outputs, after = super().forward(packed, inputs, state, **options)
        state["h"][...] = after["h"]
        return outputs, after


class DropsState(SimpleRNN):
    def forward(self, *args: Any, **options: Any) -> Made:
        return super().forward(*args, **options)[0], {}


class ForgetsState(SimpleRNN):
    def forward(self, packed: State, inputs: Sequence[Array], state: State, **options: Any) -> Made:
        outputs, _ = super().forward(packed, inputs, state, **options)
        return outputs, {"h": np.zeros_like(state["h"])}


class IgnoresMask(SimpleRNN):
    def forward(
        self, packed: State, inputs: Sequence[Array], state: State, mask: Any = None
    ) -> Made:
        return super().forward(packed, inputs, state)


class MasksOutputsAlone(SimpleRNN):
    def _mask(self, inputs: Sequence[Array], mask: Array | None) -> Array | None:
        mask = super()._mask(inputs, mask)
        return None if mask is None else np.ones_like(mask)


class DropsField(Conv1D):
    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_json().items() if key != "dilation"}


class ChangesField(Conv1D):
    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "stride": 1}


class TakesAnything(Identity):
    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Operation:
        return cls()


class TakesText(Dense):
    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Operation:
        right = {k: v for k, v in config.items() if k != "units" or isinstance(v, int)}
        return super().from_json({"units": 2, **right})


class Narrow(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return (inputs[0].astype(np.float32),), {}


class Wide(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return (inputs[0].astype(np.float64),), {}


class Coarse(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        x = inputs[0]
        return (x if x.dtype == np.float64 else x.astype(np.float16).astype(x.dtype),), {}


class Dice(Identity):
    def forward(self, packed: State, inputs: Sequence[Array], state: State) -> Made:
        return (inputs[0] + np.random.default_rng().uniform(),), {}


RNN = {"return_sequences": True}


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (WrongShape(), r"shape of output ''.*declared"),
        (WrongSymbol(), "shape of output ''.*'other'"),
        (WrongNames(), "output_names: 2 outputs are declared, 1 are made"),
        (WrongState(3, 4), "state_shapes"),
        (AcrossTime(softmax(1).activation), "time: .* moves with a later step"),
        (AcrossSamples(), "batch: output .* moves for other samples"),
        (NextSample(), "batch: output .* moves for other samples"),
        (CountsSamples(), "sample 0 alone"),
        (PeeksAhead(3, 4, **RNN), "time: .* moves with a later step"),
        (PeeksAtOneNumber(3, 4, **RNN), "time: .* moves with a later step"),
        (NewestOfAll("mean", (1,)), "pieces: output"),
        (FixedIsNot("mean", (1,)), "claimed fixed: moves with the steps"),
        (ShiftsTime(), "time: .* no 5 steps there"),
        (CausalWithoutState(3, 4, 3, padding=(2, 0)), "pieces: output"),
        (IgnoresBias(3, 4), "weight 'bias': has no effect"),
        (SwapsGates(3, 4), "weight 'U_i': has no effect"),
        (WritesInput(), "forward writes into input 0"),
        (WritesState(3, 4), "forward writes into state 'h'"),
        (DropsState(3, 4, **RNN), "the state is not carried"),
        (ForgetsState(3, 4, **RNN), "pieces: output"),
        (IgnoresMask(3, 4), "mask of the call: output"),
        (MasksOutputsAlone(3, 4), "mask of the call: state 'h' of 1 steps"),
        (DropsField(3, 4, 2, dilation=2), "to_json: drops dilation"),
        (ChangesField(3, 4, 2, stride=2), "to_json: another layer comes back"),
        (TakesAnything(), "unknown key 'surprise' is accepted"),
        (TakesText(3, 2), "wrong type of 'units' is accepted"),
        (Narrow(), "type: float32 of inputs float64"),
        (Wide(), "type: float64 of inputs in float32"),
        (Coarse(), "float32 beside float64"),
        (Dice(), "forward: twice gives two results"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Operation) else "",
)
def test_a_lie_is_found(layer: Operation, match: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){match}"):
        check_operation(layer, SEQUENCE)


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Dense.forward

    def wrong(self: Dense, packed: State, inputs: Sequence[Array], state: State) -> Made:
        (y,), after = right(self, packed, inputs, state)
        return (y * (1 + 1e-9),), after

    monkeypatch.setattr(Dense, "forward", wrong)
    with pytest.raises(AssertionError, match="kernel: output ''"):
        check_operation(Dense(3, 4), SEQUENCE)


def test_another_result_than_the_oracle_is_found() -> None:
    with pytest.raises(AssertionError, match="oracle: output ''"):
        check_operation(Identity(), SEQUENCE, oracle=lambda weights, x: x * (1 + 1e-9))


def test_a_stale_exemption_is_found() -> None:
    with pytest.raises(AssertionError, match="weight 'bias': said to have no effect"):
        check_operation(Dense(3, 4), SEQUENCE, without_effect=("bias",))


@pytest.mark.parametrize(
    ("layer", "shapes", "found"),
    [
        (Conv1D(3, 4, 1), [SEQUENCE], []),
        (Conv1D(3, 4, 3, padding=(2, 0)), [SEQUENCE], ["axis 1 carried"]),
        (Conv1D(3, 4, 3, padding=(1, 1)), [SEQUENCE], []),
        (Attention(causal=True), [SEQUENCE, SEQUENCE], ["axis 1 carried"]),
        (Dot((2, 2)), [SEQUENCE, ("batch", 4, 3)], []),
        (LSTM(3, 4, go_backwards=True, return_sequences=True), [SEQUENCE], []),
        (softmax(0), [MAJOR], []),
        (Identity(), [SEQUENCE], []),  # which refuses nothing
    ],
    ids=str,
)
def test_what_refuses_to_stream_and_could(
    layer: Operation, shapes: Sequence[Shape], found: Sequence[str]
) -> None:
    missed = list(missed_streams(Probe(layer, shapes)))
    assert [kind for each in missed for kind in each.found] == found


def test_time_runs_along_every_axis_of_its_size() -> None:
    assert list(assignments([SEQUENCE, ("batch", 3)], "steps")) == [(1, FIXED)]
    assert list(assignments([SEQUENCE, MAJOR], "steps")) == [(1, 0)]
    assert list(assignments([("batch*steps", 3), SEQUENCE], "steps")) == []
