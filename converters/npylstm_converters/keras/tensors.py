"""The arrays of one layer, in the framework's order, not read yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from npylstm_converters.errors import Refusal

__all__ = [
    "LORA_ADVICE", "Array", "ComputedSource", "Deal", "LayerTensors", "Source", "conflict",
    "direction_of", "first_axis", "merge_lora", "read_array", "role_of",
]  # fmt: skip

Array = npt.NDArray[Any]
Deal = Literal["either", "names", "order"]

LORA_ADVICE = (
    "holds LoRA factors, and the kernel without them gives wrong numbers: save the model as "
    ".keras, which merges them into the kernel"
)


def _is_lora(path: str) -> bool:
    """Whether the name of an array is that of a LoRA factor."""
    return path.rpartition("/")[2].startswith("lora_")


class Source(Protocol):
    """An array not read yet; one computed from several has these as ``parts``."""

    @property
    def path(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self) -> Array: ...


class Taken(NamedTuple):
    """An array that a layer has read, with its role and the direction."""

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
    deal
        How arrays get their roles: by names if these are roles, otherwise by order
        (``"either"``); by names or numbers (``"names"``); or by order (``"order"``), as Keras does
        for legacy HDF5.
    """

    def __init__(self, layer: str, sources: Sequence[Source], deal: Deal = "either") -> None:
        self.layer = layer
        self.sources = tuple(sources)
        self.taken: list[Taken] = []
        self._deal = deal
        self._prefix = ""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, *roles: str) -> dict[str, Source]:
        """Return all arrays, one for each role.

        Raises
        ------
        Refusal
            If there are more or fewer arrays than roles.
        """
        if len(self.sources) != len(roles):
            found = ", ".join(f"{s.path} {s.shape}" for s in self.sources) or "none"
            spare = " ".join(s.path for s in self._spare(roles))
            if any(_is_lora(source.path) for source in self.sources):
                raise Refusal(f"{LORA_ADVICE}; found {found}")
            if any(source.dtype == np.int8 for source in self.sources):
                raise Refusal(
                    "is quantized to int8, which is supported for Dense and Embedding only: "
                    f"convert the model as it was before quantize(); found {found}"
                )
            advice = f" (to leave over: --allow-unused {spare})" if spare else ""
            wanted = ", ".join(roles) or "none"
            raise Refusal(f"expected the weights {wanted}; found {found}{advice}")
        dealt = self._by_role(roles)
        self.taken += [
            Taken(self._prefix, role, part)
            for role, source in dealt.items()
            for part in getattr(source, "parts", (source,))
        ]
        return dealt

    def _spare(self, roles: Sequence[str]) -> list[Source]:
        """Return the surplus arrays, judged by their names."""
        for known in (roles, [str(k) for k in range(len(roles))]):
            spare = [s for s in self.sources if role_of(s.path, self.layer) not in known]
            if len(spare) == len(self.sources) - len(roles):
                return spare
        return []

    def _by_role(self, roles: Sequence[str]) -> dict[str, Source]:
        if self._deal == "order":
            return dict(zip(roles, self.sources, strict=True))
        named = {role_of(s.path, self.layer): s for s in self.sources}
        if set(named) == set(roles):
            return {role: named[role] for role in roles}
        if set(named) == {str(k) for k in range(len(roles))}:
            return {role: named[str(k)] for k, role in enumerate(roles)}
        if self._deal == "names":
            raise Refusal(f"expected the weights {', '.join(roles)}; found {', '.join(named)}")
        return dict(zip(roles, self.sources, strict=True))

    def arranged(self, parts: Sequence[str]) -> LayerTensors:
        """Return the layer with its arrays in the order of the parts that their paths name.

        Raises
        ------
        Refusal
            If ``deal`` is ``"order"`` and the groups' names contradict the order.
        """
        where = {s.path: [p.lstrip("_") for p in s.path.split("/")] for s in self.sources}
        if not all(set(parts) & set(path) for path in where.values()):
            return self
        arranged = self.arranged_by(
            lambda path: next(k for k, p in enumerate(parts) if p in where[path])
        )
        if self._deal == "order" and arranged.sources != self.sources:
            raise Refusal(conflict("its parts", [s.path for s in self.sources]))
        return arranged

    def arranged_by(self, rank: Callable[[str], int]) -> LayerTensors:
        """Return the layer with its arrays sorted by a key of the path; the sort is stable."""
        return self.of(sorted(self.sources, key=lambda source: rank(source.path)))

    def of(self, sources: Sequence[Source]) -> LayerTensors:
        """Return the layer with other arrays."""
        other = LayerTensors(self.layer, sources, self._deal)
        other.taken, other._prefix = self.taken, self._prefix
        return other

    def without(self, allowed: Collection[str]) -> tuple[LayerTensors, list[Source]]:
        """Separate the arrays that may stay unused.

        Raises
        ------
        Refusal
            If one of them is a LoRA factor, without which the results are wrong.
        """
        left = [s for s in self.sources if s.path in allowed]
        if any(_is_lora(source.path) for source in left):
            paths = ", ".join(s.path for s in left if _is_lora(s.path))
            raise Refusal(f"{LORA_ADVICE}; {paths} may not be left over")
        kept = [s for s in self.sources if s.path not in allowed]
        return LayerTensors(self.layer, kept, self._deal), left

    def halves(self, backward_first: bool = False) -> tuple[LayerTensors, LayerTensors]:
        """Return the arrays of the forward and the backward layer: by path, otherwise by order.

        ``backward_first``: whether Keras stores the backward layer's arrays first, as it does if
        only the forward layer is frozen.

        Raises
        ------
        Refusal
            If ``deal`` is ``"order"`` and the paths contradict the order.
        """
        marks = [direction_of(source.path) for source in self.sources]
        middle = len(marks) // 2
        kept = ["forward"] * middle + ["backward"] * (len(marks) - middle)
        kept = kept[::-1] if backward_first else kept
        if set(marks) != {"forward", "backward"}:
            marks = kept
        elif self._deal == "order" and marks != kept:
            raise Refusal(conflict("its directions", [s.path for s in self.sources]))
        halves = []
        for way in ("forward", "backward"):
            half = self.of([s for s, m in zip(self.sources, marks, strict=True) if m == way])
            half._prefix = f"{way}/"
            halves.append(half)
        return halves[0], halves[1]


def conflict(what: str, found: Sequence[str]) -> str:
    """Return the error text for names that contradict the order."""
    return (
        f"the names of {what} in the file have another order than Keras keeps: {', '.join(found)}; "
        "Keras loads by order, so either the names or the numbers are exchanged: save the weights "
        "again, or save the model as .keras"
    )


def direction_of(path: str) -> str:
    """Return the direction that an array's path names: ``forward``, ``backward`` or nothing."""
    parts = path.split("/")[::-1]  # the layer's own name, the first part, may be such a word
    return next(
        (w for part in parts for w in ("forward", "backward") if part.startswith(f"{w}_")), ""
    )


def first_axis(shape: tuple[int, ...]) -> int:
    """Return the number of rows of a matrix: the number of features."""
    if len(shape) != 2:
        raise Refusal(f"expected a kernel of 2 axes, got shape {shape}")
    return shape[0]


def role_of(path: str, layer: str) -> str:
    """Return an array's role: ``kernel`` of ``lstm_1/lstm_cell/kernel:0``; ``W_i`` of Keras 1."""
    last = path.rsplit("/", 1)[-1].split(":", 1)[0]
    return last.removeprefix(f"{layer}_")


def read_array(source: Source, expected: tuple[int, ...]) -> Array:
    """Return an array after a check of its shape and type.

    Raises
    ------
    Refusal
        If the shape differs or the element type is not float32 or float64.
    """
    if source.shape != expected:
        raise Refusal(f"{source.path}: expected shape {expected}, got {source.shape}")
    if source.dtype not in (np.float32, np.float64):
        raise Refusal(f"{source.path}: expected float32 or float64, got {source.dtype}")
    return source.read()


class ComputedSource:
    """An array that is computed from several of the file, under the path of ``weight``."""

    weight: Source

    @property
    def path(self) -> str:
        return self.weight.path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape


@dataclass(frozen=True)
class _Merged(ComputedSource):
    """The sum of a weight and its LoRA factors, under the weight's path.

    Keras computes with ``W + (alpha / rank) A B`` (Hu et al., LoRA: Low-Rank Adaptation of Large
    Language Models, 2021). It writes that sum into ``.keras`` and ``.weights.h5``, but the three
    arrays into legacy ``.h5``.

    ``weight`` (..., out), ``a`` (..., rank) and ``b`` (rank, out) are arrays of the file; ``scale``
    is alpha / rank.
    """

    weight: Source
    a: Source
    b: Source
    scale: float

    @property
    def parts(self) -> tuple[Source, ...]:
        return self.weight, self.a, self.b

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weight.dtype

    def read(self) -> Array:
        rank = self.b.shape[0]
        weight = read_array(self.weight, self.shape).astype(np.float64)
        a = read_array(self.a, (*self.shape[:-1], rank)).astype(np.float64)
        b = read_array(self.b, (rank, self.shape[-1])).astype(np.float64)
        return np.asarray(weight + self.scale * (a @ b), self.dtype)


def merge_lora(config: Mapping[str, Any], tensors: LayerTensors) -> LayerTensors:
    """Return a layer's arrays with the LoRA factors merged into the weight.

    Parameters
    ----------
    config
        The layer's config; ``lora_alpha / lora_rank`` is the scale of the product.
    tensors
        Its arrays.

    Raises
    ------
    Refusal
        If there are factors and the config does not store their scale.
    """
    factors = {role_of(s.path, tensors.layer): s for s in tensors.sources if _is_lora(s.path)}
    if not factors:
        return tensors
    found = ", ".join(s.path for s in factors.values())
    others = {role_of(s.path, tensors.layer): s for s in tensors.sources if not _is_lora(s.path)}
    name = next((n for n in ("kernel", "embeddings") if n in others), "")
    a, b = factors.get(f"lora_{name}_a"), factors.get(f"lora_{name}_b")
    rank: Any = config.get("lora_rank")
    alpha: Any = config.get("lora_alpha")
    alpha = rank if alpha is None else alpha
    known = type(rank) is int and rank > 0 and type(alpha) in (int, float)
    if a is None or b is None or len(factors) != 2 or not known or b.shape[:1] != (rank,):
        raise Refusal(f"{LORA_ADVICE}; found {found}, and a config of lora_rank {rank!r:.40}")
    others[name] = _Merged(others[name], a, b, alpha / rank)
    # Keras lists a weight frozen by LoRA after the others.
    order = sorted(others, key=lambda role: role != name)
    return tensors.of([others[role] for role in order])
