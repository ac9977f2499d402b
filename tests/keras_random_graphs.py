"""Draw a Keras graph: layers that read tensors that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras_graphs import FRAMEWORKS, IDS, randomise
from keras_random_wires import MERGES, Drawn, Reusable, Steps, Wire

CELLS = ["tanh", "tanh", "tanh", "softsign", "sigmoid", "relu"]
GATES = ["sigmoid", "sigmoid", "hard_sigmoid", "tanh", "softsign"]


class Maker:
    """Draws one functional model, or one inside another; ``forward`` if one for streams."""

    def __init__(
        self, k: Any, rng: np.random.Generator, depth: int = 0, forward: bool = False
    ) -> None:
        self.k, self.L, self.rng, self.depth, self.forward = k, k.layers, rng, depth, forward
        self.inputs: list[Wire] = []
        self.wires: list[Wire] = []
        self.known: list[Reusable] = []
        self.log: list[str] = []
        self.count = 0

    # Choosing.

    def one(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def name(self, kind: str) -> str:
        """A name of its own in this model, and the same in the next one."""
        self.count += 1
        return f"{kind.lower()}_{self.count}{'x' * self.depth}"

    def pick(self, fits: Callable[[Wire], bool] = lambda w: True) -> Wire | None:
        """A tensor, rather a late one."""
        fitting = [w for w in self.wires if fits(w)]
        return None if not fitting else fitting[-1] if self.chance(0.4) else self.one(fitting)

    # Building.

    def input(self, steps: Steps, features: int, pinned: bool = False, ids: bool = False) -> Wire:
        name = self.name("ids" if ids else "input")
        if ids:
            tensor = self.k.Input((None,), dtype="int32", name=name)
            embedding = self.L.Embedding(IDS, features, name=self.name("embedding"))
            wire = Wire(embedding(tensor), steps, features, embedding.name, True)
            self.wires.append(wire)
            wire = Wire(tensor, steps, 0, name)
        else:
            shape = (features,) if steps is None else (steps[1] if pinned else None, features)
            tensor = self.k.Input(shape, name=name)
            wire = Wire(tensor, steps, features, name)
            self.wires.append(wire)
        self.inputs.append(wire)
        self.log.append(f"{name} = Input{tuple(tensor.shape)}" + (" of ids" if ids else ""))
        return wire

    def call(self, item: Reusable, wires: list[Wire], text: str, **options: Any) -> list[Wire]:
        given = [w.tensor for w in wires]
        made = item.layer(given[0] if len(given) == 1 else given, **options)
        return self.keep(item, wires, made, text)

    def keep(self, item: Reusable, wires: list[Wire], made: Any, text: str) -> list[Wire]:
        sizes = item.makes(wires)
        tensors = list(made) if isinstance(made, (list, tuple)) else [made]
        outputs = []
        for wire in wires:
            wire.read = True
        for number, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
            outputs.append(Wire(tensor, *size, f"{item.label}.{len(self.log)}:{number}"))
        listed = ", ".join(w.label for w in wires)
        self.log.append(f"{', '.join(w.label for w in outputs)} = {text}({listed})")
        self.wires += outputs
        return outputs

    def new(
        self, layer: Any, wires: list[Wire], sizes: list[tuple[Steps, int]], text: str, **more: Any
    ) -> list[Wire]:
        """Call a layer that is not worth calling again."""
        return self.call(Reusable(layer, layer.name, [], lambda _: sizes), wires, text, **more)

    def project(self, wire: Wire, features: int) -> Wire:
        dense = self.L.Dense(features, activation=self.one(["tanh", "linear"]), name=self.name("dense"))  # fmt: skip
        return self.new(dense, [wire], [(wire.steps, features)], f"Dense({features})")[0]

    # What there is to draw.

    def draw_recurrent(self) -> None:
        wire = self.pick(lambda w: w.timed)
        if wire is None:
            return self.draw_repeat()
        kind, units = self.one(["LSTM", "LSTM", "GRU", "SimpleRNN"]), int(self.rng.integers(1, 7))
        start = (
            self.pick(lambda w: not w.timed) if self.chance(0.2 if self.forward else 0.5) else None
        )
        count = 2 if kind == "LSTM" else 1
        states: list[Wire] = []
        if start is not None:
            if start.features > 6 or self.chance(0.2):
                start = self.project(start, units)
            units = start.features
            states = [start, *(self.pick(lambda w: not w.timed and w.features == units) for _ in range(count - 1))]  # fmt: skip
            self.rng.shuffle(states)
        options: dict[str, Any] = {
            "activation": self.one(CELLS),
            "return_sequences": self.chance(0.9 if self.forward else 0.5),
            "return_state": self.chance(0.4),
            "go_backwards": self.chance(0.2) and not self.forward,
            "use_bias": self.chance(0.8),
        }
        if kind != "SimpleRNN":
            options["recurrent_activation"] = self.one(GATES)
        if kind == "GRU":
            options["reset_after"] = self.chance(0.5)
        layer = getattr(self.L, kind)(units, name=self.name(kind), **options)

        def makes(wires: list[Wire]) -> list[tuple[Steps, int]]:
            main = (wires[0].steps if options["return_sequences"] else None, units)
            return [main, *([(None, units)] * count if options["return_state"] else [])]

        item = Reusable(layer, layer.name, [(True, wire.features)], makes)
        self.known.append(item)
        shown = ", ".join(f"{n}={v}" for n, v in options.items())
        text = f"{kind}({units}, {shown})"
        if not states:
            self.call(item, [wire], text)
            return None
        for state in states:
            state.read = True
        text += f"[initial_state={', '.join(s.label for s in states)}]"
        given: Any = [s.tensor for s in states]
        if len(given) == 1 and self.chance(0.5):
            given = given[0]
        self.call(item, [wire], text, initial_state=given)
        return None

    def draw_bidirectional(self) -> None:
        wire = self.pick(lambda w: w.timed)
        if wire is None:
            return
        kind, units, sequences = self.one(["LSTM", "GRU"]), int(self.rng.integers(1, 4)), self.chance(0.5)  # fmt: skip
        inner = getattr(self.L, kind)(units, return_sequences=sequences, name=self.name("one_way"))
        layer = self.L.Bidirectional(inner, name=self.name("bidirectional"))
        item = Reusable(
            layer,
            layer.name,
            [(True, wire.features)],
            lambda ws: [(ws[0].steps if sequences else None, 2 * units)],
        )
        self.known.append(item)
        self.call(item, [wire], f"Bidirectional({kind}({units}, return_sequences={sequences}))")

    def draw_dense(self) -> None:
        wire, units = self.pick(), int(self.rng.integers(1, 7))
        assert wire is not None
        activation, bias = self.one(["tanh", "linear", "relu", "softmax", "gelu"]), self.chance(0.8)
        units += activation == "softmax"  # of one number it is 1
        layer = self.L.Dense(units, activation=activation, use_bias=bias, name=self.name("dense"))
        timed: bool | None = None
        text = f"Dense({units}, {activation}, use_bias={bias})"
        if wire.timed and self.chance(0.3):
            layer, timed = self.L.TimeDistributed(layer, name=self.name("each")), True
            text = f"TimeDistributed({text})"
        item = Reusable(
            layer, layer.name, [(timed, wire.features)], lambda ws: [(ws[0].steps, units)]
        )
        self.known.append(item)
        self.call(item, [wire], text)

    def draw_activation(self) -> None:
        wire = self.pick()
        assert wire is not None
        L = self.L
        if wire.features == 1:
            wire = self.project(wire, 3)
        make = self.one([
            lambda name: L.Activation("softsign", name=name),
            lambda name: L.Activation("hard_sigmoid", name=name),
            lambda name: L.Softmax(name=name),
            lambda name: L.LeakyReLU(name=name),
            lambda name: L.ELU(0.5, name=name),
            lambda name: L.Dropout(0.3, name=name),
        ])  # fmt: skip
        layer = make(self.name("activation"))
        item = Reusable(layer, layer.name, [(None, wire.features)], lambda ws: [(ws[0].steps, ws[0].features)])  # fmt: skip
        self.known.append(item)
        self.call(item, [wire], type(layer).__name__)

    def draw_merge(self) -> None:
        """Element by element: the same sizes, or rows among sequences."""
        first, kind = self.pick(), self.one(MERGES)
        assert first is not None
        wires = [first]
        for _ in range(1 if kind == "Subtract" or self.chance(0.6) else 2):
            steps = next((w.steps for w in wires if w.timed), None)
            other = self.pick(lambda w, steps=steps: not w.timed or steps is None or w.steps == steps)  # fmt: skip
            if other is None:
                other = first
            if other.features not in (1, first.features):
                other = self.project(other, first.features)
            wires.append(other)
        self.rng.shuffle(wires)
        steps = next((w.steps for w in wires if w.timed), None)
        size = (steps, max(w.features for w in wires))
        self.new(getattr(self.L, kind)(name=self.name(kind)), wires, [size], kind)

    def draw_concatenate(self) -> None:
        first = self.pick()
        assert first is not None
        same_steps = [w for w in self.wires if w.steps == first.steps]
        same_features = [w for w in self.wires if w.timed and w.features == first.features]
        along_steps = first.timed and self.chance(0.4) and not self.forward
        others = same_features if along_steps else same_steps
        wires = [first, *(self.one(others) for _ in range(int(self.rng.integers(1, 3))))]
        size: tuple[Steps, int] = (first.steps, sum(w.features for w in wires))
        if along_steps:
            size = ((sum(w.steps[0] for w in wires if w.steps), sum(w.steps[1] for w in wires if w.steps)), first.features)  # fmt: skip
        axis = self.one([1, -2]) if along_steps else self.one([-1, 2 if first.timed else 1])
        layer = self.L.Concatenate(axis=axis, name=self.name("concatenate"))
        self.new(layer, wires, [size], f"Concatenate({axis})")

    def draw_dot(self) -> None:
        first = self.pick(lambda w: w.features <= 12)
        if first is None:
            return
        normalize = self.chance(0.6)
        if first.steps is None:
            other = self.pick(lambda w: not w.timed and w.features == first.features)
            axes, size = self.one([1, -1, (1, 1)]), (None, 1)
        elif self.chance(0.5):
            other = self.pick(lambda w: w.steps == first.steps and w.features <= 12)
            axes, size = self.one([1, (1, 1), (-2, 1)]), ((0, first.features), other and other.features)  # fmt: skip
        else:
            other = self.pick(lambda w: w.timed and w.steps[0] == 0 and w.features == first.features)  # fmt: skip
            axes, size = self.one([2, -1, (2, 2)]), (first.steps, other and other.steps and other.steps[1])  # fmt: skip
        if other is None:
            return
        layer = self.L.Dot(axes=axes, normalize=normalize, name=self.name("dot"))
        self.new(layer, [first, other], [size], f"Dot({axes}, normalize={normalize})")

    def draw_repeat(self) -> None:
        wire, n = self.pick(lambda w: not w.timed), int(self.rng.integers(1, 6))
        if wire is not None:
            layer = self.L.RepeatVector(n, name=self.name("repeat"))
            self.new(layer, [wire], [((0, n), wire.features)], f"RepeatVector({n})")

    def draw_shape(self) -> None:
        wire = self.pick(lambda w: w.timed and w.steps[0] == 0 and w.steps[1] * w.features <= 40)
        if wire is None or wire.steps is None:
            return
        n, f = wire.steps[1], wire.features
        if self.chance(0.6):
            self.new(self.L.Flatten(name=self.name("flatten")), [wire], [(None, n * f)], "Flatten")
        elif self.chance(0.5):
            turn = self.L.Permute((2, 1), name=self.name("permute"))
            self.new(turn, [wire], [((0, f), n)], "Permute(2, 1)")
        else:
            row = self.L.Reshape((n * f, 1), name=self.name("reshape"))
            self.new(row, [wire], [((0, n * f), 1)], f"Reshape({n * f}, 1)")

    def draw_again(self) -> None:
        """Call a layer or model again that has been called before."""
        if not self.known:
            return
        item = self.one(self.known)
        wires: list[Wire] = []
        for timed, features in item.takes:
            steps = next((w.steps for w in wires if w.timed), None)
            wire = self.pick(lambda w, t=timed, f=features, s=steps: w.features == f and t in (None, w.timed) and (s is None or not w.timed or w.steps == s))  # fmt: skip
            if wire is None:
                wire = self.pick(lambda w, t=timed, s=steps: t in (None, w.timed) and (s is None or not w.timed or w.steps == s))  # fmt: skip
                if wire is None:
                    return
                wire = self.project(wire, features)
            wires.append(wire)
        self.call(item, wires, f"{item.label} again")

    def draw_nested(self) -> None:
        """A model in the model, of one or two tensors in and out."""
        if self.depth == 2:
            return
        inner = Maker(self.k, self.rng, self.depth + 1, self.forward)
        wires = [self.pick(lambda w: w.features <= 12)]
        if wires[0] is None:
            return
        if self.chance(0.4):
            wires.append(self.pick(lambda w: w.features <= 12 and (not w.timed or not wires[0].timed or w.steps == wires[0].steps)))  # fmt: skip
        for wire in wires:
            inner.input((1, 0) if wire.timed else None, wire.features)
        inner.draw(int(self.rng.integers(1, 5)))
        made = inner.choose_outputs(2)
        name = self.name("nested")
        model = self.k.Model(
            [w.tensor for w in inner.inputs], [w.tensor for w in made] if len(made) > 1 else made[0].tensor, name=name
        )  # fmt: skip
        self.log += [f"    {line}" for line in [f"{name}:", *inner.log, f"return {', '.join(w.label for w in made)}"]]  # fmt: skip

        def makes(given: list[Wire]) -> list[tuple[Steps, int]]:
            a, b = next((w.steps for w in given if w.steps), (0, 0))
            return [(s and (s[0] * a, s[0] * b + s[1]), f) for s, f in ((w.steps, w.features) for w in made)]  # fmt: skip

        item = Reusable(model, name, [(w.timed, w.features) for w in wires], makes)
        self.known.append(item)
        self.call(item, wires, name)

    def draw_sequential(self) -> None:
        wire = self.pick(lambda w: w.timed)
        if wire is None or self.depth == 2:
            return
        L, name = self.L, self.name("sequential")
        units, out, mark = int(self.rng.integers(1, 5)), int(self.rng.integers(1, 5)), "x" * (self.depth + 1)  # fmt: skip
        layers = [self.k.Input((None, wire.features)), L.LSTM(units, return_sequences=True, name=f"lstm_1{mark}"), L.Dense(out, name=f"dense_2{mark}")]  # fmt: skip
        sequences = self.chance(0.5)
        if not sequences:
            layers.insert(2, L.GRU(units, name=f"gru_3{mark}"))
        item = Reusable(self.k.Sequential(layers, name=name), name, [(True, wire.features)], lambda ws: [(ws[0].steps if sequences else None, out)])  # fmt: skip
        self.known.append(item)
        self.call(item, [wire], f"Sequential({', '.join(layer.name for layer in layers[1:])}; {units}, {out})")  # fmt: skip

    # All together.

    def draw(self, layers: int) -> None:
        kinds = [self.draw_recurrent] * 6 + [self.draw_dense] * 2 + [self.draw_merge] * 3
        kinds += [self.draw_again] * 3 + [self.draw_nested] * 2 + [self.draw_activation]
        kinds += [self.draw_concatenate] * 2 + [self.draw_sequential]
        if not self.forward:
            kinds += [self.draw_dot, self.draw_bidirectional] + [
                self.draw_repeat,
                self.draw_shape,
            ] * 2
        for _ in range(layers):
            self.one(kinds)()

    def choose_outputs(self, most: int) -> list[Wire]:
        """What nobody reads, and now and then what somebody does."""
        ends = [w for w in self.wires if not w.read] or self.wires[-1:]
        while len(ends) > most:
            ends.pop(int(self.rng.integers(len(ends))))
        if self.depth:  # Keras 3 makes a cycle of what a nested model only hands on
            ends = [w for w in ends if w not in self.inputs] or [self.project(self.wires[-1], 2)]
        elif len(ends) < most and self.chance(0.3):
            ends.append(self.one(self.wires))
        self.rng.shuffle(ends)
        return ends

    def finish(self, seed: int, way: str) -> Drawn:
        """Make the model of what has been drawn, with random weights."""
        outputs = self.choose_outputs(4)
        tensors = [w.tensor for w in outputs]
        model = self.k.Model([w.tensor for w in self.inputs], tensors if len(tensors) > 1 else tensors[0])  # fmt: skip
        randomise(model, seed)
        framework = next(name for name, k in FRAMEWORKS.items() if k is self.k)
        lines = [f"seed {seed}, {framework}, {way}", *self.log, f"return {', '.join(w.label for w in outputs)}"]  # fmt: skip
        return Drawn(model, framework, way, "\n".join(lines))
