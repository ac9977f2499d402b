"""Runs a PyTorch source in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.toolkit.runners import fixed_sizes, named_outputs, one_line
from npylstm_converters.torch.chain_runner import ChainRunner
from npylstm_converters.torch.dequantizing import dequantized
from npylstm_converters.torch.files import Kind, sniff
from npylstm_converters.torch.hooks import Hooks
from npylstm_converters.torch.running import inference, quiet
from npylstm_converters.torch.scripted import module_of_script
from npylstm_converters.torch.sources import (
    arguments,
    is_module,
    load_program,
    load_script,
    script_arguments,
    unguarded,
)
from npylstm_converters.torch.weight_file import WeightFile

__all__ = ["TorchRunner"]

Arrays = Mapping[str, npt.NDArray[Any]]
States = Mapping[str, Arrays]
_DEQUANTIZED = ", with dequantized weights"


class TorchRunner:
    """Runs a module, a program, or the stated chain of a state_dict's modules.

    Parameters
    ----------
    source
        As for :func:`npylstm_converters.from_torch`.
    spec
        The converted model, for names.
    example, layers, batch_first, key, allow_unused
        As for :func:`npylstm_converters.from_torch`.

    Attributes
    ----------
    description
        Framework and version; whether it computes with dequantized weights.
    sets_state, sets_lengths
        Whether hooks can set initial states and lengths of its recurrent modules: if they are
        objects in memory with the spec's names.
    sizes
        Free sizes of the spec that a program fixes.
    example_sizes
        The example's sizes, for TorchScript, which may accept no others.

    Raises
    ------
    NpylstmError
        If torch is not installed or cannot load the source.
    """

    def __init__(
        self,
        source: Any,
        spec: ModelSpec,
        example: Any = None,
        layers: str | None = None,
        batch_first: bool | None = None,
        key: str | None = None,
        allow_unused: Sequence[str] | None = None,
    ) -> None:
        try:
            import torch
        except ImportError:
            raise NpylstmError("running this model needs PyTorch: pip install torch") from None
        self._spec = spec
        self._torch = torch
        self.description = f"torch {torch.__version__}"
        self.sizes: Mapping[str, int] = {}
        self.example_sizes: Mapping[str, int] = {}
        self._run: Callable[[list[Any]], Any]
        modules: Mapping[str, Any] = {}
        if isinstance(source, torch.jit.ScriptModule):
            self._run_script(source, example)
        elif is_module(source):
            copy, codes, _ = dequantized(source)
            module = copy if codes else source
            self._run, modules = _run_module(module, example), dict(module.named_modules())
            self.description += _DEQUANTIZED if codes else ""
        elif not isinstance(source, (str, os.PathLike)):
            self._run_program(source)
        elif (kind := sniff(source)) is Kind.TORCHSCRIPT:
            self._run_script(load_script(source, example), example)
        elif kind is Kind.PROGRAM:
            self._run_program(load_program(source))
        else:
            file = WeightFile(source, key)
            steps = file.steps(layers)
            chain = ChainRunner(
                [*file.by_name.values()], steps, file.batch_first(steps, batch_first) is not False,
                spec.inputs[0].time_axis or 0,
            )  # fmt: skip
            self._run, modules = chain, chain.made
            self.description += _DEQUANTIZED if file.checkpoint.dequantized else ""
        self._hooks = Hooks(modules, spec)
        self.sets_state = bool(modules) and self._hooks.sets_state
        self.sets_lengths = bool(modules) and self._hooks.sets_lengths

    def _run_script(self, scripted: Any, example: Any) -> None:
        """Prepare to run the TorchScript itself, not the exported program.

        With dequantized weights, the interpreted one runs.
        """
        given = script_arguments(scripted, example)
        copy, codes, _ = module_of_script(scripted)
        self._run = _run_module(copy if codes else scripted, given)
        self.description += _DEQUANTIZED if codes else ""
        tensors = [value for value in given if value is not None]
        self.example_sizes = fixed_sizes(self._spec.inputs, [value.shape for value in tensors])

    def _run_program(self, program: Any) -> None:
        """Prepare to run a program with its fixed sizes, which the spec may have made free.

        It omits the guards: a program traced with several steps rejects single steps.
        """
        self._run = _run_module(unguarded(program))
        nodes = {node.name: node for node in program.graph.nodes}
        own = (nodes[t.name] for t in self._spec.inputs if t.name in nodes)
        shapes = [node.meta["val"].shape for node in own]
        self.sizes = fixed_sizes(self._spec.inputs, shapes)

    def __call__(
        self, inputs: Arrays, state: States, lengths: npt.NDArray[Any] | None = None
    ) -> dict[str, Any]:
        """Return all outputs by name; an empty state is zeros, ``lengths=None`` means all steps."""
        leaves = self._torch.utils._pytree.tree_leaves(self._watched(inputs, state, lengths))
        return named_outputs(self._spec.outputs, [leaf.detach().numpy() for leaf in leaves])

    def activations(
        self,
        inputs: Arrays,
        state: States | None = None,
        lengths: npt.NDArray[Any] | None = None,
    ) -> dict[str, Any]:
        """Return the outputs of every module, by the names of the spec's tensors.

        Modules whose path and call are not in the spec are omitted; a program has no modules.
        """
        seen: dict[str, Any] = {}
        self._watched(inputs, state or {}, lengths, seen)
        return seen

    def _watched(
        self,
        inputs: Arrays,
        state: States,
        lengths: npt.NDArray[Any] | None,
        seen: dict[str, Any] | None = None,
    ) -> Any:
        torch = self._torch
        given = []
        for tensor in self._spec.inputs:
            x = torch.from_numpy(np.array(inputs[tensor.name]))
            given.append(x.long() if tensor.integer else x)
        try:
            with quiet(), torch.no_grad(), self._hooks.attached(state, lengths, seen):
                return self._run(given)
        except Exception as error:  # the framework may raise anything
            text = one_line(error, 200)
            shapes = ", ".join(str(tuple(x.shape)) for x in given)
            raise NpylstmError(
                f"{self.description} cannot run the model on shape {shapes}: {text}"
            ) from None


def _run_module(module: Any, example: Any = None) -> Callable[[list[Any]], Any]:
    """Return a function that calls a module with the structure of its example."""
    import torch
    from torch.utils import _pytree as pytree

    def run(given: list[Any]) -> Any:
        args: Any = given
        kwargs: Any = {}
        if example is not None:
            leaves, structure = pytree.tree_flatten(arguments(example))
            tensors = iter(given)
            filled = [next(tensors) if isinstance(v, torch.Tensor) else v for v in leaves]
            args, kwargs = pytree.tree_unflatten(filled, structure)
        with inference(module):
            return module(*args, **kwargs)

    return run
