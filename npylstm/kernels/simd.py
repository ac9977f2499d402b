"""SIMD vectors in Numba functions, because compilers do not vectorize all loops reliably.

:class:`Lanes` is a vector inside a function that is being compiled: operators on it append
instructions for all lanes. Kernels call intrinsics with such code like any function. They use raw
pointers instead of arrays: no reference counts, no bounds, no allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import llvmlite
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.packing import narrow_lanes
from npylstm.kernels.target import TARGET

__all__ = [
    "Lanes", "bit_width", "broadcast", "call", "copy", "copy_bytes", "each_vector", "integers",
    "lane_count", "narrow_count", "narrow_width", "number", "numbers", "offset", "prefetch",
    "width",
]  # fmt: skip

_INDEX = ir.IntType(32)
# Up to version 14, LLVM's function names contain the pointers' element types.
_OPAQUE = tuple(map(int, llvmlite.__version__.split(".")[:2])) >= (0, 44)


def bit_width(dtype: Any) -> int:
    """Return the number of bits of this Numba type or LLVM type."""
    if isinstance(dtype, ir.IntType):
        return int(dtype.width)
    if isinstance(dtype, ir.Type):
        return 32 if isinstance(dtype, ir.FloatType) else 64
    return int(dtype.bitwidth)


def lane_count(dtype: Any) -> int:
    """Return the number of lanes of a vector register."""
    return TARGET.vector_bytes * 8 // bit_width(dtype)


def narrow_count(dtype: Any) -> int:
    """Return the number of lanes of a narrow block, for units that do not fill a vector."""
    return narrow_lanes(lane_count(dtype))


class Lanes:
    """A SIMD vector in generated code; other operands may be plain numbers."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, at: Any, count: int, mask: Any = None) -> Lanes:
        """Load ``count`` numbers from a pointer; with a mask, zeros where it is false."""
        number = at.type.pointee
        kind = ir.VectorType(number, count)
        source = builder.bitcast(at, kind.as_pointer())
        if mask is None:
            value = builder.load(source)
            value.align = bit_width(number) // 8
            return cls(builder, value)
        function = _masked(builder, "load", kind, [source.type, _INDEX, mask.type, kind])
        return cls(builder, builder.call(function, [
            source, ir.Constant(_INDEX, bit_width(number) // 8), mask,
            ir.Constant(kind, [0.0] * count),
        ]))  # fmt: skip

    def store(self, at: Any, mask: Any = None) -> None:
        """Store to a pointer; with a mask, only where it is true."""
        kind = self.value.type
        size = bit_width(kind.element) // 8
        target = self.builder.bitcast(at, kind.as_pointer())
        if mask is None:
            self.builder.store(self.value, target).align = size
            return
        function = _masked(
            self.builder, "store", ir.VoidType(), [kind, target.type, _INDEX, mask.type]
        )
        self.builder.call(function, [self.value, target, ir.Constant(_INDEX, size), mask])

    def like(self, number: float | Lanes) -> Any:
        """Return the LLVM value of an operand."""
        if isinstance(number, Lanes):
            return number.value
        return ir.Constant(self.value.type, [number] * self.value.type.count)

    def _with(self, value: Any) -> Lanes:
        return Lanes(self.builder, value)

    def __add__(self, other: float | Lanes) -> Lanes:
        return self._with(self.builder.fadd(self.value, self.like(other)))

    def __sub__(self, other: float | Lanes) -> Lanes:
        return self._with(self.builder.fsub(self.value, self.like(other)))

    def __mul__(self, other: float | Lanes) -> Lanes:
        return self._with(self.builder.fmul(self.value, self.like(other)))

    def __truediv__(self, other: float | Lanes) -> Lanes:
        return self._with(self.builder.fdiv(self.value, self.like(other)))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: float) -> Lanes:
        return -self + other

    def __rtruediv__(self, other: float) -> Lanes:
        return self._with(self.like(other)) / self

    def __neg__(self) -> Lanes:
        return self._with(self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self._intrinsic("fabs")

    def fma(self, factor: float | Lanes, term: float | Lanes) -> Lanes:
        """``self * factor + term``, rounded once where the processor has an instruction for it."""
        if TARGET.has_fma:
            return self._intrinsic("fma", factor, term)
        return self * factor + term

    def copysign(self, other: Lanes) -> Lanes:
        """Return these magnitudes with the signs of ``other`` (copysign)."""
        return self._intrinsic("copysign", other)

    def minimum(self, limit: float | Lanes) -> Lanes:
        """Minimum of the two; nan stays nan."""
        return self.choose(">", limit, limit, self)

    def maximum(self, limit: float | Lanes) -> Lanes:
        """Maximum of the two; nan stays nan."""
        return self.choose("<", limit, limit, self)

    def choose(
        self, order: str, other: float | Lanes, yes: float | Lanes, no: float | Lanes
    ) -> Lanes:
        """Return ``yes`` where a comparison such as ``"<"`` with ``other`` is true, else ``no``."""
        holds = self.builder.fcmp_ordered(order, self.value, self.like(other))
        return self._with(self.builder.select(holds, self.like(yes), self.like(no)))

    def shifted_bits(self, count: int) -> Lanes:
        """Shift the bits of each number to the left."""
        number = self.value.type.element
        whole = ir.VectorType(ir.IntType(bit_width(number)), self.value.type.count)
        bits = self.builder.bitcast(self.value, whole)
        shifted = self.builder.shl(bits, ir.Constant(whole, [count] * whole.count))
        return self._with(self.builder.bitcast(shifted, self.value.type))

    def shifted_words(self, count: int) -> Lanes:
        """Shift words of 32 bits to the left, and take their bits as float32."""
        by = ir.Constant(self.value.type, [count] * self.value.type.count)
        return self._as_floats(self.builder.shl(self.value, by))

    def masked_words(self, mask: int) -> Lanes:
        """Keep the bits of a mask of words of 32 bits, and take them as float32."""
        kept = ir.Constant(self.value.type, [mask] * self.value.type.count)
        return self._as_floats(self.builder.and_(self.value, kept))

    def _as_floats(self, words: Any) -> Lanes:
        floats = ir.VectorType(ir.FloatType(), words.type.count)
        return self._with(self.builder.bitcast(words, floats))

    def wide(self) -> Lanes:
        """The same numbers in float64."""
        return self._cast("fpext", 64)

    def narrow(self, number: Any) -> Lanes:
        """The numbers rounded to an LLVM type."""
        return self._cast("fptrunc", bit_width(number))

    def lanes_from(self, first: int, count: int) -> Lanes:
        """Return some of the lanes."""
        return self._shuffled(range(first, first + count))

    def repeated(self, count: int) -> Lanes:
        """Return a vector with the first lane in all lanes."""
        return self._shuffled([0] * count)

    def _shuffled(self, places: Iterable[int]) -> Lanes:
        chosen = [*places]
        mask = ir.Constant(ir.VectorType(_INDEX, len(chosen)), chosen)
        return self._with(self.builder.shuffle_vector(self.value, self.value, mask))

    def flushed(self) -> Lanes:
        """Return the numbers, but zero for those that are too small for a normal number."""
        smallest = 2.0**-126 if bit_width(self.value.type.element) == 32 else 2.0**-1022
        return abs(self).choose("<", smallest, 0.0, self)

    def sqrt(self) -> Lanes:
        """Return the square root; nan below zero."""
        return self._intrinsic("sqrt")

    def rounded(self) -> Lanes:
        """Return the nearest integers, even ones in the middle."""
        return self._intrinsic("rint")

    def log(self) -> Lanes:
        """Return the natural logarithm, by the C library."""
        return self._intrinsic("log")

    def _cast(self, name: str, bits: int) -> Lanes:
        kind = self.value.type
        if bit_width(kind.element) == bits:
            return self
        number = ir.DoubleType() if bits == 64 else ir.FloatType()
        target = ir.VectorType(number, kind.count)
        return self._with(getattr(self.builder, name)(self.value, target))

    def _intrinsic(self, name: str, *others: float | Lanes) -> Lanes:
        kind = self.value.type
        values = [self.value, *map(self.like, others)]
        suffix = f"v{kind.count}f{bit_width(kind.element)}"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(kind, [kind] * len(values)),
            f"llvm.{name}.{suffix}",
        )  # fmt: skip
        return self._with(self.builder.call(function, values))


def _masked(builder: Any, what: str, result: Any, arguments: list[Any]) -> Any:
    """Return LLVM's function for a masked load or store."""
    kind = arguments[0] if what == "store" else result
    name = f"v{kind.count}f{bit_width(kind.element)}"
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, arguments),
        f"llvm.masked.{what}.{name}.p0{'' if _OPAQUE else name}",
    )  # fmt: skip


def broadcast(builder: Any, number: Any, count: int) -> Lanes:
    """Return a vector with this number in all lanes."""
    kind = ir.VectorType(number.type, count)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    places = ir.Constant(ir.VectorType(_INDEX, count), [0] * count)
    return Lanes(builder, builder.shuffle_vector(first, undefined, places))


def prefetch(builder: Any, at: Any) -> None:
    """Prefetch the cache line at a pointer into the L2 cache; the address may be invalid."""
    byte = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, _INDEX, _INDEX, _INDEX]),
        f"llvm.prefetch.p0{'' if _OPAQUE else 'i8'}",
    )  # fmt: skip
    to_read, second_cache, data = (ir.Constant(_INDEX, value) for value in (0, 2, 1))
    builder.call(function, [builder.bitcast(at, byte), to_read, second_cache, data])


@intrinsic
def integers(typingctx: Any, address: Any) -> Any:
    """Return a pointer to the integers at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def numbers(typingctx: Any, like: Any, address: Any) -> Any:
    """Return a pointer of the same type to the numbers at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], args[0].type)

    return like(like, types.int64), generate


@intrinsic
def number(typingctx: Any, bits: Any) -> Any:
    """Return the number in float64 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy bytes from one address to another; the two may overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = [builder.inttoptr(at, ir.IntType(8).as_pointer()) for at in args[:2]]
        cgutils.raw_memmove(builder, *pointers, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def offset(typingctx: Any, start: Any, count: Any) -> Any:
    """Return the pointer plus ``count`` elements."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return start(start, types.int64), generate


def _constant_of(count: Callable[[Any], int]) -> Any:
    """Return an intrinsic that is a compile-time constant of a pointer's element type."""

    @intrinsic
    def constant(typingctx: Any, like: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(ir.IntType(64), count(like.dtype))

        return types.int64(like), generate

    return constant


# Lanes of a vector, and of a narrow block.
width, narrow_width = _constant_of(lane_count), _constant_of(narrow_count)


@intrinsic
def call(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the kernel at an address with a tuple of arguments."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[1])
        function = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(args[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


@intrinsic
def copy(typingctx: Any, y: Any, x: Any, count: Any) -> Any:
    """``y[:count] = x[:count]``, a vector at a time."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        y, x, count = args

        def move(k: Any, mask: Any) -> None:
            source = Lanes.load(builder, builder.gep(x, [k]), lane_count(x.type.pointee), mask)
            source.store(builder.gep(y, [k]), mask)

        each_vector(builder, lane_count(x.type.pointee), count, move)
        return context.get_dummy_value()

    return types.void(y, y, types.int64), generate


def each_vector(builder: Any, lanes: int, count: Any, build: Callable[[Any, Any], None]) -> None:
    """Generate a loop over ``count`` numbers in vectors; the last vector has a mask of lanes."""
    number = count.type
    lane = ir.Constant(number, lanes)
    whole = builder.sub(count, builder.srem(count, lane))
    with cgutils.for_range_slice(builder, ir.Constant(number, 0), whole, lane) as (k, _):
        build(k, None)
    rest = builder.icmp_signed("<", whole, count)
    with builder.if_then(rest):
        places = ir.Constant(ir.VectorType(number, lanes), list(range(lanes)))
        limit = broadcast(builder, builder.sub(count, whole), lanes).value
        build(whole, builder.icmp_signed("<", places, limit))
