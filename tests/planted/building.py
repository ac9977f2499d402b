"""Building a model: layers, their calls, random weights and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from npylstm import ModelSpec
from npylstm.ops.base import Operation
from npylstm.spec import Edge, LayerSpec, TensorSpec
from planted.program import Array, Data, Run, read_spec


@dataclass(frozen=True)
class Architecture:
    """A model and what it is called with."""

    name: str
    seed: int
    spec: ModelSpec
    data: Data

    @property
    def run(self) -> Run:
        """The correct program."""
        return Run(read_spec(self.spec), self.data)


@dataclass
class Build:
    """Collects layers and their calls, and draws their weights."""

    rng: np.random.Generator
    layers: list[LayerSpec] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def add(self, name: str, layer: Operation, *inputs: str) -> str:
        """Add a layer and its call; return its main output."""
        weights = {key: self.weight(key, shape) for key, shape in layer.weight_shapes().items()}
        self.layers.append(LayerSpec(name, layer, weights))
        self.edges.append(Edge.call(self.layers[-1], *inputs))
        return self.edges[-1].outputs[0]

    def weight(self, key: str, shape: tuple[int, ...]) -> Array:
        rng, name = self.rng, key.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            w = rng.uniform(0.4, 1.6, shape)
        elif name == "moving_mean":
            w = rng.uniform(0.1, 1.0, shape)
        elif name == "embeddings":
            w = rng.normal(0, 1, shape)
        elif len(shape) == 1 or "bias" in name:
            w = rng.uniform(0.15, 0.7, shape) * rng.choice([-1, 1], shape)
        else:
            inner = int(np.prod(shape[:-1])) if name == "kernel" else shape[0]
            w = rng.uniform(-1, 1, shape) * 1.8 / np.sqrt(inner)
        return w.astype(np.float32)

    def noise(self, *shape: int) -> Array:
        return self.rng.normal(0, 1, shape).astype(np.float32)

    def sizes(self, steps: int = 30, batch: int = 8, samples: int = 2) -> tuple[int, int]:
        """Samples and steps."""
        return self.size(samples, batch), self.size(5, steps)

    def finish(self, *inputs: TensorSpec, outputs: Sequence[str]) -> ModelSpec:
        return ModelSpec(tuple(self.layers), tuple(self.edges), inputs, tuple(outputs))
