"""The operators Loop and Scan: their bodies become graphs of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.body import Body, Call
from npylstm.ops.indexing import Flip, Slice
from npylstm.ops.scan import Scan
from npylstm.ops.shapes import BATCH, Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.attributes import attributes_of, constant_of
from npylstm_converters.onnx.counters import Condition, Counter
from npylstm_converters.onnx.fusing import fuse_biases
from npylstm_converters.onnx.loop_layers import LoopLayer, credit_sources, shaped_initial
from npylstm_converters.onnx.shaping import transpose
from npylstm_converters.onnx.steps import State, StepGraph, StepScope
from npylstm_converters.onnx.values import ConstantTensor, Ref, Sizes, Value, integers, kind_of

__all__ = ["loop", "scan"]


def loop(call: Any, inputs: Sequence[Value | None], *, body: Any) -> list[Value | None]:
    """Translate a loop whose number of iterations does not depend on the values of an input."""
    limit, condition, *values = (*inputs, None, None)[: max(2, len(inputs))]
    if condition is not None and not _is_true(condition):
        raise Refusal("whether it begins depends on the values of an input")
    counter, going, *names = [value.name for value in body.input]
    ends, *made = [value.name for value in body.output]
    names_made = made[: len(names)]

    def bind(steps: StepScope, graph: StepGraph) -> list[State]:
        steps[counter], steps[going] = Counter(0, 1), ConstantTensor(np.array(True))
        states = []
        for name, after, value in zip(names, names_made, values, strict=True):
            kind = _carried(body, call.scope, name, after, value)
            if kind == "same":
                steps[name] = graph.capture(value) if isinstance(value, Ref) else value
            elif isinstance(kind, Counter):
                steps[name] = kind
            else:
                states.append(
                    State(call.tensor(value), name, after, call.shape(call.tensor(value)))
                )
        return states

    step = _Step(call, body, bind)
    count = _iterations(limit, step.scope[ends])
    finals, stacked = step.finish(count, made[len(names) :])
    results: list[Value | None] = []
    for name, after, value in zip(names, names_made, values, strict=True):
        kind = _carried(body, call.scope, name, after, value)
        if kind == "same":
            results.append(value)
        elif isinstance(kind, Counter):
            results.append(_number(kind.start + kind.step * count))
        else:
            results.append(finals[name])
    return [*results, *stacked]


def _is_true(value: Value) -> bool:
    return isinstance(value, ConstantTensor) and bool(value.array.all())


def _number(value: Any) -> Value:
    array = np.empty((), object)
    array[()] = value
    return ConstantTensor(np.array(value)) if isinstance(value, int) else Sizes(array)


def _iterations(limit: Value | None, end: Any) -> Any:
    """Return the number of iterations: an integer or a Size."""
    numbers = []
    if limit is not None:
        (most,) = integers(limit)
        numbers.append(most)
    if isinstance(end, Condition):
        # Computed in iteration t for the next one, so it holds once more than it is true.
        numbers += [(max(n, 0) if isinstance(n, int) else n) + 1 for n in end.iterations]
    elif not (isinstance(end, ConstantTensor) and end.array.all()):
        raise Refusal("when it ends depends on the values of an input")
    far = 1 << 31
    numbers = [n for n in numbers if not isinstance(n, int) or n < far]
    if not numbers:
        if limit is None:
            raise Refusal("never ends: it has neither a limit nor a condition")
        raise Refusal(f"has {most} iterations, and no condition that ends it earlier")
    least = Condition(tuple(numbers)).least
    if isinstance(least, int) and least < 1:
        raise Refusal("has no iteration")
    return least


def _carried(body: Any, scope: Any, name: str, after: str, value: Any) -> Any:
    """Return what a value of the loop is: a Counter, ``"same"``, or ``"state"``."""
    makers = {output: node for node in body.node for output in node.output}
    whole = kind_of(value) == "i"

    def source(tensor: str) -> str:
        while tensor in makers and _keeps(makers[tensor], whole):
            tensor = makers[tensor].input[0]
        return tensor

    found = source(after)
    if found == name:
        return "same"
    node = makers.get(found)
    known = isinstance(value, (ConstantTensor, Sizes)) and value.array.size == 1
    if node is None or node.op_type not in ("Add", "Sub") or not known:
        return "state"
    a, b = map(source, node.input)
    other = b if a == name else a if b == name and node.op_type == "Add" else None
    step = None if other is None else _constant_in(body, scope, other)
    if step is None or step.dtype.kind not in "iu" or value.array.dtype.kind not in "iuO":
        return "state"
    (start,), number = integers(value), int(np.ravel(step)[0])
    return Counter(start, -number if node.op_type == "Sub" else number)


def _keeps(node: Any, whole: bool) -> bool:
    """Whether a node has its input as output; ``whole`` tells that this is an integer."""
    from onnx import TensorProto

    if node.op_type != "Cast":
        return bool(node.op_type == "Identity")
    return whole and all(a.i in (TensorProto.INT32, TensorProto.INT64) for a in node.attribute)


def _constant_in(body: Any, scope: Any, name: str) -> Array | None:
    """Return a constant that the body reads; None if it is something else."""
    from onnx import numpy_helper

    for tensor in body.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    for node in body.node:
        if node.op_type == "Constant" and node.output[0] == name:
            return constant_of(attributes_of(node)).array
    value = scope.get(name)
    return value.array if isinstance(value, ConstantTensor) else None


def scan(
    call: Any, inputs: Sequence[Value | None], *, body: Any, num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (), scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (), scan_output_directions: Sequence[int] = (),
) -> list[Value | None]:  # fmt: skip
    """Translate a graph that runs over the entries of its last inputs."""
    count = len(inputs) - num_scan_inputs
    names = [value.name for value in body.input]
    made = [value.name for value in body.output]
    data = [call.tensor(value) for value in inputs[count:]]
    axes = [*scan_input_axes] or [0] * len(data)
    backwards = [*scan_input_directions] or [0] * len(data)
    sizes = [call.sizes(x)[axis % len(call.shape(x))] for x, axis in zip(data, axes, strict=True)]

    def bind(steps: StepScope, graph: StepGraph) -> list[State]:
        for name, x, axis, back, size in zip(
            names[count:], data, axes, backwards, sizes, strict=True
        ):
            counter = Counter(size - 1, -1) if back else Counter(0, 1)
            steps[name] = graph.step_of(graph.capture(x), counter, axis % len(call.shape(x)))
        pairs = zip(names[:count], made[:count], inputs[:count], strict=True)
        return [
            State(call.tensor(value), name, after, call.shape(call.tensor(value)))
            for name, after, value in pairs
        ]

    step = _Step(call, body, bind)
    finals, stacked = step.finish(sizes[0], made[count:])
    turned = [*scan_output_directions] or [0] * len(stacked)
    places = [*scan_output_axes] or [0] * len(stacked)
    outputs: list[Value | None] = []
    for y, back, axis in zip(stacked, turned, places, strict=True):
        if y is not None and back:
            y = call.add(Flip((0,)), y, part="turned")
        if y is not None and axis:
            rank = len(call.shape(y))
            order = [*range(1, rank)]
            order.insert(axis % rank, 0)
            y = transpose(call, y, perm=order)
        outputs.append(y)
    return [*(finals[name] for name in names[:count]), *outputs]


class _Step:
    """The body of a loop, translated."""

    def __init__(self, call: Any, body: Any, bind: Any) -> None:
        self._call, self._body = call, body
        shapes: dict[str, Shape] = {}
        for _ in range(3):  # the shape of a zero state may be known only from the step
            self._translate(bind, shapes)
            changed = False
            for state in self._states:
                after = self._made(state.made)
                new = self._graph.shape(after)
                if new != state.shape and call.is_zero(state.initial):
                    shapes[state.read], changed = new, True
            if not changed:
                return

    def _translate(self, bind: Any, shapes: Mapping[str, Shape]) -> None:
        call = self._call
        self._graph = StepGraph(call.graph)
        steps = StepScope(call.scope, self._graph)
        self._states: list[State] = bind(steps, self._graph)
        for state in self._states:
            state.shape = shapes.get(state.read, state.shape)
            ref = self._graph.add_input(
                state.read.replace("/", "_"), state.shape, state.initial.kind
            )
            steps[state.read], state.step_input = ref, ref.name
        self.scope: Any = call.translator.inside(self._graph).subgraph(self._body, steps)

    def _made(self, name: str) -> Ref:
        value = self.scope.get(name)
        if value is None:
            raise Refusal("its body is not supported")
        if isinstance(value, Counter):
            raise Refusal("returns the number of the iteration")
        return self._graph.tensor(value)

    def finish(
        self, count: Any, outputs: Sequence[str]
    ) -> tuple[dict[str, Ref], list[Value | None]]:
        """Add the loop; return the final states by name, and the stacked outputs."""
        call, graph = self._call, self._graph
        results = self._simplified([*(state.made for state in self._states), *outputs])
        read = {t for edge in graph.builder.edges for t in edge.inputs} | {*results}
        sequences = [name for name in graph.sequences if name in read]
        constants = [name for name in graph.constants if name in read]
        tensors = [self._sequence(*graph.sequences[name], count) for name in sequences]
        layer = LoopLayer(call, graph, self._states, results)
        made = layer.add(sequences, tensors, constants)
        if made is None:
            made = self._as_scan(sequences, constants, tensors, results, count)
        finals, stacked = made
        named = zip(self._states, finals, strict=True)
        return {state.read: Ref(final.name, state.initial.kind) for state, final in named}, [
            *stacked
        ]

    def _simplified(self, names: Sequence[str]) -> list[str]:
        """Return the tensors of the step that are its results, after it is made shorter."""
        builder = self._graph.builder
        results = builder.simplify([self._made(name).name for name in names])
        renamed = fuse_biases(builder, results, self._graph.sources)
        return [*builder.simplify([renamed.get(name, name) for name in results])]

    def _as_scan(
        self, sequences: Sequence[str], constants: Sequence[str], tensors: Sequence[Ref],
        results: Sequence[str], count: Any,
    ) -> tuple[list[Ref], list[Ref]]:  # fmt: skip
        """Add the step as it is, to run once for each entry of the sequences."""
        call, builder = self._call, self._graph.builder
        states = [state.step_input for state in self._states]
        body = Body(
            (*sequences, *states, *constants),
            tuple((layer.name, layer.layer) for layer in builder.layers.values()),
            tuple(Call(edge.layer, edge.inputs, edge.outputs) for edge in builder.edges),
            tuple(results),
        )
        weights = {
            f"{layer.name}/{key}": array
            for layer in builder.layers.values()
            for key, array in layer.weights.items()
        }
        sizes, initial = self._initial(tensors, count)
        operation = Scan(body, len(tensors), len(states), sizes, count if not tensors else None)
        outer = [self._graph.constants[name] for name in constants]
        made = call.layer(
            operation, weights, *tensors[:1], *initial, *tensors[1:], *outer, kind="f"
        )
        credit_sources(call, self._graph, inside=True)
        split = len(results) - len(states)
        return made[split:], made[:split]

    def _sequence(self, data: Ref, counter: Counter, count: Any) -> Any:
        """Return the entries of a tensor in the order of the iterations."""
        call = self._call
        size = call.sizes(data)[0]
        if call.make_equal(count, size):  # one loop reads a sequence and its mask
            size = count
        first, last = counter.start, counter.start + counter.step * (count - 1)
        if counter.step == -1:
            data = call.add(Flip((0,)), data, part="backwards")
            first, last = size - 1 - first, size - 1 - last
        elif counter.step != 1:
            raise Refusal(f"reads every {counter.step}th entry")
        rest = last - size + 1
        if not isinstance(first, int) or not isinstance(rest, int) or first < 0 or rest > 0:
            raise Refusal(f"reads {count} entries of a tensor with {size}")
        if first or rest:
            data = call.add(Slice(0, first, rest or None), data, part="read")
        return data

    def _initial(
        self, sequences: Sequence[Ref], count: Any
    ) -> tuple[tuple[tuple[int, ...], ...], list[Ref]]:
        """Return the sizes of carried states, and initial states where they are not zeros."""
        call = self._call
        shapes = [state.shape for state in self._states]
        usual = all(
            shape[:1] == (BATCH,) and all(isinstance(d, int) for d in shape[1:]) for shape in shapes
        )
        sizes = tuple(tuple(int(d) for d in shape[1:]) for shape in shapes) if usual else ()
        zero = all(call.is_zero(state.initial) for state in self._states)
        by_sample = bool(sequences) and call.shape(sequences[0])[1:2] == (BATCH,)
        if sizes and zero and by_sample:
            return sizes, []
        if not isinstance(count, int) and not sequences:
            raise Refusal(f"has {count} iterations, without a sequence to read")
        return sizes, [shaped_initial(self._call, state) for state in self._states]
