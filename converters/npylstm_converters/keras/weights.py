"""Where the weights lie: three stores with one interface.

* :class:`LegacyStore`: HDF5 of Keras 1 and 2 (and Keras 3 when asked for ``.h5``): one group
  per layer name, arrays listed in an attribute.
* :class:`SavedStore`: ``model.weights.h5`` of Keras 3 and late Keras 2: groups named by class and
  count, arrays numbered.
* :class:`LiveStore`: a model object in memory.

A store hands a layer its arrays in the framework's order and keeps the ledger of what nobody
asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from npylstm import FormatError
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Graph, RawLayer
from npylstm_converters.keras.hdf5 import Dataset, File

__all__ = [
    "LayerTensors", "LegacyStore", "LiveStore", "PathStore", "SavedStore", "Source", "Store",
    "first_axis", "read_array", "role_of", "snake_case",
]  # fmt: skip

Array = npt.NDArray[Any]


class Source(Protocol):
    """An array not read yet."""

    @property
    def path(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self) -> Array: ...


class Taken(NamedTuple):
    """An array that a layer has asked for: as which one, of which of its parts."""

    prefix: str
    role: str
    source: Source


class LayerTensors:
    """The arrays of one layer, in the framework's order.

    Parameters
    ----------
    layer
        The layer's name, for messages.
    sources
        Its arrays, not read yet.
    named
        Whether their names must be the roles, or the numbers of the roles.
    """

    def __init__(self, layer: str, sources: Sequence[Source], named: bool = False) -> None:
        self.layer = layer
        self.sources = tuple(sources)
        self.taken: list[Taken] = []
        self._named = named
        self._prefix = ""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, *roles: str) -> dict[str, Source]:
        """Hand out all arrays, one for each role.

        Names decide where they name the roles; otherwise the order does.

        Raises
        ------
        Refusal
            If there are more or fewer arrays than roles.
        """
        if len(self.sources) != len(roles):
            found = ", ".join(f"{s.path} {s.shape}" for s in self.sources) or "none"
            spare = " ".join(s.path for s in self._spare(roles))
            advice = f" (to leave over: --allow-unused {spare})" if spare else ""
            wanted = ", ".join(roles) or "none"
            raise Refusal(f"expected the weights {wanted}; found {found}{advice}")
        dealt = self._deal(roles)
        self.taken += [Taken(self._prefix, role, source) for role, source in dealt.items()]
        return dealt

    def _spare(self, roles: Sequence[str]) -> list[Source]:
        """Those that are too many, by their names."""
        for known in (roles, [str(k) for k in range(len(roles))]):
            spare = [s for s in self.sources if role_of(s.path, self.layer) not in known]
            if len(spare) == len(self.sources) - len(roles):
                return spare
        return []

    def _deal(self, roles: Sequence[str]) -> dict[str, Source]:
        named = {role_of(s.path, self.layer): s for s in self.sources}
        if set(named) == set(roles):
            return {role: named[role] for role in roles}
        if set(named) == {str(k) for k in range(len(roles))}:
            return {role: named[str(k)] for k, role in enumerate(roles)}
        if self._named:
            raise Refusal(f"expected the weights {', '.join(roles)}; found {', '.join(named)}")
        return dict(zip(roles, self.sources, strict=True))

    def arranged(self, parts: Sequence[str]) -> LayerTensors:
        """Put the arrays in the order of the parts in whose groups they lie, if they do."""
        where = {s.path: [p.lstrip("_") for p in s.path.split("/")] for s in self.sources}
        if not all(set(parts) & set(path) for path in where.values()):
            return self
        return self.arranged_by(
            lambda path: next(k for k, p in enumerate(parts) if p in where[path])
        )

    def arranged_by(self, rank: Callable[[str], int]) -> LayerTensors:
        """Put the arrays in order by a number for each path; what is equal stays as it is."""
        ordered = sorted(self.sources, key=lambda source: rank(source.path))
        arranged = LayerTensors(self.layer, ordered, self._named)
        arranged.taken = self.taken
        return arranged

    def without(self, allowed: Collection[str]) -> tuple[LayerTensors, list[Source]]:
        """Part with the arrays that may be left over."""
        left = [s for s in self.sources if s.path in allowed]
        kept = [s for s in self.sources if s.path not in allowed]
        return LayerTensors(self.layer, kept, self._named), left

    def halves(self) -> tuple[LayerTensors, LayerTensors]:
        """Deal the arrays out to a forward and a backward layer: by path, otherwise by order."""
        marks = [_direction(source.path) for source in self.sources]
        if set(marks) != {"forward", "backward"}:
            middle = len(marks) // 2
            marks = ["forward"] * middle + ["backward"] * (len(marks) - middle)
        halves = []
        for way in ("forward", "backward"):
            own = [s for s, m in zip(self.sources, marks, strict=True) if m == way]
            half = LayerTensors(self.layer, own, self._named)
            half.taken, half._prefix = self.taken, f"{way}/"
            halves.append(half)
        return halves[0], halves[1]


def _direction(path: str) -> str:
    parts = path.split("/")[::-1]  # the layer's own name, which comes first, may be such a word
    return next(
        (w for part in parts for w in ("forward", "backward") if part.startswith(f"{w}_")), ""
    )


def first_axis(shape: tuple[int, ...]) -> int:
    """The rows of a matrix, which tell how many features there are."""
    if len(shape) != 2:
        raise Refusal(f"expected a kernel of 2 axes, got shape {shape}")
    return shape[0]


def role_of(path: str, layer: str) -> str:
    """Say which array it is: ``kernel`` of ``lstm_1/lstm_cell/kernel:0``; ``W_i`` of Keras 1."""
    last = path.rsplit("/", 1)[-1].split(":", 1)[0]
    return last.removeprefix(f"{layer}_")


def read_array(source: Source, expected: tuple[int, ...]) -> Array:
    """Read an array whose shape is known beforehand.

    Raises
    ------
    Refusal
        If the shape is another one or the element type is not float32 or float64.
    """
    if source.shape != expected:
        raise Refusal(f"{source.path}: expected shape {expected}, got {source.shape}")
    if source.dtype not in (np.float32, np.float64):
        raise Refusal(f"{source.path}: expected float32 or float64, got {source.dtype}")
    return source.read()


class Store(Protocol):
    """Weights by layer."""

    def tensors(self, layer: RawLayer) -> LayerTensors:
        """The arrays of a layer; each array is handed out once."""
        ...

    def inner(self, layer: RawLayer) -> Store:
        """The weights of a model inside; asked for once, in the place of :meth:`tensors`."""
        ...

    def unread(self) -> list[Source]:
        """The arrays that no layer has asked for."""
        ...


class LegacyStore:
    """Groups by layer name, with the attributes ``layer_names`` and ``weight_names``."""

    def __init__(self, root: File) -> None:
        names = root.names("layer_names")
        if names is None:
            raise FormatError(
                f"{root.label}: no attribute layer_names, so these are not Keras weights"
            )
        self._layers: dict[str, list[tuple[str, Dataset]]] = {}
        self._models: list[Store] = []
        for name in names:
            group = root.group(name)
            if group is None:
                raise FormatError(f"{root.label}: no group {name!r}, which layer_names lists")
            datasets = []
            for weight in group.names("weight_names") or []:
                dataset = group.dataset(weight)
                if dataset is None:
                    raise FormatError(
                        f"{group.label}: no array {weight!r}, which weight_names lists"
                    )
                # Names may be the same in two groups; paths are not.
                datasets.append((weight, replace(dataset, path=f"{name}/{weight}")))
            self._layers[name] = datasets

    def listed(self) -> dict[str, list[Source]]:
        """Arrays by layer, in the order of the file, of layers that nobody has asked for."""
        return {name: [d for _, d in datasets] for name, datasets in self._layers.items()}

    def tensors(self, layer: RawLayer) -> LayerTensors:
        return LayerTensors(layer.name, [d for _, d in self._layers.pop(layer.name, [])])

    def inner(self, layer: RawLayer) -> Store:
        self._models.append(_of_list(layer, self._layers.pop(layer.name, [])))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left: list[Source] = [d for datasets in self._layers.values() for _, d in datasets]
        return left + [source for model in self._models for source in model.unread()]


class PathStore:
    """Arrays of a model in one list: their names tell which layer each belongs to.

    Keras writes ``lstm/lstm_cell/kernel`` for a layer of the model, and with the names of further
    models before it (Keras 3) or without (Keras 2). Statistics that are not trained come last.
    """

    def __init__(
        self, model: Graph, arrays: Sequence[tuple[str, Source]], named: bool = False
    ) -> None:
        self._left = list(arrays)
        self._named = named
        self._models: list[Store] = []
        names = Counter(layer.name for _, layer in model.leaves())
        self._twins = {name for name, count in names.items() if count > 1}

    def tensors(self, layer: RawLayer) -> LayerTensors:
        own = [entry for entry in self._left if entry[0].startswith(f"{layer.name}/")]
        if not own:
            own = self._below(layer)
            if own and layer.name in self._twins:
                raise Refusal(f"two layers inside one model are named {layer.name!r}")
        self._left = [entry for entry in self._left if entry not in own]
        return LayerTensors(layer.name, [d for _, d in own], self._named)

    def _below(self, layer: RawLayer) -> list[tuple[str, Source]]:
        """Arrays in whose paths a name stands anywhere."""
        return [entry for entry in self._left if f"/{layer.name}/" in f"/{entry[0]}"]

    def inner(self, layer: RawLayer) -> Store:
        # With its name in their paths its arrays are told apart; without, any of ours may be.
        own = self._below(layer)
        if not own:
            return self
        self._left = [entry for entry in self._left if entry not in own]
        marked = [(f"/{name}".split(f"/{layer.name}/", 1)[-1], d) for name, d in own]
        self._models.append(_of_list(layer, marked, self._named))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [d for _, d in self._left]
        return left + [source for model in self._models for source in model.unread()]


def _of_list(
    layer: RawLayer, arrays: Sequence[tuple[str, Source]], named: bool = False
) -> DealtStore | PathStore:
    """Make the store of what is inside a layer whose arrays lie in one list."""
    assert layer.inner is not None  # whoever asks has seen to it
    if layer.class_name == "RNN":
        return DealtStore([source for _, source in arrays])
    return PathStore(layer.inner, arrays, named)


class DealtStore:
    """Arrays of several cells, one cell after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._left = list(sources)

    def tensors(self, layer: RawLayer) -> LayerTensors:
        if not layer.stored:  # no cell
            return LayerTensors(layer.name, [])
        cell = layer.config["cell"]["config"]
        count = 3 if cell.get("use_bias", True) else 2
        own, self._left = self._left[:count], self._left[count:]
        return LayerTensors(layer.name, own)

    def inner(self, layer: RawLayer) -> Store:
        return self

    def unread(self) -> list[Source]:
        return self._left


class SavedStore:
    """Groups by class and count: ``layers/lstm_1/cell/vars/0``.

    The counts rise with the model's layers, but not always by one: late Keras 2, which calls
    the root ``_layer_checkpoint_dependencies``, counts a layer twice. So the n-th group of a
    class belongs to the n-th layer of that class.
    """

    ROOTS = ("layers", "_layer_checkpoint_dependencies", "cells")
    # Optimizers and metrics, and states of random generators: of no use to inference.
    _ASIDE = ("optimizer", "metrics")
    _SEEDS = re.compile("seed_generator(_[0-9]{1,9})?")

    def __init__(self, root: File) -> None:
        groups, datasets = root.walk()
        self._fill([*groups], [(d.path, d) for d in datasets])

    @classmethod
    def of_paths(cls, groups: list[str], datasets: Sequence[tuple[str, Source]]) -> SavedStore:
        """Make a store of arrays by path; ``groups`` are paths that may hold none."""
        store = cls.__new__(cls)
        store._fill(groups, datasets)
        return store

    def _fill(self, groups: list[str], datasets: Sequence[tuple[str, Source]]) -> None:
        """Sort arrays, by their paths from here, into the groups of layers."""
        self._models: list[SavedStore] = []
        self._paths = groups
        paths = (p.split("/") for p in (*groups, *(path for path, _ in datasets)))
        names = {p[1] for p in paths if p[0] in self.ROOTS and len(p) > 1}
        self._queues: dict[str, list[str]] = {}
        for name in sorted(names, key=_count):
            self._queues.setdefault(_COUNT.sub("", name), []).append(name)
        self._groups: dict[str, list[tuple[str, Source]]] = {}
        self._others: list[Source] = []
        for path, dataset in datasets:
            parts = path.split("/")
            if parts[0].startswith(self._ASIDE) or any(map(self._SEEDS.fullmatch, parts)):
                continue
            if parts[0] in self.ROOTS and len(parts) > 2:
                self._groups.setdefault(parts[1], []).append(("/".join(parts[2:]), dataset))
            else:
                self._others.append(dataset)

    def _next(self, layer: RawLayer) -> str | None:
        """The group of the next layer of a class; layers come in the model's order."""
        queue = self._queues.get(snake_case(layer.stored or layer.class_name))
        return queue.pop(0) if queue else None

    def tensors(self, layer: RawLayer) -> LayerTensors:
        """Layers must come in the model's order, because groups are counted in it."""
        datasets = self._groups.pop(self._next(layer) or "", [])
        return LayerTensors(
            layer.name, [d for _, d in sorted(datasets, key=lambda d: _numbered(d[0]))]
        )

    def inner(self, layer: RawLayer) -> Store:
        name, start = self._next(layer) or "", f"{layer.below}/" if layer.below else ""
        below = [
            p.split("/", 2)[2].removeprefix(start)
            for p in self._paths
            if p.split("/")[1:2] == [name] and p.count("/") > 1
        ]
        own = [(path.removeprefix(start), d) for path, d in self._groups.pop(name, [])]
        self._models.append(self.of_paths(below, own))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [*(d for ds in self._groups.values() for _, d in ds), *self._others]
        return left + [source for model in self._models for source in model.unread()]


_COUNT = re.compile(r"_([0-9]{1,9})$")


def _count(name: str) -> int:
    match = _COUNT.search(name)
    return int(match[1]) if match else 0


# Where Keras begins a new word: before a capital that a small letter follows, and between a
# small letter and a capital. ``LeakyReLU`` -> ``leaky_re_lu``, ``LSTM`` -> ``lstm``.
_WORD = re.compile(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])")


def snake_case(class_name: str) -> str:
    """Name a class as Keras does in files: ``LeakyReLU`` is ``leaky_re_lu``."""
    return _WORD.sub("_", class_name).lower()


def _numbered(path: str) -> list[tuple[int, int, str]]:
    """A sort key that counts: ``vars/10`` after ``vars/9``."""
    parts = path.split("/")
    return [(0, int(p), "") if re.fullmatch("[0-9]{1,9}", p) else (1, 0, p) for p in parts]


@dataclass(frozen=True)
class LiveVariable:
    """A variable of a model in memory."""

    path: str
    variable: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(d) for d in self.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        name = getattr(self.variable.dtype, "name", self.variable.dtype)
        try:
            return np.dtype(str(name))
        except TypeError:
            raise Refusal(f"{self.path}: expected float32 or float64, got {name}") from None

    def read(self) -> Array:
        numpy = getattr(self.variable, "numpy", None)
        return np.asarray(numpy() if callable(numpy) else self.variable)


class LiveStore:
    """The layers of a Keras 3 or tf_keras model object."""

    def __init__(self, model: Any) -> None:
        self._objects = {layer.name: layer for layer in model.layers}
        self._models: list[Store] = []

    def tensors(self, layer: RawLayer) -> LayerTensors:
        made = self._objects.pop(layer.name, None)
        return LayerTensors(layer.name, _variables(made) if made is not None else [])

    def inner(self, layer: RawLayer) -> Store:
        made = self._objects.pop(layer.name)
        if layer.class_name == "RNN":
            self._models.append(DealtStore(_variables(made)))
        else:
            self._models.append(LiveStore(made if layer.is_model else made.layer))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left: list[Source] = [v for layer in self._objects.values() for v in _variables(layer)]
        return left + [source for model in self._models for source in model.unread()]


def _variables(layer: Any) -> list[LiveVariable]:
    return [
        LiveVariable(str(getattr(v, "path", getattr(v, "name", number))), v)
        for number, v in enumerate(layer.weights)
    ]
