"""A pickle reader that executes nothing: foreign objects stay names with arguments and a state.

A pickle is a program for a small stack machine. This machine never imports or calls the names in
the program. It looks up each name in the tables of :mod:`npylstm_converters.torch.pickle_names`.
Any other name becomes an :class:`~npylstm_converters.torch.pickle_values.Opaque`, which only keeps
what the program does to it.
"""

from __future__ import annotations

import pickle  # for the names of the opcodes; nothing is unpickled by it
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.torch.legacy import load_legacy
from npylstm_converters.torch.pickle_names import (
    CONSTANTS,
    FUNCTIONS,
    STORAGES,
    call,
    make_set,
    make_storage,
    set_state,
)
from npylstm_converters.torch.pickle_reader import Buffer, PickleReader
from npylstm_converters.torch.pickle_stack import PickleStack
from npylstm_converters.torch.pickle_values import (
    Global,
    Opaque,
    Storage,
    check_type,
)

__all__ = ["Unpickler", "refusals"]

_STOP = pickle.STOP[0]
_MOST_REASONS, _LONGEST_NAME = 50, 1000
# Functions that only make an object of the class that is their first argument.
_MAKERS = ("copyreg.__newobj__", "copy_reg.__newobj__",
           "copyreg._reconstructor", "copy_reg._reconstructor")  # fmt: skip
# Plain pickle writes the storage of a tensor as the bytes of a file of torch.save.
_STORAGE_IN_BYTES = "torch.storage._load_from_bytes"


class Unpickler(PickleStack):
    """Runs one pickle.

    Parameters
    ----------
    data
        The bytes; more may follow the pickle.
    position
        Offset of its first byte.
    inner
        Whether it is inside another pickle, so that it may hold no further one.

    Attributes
    ----------
    position
        After :meth:`load`: the offset of its end.
    foreign
        Names that are not in the tables, in the order of the file; at most fifty.
    sources
        Source texts of classes, which torch before 1.6 wrote beside a module.
    storages
        All storages outside the pickle.
    """

    def __init__(self, data: Buffer, position: int = 0, inner: bool = False) -> None:
        super().__init__(PickleReader(data, position))
        self._inner = inner
        self.foreign: dict[Global, None] = {}
        self.sources: dict[str, str] = {}
        self.storages: list[Storage] = []

    @property
    def position(self) -> int:
        return self._reader.position

    def load(self) -> Any:
        """Return the object.

        Raises
        ------
        FormatError
            If it is damaged, or larger than the limits.
        """
        while True:
            self._reader.count_work(1)
            opcode = self._reader.opcode()
            if opcode == _STOP:
                return self._pop()
            run = _OPCODES.get(opcode)
            if run is None:
                raise FormatError(f"pickle: opcode that is unknown or not allowed: 0x{opcode:02x}")
            run(self)

    def load_plain(self) -> Any:
        """Return the object if it holds no foreign object, as :meth:`load` does.

        Raises
        ------
        UnsupportedError
            Lists every name that is not in the tables.
        """
        value = self.load()
        if self.foreign:
            raise UnsupportedError(refusals(list(self.foreign)))
        return value

    def _protocol(self) -> None:
        version = self._reader.number("<B")
        if version > 5:
            raise FormatError(f"pickle: expected a protocol up to 5, got {version}")

    # Names and objects.

    def _global(self, module: Any, name: Any) -> None:
        check_type(module, str, "a module's name")
        found = Global(module, check_type(name, str, "a name"))
        if len(found.module) + len(found.name) > _LONGEST_NAME:
            raise FormatError(f"pickle: a name of more than {_LONGEST_NAME} characters")
        text = str(found)
        if text in CONSTANTS:
            self._push(CONSTANTS[text])
        elif text in FUNCTIONS or text in STORAGES or text == _STORAGE_IN_BYTES:
            self._push(found)
        else:
            self._container(self._opaque(found))

    def _opaque(self, name: Global, arguments: tuple[Any, ...] | None = None) -> Opaque:
        if len(self.foreign) < _MOST_REASONS:
            self.foreign[name] = None
        return Opaque(name, arguments)

    def _reduce(self) -> None:
        function, arguments = self._pop_several(2)
        self._call(function, arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        """Call a function of the tables; keep any other as a name with its arguments."""
        check_type(arguments, tuple, "arguments")
        if isinstance(function, Opaque):
            made = arguments[0] if str(function.name) in _MAKERS and arguments else None
            if isinstance(made, Opaque):
                function, arguments = made, arguments[1:]
            self._container(Opaque(function.name, arguments))
            return
        check_type(function, Global, "a function")
        self._reader.count_work(len(arguments))
        for argument in arguments:
            if isinstance(argument, (tuple, list, dict)):
                self._reader.count_objects(len(argument))
            elif isinstance(argument, str):
                self._reader.count_bytes(len(argument))
        try:
            inside = str(function) == _STORAGE_IN_BYTES
            value = self._storage(arguments) if inside else call(function, arguments)
        except FormatError:
            if not inside and not any(isinstance(argument, Opaque) for argument in arguments):
                raise
            value = self._opaque(function, arguments)
        self._container(value)

    def _storage(self, arguments: tuple[Any, ...]) -> Storage:
        """Return the storage in the bytes of a legacy file.

        Raises
        ------
        FormatError
            If the bytes hold anything else.
        """
        if self._inner or len(arguments) != 1 or not isinstance(arguments[0], (bytes, memoryview)):
            raise FormatError("pickle: expected the bytes of a storage")
        machines: list[Unpickler] = []

        def load(position: int) -> tuple[Any, int, Iterable[Storage]]:
            machine = Unpickler(arguments[0], position, inner=True)
            machines.append(machine)
            return machine.load(), machine.position, machine.storages

        try:
            value, spans = load_legacy(arguments[0], load)
        finally:
            for machine in machines:
                self._reader.count_other(machine._reader)
        if not isinstance(value, Storage) or value.key not in spans:
            raise FormatError("pickle: expected the bytes of a storage")
        start, end = spans[value.key]
        return replace(value, data=arguments[0][start:end])

    def _new_with_names(self) -> None:
        cls, arguments, named = self._pop_several(3)
        if not isinstance(named, dict):
            raise FormatError("pickle: expected arguments by name")
        if named and not isinstance(cls, Opaque):
            raise FormatError("pickle: arguments by name for a function that takes none")
        self._call(cls, (*check_type(arguments, tuple, "arguments"), *named.values()))

    def _inst(self) -> None:
        module, name = self._reader.line(), self._reader.line()
        arguments = tuple(self._pop_mark())
        self._global(module, name)
        self._call(self._pop(), arguments)

    def _obj(self) -> None:
        items = self._pop_mark()
        self._call(items[0] if items else None, tuple(items[1:]))

    def _build(self) -> None:
        state, value = self._pop(), self._top()
        if not isinstance(value, Opaque):
            set_state(value, state)
            return
        if value.state is not None:
            raise FormatError(f"pickle: sets the state of a {value.name} twice")
        # A copy: what is added to the dictionary later is not in the object.
        self._reader.count_work(len(state) if isinstance(state, dict) else 0)
        value.state = dict(state) if isinstance(state, dict) else state

    def _persistent(self, value: Any) -> None:
        match value:
            case ("module", Opaque() as cls, _, source):  # torch before 1.6
                if isinstance(source, str):
                    self.sources[str(cls.name)] = source
                self._push(cls)
            case tuple() if any(isinstance(part, Opaque) for part in value[:2]):
                self._container(self._opaque(Global("torch", "storage"), value))
            case _:
                storage = make_storage(value)
                self.storages.append(storage)
                self._container(storage)


def refusals(names: Sequence[Global]) -> list[str]:
    """Return one reason for each forbidden name."""
    return [f"the pickle names {n}, which is not allowed and was not run" for n in names]


# The opcodes of protocols 0 to 5, as ``pickletools`` documents them.
_OPCODES: Mapping[int, Callable[[Unpickler], Any]] = {
    code[0]: run
    for code, run in {
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
        pickle.BYTEARRAY8: lambda s: s._push(s._reader.data("<Q")),
        # Strings of Python 2: bytes that represent text.
        pickle.BINSTRING: lambda s: s._push(s._reader.old_text("<i")),
        pickle.SHORT_BINSTRING: lambda s: s._push(s._reader.old_text("<B")),
        # Containers.
        pickle.EMPTY_LIST: lambda s: s._container([]),
        pickle.LIST: lambda s: s._container(s._pop_mark()),
        pickle.APPEND: lambda s: s._append([s._pop()]),
        pickle.APPENDS: lambda s: s._append(s._pop_mark()),
        pickle.EMPTY_TUPLE: lambda s: s._push(()),
        pickle.TUPLE: lambda s: s._container(tuple(s._pop_mark())),
        pickle.TUPLE1: lambda s: s._container(tuple(s._pop_several(1))),
        pickle.TUPLE2: lambda s: s._container(tuple(s._pop_several(2))),
        pickle.TUPLE3: lambda s: s._container(tuple(s._pop_several(3))),
        pickle.EMPTY_DICT: lambda s: s._container({}),
        pickle.DICT: Unpickler._dict,
        pickle.SETITEM: lambda s: s._set_items(s._pop_several(2)),
        pickle.SETITEMS: lambda s: s._set_items(s._pop_mark()),
        pickle.EMPTY_SET: lambda s: s._container(set()),
        pickle.ADDITEMS: lambda s: s._add(s._pop_mark()),
        pickle.FROZENSET: lambda s: s._container(frozenset(make_set(s._pop_mark()))),
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
        pickle.NEWOBJ_EX: Unpickler._new_with_names,
        pickle.INST: Unpickler._inst,
        pickle.OBJ: Unpickler._obj,
        pickle.BUILD: Unpickler._build,
        pickle.BINPERSID: lambda s: s._persistent(s._pop()),
        pickle.PERSID: lambda s: s._persistent(s._reader.line()),
    }.items()
}
