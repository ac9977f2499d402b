"""From object code to functions that can be called: into memory, and every reference filled in.

Kernels refer to their own constants and to a few functions of the C library, no more. For the
common kind of object code (ELF for x86-64) that is done here, so that a process which finds
compiled kernels loads no compiler; any other is left to LLVM.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["ENTRY_POINT", "link"]

# What the function of an object is called.
ENTRY_POINT = "npylstm_kernel"

_MACHINE = 62  # x86-64
_PROGBITS, _SYMBOLS, _RELOCATIONS = 1, 2, 4  # kinds of sections
_WRITE, _ALLOC = 1, 2  # flags of sections
_RELATIVE, _CALLED, _TABLED = 2, 4, (9, 41, 42)  # kinds of relocations
_STUB = bytes.fromhex("ff2502000000 0f0b")  # jmp [rip + 2]; ud2; then the address

_kept: list[Any] = []  # memory with code stays


class _Unknown(Exception):
    """Something in object code that is left to LLVM."""


def link(code: bytes) -> int:
    """Load object code; returns the address of its function."""
    try:
        return _link_elf(code)
    except (_Unknown, OSError):
        return _link_with_llvm(code)


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def _link_elf(code: bytes) -> int:
    """Load an object as its format says: the System V ABI, its part for AMD64, chapter 4."""
    if code[:6] != b"\x7fELF\x02\x01" or platform.system() == "Windows":
        raise _Unknown
    machine, at, sections_size, count = (
        *struct.unpack_from("<H", code, 18), *struct.unpack_from("<Q", code, 40),
        *struct.unpack_from("<HH", code, 58),
    )  # fmt: skip
    if machine != _MACHINE:
        raise _Unknown
    sections = [
        _Section(*struct.unpack_from("<IIQQQQIIQQ", code, at + k * sections_size))
        for k in range(count)
    ]
    image = bytearray()
    places: dict[int, int] = {}
    for k, section in enumerate(sections):
        if not section.flags & _ALLOC or section.kind != _PROGBITS:
            continue  # unwinding, symbols, notes
        if section.flags & _WRITE:
            raise _Unknown
        image.extend(bytes(-len(image) % max(1, section.alignment)))
        places[k] = len(image)
        image.extend(code[section.offset : section.offset + section.size])
    table = next(section for section in sections if section.kind == _SYMBOLS)
    symbols = [_Symbol(*fields) for fields in struct.iter_unpack("<IBBHQQ", _bytes(code, table))]
    names = _bytes(code, sections[table.link])
    stubs: dict[str, int] = {}

    def named(symbol: _Symbol) -> str:
        return names[symbol.name : names.index(b"\0", symbol.name)].decode()

    def stub(symbol: _Symbol) -> int:
        """Where the jump to a function of the C library is; its address stands behind it."""
        name = named(symbol)
        if name not in stubs:
            image.extend(bytes(-len(image) % 8))
            stubs[name] = len(image)
            image.extend(_STUB + struct.pack("<Q", _address_of(name)))
        return stubs[name]

    for place, section in ((places[s.info], s) for s in sections if _fills(s, places)):
        for offset, info, addend in struct.iter_unpack("<QQq", _bytes(code, section)):
            symbol, kind, at = symbols[info >> 32], info & 0xFFFFFFFF, place + offset
            here = symbol.section in places
            if kind in (_RELATIVE, _CALLED) and here:
                target = places[symbol.section] + symbol.value
            elif kind == _CALLED and not symbol.section:
                target = stub(symbol)
            elif kind in _TABLED and not symbol.section:
                target = stub(symbol) + len(_STUB)
            else:
                raise _Unknown
            struct.pack_into("<i", image, at, target + addend - at)
    entry = next(s for s in symbols if s.section in places and named(s) == ENTRY_POINT)
    return _executable(bytes(image)) + places[entry.section] + entry.value


def _bytes(code: bytes, section: _Section) -> bytes:
    return code[section.offset : section.offset + section.size]


def _fills(section: _Section, places: dict[int, int]) -> bool:
    """Whether it says what to fill into a section that was placed."""
    return section.kind == _RELOCATIONS and section.info in places


def _libraries() -> Iterator[Any]:
    yield ctypes.CDLL(None)
    yield ctypes.CDLL("libm.so.6")


def _address_of(name: str) -> int:
    """Where a function of the C library is."""
    for library in _libraries():
        function = getattr(library, name, None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise _Unknown


def _executable(image: bytes) -> int:
    """Put code into memory of its own, which from then on can be run but not be written."""
    memory = mmap.mmap(-1, len(image), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(image)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(start, len(image), mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
    _kept.append(memory)
    # A thread may still be inside when the interpreter clears its modules: there it stays, too.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return start


def _link_with_llvm(code: bytes) -> int:
    import llvmlite.binding as llvm

    if platform.system() == "Windows":
        import npylstm.engine.jit  # noqa: F401  # Numba tells LLVM where C's functions are

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return int(engine.get_function_address(ENTRY_POINT))
