"""A pickle reader that builds only tensors, containers and numbers.

A pickle is a program for a small stack machine. This machine never imports or calls the names in
the program. It looks up each name in the tables of :mod:`npylstm_converters.torch.pickle_names`.
Every other name is recorded, and the whole file is an error.
"""

from __future__ import annotations

import mmap
import pickle  # for the names of the opcodes; nothing is unpickled by it
from collections.abc import Callable, Mapping
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.torch.pickle_names import (
    CONSTANTS,
    FUNCTIONS,
    STORAGES,
    call,
    make_set,
    make_storage,
    set_state,
)
from npylstm_converters.torch.pickle_reader import PickleReader
from npylstm_converters.torch.pickle_values import Global, Opaque, check_type, checked_key

__all__ = ["Unpickler"]

_MOST_REASONS = 50


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
    refused
        Forbidden names, in the order of the file.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int = 0) -> None:
        self._reader = PickleReader(data, position)
        self._stack: list[Any] = []  # since the last mark
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        self.refused: dict[Global, None] = {}
        self._built: dict[Global, None] = {}  # forbidden classes whose objects got attributes

    @property
    def position(self) -> int:
        return self._reader.position

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
            self._reader.count_work(1)
            opcode = self._reader.take(1)
            if opcode == pickle.STOP:
                return self._pop()
            run = _OPCODES.get(opcode)
            if run is None:
                code = f"0x{opcode[0]:02x}"
                raise FormatError(f"pickle: opcode that is unknown or not allowed: {code}")
            run(self)

    def _protocol(self) -> None:
        version = self._reader.number("<B")
        if version > 5:
            raise FormatError(f"pickle: expected a protocol up to 5, got {version}")

    # The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise FormatError("pickle: takes from an empty stack")
        return self._stack.pop()

    def _pop_several(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _top(self) -> Any:
        value = self._pop()
        self._push(value)
        return value

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        if not self._marked:
            raise FormatError("pickle: takes from a mark that was never set")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise FormatError(f"pickle: no memo {index}")
        self._push(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    # Containers.

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise FormatError(f"pickle: appends to a {type(target).__name__}")

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, set):
            target.update(checked_key(item) for item in items)
        elif not isinstance(target, Opaque):
            raise FormatError(f"pickle: adds to a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise FormatError(f"pickle: sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _dict(self) -> None:
        items = self._pop_mark()
        self._push({})
        self._set_items(items)

    # Names and objects.

    def _global(self, module: Any, name: Any) -> None:
        check_type(module, str, "a module's name")
        found = Global(module, check_type(name, str, "a name"))
        text = str(found)
        if text in CONSTANTS:
            self._push(CONSTANTS[text])
        elif text in FUNCTIONS or text in STORAGES:
            self._push(found)
        else:
            if len(self.refused) < _MOST_REASONS:
                self.refused[found] = None
            self._push(Opaque(found))

    def _reduce(self) -> None:
        function, arguments = self._pop_several(2)
        if isinstance(function, Opaque):
            self._push(Opaque(function.name))
            return
        check_type(function, Global, "a function")
        check_type(arguments, tuple, "arguments")
        sized = (len(a) for a in arguments if isinstance(a, (tuple, list, dict, str)))
        self._reader.count_work(len(arguments) + sum(sized))
        self._push(_first_opaque(arguments) or call(function, arguments))

    def _instance(self, cls: Any) -> None:
        """Opcodes INST, OBJ and NEWOBJ_EX, which torch never writes."""
        if isinstance(cls, Global):
            self.refused[cls] = None
            cls = Opaque(cls)
        self._push(check_type(cls, Opaque, "a class"))

    def _inst(self) -> None:
        module, name = self._reader.line(), self._reader.line()
        self._pop_mark()
        self._instance(Global(module, name))

    def _obj(self) -> None:
        items = self._pop_mark()
        self._instance(items[0] if items else None)

    def _build(self) -> None:
        state, value = self._pop(), self._top()
        if not isinstance(value, Opaque):
            set_state(value, state)
            return
        self._built[value.name] = None
        if isinstance(state, dict):
            value.state = state

    def _persistent(self, value: Any) -> None:
        parts = value if isinstance(value, tuple) else ()
        self._push(_first_opaque(parts) or make_storage(value))


def _first_opaque(values: tuple[Any, ...]) -> Opaque | None:
    return next((v for v in values if isinstance(v, Opaque)), None)


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


# The opcodes of protocols 0 to 5, as ``pickletools`` documents them.
_OPCODES: Mapping[bytes, Callable[[Unpickler], Any]] = {
    pickle.PROTO: Unpickler._protocol,
    pickle.FRAME: lambda s: s._reader.number("<Q"),  # only a length; the contents follow
    pickle.MARK: Unpickler._mark,
    pickle.POP: lambda s: s._pop(),
    pickle.POP_MARK: lambda s: s._pop_mark(),
    pickle.DUP: lambda s: s._push(s._top()),
    # Plain values.
    pickle.NONE: lambda s: s._push(None),
    pickle.NEWTRUE: lambda s: s._push(True),
    pickle.NEWFALSE: lambda s: s._push(False),
    pickle.INT: lambda s: s._push(s._reader.integer_line()),
    pickle.LONG: lambda s: s._push(s._reader.integer_line()),
    pickle.BININT: lambda s: s._push(s._reader.number("<i")),
    pickle.BININT1: lambda s: s._push(s._reader.number("<B")),
    pickle.BININT2: lambda s: s._push(s._reader.number("<H")),
    pickle.LONG1: lambda s: s._push(s._reader.integer("<B")),
    pickle.LONG4: lambda s: s._push(s._reader.integer("<i")),
    pickle.FLOAT: lambda s: s._push(s._reader.float_line()),
    pickle.BINFLOAT: lambda s: s._push(s._reader.number(">d")),
    pickle.UNICODE: lambda s: s._push(s._reader.line()),
    pickle.BINUNICODE: lambda s: s._push(s._reader.text("<I")),
    pickle.SHORT_BINUNICODE: lambda s: s._push(s._reader.text("<B")),
    pickle.BINUNICODE8: lambda s: s._push(s._reader.text("<Q")),
    pickle.BINBYTES: lambda s: s._push(s._reader.data("<I")),
    pickle.SHORT_BINBYTES: lambda s: s._push(s._reader.data("<B")),
    pickle.BINBYTES8: lambda s: s._push(s._reader.data("<Q")),
    # Strings of Python 2: bytes that represent text.
    pickle.BINSTRING: lambda s: s._push(s._reader.data("<i").decode("latin1")),
    pickle.SHORT_BINSTRING: lambda s: s._push(s._reader.data("<B").decode("latin1")),
    # Containers.
    pickle.EMPTY_LIST: lambda s: s._push([]),
    pickle.LIST: lambda s: s._push(s._pop_mark()),
    pickle.APPEND: lambda s: s._append([s._pop()]),
    pickle.APPENDS: lambda s: s._append(s._pop_mark()),
    pickle.EMPTY_TUPLE: lambda s: s._push(()),
    pickle.TUPLE: lambda s: s._push(tuple(s._pop_mark())),
    pickle.TUPLE1: lambda s: s._push(tuple(s._pop_several(1))),
    pickle.TUPLE2: lambda s: s._push(tuple(s._pop_several(2))),
    pickle.TUPLE3: lambda s: s._push(tuple(s._pop_several(3))),
    pickle.EMPTY_DICT: lambda s: s._push({}),
    pickle.DICT: Unpickler._dict,
    pickle.SETITEM: lambda s: s._set_items(s._pop_several(2)),
    pickle.SETITEMS: lambda s: s._set_items(s._pop_mark()),
    pickle.EMPTY_SET: lambda s: s._push(set()),
    pickle.ADDITEMS: lambda s: s._add(s._pop_mark()),
    pickle.FROZENSET: lambda s: s._push(make_set(s._pop_mark())),
    # The memo.
    pickle.GET: lambda s: s._get(s._reader.memo_line()),
    pickle.BINGET: lambda s: s._get(s._reader.number("<B")),
    pickle.LONG_BINGET: lambda s: s._get(s._reader.number("<I")),
    pickle.PUT: lambda s: s._put(s._reader.memo_line()),
    pickle.BINPUT: lambda s: s._put(s._reader.number("<B")),
    pickle.LONG_BINPUT: lambda s: s._put(s._reader.number("<I")),
    pickle.MEMOIZE: lambda s: s._put(len(s._memo)),
    # Names and objects.
    pickle.GLOBAL: lambda s: s._global(s._reader.line(), s._reader.line()),
    pickle.STACK_GLOBAL: lambda s: s._global(*s._pop_several(2)),
    pickle.REDUCE: Unpickler._reduce,
    pickle.NEWOBJ: Unpickler._reduce,
    pickle.NEWOBJ_EX: lambda s: s._instance(s._pop_several(3)[0]),
    pickle.INST: Unpickler._inst,
    pickle.OBJ: Unpickler._obj,
    pickle.BUILD: Unpickler._build,
    pickle.BINPERSID: lambda s: s._persistent(s._pop()),
    pickle.PERSID: lambda s: s._persistent(s._reader.line()),
}
