"""Run the network of a file without a framework in PyTorch, as an independent reference.

An importer builds it of PyTorch's modules, from the file itself and not from the converted model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.toolkit.runners import one_line

__all__ = ["Step", "TorchReference", "linear", "module", "recurrent"]

Arrays = Mapping[str, npt.NDArray[Any]]
# A part of the network: takes a tensor, and the initial states of further recurrent layers.
Step = Callable[[Any, "Iterator[Arrays] | None"], Any]


class TorchReference:
    """Runs a network that was built in PyTorch.

    Parameters
    ----------
    spec
        The converted model, for names.
    build
        Takes the torch package, and returns the parts of the network in order.
    sets_state
        Whether its recurrent layers take initial states, in the order of the spec's.

    Attributes
    ----------
    description
        PyTorch and its version; whether it is built as the author's program is, no run shows.
    sizes
        Empty: all sizes are free.

    Raises
    ------
    NpylstmError
        If PyTorch is not installed.
    """

    sizes: Mapping[str, int] = {}

    def __init__(
        self, spec: ModelSpec, build: Callable[[Any], Sequence[Step]], *, sets_state: bool = True
    ) -> None:
        try:
            import torch
        except ImportError:
            raise NpylstmError("running this model needs PyTorch: pip install torch") from None
        self._torch, self._spec = torch, spec
        self._steps = build(torch)
        self.description = f"torch {torch.__version__} (built from the file)"
        self.sets_state = sets_state

    def __call__(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Any]:
        """Return the output by name; an empty state means that of a new stream."""
        (tensor,), (output,) = self._spec.inputs, self._spec.outputs
        x = self._torch.from_numpy(np.array(inputs[tensor.name]))
        states = [state[call] for call in self._spec.state_shapes()] if state else None
        try:
            with self._torch.no_grad():
                rest = None if states is None else iter(states)
                for step in self._steps:
                    x = step(x, rest)
        except Exception as error:  # the framework may raise anything
            text = one_line(error, 200)
            raise NpylstmError(f"{self.description} cannot run the model: {text}") from None
        return {output: x.numpy()}


def module(function: Callable[[Any], Any]) -> Step:
    """Return the step of a module or function without state."""
    return lambda x, states: function(x)


def linear(torch: Any, weight: Any, bias: Any | None) -> Step:
    """Return the step of a Linear; ``weight`` is (outputs, inputs)."""
    weight = torch.as_tensor(weight, dtype=torch.float32)
    bias = None if bias is None else torch.as_tensor(bias, dtype=torch.float32)
    return module(lambda x: torch.nn.functional.linear(x, weight, bias))


def recurrent(
    torch: Any, kind: str, layers: Sequence[Sequence[Any]], directions: int = 1,
    initial: Sequence[Any] | None = None,
) -> Step:  # fmt: skip
    """Return the step of a stack of recurrent layers.

    Parameters
    ----------
    torch
        The package.
    kind
        Name of the class: ``LSTM``, ``GRU`` or ``RNN``.
    layers
        For every layer and direction ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``, in
        PyTorch's layout.
    directions
        2 if bidirectional.
    initial
        The states (layers, units) from which a new stream starts; None means zeros.
    """
    arrays = [[torch.as_tensor(a, dtype=torch.float32) for a in layer] for layer in layers]
    units, features = arrays[0][1].shape[1], arrays[0][0].shape[1]
    depth = len(layers) // directions
    net = getattr(torch.nn, kind)(
        features, units, depth, batch_first=True, bidirectional=directions == 2
    )
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    suffixes = [f"_l{k}{'_reverse' * d}" for k in range(depth) for d in range(directions)]
    net.load_state_dict(
        {
            f"{name}{suffix}": array
            for suffix, layer in zip(suffixes, arrays, strict=True)
            for name, array in zip(names, layer, strict=True)
        }
    )
    first = None if initial is None else [torch.as_tensor(a)[:, None] for a in initial]

    def run(x: Any, states: Iterator[Arrays] | None) -> Any:
        start = None if first is None else [a.expand(-1, len(x), -1).contiguous() for a in first]
        if states is not None and first is None:
            own = [next(states) for _ in range(depth)]
            start = [torch.stack([torch.from_numpy(np.array(s[k])) for s in own]) for k in own[0]]
        if start is None:
            return net(x)[0]
        return net(x, tuple(start) if kind == "LSTM" else start[0])[0]

    return run
