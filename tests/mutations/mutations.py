"""Small changes of a stored file: another option of a layer, a gate in another's place, and so on.

A file is what ``numpy.load`` gives: arrays by key, with the graph as JSON under ``npylstm/spec``.
Mutations know that and nothing of npylstm's classes, so that they can also make files that no
importer would.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Graph = dict[str, Any]
Path = tuple[Any, ...]

SPEC = "npylstm/spec"
ACTIVATIONS = ("linear", "tanh", "sigmoid", "relu", "hard_sigmoid_fifth", "hard_sigmoid_sixth")
# Options whose values are words.
WORDS = {
    "merge_mode": ("concat", "sum", "mul", "ave"),
    "score": ("dot", "additive", "concat"),
    "fully_masked": ("lowered", "additive", "uniform", "zero"),
}
OPERATIONS = {
    "arithmetic": ("add", "subtract", "multiply", "divide", "maximum", "minimum", "average"),
    "pool1d": ("mean", "max"),
    "reduce": ("mean", "sum", "max", "min", "norm"),
    "masked_merge": ("add", "average", "maximum", "minimum", "multiply"),
}
# Defaults of one framework or another.
EPSILONS = (1e-3, 1e-5, 1e-7, 1e-12)


@dataclass(frozen=True)
class Mutant:
    """A changed file: the kind of change, what was changed, and the file's bytes."""

    kind: str
    text: str
    data: bytes


def read_file(data: bytes) -> tuple[Graph, Arrays]:
    """Read the graph and all other arrays."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = dict(archive)
    return json.loads(arrays.pop(SPEC).tobytes()), arrays


def write_file(graph: Graph, arrays: Arrays) -> bytes:
    """Write a file."""
    stream = io.BytesIO()
    document = np.frombuffer(json.dumps(graph).encode(), np.uint8)
    np.savez(stream, **{SPEC: document}, **arrays)
    return stream.getvalue()


def mutants(data: bytes) -> Iterator[Mutant]:
    """Yield every mutation of a file, one change each."""
    graph, arrays = read_file(data)
    for change in (_options, _masks_ignored, _inputs, _outputs):
        for kind, text, new in change(graph):
            yield Mutant(kind, text, write_file(new, arrays))
    for kind, text, changed in _weights(graph, arrays):
        yield Mutant(kind, text, write_file(graph, {**arrays, **changed}))


Changes = Iterator[tuple[str, str, Graph]]


def _options(graph: Graph) -> Changes:
    """Change one option of one layer."""
    for place, layer in enumerate(graph["layers"]):
        for path, key, value in _scalars(layer["config"]):
            kind = _inner_kind(layer, path)
            for new in _other_values(kind, key, value):
                changed = copy.deepcopy(graph)
                _put(changed["layers"][place]["config"], path, new)
                where = "/".join(map(str, path))
                yield (
                    _label(key, path, layer["config"]),
                    f"{layer['name']}: {where} {value!r} -> {new!r}",
                    changed,
                )


def _label(key: str, path: Path, config: Any) -> str:
    if key == "zero_output_for_mask" and not _sibling(config, path, "masked"):
        return f"{key}, no mask"
    if "activation" in path[:-1] and key != "name":
        return "slope or bound of an activation"
    return "activation" if key == "name" or key.endswith("activation") else key


def _scalars(value: Any, path: Path = (), name: str = "") -> Iterator[tuple[Path, str, Any]]:
    """Walk through options, those of layers inside layers too: place, name, value."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        inner = (*path, key)
        own = key if isinstance(key, str) else name
        if isinstance(entry, (dict, list)):
            yield from _scalars(entry, inner, own)
        else:
            yield inner, own, entry


def _inner_kind(layer: Graph, path: Path) -> str:
    """The kind of the layer that an option belongs to."""
    kind, value = layer["kind"], layer["config"]
    for key in path[:-1]:
        value = value[key]
        if isinstance(value, dict) and isinstance(value.get("kind"), str):
            kind = value["kind"]
    return str(kind)


def _sibling(config: Any, path: Path, key: str) -> Any:
    for part in path[:-1]:
        config = config[part]
    return config.get(key)


def _put(config: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def _other_values(kind: str, key: str, value: Any) -> Iterator[Any]:
    """What an option may be changed into."""
    if isinstance(value, bool):
        yield not value
    elif key == "mask_value":
        yield from (v for v in (0.0, -1.0, value + 0.5) if v != value)
    elif key == "epsilon":
        yield from (v for v in EPSILONS if v != value)
    elif isinstance(value, str):
        words = OPERATIONS.get(kind, ()) if key == "operation" else WORDS.get(key, ())
        if key == "name" or key.endswith("activation"):
            words = ACTIVATIONS
        yield from (word for word in words if word != value)
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (1.5 * value, value + 0.1)


def _masks_ignored(graph: Graph) -> Changes:
    """Let a layer that heeds a mask ignore it."""
    for place, layer in enumerate(graph["layers"]):
        if layer["config"].get("masked") is True:
            changed = copy.deepcopy(graph)
            changed["layers"][place]["config"]["masked"] = False
            for edge in changed["edges"]:
                if edge["layer"] == layer["name"]:
                    edge["inputs"].pop()
            yield "mask ignored", layer["name"], changed


def _inputs(graph: Graph) -> Changes:
    """Exchange two tensors that a layer reads."""
    for place, edge in enumerate(graph["edges"]):
        for a, b in itertools.combinations(range(len(edge["inputs"])), 2):
            if edge["inputs"][a] != edge["inputs"][b]:
                changed = copy.deepcopy(graph)
                _exchange(changed["edges"][place]["inputs"], a, b)
                yield "inputs exchanged", f"{edge['layer']}: {a} and {b}", changed


def _outputs(graph: Graph) -> Changes:
    """Exchange the calls that make two outputs of the model."""
    for a, b in itertools.combinations(graph["outputs"], 2):
        changed = copy.deepcopy(graph)
        names = {a: b, b: a}
        for edge in changed["edges"]:
            edge["outputs"] = [names.get(t, t) for t in edge["outputs"]]
        yield "outputs exchanged", f"{a} and {b}", changed


def _exchange(entries: list[Any], a: int, b: int) -> None:
    entries[a], entries[b] = entries[b], entries[a]


def _weights(graph: Graph, arrays: Arrays) -> Iterator[tuple[str, str, Arrays]]:
    """Put weights where others belong, lose a bias, read a matrix in the other order."""
    names = {layer["name"] for layer in graph["layers"]}
    own = {k: a for k, a in arrays.items() if k.split("/")[0] in names}
    yield from _gates(own)
    yield from _layers(own, names)
    for key, array in own.items():
        name = key.rpartition("/")[2]
        if name.startswith(("b_", "rb_")) or name == "bias":
            yield "bias lost", key, {key: np.zeros_like(array)}
        if array.ndim == 2 and array.shape[0] == array.shape[1] > 1:
            yield "matrix transposed", key, {key: np.ascontiguousarray(array.T)}


def _gates(own: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, str, Arrays]]:
    """Exchange two gates of a cell: all their arrays, or those of one kind."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for key in own:
        cell, _, name = key.rpartition("/")
        letters, _, gate = name.partition("_")
        if gate in ("i", "f", "c", "o", "z", "r", "h"):
            cells.setdefault(cell, {}).setdefault(gate, {})[letters] = key
    for cell, gates in cells.items():
        for a, b in itertools.combinations(gates, 2):
            pairs = {x: (gates[a][x], gates[b][x]) for x in gates[a].keys() & gates[b].keys()}
            for letters in ([*pairs], *([x] for x in sorted(pairs))):
                changed = {}
                for first, second in (pairs[x] for x in letters):
                    changed |= {first: own[second], second: own[first]}
                if any(not np.array_equal(own[k], v) for k, v in changed.items()):
                    what = "a gate" if len(letters) > 1 else letters[0]
                    yield "gates exchanged", f"{cell}: {a} and {b}, {what}", changed


def _layers(
    own: Mapping[str, npt.NDArray[Any]], names: set[str]
) -> Iterator[tuple[str, str, Arrays]]:
    """Exchange the weights of two layers of the same sizes."""
    sizes = {
        name: {
            k.removeprefix(f"{name}/"): a.shape for k, a in own.items() if k.startswith(f"{name}/")
        }
        for name in sorted(names)
    }
    for a, b in itertools.combinations(sizes, 2):
        if sizes[a] and sizes[a] == sizes[b]:
            changed = {f"{a}/{k}": own[f"{b}/{k}"] for k in sizes[a]}
            changed |= {f"{b}/{k}": own[f"{a}/{k}"] for k in sizes[a]}
            yield "layers exchanged", f"{a} and {b}", changed
