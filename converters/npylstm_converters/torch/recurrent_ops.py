"""Recurrent operations of traced programs: stacks of layers and directions, and single cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from npylstm.ops.base import Operation
from npylstm.ops.shaping import Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.torch.builder import FilledTensor, Ref, StackedTensors, TracedShape
from npylstm_converters.torch.calls import Call
from npylstm_converters.torch.lengths_ops import SequenceWithLengths
from npylstm_converters.torch.recurrent import MODES, Weights, make_layer

__all__ = ["cell", "recurrent"]


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def recurrent(mode: str) -> Callable[..., list[Any]]:
    """Return a function that adds the layers of a recurrent module."""

    def apply(
        call: Call, x: Any, hx: Any, params: Sequence[Any], num_layers: int, bidirectional: bool,
        batch_first: bool,
    ) -> list[Any]:  # fmt: skip
        ways = 2 if bidirectional else 1
        each = len(params) // (num_layers * ways)
        masks = [x.mask] if isinstance(x, SequenceWithLengths) else []
        sequence = x.x if isinstance(x, SequenceWithLengths) else call.tensor(x)
        if len(sequence.traced) != 3:
            raise Refusal("over one sequence without a batch axis: give the example a batch")
        finals: list[list[Any]] = [[] for _ in range(MODES[mode].states)]
        for number in range(num_layers):
            first = number * ways * each
            own = params[first : first + ways * each]
            directions = [_direction(call, own[k * each : (k + 1) * each]) for k in range(ways)]
            layer, weights = make_layer(mode, directions, bool(batch_first))
            layer = layer.with_masks((0,)) if masks else layer
            given = _initial_states(call, _several(hx), number * ways, ways)
            name = call.name if num_layers == 1 else f"{call.name}_l{number}"
            sizes = _state_sizes(sequence, layer, bool(batch_first))
            main = (*sequence.traced[:2], sum(s[-1] for s in sizes[:: len(finals)]))
            sequence, *states = call.builder.add_traced(
                name, layer, [sequence, *given, *masks], [main, *sizes], weights,
                share=tuple(id(w.value) for w in own),
            )  # fmt: skip
            if masks:
                call.builder.zeroed[sequence.name] = masks[0].name
            for k, state in enumerate(states):
                finals[k % len(finals)].append(state)
        named = zip("hc", finals, strict=False)
        return [
            sequence,
            *(StackedTensors(tuple(f), f"{call.name}_{letter}") for letter, f in named),
        ]

    return apply


def _direction(call: Call, flat: Sequence[Any]) -> Weights:
    """Return the arrays of one direction: two kernels, two biases or none, a projection or none."""
    arrays = [call.array(v) for v in flat]
    projection = arrays.pop() if len(arrays) in (3, 5) else None
    weight_ih, weight_hh, *biases = arrays
    bias_ih, bias_hh = biases or (None, None)
    return Weights(weight_ih, weight_hh, bias_ih, bias_hh, projection)


def _state_sizes(sequence: Ref, layer: Operation, batch_first: bool) -> list[TracedShape]:
    batch = sequence.traced[0 if batch_first else 1]
    return [(batch, *shape) for shape in layer.state_shapes().values()]


def _initial_states(call: Call, hx: Sequence[Any], first: int, ways: int) -> list[Ref]:
    """Return the initial states h and c, direction by direction; none if they are zeros."""
    if all(isinstance(state, FilledTensor) and state.value == 0 for state in hx):
        return []
    return [
        call.builder.select(state, first + way, f"{call.name}_{letter}0")
        for way in range(ways)
        for letter, state in zip("hc", hx, strict=False)
    ]


def cell(mode: str) -> Callable[..., Any]:
    """Return a function that adds one step of a cell: a layer over a sequence of one step."""

    def apply(
        call: Call, x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
    ) -> Any:
        if w_ih is None or w_hh is None:
            raise Refusal("expected weights")
        there = [v for v in (w_ih, w_hh, b_ih, b_hh) if v is not None]
        arrays = [None if v is None else call.array(v) for v in (w_ih, w_hh, b_ih, b_hh)]
        layer, weights = make_layer(mode, [Weights(*arrays)], batch_first=True)  # type: ignore[arg-type]
        x = call.tensor(x)
        if len(x.traced) != 2:
            raise Refusal("of one sample without a batch axis: give the example a batch")
        step = call.builder.add_traced(
            f"{call.name}_step", Reshape(((0, 0), 1, (0, 1))), [x],
            [(x.traced[0], 1, x.traced[1])],
        )[0]  # fmt: skip
        # A cell's state is always an argument.
        pairs = zip("hc", _several(hx), strict=False)
        given = [call.builder.ref(state, f"{call.name}_{letter}0") for letter, state in pairs]
        states = [(x.traced[0], *shape) for shape in layer.state_shapes().values()]
        main = (x.traced[0], 1, layer.state_shapes()["h"][0])
        _, *after = call.builder.add_traced(
            call.name, layer, [step, *given], [main, *states], weights,
            share=tuple(id(v.value) for v in there),
        )  # fmt: skip
        return after if len(after) > 1 else after[0]

    return apply
