"""Modules that ``torch.ao.quantization.quantize_dynamic`` made, as float modules.

Such a module keeps its weights in packed parameters: objects of C++ that a pickle holds as the
tensors in them, 8-bit codes with scales, or numbers of 16 bits. They become plain tensors under the
names of the float module. The framework's own forward also rounds the inputs of a module with 8-bit
weights, in every call; that is not repeated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm.arrays import Array
from npylstm_converters.errors import Refusal
from npylstm_converters.torch.pickle_values import NumpyArray, Opaque, QuantizedTensor, Tensor
from npylstm_converters.torch.quantized import ADVICE, DYNAMIC, FLOAT_MODULES, static_reason

__all__ = ["is_packed", "plain_module", "unpacked", "without_scales"]

_PATH = r"(?P<path>(?:.*\.)?)"
_LINEAR = re.compile(rf"{_PATH}_packed_params\.(?P<part>weight|bias|dtype|_packed_params)")
_CELL = re.compile(rf"{_PATH}_packed_weight_(?P<part>ih|hh)")
_LAYER = re.compile(
    rf"{_PATH}_all_weight_values\.(?P<number>0|[1-9][0-9]{{0,3}})\.(?P<part>param|weight|bias)"
)
# The parts of a linear module that are no tensors, and their types.
_OTHERS: dict[str, type] = {"dtype": str, "bias": type(None), "_packed_params": tuple}
_SCRIPT_OBJECT = "torch.ScriptObject"

Pair = tuple[Tensor, Tensor | None]
Named = Iterator[tuple[str, Tensor]]


def is_packed(name: str, value: Any) -> bool:
    """Whether a value of a state_dict is a part of a dynamically quantized module."""
    linear = _LINEAR.fullmatch(name)
    if linear is not None and not isinstance(value, (Opaque, Tensor)):
        return isinstance(value, _OTHERS.get(linear["part"], Tensor))
    packed = isinstance(value, Opaque) and str(value.name) == _SCRIPT_OBJECT
    return packed and any(p.fullmatch(name) for p in (_CELL, _LAYER))


def unpacked(
    values: Mapping[str, Any],
) -> tuple[dict[str, Tensor | NumpyArray], frozenset[str]]:
    """Return the tensors of a state_dict by the names of float modules.

    Returns
    -------
    tensors, halves
        The tensors, and the names of those that are packed in 16 bits.

    Raises
    ------
    UnsupportedError
        Lists the packed parameters that cannot be read.
    """
    made: dict[str, Tensor | NumpyArray] = {}
    packed: set[str] = set()
    reasons: list[str] = []
    layers: dict[str, dict[int, Any]] = {}
    for name, value in values.items():
        if (match := _LAYER.fullmatch(name)) is not None:
            number = int(match["number"])
            layers.setdefault(match["path"], {}).setdefault(number, {})[match["part"]] = value
    for name, value in values.items():
        try:
            own = _unpacked(name, value, layers)
            if own is None:
                made[name] = value
                continue
            for plain, tensor in own:
                if plain in values or plain in made:
                    raise FormatError(f"{plain}: is in the file twice, also in {name}")
                made[plain] = tensor
                packed.add(plain)
        except Refusal as reason:
            reasons.append(f"{name:.200}: {reason}")
    if reasons:
        raise UnsupportedError(reasons)
    return made, _halves(made, packed)


def _halves(tensors: Mapping[str, Any], packed: Iterable[str]) -> frozenset[str]:
    """Return the names of packed weights that are no 8-bit codes."""
    weights = {name for name in packed if name.rpartition(".")[2].startswith("weight")}
    return frozenset(n for n in weights if not isinstance(tensors[n], QuantizedTensor))


def _unpacked(name: str, value: Any, layers: dict[str, dict[int, Any]]) -> Named | None:
    """Return the tensors of a value of a state_dict by name; None if it is plain."""
    if (match := _LINEAR.fullmatch(name)) is not None:
        path, part = match["path"], match["part"]
        if part == "_packed_params":
            return _named(path, "", _pair(value))
        # A tensor by itself, as torch 1.4 wrote it; the type is that of the tensors.
        return iter([(f"{path}{part}", value)] if isinstance(value, Tensor) else [])
    if (match := _CELL.fullmatch(name)) is not None:
        return _named(match["path"], f"_{match['part']}", _pair(value))
    if (match := _LAYER.fullmatch(name)) is not None:
        cells = layers.pop(match["path"], None)  # all of a module, at the first of them
        if cells is None:
            return iter(())
        if sorted(cells) != [*range(len(cells))]:
            raise FormatError(f"{name:.200}: a layer before it is missing")
        held = [cells[k] for k in range(len(cells))]
        if any("param" in h and len(h) > 1 for h in held):
            raise FormatError(f"{name:.200}: is there in two forms")
        values = [h.get("param") or (h.get("weight"), h.get("bias")) for h in held]
        return _layers(match["path"], _cells(values), None)
    return None


def plain_module(path: str, module: Opaque) -> tuple[str, dict[str, Tensor], frozenset[str]]:
    """Return the float class, the tensors, and the names of 16-bit tensors of a pickled module.

    Raises
    ------
    Refusal
        If it is not dynamically quantized, or its packed parameters cannot be read.
    """
    cls = str(module.name)
    kind = cls.partition(".modules.")[2] if cls.startswith(DYNAMIC) else ""
    if kind not in FLOAT_MODULES:
        raise Refusal(static_reason(path, cls))
    try:
        tensors = dict(_tensors_of(kind, module))
    except Refusal as reason:
        raise Refusal(f"{path:.200} ({cls}): {reason}") from None
    return FLOAT_MODULES[kind], tensors, _halves(tensors, tensors)


def _tensors_of(kind: str, module: Opaque) -> Named:
    """Yield the tensors of a pickled module by the names of the float module."""
    state = module.attributes
    children = state.get("_modules")
    inner = children if isinstance(children, dict) else {}
    if kind == "linear.Linear":
        packed = inner.get("_packed_params")
        yield from _named("", "", _pair(_held(packed, "_packed_params")))
    elif kind.endswith("Cell"):
        # The attributes bias_ih and bias_hh are random vectors, which torch ignores.
        for part in ("ih", "hh"):
            yield from _named("", f"_{part}", _pair(state.get(f"_packed_weight_{part}")))
    else:
        held = inner.get("_all_weight_values")
        entries = held.attributes.get("_modules") if isinstance(held, Opaque) else None
        if not isinstance(entries, dict) or not entries:
            raise Refusal(f"has no packed parameters that can be read; {ADVICE}")
        values = [_held(entry, "param") for entry in entries.values()]
        yield from _layers("", _cells(values), state.get("bidirectional"))


def _held(module: Any, name: str) -> Any:
    """Return packed parameters that a module holds under a name.

    In early versions its state is their tensors: the pair, or the two and other values.
    """
    match module.state if isinstance(module, Opaque) else None:
        case ((Tensor(), _) as pair, bool()):
            return pair
        case (Tensor() as weight, bias, *_):
            return weight, bias
    return module.attributes.get(name) if isinstance(module, Opaque) else None


def _pair(value: Any) -> Pair:
    """Return weight and bias of packed parameters.

    Raises
    ------
    Refusal
        If they cannot be read.
    """
    if isinstance(value, Opaque) and str(value.name) == _SCRIPT_OBJECT:
        value = value.state[0] if isinstance(value.state, tuple) and value.state else None
    match value:
        case (Tensor() as weight, (Tensor() | None) as bias) if len(weight.size) == 2:
            floats = isinstance(weight, QuantizedTensor) or weight.dtype == "float32"
            if floats and (bias is None or bias.dtype == "float32"):
                return weight, bias
        case (Opaque() as weight, _):
            raise Refusal(f"holds a weight of {weight.name}, expected 8-bit codes; {ADVICE}")
    raise Refusal(f"holds packed parameters in no form that is known; {ADVICE}")


def _cells(values: list[Any]) -> list[tuple[Pair, Pair]]:
    """Return the pairs of all layers and directions.

    torch 1.4 kept two for each, one after the other, without an object for the layer.

    Raises
    ------
    Refusal
        If they cannot be read.
    """
    if not any(isinstance(value, tuple) for value in values):
        return [_cell(value) for value in values]
    pairs = [_pair(value) for value in values]
    if len(pairs) % 2:
        raise Refusal(f"holds an odd number of weights; {ADVICE}")
    return [*zip(pairs[::2], pairs[1::2], strict=True)]


def _cell(value: Any) -> tuple[Pair, Pair]:
    """Return the two pairs of weight and bias of one layer in one direction.

    Raises
    ------
    Refusal
        If they cannot be read.
    """
    match value.state if isinstance(value, Opaque) else None:
        # Biases follow the kind, too: torch adds those that are packed with the weights.
        case ((("quantized_dynamic" | "quantized_fp16"), _, _, _, [ih, hh]), _):
            return _pair(ih), _pair(hh)
        case ((str(kind), *_), _):
            raise Refusal(f"holds parameters of kind {kind!r:.40}, not dynamic ones; {ADVICE}")
    raise Refusal(f"holds packed parameters in no form that is known; {ADVICE}")


def _named(path: str, suffix: str, pair: Pair) -> Named:
    weight, bias = pair
    yield f"{path}weight{suffix}", weight
    if bias is not None:
        yield f"{path}bias{suffix}", bias


def _layers(path: str, cells: list[tuple[Pair, Pair]], bidirectional: Any) -> Named:
    """Yield the tensors of a recurrent module; a state_dict does not say its directions."""
    both = bidirectional if isinstance(bidirectional, bool) else _is_bidirectional(cells)
    for k, pairs in enumerate(cells):
        layer = f"_l{k // 2}{'_reverse' if k % 2 else ''}" if both else f"_l{k}"
        for part, pair in zip(("ih", "hh"), pairs, strict=True):
            yield from _named(path, f"_{part}{layer}", pair)


def _is_bidirectional(cells: list[tuple[Pair, Pair]]) -> bool:
    """Whether layers have two directions, by the number of their inputs.

    Raises
    ------
    Refusal
        If the numbers fit both.
    """
    inputs = [ih[0].size[1] for ih, _ in cells]
    units = cells[0][1][0].size[1]
    if len(cells) < 2 or len(cells) % 2:
        return False
    forward = all(n == units for n in inputs[1:])
    both = inputs[1] == inputs[0] and all(n == 2 * units for n in inputs[2:])
    if forward and both:
        raise Refusal(
            f"holds weights that fit two layers of {units} units as well as one layer in both "
            "directions, and the state_dict does not say which: save the module as a whole, "
            "torch.save(module, path), or convert it in memory: from_torch(module, example)"
        )
    return both


def without_scales(arrays: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
    """Return arrays without what quantized modules keep beside their weights.

    Parameters
    ----------
    arrays
        The tensors of a state_dict by name.
    names
        The weights that were dequantized.

    Raises
    ------
    UnsupportedError
        If a module rounds its outputs to 8 bits, by a scale of its own: lists all of them.
    """
    paths = {name.rpartition(".")[0] for name in names}
    beside = {f"{path}." if path else "" for path in paths}
    made, reasons = dict(arrays), []
    for dot in sorted(beside):
        scale, zero = (made.pop(f"{dot}{k}", None) for k in ("scale", "zero_point"))
        plain = [v is None or (v.size == 1 and v.item() == n) for v, n in ((scale, 1), (zero, 0))]
        if not all(plain):
            reasons.append(static_reason(dot.removesuffix(".") or "the module"))
    if reasons:
        raise UnsupportedError(reasons)
    return made
