"""Runs the chain of a weight file in PyTorch: modules of torch.nn, joined by the words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm_converters.toolkit.chain import Step
from npylstm_converters.torch.chain_words import INPUT, pooling
from npylstm_converters.torch.chains import modules_in, named
from npylstm_converters.torch.modules import RECURRENT, Found

__all__ = ["ChainRunner"]

# Words whose values are no numbers for the function of the same name.
_NAMED = ("transpose", "dropout", "softmax", "log_softmax", "pad", "max_pool", "avg_pool")


class ChainRunner:
    """The modules of a weight file in PyTorch, joined by a chain.

    Parameters
    ----------
    modules
        The modules of the file.
    steps
        The chain.
    batch_first
        For recurrent modules whose file does not say it.
    time
        The time axis of the input.

    Attributes
    ----------
    made
        Modules of ``torch.nn`` by name.
    """

    def __init__(
        self, modules: Sequence[Found], steps: Sequence[Step], batch_first: bool, time: int
    ) -> None:
        self._steps, self._batch_first, self._time = steps, batch_first, time
        by_name = {m.name: m for m in modules}
        said = {name: Step(name) for step in steps for name in modules_in(step, by_name)}
        said |= {step.word: step for step in steps if named(step, by_name) is not None}
        self.made = {name: _make(by_name[name], step, batch_first) for name, step in said.items()}

    def __call__(self, given: list[Any]) -> Any:
        run = _Run(self.made, given[0], self._time, self._batch_first)
        for step in self._steps:
            run.follow(step)
        return run.x


class _Run:
    """One run of a chain: the current tensor, its time axis, and what later words may read."""

    def __init__(self, made: dict[str, Any], x: Any, time: int, batch_first: bool) -> None:
        self._made, self._input, self._batch_first = made, x, batch_first
        self._steps = x.shape[time] if x.ndim > time else 0
        self._hidden: Any = None
        self._outputs: dict[str, Any] = {}
        self._time = time
        self.x = x

    def follow(self, step: Step) -> None:
        """Apply one step of the chain."""
        import torch

        module = named(step, self._made)
        if module is not None:
            if isinstance(module, torch.nn.Conv1d):
                self._time = 2
            self.x = module(self.x)
            if isinstance(module, torch.nn.RNNBase):
                self.x, final = self.x
                h = final[0] if isinstance(final, tuple) else final
                self._hidden = torch.cat(list(h[-2:] if module.bidirectional else h[-1:]), 1)
            self._outputs[step.word] = self.x
        elif step.word == "hidden":
            self.x = self._hidden
        elif step.word == "attention":
            values = self.x
            for word in step.values:
                self.follow(Step(word))
            self.x = (torch.softmax(self.x, self._time) * values).sum(self._time)
        elif step.word == "concat":
            parts = [self._part(word) for word in step.values]
            channels = parts[0].ndim == 3 and self._time == 2
            self.x = torch.cat(parts, 1 if channels else -1)
        elif step.word == "add":
            for word in step.values:
                self.x = self.x + self._part(word)
        elif step.word == "repeat":
            count = int(step.values[0]) if step.values else self._steps
            self._time = 1 if self._batch_first else 0
            self.x = torch.stack([self.x] * count, self._time)
        else:
            self.x = _word(step, self.x, self._time)
            if step.word == "transpose":
                a, b = map(int, step.values or ("1", "2"))
                self._time = {a: b, b: a}.get(self._time, self._time)

    def _part(self, word: str) -> Any:
        """Return what a part of concat or add names, as :meth:`.chains.Chain.part` does."""
        if word == INPUT and word not in self._made:
            return self._input
        if word in self._outputs:
            return self._outputs[word]
        current, time = self.x, self._time
        self.follow(Step(word))
        made, self.x, self._time = self.x, current, time
        return made


def _make(module: Found, step: Step, batch_first: bool) -> Any:
    """Return a ``torch.nn`` module with its tensors."""
    import torch

    own = {name: torch.from_numpy(np.array(a)) for name, a in module.tensors.items()}
    if module.kind.endswith("Cell"):
        own = {f"{name}_l0": array for name, array in own.items()}
    weight: Any = own.get("weight")
    bias = "bias" in own or any(name.startswith("bias_ih") for name in own)
    nn = torch.nn
    stated = {**module.known, **step.options}
    batch_first = stated.pop("batch_first", str(batch_first)) == "True"
    options: dict[str, Any] = {k: _number(v) for k, v in stated.items()}
    if module.kind in RECURRENT:
        hh = own["weight_hh_l0"]
        kind = module.kind.removesuffix("Cell")
        if kind == "RNN":
            options.setdefault("nonlinearity", *step.values)
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
        made = nn.LayerNorm(len(weight), bias=bias, **options)
    elif module.kind == "PReLU":
        made = nn.PReLU(len(weight))
    elif module.kind == "Embedding" or step.values == ("embedding",):
        made = nn.Embedding(*weight.shape)
    else:
        made = nn.Linear(*reversed(weight.shape), bias=bias)
    made = made.to(next(iter(own.values())).dtype)
    made.load_state_dict(own, strict=module.kind != "BatchNorm1d")
    return made.eval()


def _number(text: str) -> Any:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:  # padding="same", nonlinearity="relu"
        return text


def _padded(x: Any, time: int, before: int, after: int) -> Any:
    import torch

    behind = (0, 0) * (x.ndim - 1 - time)  # torch counts axes from the last
    return torch.nn.functional.pad(x, (*behind, before, after))


def _word(step: Step, x: Any, time: int) -> Any:
    """Return the output of one word of the chain, computed by torch."""
    import torch

    F = torch.nn.functional
    numbers = (*step.values, *step.options.values())
    values = [] if step.word in _NAMED else [float(v) for v in numbers]
    dim = int(step.options["dim"]) if step.options.get("dim", "None") != "None" else -1
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
        "softmax": lambda: F.softmax(x, dim),
        "log_softmax": lambda: F.log_softmax(x, dim),
        "pad": lambda: _padded(x, time, *map(int, step.values)),
        "max_pool": lambda: F.max_pool1d(x, *pooling(step)),
        "avg_pool": lambda: F.avg_pool1d(x, *pooling(step)),
        "hard_tanh": lambda: F.hardtanh(x),
        "log_sigmoid": lambda: F.logsigmoid(x),
        "tanh": lambda: torch.tanh(x),
        "sigmoid": lambda: torch.sigmoid(x),
    }
    return words[step.word]() if step.word in words else getattr(F, step.word)(x, *values)
