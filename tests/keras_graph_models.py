"""All Keras graphs of the tests, built once, with runs of the framework."""

from __future__ import annotations

import functools
from typing import Any

import keras_graph_inputs  # noqa: F401  fills GRAPHS
import keras_graph_nested  # noqa: F401  fills GRAPHS
import keras_graph_states  # noqa: F401  fills GRAPHS
from keras_graph_registry import GRAPHS, STEPS
from keras_graphs import FRAMEWORKS, make_inputs, randomise, run


@functools.cache
def built(framework: str, name: str) -> tuple[Any, list[Any]]:
    """A model with random weights and two recorded runs."""
    model = GRAPHS[name](FRAMEWORKS[framework])
    seed = sum(map(ord, name))
    randomise(model, seed)
    runs = []
    for number, steps in enumerate(STEPS.get(name, (7, 4))):
        xs = make_inputs(model, (3, 1)[number], steps, seed + number)
        runs.append((xs, run(model, xs)))
    return model, runs
