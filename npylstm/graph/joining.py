"""Connect an encoder to a decoder, and a decoder's states to its own next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from npylstm.errors import ShapeError
from npylstm.ops.shapes import BATCH, Shape, format_shape
from npylstm.spec import ModelSpec, TensorSpec

__all__ = ["Joints", "join_models"]


@dataclass(frozen=True)
class Joints:
    """The sources of the decoder's inputs, except for the step's input.

    Attributes
    ----------
    given
        Decoder input to encoder output, for the first step.
    fed_back
        Decoder input to decoder output, after each step.
    """

    given: Mapping[str, str]
    fed_back: Mapping[str, str]


def join_models(encoder: ModelSpec, decoder: ModelSpec) -> Joints:
    """Connect by name; if names differ, by position, but never an h with a c.

    Raises
    ------
    ShapeError
        If tensors are missing or do not fit, or if positions connect different kinds of states.
    """
    wanted, made = decoder.inputs[1:], encoder.output_specs
    states = decoder.output_specs[1:]
    if not wanted:
        raise ShapeError("the decoder has one input, expected a state beside it")
    listed = ", ".join(t.name for t in wanted)
    by_name = {t.name: t for t in made}
    if not {t.name for t in wanted} <= by_name.keys() and len(made) < len(wanted):
        raise ShapeError(
            f"the encoder gives {len(made)} tensors, the decoder reads {len(wanted)}: {listed}"
        )
    if not 1 <= len(states) <= len(wanted):
        raise ShapeError(
            f"the decoder gives {len(states)} states, expected 1 to {len(wanted)} for its inputs "
            f"{listed}"
        )
    if {t.name for t in wanted} <= by_name.keys():
        given = [by_name[t.name] for t in wanted]
    else:
        last = made[len(made) - len(wanted) :]
        given = _by_place(wanted, last, _states_made(encoder), _states_read(decoder))
    back = _fed_back(decoder, wanted, states)
    for tensor, source in (*zip(wanted, given, strict=True), *back):
        if not _fit(source.shape, tensor.shape):
            shape = format_shape(tensor.shape)
            raise ShapeError(f"the decoder's input {tensor.name!r} {shape}: got {source}")
    return Joints(
        {t.name: s.name for t, s in zip(wanted, given, strict=True)},
        {t.name: s.name for t, s in back},
    )


State = tuple[str, str]  # call, name of the state


def _states_made(spec: ModelSpec) -> dict[str, State]:
    """Return call and state of the tensors that are final states."""
    return {
        tensor: (edge.name, suffix)
        for edge in spec.edges
        for tensor, suffix in zip(edge.outputs, spec[edge.layer].layer.output_names(), strict=True)
        if suffix in spec[edge.layer].layer.state_shapes()
    }


def _states_read(spec: ModelSpec) -> dict[str, State]:
    """Return call and state of the tensors that are initial states."""
    found: dict[str, State] = {}
    for edge in spec.edges:
        layer = spec[edge.layer].layer
        for tensor, state in zip(
            layer.initial_states(edge.inputs), layer.state_shapes(), strict=False
        ):
            found.setdefault(tensor, (edge.name, state))
    return found


def _by_place(
    wanted: Sequence[TensorSpec],
    given: Sequence[TensorSpec],
    made: Mapping[str, State],
    read: Mapping[str, State],
) -> list[TensorSpec]:
    """Connect by position; where that connects h with c, by state, if each kind occurs once."""
    outputs = [_kind(made.get(t.name)) for t in given]
    inputs = [_kind(read.get(t.name)) for t in wanted]
    names = {t.name for t in given}
    contradicted = [
        k
        for k, (tensor, source) in enumerate(zip(wanted, given, strict=True))
        if (tensor.name in names and tensor.name != source.name)
        or (inputs[k] and outputs[k] and inputs[k] != outputs[k])
    ]
    if not contradicted:
        return list(given)
    if all(inputs) and sorted(inputs) == sorted(outputs) and len({*inputs}) == len(inputs):
        return [given[outputs.index(kind)] for kind in inputs]
    tensor, source = wanted[contradicted[0]], given[contradicted[0]]
    call, state = read.get(tensor.name, ("", ""))
    what = f" (the initial {_kind((call, state))} of {call!r})" if state else ""
    listed = ", ".join(f"{s.name} for {t.name}" for t, s in zip(wanted, given, strict=True))
    raise ShapeError(
        f"the output {source.name!r} has the place of the decoder's input {tensor.name!r}{what}; "
        f"joined by place: {listed}. Give the outputs in the order of the decoder's inputs, or by "
        "the same names"
    )


def _kind(state: State | None) -> str:
    """Return ``h`` or ``c``, for either direction."""
    return state[1].rpartition("/")[2] if state else ""


def _fed_back(
    decoder: ModelSpec, wanted: Sequence[TensorSpec], states: Sequence[TensorSpec]
) -> list[tuple[TensorSpec, TensorSpec]]:
    """Pair the decoder's inputs with its states: those of the same call, else by position."""
    made, read = _states_made(decoder), _states_read(decoder)
    inputs = {read[t.name]: t for t in wanted if t.name in read}
    own = [inputs.get(made.get(state.name, ("", ""))) for state in states]
    paired = [(tensor, state) for tensor, state in zip(own, states, strict=True) if tensor]
    if len(paired) == len(states) and len({t.name for t, _ in paired}) == len(states):
        return paired
    places = wanted[len(wanted) - len(states) :]
    return list(zip(places, _by_place(places, states, made, read), strict=True))


def _fit(given: Shape, wanted: Shape) -> bool:
    """Whether shapes are equal; symbols except the batch fit any size."""
    if len(given) != len(wanted):
        return False
    for a, b in zip(given, wanted, strict=True):
        free = (isinstance(a, str) or isinstance(b, str)) and BATCH not in (a, b)
        if a != b and not free:
            return False
    return True
