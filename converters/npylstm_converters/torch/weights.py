"""From the tensors of a state_dict, and what the user says about them, to a ModelSpec.

A state_dict holds names and numbers. Which modules there are can be told from them; how they are
joined cannot, and is said in a small language: names of modules and words for what a forward
function does between them, joined by arrows.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.activations import Activation
from npylstm.layers import (
    ActivationLayer,
    Arithmetic,
    BatchNormalization,
    Concatenate,
    Conv1D,
    Dense,
    Embedding,
    Layer,
    LayerNormalization,
    PReLU,
    Reduce,
    Select,
    Transpose,
    View,
)
from npylstm.layers.base import BATCH, STEPS, Array, Shape
from npylstm.spec import TensorSpec
from npylstm_converters.chain import Step, parse_steps
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.ledger import Entry
from npylstm_converters.torch.builder import Builder, Ref
from npylstm_converters.torch.files import Checkpoint, read_checkpoint
from npylstm_converters.torch.joints import joints, statements, suggestion
from npylstm_converters.torch.ledger import entries_of_module
from npylstm_converters.torch.modules import LAYER_OF_NAME, RECURRENT, Found, find_modules
from npylstm_converters.torch.recurrent import MODES, Weights, make_layer

__all__ = ["describe", "from_state_dict"]


class _Chain:
    """A model under construction: the tensor that has come out so far, and how it lies."""

    def __init__(self, modules: Sequence[Found], batch_first: bool, input: TensorSpec, dtype: str):
        self.modules = {m.name: m for m in modules}
        self.batch_first = batch_first
        self.builder = Builder({input: ()}, dtype)
        self.tensor = Ref(input.name, ())
        self.hidden: list[Ref] = []  # of the last recurrent layer, by direction
        self.used: set[str] = set()
        self.ledger: list[Entry] = []

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.tensor.name]

    @property
    def steps_axis(self) -> int:
        """Which axis is time."""
        if len(self.shape) != 3:
            raise Refusal(f"expected a sequence, the tensor here is {self.shape}")
        return 1 if self.batch_first else 0

    def add(self, name: str, layer: Layer, weights: Mapping[str, Array] | None = None) -> list[Ref]:
        """Put a layer behind what is there."""
        count = len(layer.output_names())
        made = self.builder.add(name, layer, [self.tensor], [()] * count, weights)
        self.tensor = made[0]
        return made[1:]

    def follow(self, step: Step) -> None:
        """Do what one link says."""
        module = self.modules.get(step.word)
        if module is not None:
            self.used.add(step.word)
            before = {*self.builder.layers}
            build = _BUILDERS.get(_kind_of(module, step))
            if build is None:
                raise Refusal(f"is a {module.kind}({module.sizes}), which is not supported here")
            build(self, module, step)
            made = [n for k, n in self.builder.layers.items() if k not in before and n.weights]
            shapes = {name: array.shape for name, array in module.tensors.items()}
            self.ledger += entries_of_module(module.name, shapes, made)
        elif step.word in _WORDS:
            _WORDS[step.word](self, step)
        else:
            names = ", ".join(self.modules)
            raise Refusal(f"is no module ({names}) and no word ({', '.join(_WORDS)})")


def _kind_of(module: Found, step: Step) -> str:
    if module.kind != "Linear or Embedding":
        return module.kind
    if step.values not in (("linear",), ("embedding",)):
        raise Refusal(
            f"may be a Linear without bias or an Embedding: write {module.name}(linear) or "
            f"{module.name}(embedding)"
        )
    return step.values[0].capitalize()


def _option(module: Found, step: Step, name: str) -> str:
    """An option that the tensors do not tell; never guessed."""
    if name not in step.options:
        wanted = ", ".join(f"{k}={v}" for k, v in module.asked.items())
        raise Refusal(f"its {name} is not in a state_dict: write {module.name}({wanted}), say")
    return step.options[name]


def _whole(module: Found, step: Step, name: str) -> int:
    value = _option(module, step, name)
    if not value.isdigit():
        raise Refusal(f"{name}: expected a whole number, got {value!r:.40}")
    return int(value)


def _number(module: Found, step: Step, name: str) -> float:
    value = _option(module, step, name)
    try:
        return float(value)
    except ValueError:
        raise Refusal(f"{name}: expected a number, got {value!r:.40}") from None


def _add_recurrent(chain: _Chain, module: Found, step: Step) -> None:
    mode = module.kind.removesuffix("Cell")
    if mode == "RNN":
        if step.values not in (("tanh",), ("relu",)):
            raise Refusal(
                f"its nonlinearity is not in a state_dict: write {module.name}(tanh) or "
                f"{module.name}(relu)"
            )
        mode = f"RNN_{step.values[0].upper()}"
    elif step.values or step.options:
        raise Refusal(f"{module.kind} takes no options here")
    own = module.tensors
    if module.kind.endswith("Cell"):  # a loop over the steps around it is a layer
        own = {f"{name}_l0": array for name, array in own.items()}
    layers = 1 + max(int(m[2]) for m in map(LAYER_OF_NAME.fullmatch, own) if m)
    ways = ("", "_reverse") if "weight_ih_l0_reverse" in own else ("",)
    wanted = {n.removesuffix("_l0") for n in own if n.endswith("_l0")}
    expected = {f"{n}_l{k}{way}" for n in wanted for k in range(layers) for way in ways}
    if set(own) != expected:
        odd = sorted(set(own) ^ expected)
        raise Refusal(f"tensors missing or left over: {', '.join(odd)}")
    for number in range(layers):
        directions = [Weights(**{n: own[f"{n}_l{number}{way}"] for n in wanted}) for way in ways]
        layer, weights = make_layer(mode, directions, chain.batch_first)
        name = module.name if layers == 1 else f"{module.name}_l{number}"
        states = chain.add(name, layer, weights)
        chain.hidden = states[:: MODES[mode].states]


def _add_linear(chain: _Chain, module: Found, step: Step) -> None:
    kernel = module.tensors["weight"].T
    weights = {"kernel": kernel}
    if "bias" in module.tensors:
        weights["bias"] = module.tensors["bias"]
    chain.add(
        module.name, Dense(kernel.shape[0], kernel.shape[1], use_bias="bias" in weights), weights
    )


def _add_embedding(chain: _Chain, module: Found, step: Step) -> None:
    table = module.tensors["weight"]
    chain.add(module.name, Embedding(*table.shape), {"embeddings": table})


def _add_conv(chain: _Chain, module: Found, step: Step) -> None:
    weight = module.tensors["weight"]
    units, per_group, size = weight.shape
    groups, padding = _whole(module, step, "groups"), _whole(module, step, "padding")
    layer = Conv1D(
        features=per_group * groups, units=units, size=size,
        stride=_whole(module, step, "stride"), dilation=_whole(module, step, "dilation"),
        groups=groups, padding=(padding, padding), channels_first=True,
        use_bias="bias" in module.tensors,
    )  # fmt: skip
    weights = {"kernel": weight.transpose(2, 1, 0)}
    if "bias" in module.tensors:
        weights["bias"] = module.tensors["bias"]
    chain.add(module.name, layer, weights)


_NORM_NAMES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
               "running_var": "moving_variance"}  # fmt: skip


def _add_norm(chain: _Chain, module: Found, step: Step) -> None:
    own = {_NORM_NAMES[name]: array for name, array in module.tensors.items()}
    epsilon = _number(module, step, "eps")
    size = len(next(iter(own.values())))
    layer: Layer
    if module.kind == "LayerNorm":
        layer = LayerNormalization((size,), epsilon)
    else:
        layer = BatchNormalization(size, 1, epsilon, scale="gamma" in own, center="beta" in own)
    chain.add(module.name, layer, own)


def _add_prelu(chain: _Chain, module: Found, step: Step) -> None:
    alpha = module.tensors["weight"]
    chain.add(module.name, PReLU(alpha.shape, min(1, len(chain.shape) - 1)), {"alpha": alpha})


_BUILDERS: dict[str, Callable[[_Chain, Found, Step], None]] = {
    **dict.fromkeys(RECURRENT, _add_recurrent), "Linear": _add_linear,
    "Embedding": _add_embedding, "Conv1d": _add_conv, "BatchNorm1d": _add_norm,
    "LayerNorm": _add_norm, "PReLU": _add_prelu,
}  # fmt: skip


def _last(chain: _Chain, step: Step) -> None:
    chain.add("last", Select(chain.steps_axis, -1))


def _hidden(chain: _Chain, step: Step) -> None:
    if not chain.hidden:
        raise Refusal("no recurrent module stands before it")
    if len(chain.hidden) == 1:
        chain.tensor = chain.hidden[0]
    else:
        layer = Concatenate(1)
        chain.tensor = chain.builder.add("hidden", layer, chain.hidden, [()])[0]


def _over_time(operation: str) -> Callable[[_Chain, Step], None]:
    def reduce(chain: _Chain, step: Step) -> None:
        chain.add(operation, Reduce(operation, (chain.steps_axis,)))

    return reduce


def _flatten(chain: _Chain, step: Step) -> None:
    if BATCH not in chain.shape[:1]:
        raise Refusal("expected the batch as the first axis")
    chain.add("flatten", View(((0, 0), -1)))


def _transpose(chain: _Chain, step: Step) -> None:
    if len(chain.shape) != 3:
        raise Refusal(f"expected a tensor of 3 axes, got {len(chain.shape)}")
    axes = (0, 2, 1) if step.values in ((), ("1", "2"), ("2", "1")) else (1, 0, 2)
    chain.add("transpose", Transpose(axes))


def _normalize(chain: _Chain, step: Step) -> None:
    """Divide by the length along the last axis, as ``x / x.norm(dim=-1, keepdim=True)``."""
    source = chain.tensor
    chain.add("length", Reduce("norm", (len(chain.shape) - 1,), keepdims=True))
    pair = [source, chain.tensor]
    chain.tensor = chain.builder.add("normalize", Arithmetic("divide"), pair, [()])[0]


def _nothing(chain: _Chain, step: Step) -> None:
    """Dropout, and what a reader may want to see in the chain."""


def _activation(name: str, option: str = "") -> Callable[[_Chain, Step], None]:
    def activate(chain: _Chain, step: Step) -> None:
        try:
            values = [float(v) for v in step.values]
        except ValueError:
            raise Refusal(f"expected a number, got {step.values[0]!r:.40}") from None
        if len(values) > bool(option):
            raise Refusal(f"takes {int(bool(option))} options, got {len(values)}")
        params = dict(zip([option], values, strict=False))
        chain.add(step.word, ActivationLayer(Activation.of(name, **params)))

    return activate


_WORDS: dict[str, Callable[[_Chain, Step], None]] = {
    "last": _last, "hidden": _hidden, "mean": _over_time("mean"), "max": _over_time("max"),
    "flatten": _flatten, "transpose": _transpose, "dropout": _nothing, "identity": _nothing,
    "normalize": _normalize,
    **{word: _activation(word) for word in ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu",
                                            "selu", "softplus", "softsign", "mish", "softmax",
                                            "log_softmax", "hard_tanh", "log_sigmoid")},
    "elu": _activation("elu", "alpha"), "leaky_relu": _activation("relu", "negative_slope"),
    "hardsigmoid": _activation("hard_sigmoid_sixth"), "hardswish": _activation("hard_silu"),
}  # fmt: skip


def _input(steps: Sequence[Step], modules: Mapping[str, Found], batch_first: bool) -> TensorSpec:
    """The model's input, from the first module with weights and what stands before it."""
    sequence: list[int | str] = [BATCH, STEPS] if batch_first else [STEPS, BATCH]
    timed = any(
        step.word in ("last", "mean", "max", "transpose")
        or (step.word in modules and modules[step.word].kind in RECURRENT)
        for step in steps
    )
    for number, step in enumerate(steps):
        module = modules.get(step.word)
        if module is None:
            continue
        kind = _kind_of(module, step)
        if kind == "Embedding":
            return TensorSpec("input", tuple(sequence) if timed else (BATCH,), integer=True)
        if kind == "Conv1d":
            channels = module.tensors["weight"].shape[1] * _whole(module, step, "groups")
            turned = any(s.word == "transpose" for s in steps[:number])
            shape: Shape = (BATCH, STEPS, channels) if turned else (BATCH, channels, STEPS)
            return TensorSpec("input", shape)
        names = ("weight_ih_l0", "weight_ih", "weight")
        weight = next((module.tensors[n] for n in names if n in module.tensors), None)
        if weight is None:
            weight = module.tensors.get("running_mean")
        if kind not in _BUILDERS or weight is None:
            raise Refusal(f"{module} is not supported here")
        return TensorSpec("input", (*(sequence if timed else (BATCH,)), weight.shape[-1]))
    raise Refusal("names no module that has weights")


def from_state_dict(
    path: str | os.PathLike[str],
    layers: str | None,
    batch_first: bool | None,
    key: str | None = None,
    allow_unused: Sequence[str] = (),
) -> ModelSpec:
    """Build a model from a weight file.

    Parameters
    ----------
    path, key
        As for :func:`read_checkpoint`.
    layers
        How the modules are joined.
    batch_first
        Whether recurrent modules read (batch, steps, features).
    allow_unused
        Modules, or single tensors, that may be left over.

    Raises
    ------
    UnsupportedError
        Listing what does not fit, or what was not said.
    FormatError
        If the file is damaged.
    """
    checkpoint = read_checkpoint(path, key)
    modules = find_modules(checkpoint.tensors)
    label = os.fspath(path)
    if layers is None:
        text = "; ".join(map(str, modules))
        raise UnsupportedError(
            [f"{label}: holds {text}. A state_dict does not say how they are joined: "
             f"`npylstm info {label}` shows what to state"]
        )  # fmt: skip
    steps = parse_steps(layers)
    by_name = {m.name: m for m in modules}
    recurrent = any(by_name[s.word].kind in RECURRENT for s in steps if s.word in by_name)
    if recurrent and batch_first is None:
        raise UnsupportedError(
            [f"{label}: batch_first is not in a state_dict: say --batch-first or --sequence-first "
             "(batch_first=True or False)"]
        )  # fmt: skip
    names = {*by_name, *checkpoint.tensors}
    unknown = [name for name in allow_unused if name not in names]
    if unknown:
        raise FormatError(f"allow_unused: no module or tensor {unknown[0]!r:.80}")
    return _build(label, checkpoint, modules, steps, batch_first is not False, allow_unused)


def _build(
    label: str,
    checkpoint: Checkpoint,
    modules: list[Found],
    steps: list[Step],
    batch_first: bool,
    allow_unused: Sequence[str],
) -> ModelSpec:
    import numpy as np

    reasons = Reasons()
    types = {str(a.dtype) for m in modules for a in m.tensors.values() if a.dtype.kind == "f"}
    if not types <= {"float32", "float64"} or len(types) != 1:
        reasons.add(f"weights: expected one of float32 and float64, got {sorted(types)}")
        reasons.raise_if_any()
    chain = None
    try:
        start = _input(steps, {m.name: m for m in modules}, batch_first)
        chain = _Chain(modules, batch_first, start, types.pop())
    except (Refusal, KeyError) as error:
        reasons.add(f"layers: {error}")
    for step in steps if chain else []:
        try:
            assert chain is not None
            chain.follow(step)
        except (Refusal, FormatError, ValueError, IndexError, KeyError) as error:
            reasons.add(f"{step.word}: {error}")
            break  # what follows depends on it
    if chain is not None and not reasons:
        for module in modules:
            left = [k for k in module.tensors if f"{module.name}.{k}" not in allow_unused]
            left = [k for k in left if k not in allow_unused]
            if module.name not in {*chain.used, *allow_unused} and left:
                reasons.add(
                    f"{module}: is not in layers, and nothing may be left over unless it is "
                    f"allowed by name (--allow-unused {module.name})"
                )
    reasons.raise_if_any()
    assert chain is not None
    made, edges, outputs = chain.builder.finish([chain.tensor])
    for layer in made:
        for name, array in layer.weights.items():
            if not np.isfinite(array).all():
                raise FormatError(f"{layer.name}/{name}: expected finite numbers")
    said = " -> ".join(str(step) for step in steps)
    timed = any(m.kind in RECURRENT for m in modules if m.name in chain.used)
    provenance = {
        "framework": "PyTorch",
        "framework_version": "",
        "source_format": checkpoint.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [
            f"layers: {said}, as stated",
            f"batch_first: {batch_first}, as stated",
            *(f"{name}: left over, as allowed" for name in allow_unused),
            *checkpoint.notes,
        ],
        "proof": "stated",
        "stated": statements(
            steps,
            chain.modules,
            batch_first if timed else None,
            [m.name for m in modules if m.name not in chain.used],
        ),
        "tensors": [
            *(entry.to_json() for entry in chain.ledger),
            *(
                Entry(f"{m.name}.{k}", array.shape).to_json()
                for m in modules
                if m.name not in chain.used
                for k, array in m.tensors.items()
            ),
        ],
    }
    return ModelSpec(
        layers=tuple(made), edges=tuple(edges), inputs=chain.builder.inputs,
        outputs=tuple(outputs), name=os.path.splitext(os.path.basename(label))[0],
        dtype=chain.builder.dtype, provenance=provenance,
    )  # fmt: skip


def _command(label: str, checkpoint: Checkpoint, modules: list[Found]) -> tuple[str, str]:
    """A command that runs as it is, or the reason why there is none."""
    chain = suggestion(modules)
    try:
        _build(label, checkpoint, modules, parse_steps(chain), True, ())
    except (UnsupportedError, FormatError) as error:
        return "", str(error)
    flags = " --batch-first" if any(m.kind in RECURRENT for m in modules) else ""
    return f'npylstm convert {shlex.quote(label)} MODEL.npz --layers "{chain}"{flags}', ""


def describe(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Any]:
    """Say what a weight file holds, what it does not prove, and how to convert it.

    Returns
    -------
    dict
        ``format``, ``modules`` (one line each), ``asked`` (questions that the file leaves open),
        ``notes``, ``command`` (empty if none can be right) and ``advice``.
    """
    checkpoint = read_checkpoint(path, key)
    modules = find_modules(checkpoint.tensors)
    command, reason = _command(os.fspath(path), checkpoint, modules)
    if command and key is not None:
        command += f" --key {key}"
    return {
        "format": checkpoint.format,
        "modules": [str(m) for m in modules],
        "asked": [str(joint) for joint in joints(modules)],
        "notes": list(checkpoint.notes),
        "command": command,
        "advice": reason
        and f"no chain of these modules fits: {reason}. Load the author's module "
        "and convert that: from_torch(module, example)",
    }
