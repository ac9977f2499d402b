"""A pickle reader that builds only tensors, containers and numbers.

A pickle is a program for a small stack machine. This machine never imports or calls the names in
the program. It looks up each name in a table of a dozen functions of this file. Every other name is
recorded, and the whole file is an error.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npylstm import FormatError, UnsupportedError

__all__ = ["DTYPES", "Global", "Opaque", "Storage", "Tensor", "Unpickler"]

# torch's names of element types, and NumPy's type strings.
DTYPES: dict[str, str] = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "int64": "i8",
    "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?",
}  # fmt: skip
_STORAGES: dict[str, str] = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip

_LONGEST_NUMBER = 1000  # bytes
_LONGEST_TEXT = 16 << 20
# Opcodes, and items that functions iterate over. A state_dict needs about fifty for each tensor.
_MOST_WORK = 1_000_000
_BYTES_A_STEP = 64  # one step for each 64 bytes of text
_MOST_REASONS = 50
_MOST_AXES = 32


class Global(NamedTuple):
    """A global name in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A reference to a storage in the file; ``dtype`` is None if the tensor has it."""

    key: str
    dtype: str | None
    count: int
    start: int = 0  # offset of a view, in elements
    shown: int = -1  # number of elements in the view


@dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle describes it, not checked and not read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    negative: bool = False  # the storage holds the negated values


@dataclass
class Opaque:
    """Represents an object of a forbidden class, which is not created: class and attributes."""

    name: Global
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass
class _Dtype:
    descr: str


@dataclass
class _Numbers:
    """A NumPy array before its state is set."""

    array: Any = None


def _expect(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise FormatError(f"pickle: expected {what}, got {type(value).__name__}")
    return value


def _ints(value: Any, what: str) -> tuple[int, ...]:
    if len(_expect(value, (tuple, list), what)) > _MOST_AXES:
        raise FormatError(f"pickle: {what} of {len(value)} axes")
    return tuple(_expect(v, int, what) for v in value)


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str | None = None
) -> Tensor:
    _expect(storage, Storage, "a storage")
    kind = dtype or storage.dtype
    if kind is None or (storage.dtype is not None and kind != storage.dtype):
        raise FormatError(f"pickle: a tensor of type {kind} in a storage of {storage.dtype}")
    # The argument after requires_grad and hooks: operations applied when the tensor is read.
    later = rest[2] if len(rest) > 2 and rest[2] else {}
    if _expect(later, dict, "a dictionary").keys() - {"neg"}:
        raise FormatError("pickle: a tensor that is computed when it is read")
    return Tensor(
        storage, _expect(offset, int, "an offset"), _ints(size, "a size"),
        _ints(stride, "a stride"), kind, later.get("neg") is True,
    )  # fmt: skip


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    kind = _expect(dtype, str, "a dtype")
    return _rebuild_tensor(storage, offset, size, stride, grad, hooks, *rest, dtype=kind)


def _rebuild_parameter(tensor: Any, *_: Any) -> Tensor:
    made: Tensor = _expect(tensor, Tensor, "a tensor")
    return made


def _rebuild_from_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    if not str(_expect(function, Global, "a function")).startswith("torch._utils._rebuild_"):
        raise FormatError(f"pickle: makes a tensor by {function}")
    return _call(function, _expect(arguments, tuple, "arguments"))


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in _expect(pairs, (tuple, list), "pairs"):
        _expect(pair, (tuple, list), "a pair")
        if len(pair) != 2:
            raise FormatError("pickle: expected a pair")
        made[_key(pair[0])] = pair[1]
    return made


def _counter(counts: Any = None) -> dict[Any, Any]:
    return dict(_expect(counts, dict, "a dictionary")) if counts is not None else {}


def _set(items: Any = ()) -> set[Any]:
    return {_key(item) for item in _expect(items, (tuple, list), "items")}


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes from the form of protocol 2."""
    if encoding != "latin1":
        raise FormatError("pickle: expected bytes as latin1")
    return str(_expect(text, str, "a string")).encode("latin1")


def _dtype(descr: Any, *_: Any) -> _Dtype:
    if descr not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise FormatError("pickle: expected a NumPy type of plain numbers")
    return _Dtype(descr)


def _scalar(dtype: Any, data: Any) -> Any:
    kind = np.dtype(_expect(dtype, _Dtype, "a NumPy type").descr)
    if len(_expect(data, bytes, "bytes")) != kind.itemsize:
        raise FormatError("pickle: a NumPy number of another size than its type")
    return np.frombuffer(data, kind)[0].item()


def _reconstruct(*_: Any) -> _Numbers:
    return _Numbers()


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda size: _ints(size, "a size"),
    "torch.device": lambda *where: None,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {"scalar": _scalar, "_reconstruct": _reconstruct}.items()
    },
}
# Names that are values, not functions.
_NAMES: dict[str, Any] = {
    **{f"torch.{name}": name for name in DTYPES},
    "numpy.ndarray": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Tensor": None,
    "torch._tensor.Tensor": None,
}
_STORAGE_NAMES: dict[str, str | None] = {
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": None,
}


def _call(function: Global, arguments: tuple[Any, ...]) -> Any:
    known = _CALLS.get(str(function))
    if known is None:
        raise FormatError(f"pickle: calls {function}, which makes nothing")
    try:
        return known(*arguments)
    except TypeError:
        raise FormatError(f"pickle: calls {function} with other arguments than it takes") from None


_MOST_KEY_PARTS = 100
_LARGEST_KEY = 1 << 60  # larger numbers can be chosen to have equal hashes
_PLAIN = (str, int, float, bytes, type(None))


def _key(value: Any) -> Any:
    """Return a key if it is plain or a small tuple: hashing nested tuples could take forever."""
    todo, seen = [value], 0
    while todo and seen < _MOST_KEY_PARTS:
        part = todo.pop()
        seen += 1
        if isinstance(part, tuple):
            todo += part[:_MOST_KEY_PARTS]
        elif not isinstance(part, _PLAIN) or (
            isinstance(part, (int, float)) and abs(part) > _LARGEST_KEY
        ):
            break
    else:
        if not todo:
            return value
    raise FormatError(f"pickle: a {type(value).__name__} as a key")


class Unpickler:
    """Runs one pickle.

    Parameters
    ----------
    data
        The bytes; more may follow the pickle.
    position
        Offset of its first byte.

    Attributes
    ----------
    position
        After :meth:`load`: the offset of its end.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int = 0) -> None:
        self._data = data
        self.position = position
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._work = 0
        self.refused: dict[Global, None] = {}
        self._built: dict[Global, None] = {}  # forbidden classes whose objects got attributes

    def load(self, opaque: bool = False) -> Any:
        """Return the object.

        Parameters
        ----------
        opaque
            Whether objects of forbidden classes are returned as :class:`Opaque`.

        Raises
        ------
        FormatError
            If it is damaged.
        UnsupportedError
            Lists every name that is not in the table.
        """
        value = self._run()
        if self.refused and not opaque:
            raise UnsupportedError(_refusals(list(self.refused), self._built))
        return value

    def _run(self) -> Any:
        while True:
            self.spend(1)
            op = self._take(1)[0]
            if op == 0x2E:  # STOP
                return self._pop()
            run = _OPCODES.get(op)
            if run is None:
                raise FormatError(f"pickle: opcode that is unknown or not allowed: 0x{op:02x}")
            run(self)

    def spend(self, work: int) -> None:
        """Add to the work counter; raise an error beyond the limit."""
        self._work += work
        if self._work > _MOST_WORK:
            raise FormatError(f"pickle: takes more than {_MOST_WORK} steps to build")

    def _take(self, count: int) -> bytes:
        if count < 0 or self.position + count > len(self._data):
            raise FormatError("pickle: ends in the middle")
        if count > _LONGEST_TEXT:
            raise FormatError(f"pickle: {count} bytes in one piece")
        self.spend(count // _BYTES_A_STEP)
        self.position += count
        return self._data[self.position - count : self.position]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + 10_000)
        if end < 0:
            raise FormatError("pickle: ends in the middle of a line")
        return self._decode(self._take(end + 1 - self.position)[:-1])

    @staticmethod
    def _decode(data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise FormatError("pickle: a string that is not UTF-8") from None

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise FormatError("pickle: takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._push(value)
        return value

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise FormatError("pickle: takes from a mark that was never set")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _global(self, module: Any, name: Any) -> None:
        _expect(module, str, "a module's name")
        self._name(Global(module, _expect(name, str, "a name")))

    def _name(self, name: Global) -> None:
        text = str(name)
        if text in _NAMES:
            self._push(_NAMES[text])
        elif text in _CALLS or text in _STORAGE_NAMES:
            self._push(name)
        else:
            if len(self.refused) < _MOST_REASONS:
                self.refused[name] = None
            self._push(Opaque(name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if isinstance(function, Opaque):
            self._push(Opaque(function.name))
            return
        _expect(function, Global, "a function")
        _expect(arguments, tuple, "arguments")
        sized = (len(a) for a in arguments if isinstance(a, (tuple, list, dict, str)))
        self.spend(len(arguments) + sum(sized))
        refused = next((a for a in arguments if isinstance(a, Opaque)), None)
        self._push(refused or _call(function, arguments))

    def _instance(self, cls: Any) -> None:
        """Opcodes INST, OBJ and NEWOBJ_EX, which torch never writes."""
        if isinstance(cls, Global):
            self.refused[cls] = None
            cls = Opaque(cls)
        self._push(_expect(cls, Opaque, "a class"))

    def _build(self) -> None:
        state, value = self._pop(), self._top()
        if isinstance(value, Opaque):
            self._built[value.name] = None
            if isinstance(state, dict):
                value.state = state
            return
        if isinstance(value, _Numbers):
            self._build_array(value, state)
        elif isinstance(value, _Dtype):
            order = _expect(state, tuple, "a state")[1:2]
            if order not in (("<",), ("|",)):
                raise FormatError("pickle: expected a little-endian NumPy type")
        elif not isinstance(value, (dict, Tensor)):  # attributes of these are ignored
            raise FormatError(f"pickle: sets the state of a {type(value).__name__}")
        elif not isinstance(state, (dict, tuple, Opaque)) and state is not None:
            raise FormatError(f"pickle: expected a state, got {type(state).__name__}")

    @staticmethod
    def _build_array(value: _Numbers, state: Any) -> None:
        match state:
            case (_, tuple(shape), _Dtype(descr), bool(), bytes(data)):
                kind = np.dtype(descr)
                shape = _ints(shape, "a shape")
                if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data):
                    raise FormatError("pickle: a NumPy array of another size than its shape")
                flat = np.frombuffer(data, kind)
                value.array = flat.reshape(shape, order="F" if state[3] else "C")
            case _:
                raise FormatError("pickle: a NumPy array in no form that is known")

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise FormatError(f"pickle: appends to a {type(target).__name__}")

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, set):
            target.update(_key(item) for item in items)
        elif not isinstance(target, Opaque):
            raise FormatError(f"pickle: adds to a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise FormatError(f"pickle: sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise FormatError(f"pickle: no memo {index}")
        self._push(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _integer(self, text: str) -> None:
        if text in ("00", "01"):  # False and True in protocol 0
            self._push(text == "01")
            return
        try:
            if len(text) > _LONGEST_NUMBER:
                raise ValueError
            self._push(int(text.removesuffix("L")))
        except ValueError:
            raise FormatError(f"pickle: expected an integer, got {text[:40]!r}") from None

    def _float(self) -> None:
        text = self._line()
        try:
            self._push(float(text))
        except ValueError:
            raise FormatError(f"pickle: expected a number, got {text[:40]!r}") from None

    def _long(self, count: int) -> None:
        if not 0 <= count <= _LONGEST_NUMBER:
            raise FormatError(f"pickle: an integer of {count} bytes")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _persistent(self, value: Any) -> None:
        """Return the storage of a persistent id: a tensor's data outside the pickle."""
        if isinstance(value, tuple) and any(isinstance(v, Opaque) for v in value):
            self._push(next(v for v in value if isinstance(v, Opaque)))
            return
        match value if isinstance(value, tuple) else None:
            case ("storage", Global() as kind, str(key), _, int(count), *rest):
                if str(kind) not in _STORAGE_NAMES:
                    raise FormatError(f"pickle: {kind} is no storage")
                start, shown = 0, count
                match rest:
                    case [] | [None]:
                        pass
                    case [(_, int(start), int(shown))]:  # a view, in the legacy format
                        pass
                    case _:
                        raise FormatError("pickle: a storage in no form that is known")
                if not 0 <= start <= start + shown <= count:
                    raise FormatError(f"pickle: a view of {shown} from {start} on of {count}")
                self._push(Storage(key, _STORAGE_NAMES[str(kind)], count, start, shown))
            case _:
                raise FormatError("pickle: a persistent id in no form that is known")


def _refusals(names: list[Global], built: Mapping[Global, None]) -> list[str]:
    """Return one reason for each forbidden name, with advice."""
    reasons = [f"the pickle names {n}, which is not allowed and was not run" for n in names]
    if built:
        outermost = list(built)[-1]
        reasons.insert(
            0,
            f"the file holds a pickled {outermost}: to load it would run code. Two ways out: save "
            "torch.save(module.state_dict(), path) and convert that with --layers; or convert the "
            "module where it is in memory, from_torch(module, example), or saved by torch.export",
        )
    return reasons


def _string(form: str, text: bool) -> Callable[[Unpickler], None]:
    def run(self: Unpickler) -> None:
        data = self._take(self._number(form))
        self._push(self._decode(data) if text else data)

    return run


def _python2_string(form: str) -> Callable[[Unpickler], None]:
    """Return the opcode of a Python 2 string: bytes that represent text."""

    def run(self: Unpickler) -> None:
        self._push(self._take(self._number(form)).decode("latin1"))

    return run


def _stack_global(self: Unpickler) -> None:
    name, module = self._pop(), self._pop()
    self._global(module, name)


def _inst(self: Unpickler) -> None:
    module, name = self._line(), self._line()
    self._pop_mark()
    self._instance(Global(module, name))


def _obj(self: Unpickler) -> None:
    items = self._pop_mark()
    self._instance(items[0] if items else None)


def _newobj_ex(self: Unpickler) -> None:
    _, _, cls = self._pop(), self._pop(), self._pop()
    self._instance(cls)


def _tuple(count: int) -> Callable[[Unpickler], None]:
    def run(self: Unpickler) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    return run


def _dict(self: Unpickler) -> None:
    items = self._pop_mark()
    self._push({})
    self._set_items(items)


def _global_line(self: Unpickler) -> None:
    module = self._line()
    self._global(module, self._line())


def _pairs() -> Iterator[tuple[int, Callable[[Unpickler], Any]]]:
    """Yield the opcodes of protocols 0 to 5, as ``pickletools`` documents them."""
    yield 0x80, lambda s: _expect(s._number("<B") <= 5 or None, bool, "a protocol up to 5")  # PROTO
    yield 0x95, lambda s: s._number("<Q")  # FRAME: only a length; the contents follow
    yield ord("("), Unpickler._mark
    yield ord("0"), lambda s: s._pop()
    yield ord("1"), lambda s: s._pop_mark()
    yield ord("2"), lambda s: s._push(s._top())
    yield ord("N"), lambda s: s._push(None)
    yield 0x88, lambda s: s._push(True)
    yield 0x89, lambda s: s._push(False)
    yield ord("I"), lambda s: s._integer(s._line())
    yield ord("L"), lambda s: s._integer(s._line())
    yield ord("J"), lambda s: s._push(s._number("<i"))
    yield ord("K"), lambda s: s._push(s._number("<B"))
    yield ord("M"), lambda s: s._push(s._number("<H"))
    yield 0x8A, lambda s: s._long(s._number("<B"))
    yield 0x8B, lambda s: s._long(s._number("<i"))
    yield ord("F"), Unpickler._float
    yield ord("G"), lambda s: s._push(s._number(">d"))
    yield ord("V"), lambda s: s._push(s._line())
    yield ord("X"), _string("<I", text=True)
    yield 0x8C, _string("<B", text=True)
    yield 0x8D, _string("<Q", text=True)
    yield ord("B"), _string("<I", text=False)
    yield ord("C"), _string("<B", text=False)
    yield 0x8E, _string("<Q", text=False)
    yield ord("T"), _python2_string("<i")
    yield ord("U"), _python2_string("<B")
    yield ord("]"), lambda s: s._push([])
    yield ord("l"), lambda s: s._push(s._pop_mark())
    yield ord("a"), lambda s: s._append([s._pop()])
    yield ord("e"), lambda s: s._append(s._pop_mark())
    yield ord(")"), lambda s: s._push(())
    yield ord("t"), lambda s: s._push(tuple(s._pop_mark()))
    yield 0x85, _tuple(1)
    yield 0x86, _tuple(2)
    yield 0x87, _tuple(3)
    yield ord("}"), lambda s: s._push({})
    yield ord("d"), _dict
    yield ord("s"), lambda s: s._set_items([s._pop(), s._pop()][::-1])
    yield ord("u"), lambda s: s._set_items(s._pop_mark())
    yield 0x8F, lambda s: s._push(set())
    yield 0x90, lambda s: s._add(s._pop_mark())
    yield 0x91, lambda s: s._push(_set(s._pop_mark()))
    yield ord("g"), lambda s: s._get(_memo_index(s._line()))
    yield ord("h"), lambda s: s._get(s._number("<B"))
    yield ord("j"), lambda s: s._get(s._number("<I"))
    yield ord("p"), lambda s: s._put(_memo_index(s._line()))
    yield ord("q"), lambda s: s._put(s._number("<B"))
    yield ord("r"), lambda s: s._put(s._number("<I"))
    yield 0x94, lambda s: s._put(len(s._memo))
    yield ord("c"), _global_line
    yield 0x93, _stack_global
    yield ord("R"), Unpickler._reduce
    yield 0x81, Unpickler._reduce  # NEWOBJ: equal to REDUCE here
    yield 0x92, _newobj_ex
    yield ord("i"), _inst
    yield ord("o"), _obj
    yield ord("b"), Unpickler._build
    yield ord("Q"), lambda s: s._persistent(s._pop())
    yield ord("P"), lambda s: s._persistent(s._line())


def _memo_index(text: str) -> int:
    if not text.isdigit() or len(text) > 12:
        raise FormatError(f"pickle: expected a memo, got {text[:40]!r}")
    return int(text)


_OPCODES: Mapping[int, Callable[[Unpickler], Any]] = dict(_pairs())
