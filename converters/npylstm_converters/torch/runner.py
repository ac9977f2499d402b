"""Runs a PyTorch source in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.toolkit.chain import Step, parse_steps
from npylstm_converters.toolkit.runners import fixed_sizes, one_line
from npylstm_converters.torch.files import Kind, read_checkpoint, sniff
from npylstm_converters.torch.hooks import Hooks
from npylstm_converters.torch.modules import RECURRENT, Found, find_modules
from npylstm_converters.torch.sources import (
    arguments,
    is_module,
    load_program,
    load_script,
    script_arguments,
    unguarded,
)
from npylstm_converters.torch.tracing import inference, quiet

__all__ = ["TorchRunner"]

Arrays = Mapping[str, npt.NDArray[Any]]
States = Mapping[str, Arrays]


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
        Framework and version.
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
            self._run, modules = _run_module(source, example), dict(source.named_modules())
        elif not isinstance(source, (str, os.PathLike)):
            self._run_program(source)
        elif (kind := sniff(source)) is Kind.TORCHSCRIPT:
            self._run_script(load_script(source), example)
        elif kind is Kind.PROGRAM:
            self._run_program(load_program(source, kind, example))
        else:
            if layers is None:
                raise NpylstmError(
                    f"{source}: is a state_dict: give --layers (layers=...) as at its conversion"
                )
            found = find_modules(read_checkpoint(source, key).tensors)
            time = spec.inputs[0].time_axis or 0
            chain = _Chain(torch, found, parse_steps(layers), batch_first is not False, time)
            self._run, modules = chain, chain.made
        self._hooks = Hooks(modules, spec)
        self.sets_state = bool(modules) and self._hooks.sets_state
        self.sets_lengths = bool(modules) and self._hooks.sets_lengths

    def _run_script(self, scripted: Any, example: Any) -> None:
        """Prepare to run the TorchScript itself, not the exported program."""
        given = script_arguments(scripted, example)
        self._run = _run_module(scripted, given)
        tensors = [value for value in given if value is not None]
        self.example_sizes = fixed_sizes(self._spec.inputs, [value.shape for value in tensors])

    def _run_program(self, program: Any) -> None:
        """Prepare to run a program with its fixed sizes, which the spec may have made free.

        It omits the guards: a program traced with several steps rejects single steps.
        """
        self._run = _run_module(unguarded(program))
        nodes = {node.name: node for node in program.graph.nodes}
        shapes = [nodes[tensor.name].meta["val"].shape for tensor in self._spec.inputs]
        self.sizes = fixed_sizes(self._spec.inputs, shapes)

    def __call__(
        self, inputs: Arrays, state: States, lengths: npt.NDArray[Any] | None = None
    ) -> dict[str, Any]:
        """Return all outputs by name; an empty state is zeros, ``lengths=None`` means all steps."""
        leaves = self._torch.utils._pytree.tree_leaves(self._watched(inputs, state, lengths))
        return {
            name: leaf.detach().numpy()
            for name, leaf in zip(self._spec.outputs, leaves, strict=True)
        }

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


class _Chain:
    """The modules of a state_dict in PyTorch, joined by the user's chain."""

    def __init__(
        self,
        torch: Any,
        modules: Sequence[Found],
        steps: Sequence[Step],
        batch_first: bool,
        time: int,
    ) -> None:
        self._torch = torch
        self._steps = steps
        self._time = time
        self._modules = {m.name: m for m in modules}
        said = {s.word: s for s in steps}
        self.made = {
            m.name: _make(torch, m, said[m.name], batch_first) for m in modules if m.name in said
        }

    def __call__(self, given: list[Any]) -> Any:
        torch, (x,), hidden = self._torch, given, None
        time = self._time
        for step in self._steps:
            module = self.made.get(step.word)
            if isinstance(module, torch.nn.Conv1d):
                time = 2
            if isinstance(module, torch.nn.RNNBase):
                x, final = module(x)
                h = final[0] if isinstance(final, tuple) else final
                hidden = torch.cat(list(h[-2:] if module.bidirectional else h[-1:]), 1)
            elif module is not None:
                x = module(x)
            elif step.word == "hidden":
                x = hidden
            else:
                x = _word(torch, step, x, time)
                if step.word == "transpose":
                    a, b = map(int, step.values or ("1", "2"))
                    time = {a: b, b: a}.get(time, time)
        return x


def _make(torch: Any, module: Found, step: Step, batch_first: bool) -> Any:
    """Return a ``torch.nn`` module with its tensors."""
    own = {name: torch.from_numpy(np.array(a)) for name, a in module.tensors.items()}
    if module.kind.endswith("Cell"):
        own = {f"{name}_l0": array for name, array in own.items()}
    weight: Any = own.get("weight")
    bias = "bias" in own or any(name.startswith("bias_ih") for name in own)
    nn = torch.nn
    options: dict[str, Any] = {k: _number(v) for k, v in step.options.items()}
    if module.kind in RECURRENT:
        hh = own["weight_hh_l0"]
        kind = module.kind.removesuffix("Cell")
        if kind == "RNN":
            options["nonlinearity"] = step.values[0]
        if "weight_hr_l0" in own:
            options["proj_size"] = hh.shape[1]
        units = own["weight_hr_l0"].shape[1] if "weight_hr_l0" in own else hh.shape[1]
        made = getattr(nn, kind)(
            own["weight_ih_l0"].shape[1], units, bias=bias, batch_first=batch_first,
            num_layers=sum(n.startswith("weight_ih_l") and not n.endswith("_reverse") for n in own),
            bidirectional="weight_ih_l0_reverse" in own, **options,
        )  # fmt: skip
    elif module.kind == "Conv1d":
        groups = int(options.pop("groups"))
        made = nn.Conv1d(
            weight.shape[1] * groups, *weight.shape[::2], bias=bias, groups=groups, **options
        )
    elif module.kind == "BatchNorm1d":
        made = nn.BatchNorm1d(len(own["running_mean"]), affine=weight is not None, **options)
    elif module.kind == "LayerNorm":
        made = nn.LayerNorm(len(weight), **options)
    elif module.kind == "PReLU":
        made = nn.PReLU(len(weight))
    elif step.values == ("embedding",):
        made = nn.Embedding(*weight.shape)
    else:
        made = nn.Linear(*reversed(weight.shape), bias=bias)
    made = made.to(next(iter(own.values())).dtype)
    made.load_state_dict(own, strict=module.kind != "BatchNorm1d")
    return made.eval()


def _number(text: str) -> float | int:
    return int(text) if text.isdigit() else float(text)


def _word(torch: Any, step: Step, x: Any, time: int) -> Any:
    """Return the output of one word of the chain, computed by torch."""
    F = torch.nn.functional
    numbers = (*step.values, *step.options.values())
    values = [] if step.word in ("transpose", "dropout") else [float(v) for v in numbers]
    words: dict[str, Callable[[], Any]] = {
        "last": lambda: x.select(time, -1),
        "mean": lambda: x.mean(time),
        "max": lambda: x.amax(time),
        "sum": lambda: x.sum(time),
        "flatten": lambda: x.flatten(1),
        "transpose": lambda: x.transpose(0, 1) if step.values == ("0", "1") else x.transpose(1, 2),
        "dropout": lambda: x,
        "identity": lambda: x,
        "normalize": lambda: x / torch.norm(x, dim=-1, keepdim=True),
        "gelu_tanh": lambda: F.gelu(x, approximate="tanh"),
        "softmax": lambda: F.softmax(x, -1),
        "log_softmax": lambda: F.log_softmax(x, -1),
        "hard_tanh": lambda: F.hardtanh(x),
        "log_sigmoid": lambda: F.logsigmoid(x),
        "tanh": lambda: torch.tanh(x),
        "sigmoid": lambda: torch.sigmoid(x),
    }
    return words[step.word]() if step.word in words else getattr(F, step.word)(x, *values)
