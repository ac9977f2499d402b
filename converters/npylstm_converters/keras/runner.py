"""Runs a Keras source in Keras."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.keras.execution import (
    executions,
    leaf_layers,
    packed,
    without_first_layers,
)
from npylstm_converters.keras.loading import load
from npylstm_converters.toolkit.runners import fixed_sizes, named_outputs, one_line

__all__ = ["KerasRunner"]

Arrays = Mapping[str, npt.NDArray[Any]]
States = Mapping[str, Arrays]

# A step of a recurrent layer takes eager TensorFlow about a millisecond, tracing a graph takes
# about a second.
_EAGER_STEPS = 400


class KerasRunner:
    """Runs a Keras source in Keras, with the initial states of a case.

    Parameters
    ----------
    source
        A path, or a model object of Keras 3 or tf_keras.
    spec
        The converted model, for names.
    architecture, layers
        As for :func:`npylstm_converters.from_keras`.

    Attributes
    ----------
    description
        Framework and version.
    sizes
        Free sizes of the spec that the model fixes.
    sets_lengths
        Whether the model has every recurrent layer of the spec, so that masks can set lengths.

    Raises
    ------
    NpylstmError
        If no suitable Keras is installed or it cannot load the source.
    """

    sets_state = True

    def __init__(
        self,
        source: Any,
        spec: ModelSpec,
        architecture: str | os.PathLike[str] | None = None,
        layers: str | None = None,
    ) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        version = spec.provenance.get("framework_version")
        if isinstance(source, (str, os.PathLike)):
            digits = re.match("[0-9]{1,4}", str(version))
            major = int(digits[0]) if digits else 3
            model, self.description = load(source, architecture, layers, major)
        else:
            model, self.description = source, f"Keras {version}"
        packages = (cls.__module__.split(".")[0] for cls in type(model).__mro__)
        self._keras = importlib.import_module(
            next(p for p in packages if p in ("keras", "tf_keras"))
        )
        try:
            model = without_first_layers(self._keras, model, _first_layers(spec))
        except Exception as error:  # the spec may be that of another model
            raise NpylstmError(f"{self.description}: {one_line(error, 200)}") from None
        self._model, self._spec = model, spec
        if hasattr(self._keras, "ops"):
            self._to_tensor = self._keras.ops.convert_to_tensor
        else:
            self._to_tensor = importlib.import_module("tensorflow").convert_to_tensor
        self.sizes: Mapping[str, int] = fixed_sizes(spec.inputs, [x.shape for x in model.inputs])
        found = {name for execution in executions(model) for name in execution.names}
        self._recurrent = {e.name for e in spec.edges if spec[e.layer].layer.uses_mask}
        self.sets_lengths = found >= self._recurrent

    def __call__(
        self, inputs: Arrays, state: States, lengths: npt.NDArray[Any] | None = None
    ) -> dict[str, Any]:
        """Return all outputs by name; an empty state is zeros, ``lengths=None`` means all steps."""
        values = self._run(inputs, state, lengths)
        return named_outputs(self._spec.outputs, [self._to_array(v) for v in values])

    def activations(
        self,
        inputs: Arrays,
        state: States | None = None,
        lengths: npt.NDArray[Any] | None = None,
    ) -> dict[str, Any]:
        """Return the outputs of every layer, by the names of the spec's tensors.

        Layers whose name and call are not in the spec are omitted.
        """
        seen: dict[str, Any] = {}
        self._run(inputs, state or {}, lengths, seen)
        return {name: self._to_array(value) for name, value in seen.items()}

    def _run(
        self,
        inputs: Arrays,
        state: States,
        lengths: npt.NDArray[Any] | None,
        seen: dict[str, Any] | None = None,
    ) -> Sequence[Any]:
        self._reset()
        mask = None if lengths is None else self._to_tensor(self._counted(inputs, lengths))
        given = [self._to_tensor(inputs[t.name]) for t in self._spec.inputs]
        begin = {k: [*map(self._to_tensor, entries.values())] for k, entries in state.items()}
        try:
            if seen is None and self._is_long(given):
                with contextlib.suppress(Exception), _plain_graph():
                    compiled: Sequence[Any] = self._compiled(given, begin, mask)
                    return compiled
                self._reset()
            return self._call(given, begin, mask, seen)
        except Exception as error:  # the framework may raise anything
            text = " ".join(str(error).split())[:200]
            shapes = ", ".join(str(x.shape) for x in inputs.values())
            raise NpylstmError(
                f"{self.description} cannot run the model on shape {shapes}: {text}"
            ) from None

    def _call(
        self,
        given: Sequence[Any],
        state: Mapping[str, Sequence[Any]],
        mask: Any = None,
        seen: dict[str, Any] | None = None,
    ) -> Sequence[Any]:
        # Not `predict`: it traces a graph, which fails for TimeDistributed over new lengths.
        watched = state or mask is not None or seen is not None
        around = self._observed(state, mask, seen) if watched else contextlib.nullcontext()
        with around, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes that this program chose
            y = self._model(self._packed(given), training=False)
        return _leaves(y)

    def _packed(self, given: Sequence[Any]) -> Any:
        """Return the inputs in the dictionaries and lists that the model takes."""
        structure = getattr(self._model, "input", None)
        one = len(given) == 1 and not isinstance(structure, Mapping)
        return given[0] if one else packed(structure, given)

    @contextlib.contextmanager
    def _observed(
        self, state: Mapping[str, Sequence[Any]], mask: Any, seen: dict[str, Any] | None
    ) -> Iterator[None]:
        """Set initial states of recurrent layers, and record the outputs of every layer.

        It wraps every layer's ``call`` for one run. Keras has computed its masks before; ``mask``
        (batch, steps), made from the lengths, replaces them.
        """
        queues: dict[int, list[tuple[str, ...]]] = {}
        layers: dict[int, Any] = {}
        for execution in executions(self._model):
            queues.setdefault(id(execution.layer), []).append(execution.names)
            layers[id(execution.layer)] = execution.layer
        counts: Counter[int] = Counter()
        left = set(state)

        def wrapped(key: int, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if counts[key] >= len(queues[key]):
                raise NpylstmError(f"layer {layers[key].name} is called more often than its graph")
            names = queues[key][counts[key]]
            counts[key] += 1
            own = [state[name] for name in names if name in state]
            if own:
                left.difference_update(names)
                kwargs["initial_state"] = self._nested(layers[key], own)
            if mask is not None and self._recurrent.issuperset(names):
                kwargs["mask"] = mask
            y = original(*args, **kwargs)
            if seen is not None and len(names) == 1:
                seen.update(zip(self._tensors.get(names[0], ()), _leaves(y), strict=False))
            return y

        before = {key: layer.__dict__.get("call") for key, layer in layers.items()}
        try:
            for key, layer in layers.items():
                wrapper = functools.partial(wrapped, key, layer.call)
                layer.__dict__["call"] = self._not_converted(wrapper)
            yield
        finally:
            for key, layer in layers.items():
                layer.__dict__.pop("call", None)
                if before[key] is not None:
                    layer.__dict__["call"] = before[key]
        if left:
            raise NpylstmError(f"no layer takes the state of {', '.join(sorted(left))}")

    @functools.cached_property
    def _tensors(self) -> dict[str, tuple[str, ...]]:
        """Return the spec's tensors by the name of the call that computes them."""
        return {edge.name: edge.outputs for edge in self._spec.edges}

    def _counted(self, inputs: Arrays, lengths: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the mask that is true for steps below the lengths, with a layer mask's axes."""
        first = self._spec.inputs[0]
        axis = first.time_axis or 0
        counted = np.arange(inputs[first.name].shape[axis]) < np.asarray(lengths)[:, None]
        return counted if axis else counted.T

    def _nested(self, layer: Any, states: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Return the states of a layer as Keras nests them: one list per stacked cell."""
        if len(getattr(getattr(layer, "cell", None), "cells", ())) < 2:
            return states[0]
        if hasattr(self._keras, "ops"):
            return states
        return [own[0] if len(own) == 1 else own for own in states]

    def _not_converted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a wrapper whose source TensorFlow's AutoGraph does not convert."""
        if self._tensorflow is None:
            return function
        converted: Callable[..., Any] = self._tensorflow.autograph.experimental.do_not_convert(
            function
        )
        return converted

    @functools.cached_property
    def _tensorflow(self) -> Any:
        """TensorFlow if it is the backend; None with another backend of Keras 3."""
        if hasattr(self._keras, "ops") and self._keras.backend.backend() != "tensorflow":
            return None
        return importlib.import_module("tensorflow")

    def _is_long(self, given: Sequence[Any]) -> bool:
        """Whether the inputs are so long that tracing a graph is faster than eager steps."""
        axes = [t.time_axis for t in self._spec.inputs]
        steps = [int(x.shape[a]) for x, a in zip(given, axes, strict=True) if a is not None]
        recurrent = sum(bool(s) for s in self._spec.state_shapes().values())
        return self._tensorflow is not None and max(steps, default=0) * recurrent > _EAGER_STEPS

    @functools.cached_property
    def _compiled(self) -> Any:
        """The call as a graph; TensorFlow retraces it for another length."""
        return self._tensorflow.function(self._call, autograph=False, reduce_retracing=True)

    def _to_array(self, value: Any) -> npt.NDArray[Any]:
        if hasattr(self._keras, "ops"):
            value = self._keras.ops.convert_to_numpy(value)
        return np.asarray(value)

    def _reset(self) -> None:
        """Reset the state of a stateful model."""
        for _, layer in leaf_layers(self._model):
            if getattr(layer, "stateful", False):
                layer.reset_states()


@contextlib.contextmanager
def _plain_graph() -> Iterator[None]:
    """Disable TensorFlow's graph optimiser inside the context.

    It replaces operations by fused ones that compute other numbers (gelu in TensorFlow 2.13).
    """
    options = importlib.import_module("tensorflow").config.optimizer
    before = options.get_experimental_options()
    options.set_experimental_options({**before, "disable_meta_optimizer": True})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": False, **before})


def _first_layers(spec: ModelSpec) -> list[str | None]:
    """Return for each input the layer that computes its ids and is no part of the spec."""
    entries: Any = spec.provenance.get("preprocessing")
    known = [entry for entry in entries if isinstance(entry, dict)] if entries else []
    layers = {entry.get("input"): entry.get("layer") for entry in known}
    return [layers.get(tensor.name) for tensor in spec.inputs]


def _leaves(y: Any) -> list[Any]:
    """Return all tensors of nested lists and dictionaries, in Keras' order: keys are sorted."""
    if isinstance(y, Mapping):
        y = [y[key] for key in sorted(y)]
    if isinstance(y, (list, tuple)):
        return [leaf for part in y for leaf in _leaves(part)]
    return [y]
