"""Damaged pickles of PyTorch are refused, and odd ones are read as they are."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_reader import Reader, refused, refused_or_harmless
from torch_pickles import (
    BUILD,
    FRAMINGS,
    MARK,
    MKDIR,
    NO_HOOKS,
    NUMBERS,
    ORDERED,
    PERSID,
    REDUCE,
    Framing,
    Ops,
    Pickled,
    call,
    code,
    joined,
    named,
    program,
    stack_named,
)


def short(value: Any) -> bytes:
    """A program without its last byte."""
    return program(value)[:-1]


DAMAGED: dict[str, Pickled] = {
    "nothing": lambda f: b"",
    "only a protocol": lambda f: b"\x80\x02",
    "only a stop": lambda f: b".",
    "protocol and stop": lambda f: b"\x80\x02.",
    "no stop": lambda f: short(f.state()),
    "protocol of the future": lambda f: program(f.state(), 6),
    "protocol 255": lambda f: program(f.state(), 255),
    "opcode 0xff": lambda f: short(f.state()) + b"\xff.",
    "opcode 0": lambda f: b"\x80\x02\x00" + program(f.state())[2:],
    "opcode of a letter": lambda f: short(f.state()) + b"z.",
    "pop of nothing": lambda f: b"\x80\x020" + program(f.state())[2:],
    "pop to no mark": lambda f: b"\x80\x021" + program(f.state())[2:],
    "dup of nothing": lambda f: b"\x80\x022" + program(f.state())[2:],
    "tuple of no mark": lambda f: short(f.state()) + b"t.",
    "list of no mark": lambda f: short(f.state()) + b"l.",
    "dict of no mark": lambda f: short(f.state()) + b"d.",
    "items of no mark": lambda f: short(f.state()) + b"u.",
    "appends of no mark": lambda f: short([f.tensor()]) + b"e.",
    "set of no mark": lambda f: b"\x80\x04\x8f" + code(f.tensor()) + b"\x90.",
    "frozen set of no mark": lambda f: short(f.state()) + b"\x91.",
    "object of no mark": lambda f: short(f.state()) + b"o.",
    "object of nothing": lambda f: short(f.state()) + b"(o.",
    "tuple of one of none": lambda f: b"\x80\x02\x85.",
    "tuple of two of one": lambda f: short(f.state()) + b"\x86.",
    "tuple of three of two": lambda f: short(f.state()) + b"N\x87.",
    "tuple across a mark": lambda f: short(f.state()) + b"(\x85.",
    "reduce of nothing": lambda f: b"\x80\x02R" + program(f.state())[2:],
    "reduce of one": lambda f: short(f.state()) + b"R.",
    "reduce across a mark": lambda f: b"\x80\x02" + ORDERED + b"()R.",
    "new object of one": lambda f: short(f.state()) + b"\x81.",
    "new object of two": lambda f: short(f.state()) + b"N\x92.",
    "build of one": lambda f: short(f.state()) + b"b.",
    "build across a mark": lambda f: short(f.state()) + b"(}b.",
    "item of one": lambda f: short(f.state()) + b"s.",
    "item of two": lambda f: short(f.state()) + b"Ns.",
    "odd items": lambda f: short(f.state()) + b"(" + code("a") + b"u.",
    "odd dict": lambda f: b"\x80\x02(" + code("a") + b"d.",
    "append to nothing": lambda f: short(f.state()) + b"a.",
    "id of nothing": lambda f: b"\x80\x02Q.",
    "memoize of nothing": lambda f: b"\x80\x04\x94" + program(f.state())[2:],
    "put of nothing": lambda f: b"\x80\x04q\x01" + program(f.state())[2:],
    "stop at a mark": lambda f: short(f.state()) + b"(.",
    "stop at a mark above nothing": lambda f: b"\x80\x02(.",
    "append to a tuple": lambda f: short(()) + code(f.tensor()) + b"a.",
    "append to a dict": lambda f: short(f.state()) + b"Na.",
    "append to a tensor": lambda f: short(f.tensor()) + b"Na.",
    "append to a text": lambda f: short("abc") + b"Na.",
    "append to None": lambda f: short(None) + b"Na.",
    "appends to a tuple": lambda f: short(()) + b"(Ne.",
    "appends to a number": lambda f: short(3) + b"(Ne.",
    "appends to a class": lambda f: short(ORDERED) + b"(Ne.",
    "item in a list": lambda f: short([f.tensor()]) + code(0) + b"Ns.",
    "items in a list": lambda f: short([f.tensor()]) + b"(" + code(0) + b"Nu.",
    "items in a tuple": lambda f: short((f.tensor(),)) + b"(" + code(0) + b"Nu.",
    "items in a tensor": lambda f: short(f.tensor()) + b"(" + code(0) + code(0) + b"u.",
    "items in a text": lambda f: short("abc") + b"(" + code(0) + code(0) + b"u.",
    "items in None": lambda f: short(None) + b"(" + code(0) + code(0) + b"u.",
    "items in a class": lambda f: short(ORDERED) + b"(" + code("a") + code(0) + b"u.",
    "additems to a list": lambda f: short([]) + b"(N\x90.",
    "additems to a dict": lambda f: short({}) + b"(N\x90.",
    "a list for a key": lambda f: program({"w": f.tensor(), Ops(b"]"): 3}),
    "a dict for a key": lambda f: program({"w": f.tensor(), Ops(b"}"): 3}),
    "a set for a key": lambda f: program({"w": f.tensor(), Ops(b"\x8f"): 3}),
    "an ordered dict for a key": lambda f: program({"w": f.tensor(), call(ORDERED): 3}),
    "a list in a tuple for a key": lambda f: program({"w": f.tensor(), (1, Ops(b"]")): 3}),
    "a bytearray for a key": lambda f: program({"w": f.tensor(), Ops(b"\x96" + struct.pack("<Q", 1) + b"a"): 3}, 5),
    "a list for a member": lambda f: program({"w": f.tensor(), "x": Ops(b"\x8f(]\x90")}),
    "a list in a frozen set": lambda f: program({"w": f.tensor(), "x": Ops(b"(]\x91")}),
    "get of nothing put": lambda f: short(f.state()) + b"0h\xfe.",
    "long get of nothing put": lambda f: short(f.state()) + b"0j\xfe\xff\xff\xff.",
    "text get of nothing put": lambda f: short(f.state()) + b"0g99\n.",
    "text get of letters": lambda f: short(f.state()) + b"0gabc\n.",
    "text get of nothing": lambda f: short(f.state()) + b"0g\n.",
    "text put of letters": lambda f: short(f.state()) + b"pabc\n.",
    "text put below 0": lambda f: short(f.state()) + b"p-1\n.",
    "text beyond the end": lambda f: b"\x80\x02X\xff\xff\xff\xffabc.",
    "text of 2^63": lambda f: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"abc.",
    "text of 2^64 - 1": lambda f: b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.",
    "short text beyond the end": lambda f: b"\x80\x04\x8c\xffabc.",
    "bytes beyond the end": lambda f: b"\x80\x03B\xff\xff\xff\x7fabc.",
    "bytes of 2^63": lambda f: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b"abc.",
    "bytes of 2^33": lambda f: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.",
    "short bytes beyond the end": lambda f: b"\x80\x04C\xffabc.",
    "bytearray of 2^62": lambda f: b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"abc.",
    "bytearray of 2^31": lambda f: b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"abc.",
    "string of -1": lambda f: b"\x80\x02T\xff\xff\xff\xffabc.",
    "string of 2^31 - 1": lambda f: b"\x80\x02T\xff\xff\xff\x7fabc.",
    "string without quotes": lambda f: b"\x80\x02Sabc\n.",
    "string of one quote": lambda f: b"\x80\x02S'\n.",
    "string of half an escape": lambda f: b"\x80\x02S'\\x4'\n.",
    "line without end": lambda f: b"\x80\x02V" + b"a" * 999,
    "global without end": lambda f: b"\x80\x02ctorch\nFloatStorage",
    "global of one line": lambda f: b"\x80\x02ctorch\n",
    "text not UTF-8": lambda f: b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "global not UTF-8": lambda f: b"\x80\x02c\xff\xfe\n\xff\n.",
    "half an escape": lambda f: b"\x80\x02V\\u12\n.",
    "int of letters": lambda f: b"\x80\x02Iabc\n.",
    "int of nothing": lambda f: b"\x80\x02I\n.",
    "int of too many digits": lambda f: b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    "long of letters": lambda f: b"\x80\x02LabcL\n.",
    "long of too many digits": lambda f: b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
    "float of letters": lambda f: b"\x80\x02Fabc\n.",
    "half a float": lambda f: b"\x80\x02G\x00\x00",
    "half an int": lambda f: b"\x80\x02J\x00",
    "no byte of an int": lambda f: b"\x80\x02K",
    "long beyond the end": lambda f: b"\x80\x02\x8a\xff\x01.",
    "long of 2^31 - 1": lambda f: b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "long of -1": lambda f: b"\x80\x02\x8b\xff\xff\xff\xff\x01.",
    "long of -2^31": lambda f: b"\x80\x02\x8b\x00\x00\x00\x80\x01.",
    "frame of 2^63": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 1 << 63),
    "half a frame": lambda f: b"\x80\x04\x95\x00\x00",
    "a buffer out of band": lambda f: short(f.state()) + b"0\x97.",
    "a read-only buffer of nothing": lambda f: b"\x80\x05\x98.",
    "names that are numbers": lambda f: program({"w": f.tensor(), "x": stack_named(3, 4)}),
    "names that are None": lambda f: program({"w": f.tensor(), "x": stack_named(None, None)}),
    "names that are lists": lambda f: program({"w": f.tensor(), "x": stack_named([], {})}),
    "names that are tensors": lambda f: program({"w": f.tensor(), "x": stack_named(f.tensor(), f.tensor())}),
    "names that are globals": lambda f: program({"w": f.tensor(), "x": stack_named(ORDERED, ORDERED)}),
    "one name": lambda f: b"\x80\x04" + code("torch") + b"\x93.",
    "arguments a list": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + b"]R")}),
    "arguments None": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + b"NR")}),
    "arguments a text": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + code("ab") + b"R")}),
    "call of a text": lambda f: program(f.state(x=call(Ops(code("os.system")), "a"))),
    "call of a number": lambda f: program(f.state(x=call(Ops(code(3)), "a"))),
    "call of a list": lambda f: program(f.state(x=call(Ops(b"]"), "a"))),
    "call of a tensor": lambda f: program(f.state(x=call(f.tensor(), "a"))),
    "call of a tuple": lambda f: program(f.state(x=call(Ops(code(("os", "system"))), "a"))),
    "call of a result": lambda f: program(f.state(x=call(call(ORDERED), "a"))),
    "ordered dict of numbers": lambda f: program(f.state(x=call(ORDERED, [1, 2]))),
    "ordered dict of a number": lambda f: program(f.state(x=call(ORDERED, 3))),
    "ordered dict of texts": lambda f: program(f.state(x=call(ORDERED, ["abc"]))),
    "ordered dict of lists for keys": lambda f: program(f.state(x=call(ORDERED, [[[], 1]]))),
    "ordered dict of too much": lambda f: program(f.state(x=call(ORDERED, [], [], []))),
    "size of texts": lambda f: program(f.state(x=call("torch.Size", ("a",)))),
    "size of a number": lambda f: program(f.state(x=call("torch.Size", 3))),
    "size of two": lambda f: program(f.state(x=call("torch.Size", (3,), (4,)))),
}  # fmt: skip

# Of these, nonsense in what no tensor needs, a reader may make nothing and go on.
NONSENSE = re.compile(
    "ordered dict of|size of|call of|arguments|additems|string of half|half an escape|protocol|for a member|frozen set$|an ordered dict for"
)


def damaged_files() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(DAMAGED.items(), FRAMINGS.items()):
        yield (name, framing), f.file(made(f))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickle(name: str, framing: str, reader: Reader) -> None:
    outcome = reader.row(damaged_files, (name, framing))
    refused(outcome, "NpylstmError" if NONSENSE.match(name) else "FormatError")


# What may be read, for nothing is wrong with the tensor: but then as it is.
HARMLESS: dict[str, Pickled] = {
    "memo of 2^31": lambda f: short(f.state()) + b"r\x00\x00\x00\x80.",
    "memo of 2^32 - 1": lambda f: short(f.state()) + b"r\xff\xff\xff\xff0j\xff\xff\xff\xff.",
    "memo of 2^70": lambda f: short(f.state()) + b"p%d\n." % 2**70,
    "memo of a million digits": lambda f: short(f.state()) + b"p" + b"1" * 1_000_000 + b"\n.",
    "memo by line": lambda f: short(f.state()) + b"p7\n0g7\n.",
    "put again and again": lambda f: short(f.state()) + b"q\x01" * 9999 + b".",
    "protocol twice": lambda f: b"\x80\x02\x80\x04" + program(f.state())[2:],
    "no protocol": lambda f: program(f.state())[2:],
    "things below": lambda f: b"\x80\x02NNN](" + program(f.state())[2:],
    "bytes behind": lambda f: program(f.state()),
    "frame too long": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + program(f.state())[2:],
    "frame too short": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 3) + program(f.state())[2:],
    "frames": lambda f: b"\x80\x04" + (b"\x95" + bytes(8)) * 999 + program(f.state())[2:],
    "dup": lambda f: b"\x80\x02" + code(f.state()) + b"20.",
    "bytes": lambda f: program({"m": f.state(), "x": b"ab\xff"}),
    "bytearray": lambda f: program({"m": f.state(), "x": Ops(b"\x96" + struct.pack("<Q", 2) + b"ab")}, 5),
    "read-only": lambda f: program({"m": f.state(), "x": Ops(b"\x96" + struct.pack("<Q", 2) + b"ab\x98")}, 5),
    "sets": lambda f: program({"m": f.state(), "x": Ops(b"\x8f(" + code(3) + b"\x90"), "y": Ops(b"(" + code(3) + b"\x91")}),
    "a tuple for a key": lambda f: program({"m": f.state(), (1, (2, "a")): 3}),
    "a tensor for a key": lambda f: program({"m": f.state(), f.tensor(): 3}),
    "a nan for a key": lambda f: program({"m": f.state(), float("nan"): 3}),
    "a key of half a character": lambda f: program({"m": f.state(), "\ud800": 3}),
    "text in every old form": lambda f: program({"m": f.state(), "x": Ops(b"Va\\u0041b\n0S'a\\x41'\n0T\x01\x00\x00\x00a0U\x01a")}),
    "numbers in every old form": lambda f: program({"m": f.state(), "x": Ops(b"I1\n0I01\n0I00\n0L5L\n0F1.5\n0Fnan\n0I-3\n")}),
    "old list and dict": lambda f: program({"m": f.state(), "x": Ops(b"((lp0\nI1\na0(dp1\nI1\nI2\ns0N1N")}),
    "allowed but not called": lambda f: program({"m": f.state(), "x": [ORDERED, named("torch._utils._rebuild_tensor_v2")]}),
    "a bare storage": lambda f: program({"m": f.state(), "x": joined(code(f.pid()), PERSID)}),
    "numbers of 20,000 digits": lambda f: program({"m": f.state(), "x": -(1 << 66_000), 1 << 66_000: 3}),
    "written by Python 2": lambda f: program({"w": f.tensor(word=Ops(b"U\x07storage"), key=Ops(b"U\x010"), location=Ops(b"U\x03cpu"))}, 2),
    "names by Python 2": lambda f: b"\x80\x02}U\x01w" + f.tensor() + b"s.",
    "of torch 0.1": lambda f: program({"w": f.tensor(function="torch._utils._rebuild_tensor", rest=())}),
    "old parameter": lambda f: program({"w": call("torch._utils._rebuild_parameter", f.tensor(), True, NO_HOOKS)}),
    "without hooks": lambda f: program({"w": f.tensor(rest=(False, None))}),
    "hooks": lambda f: program({"w": f.tensor(rest=(False, call(ORDERED, [(0, 3)])))}),
    "hooks are a dict": lambda f: program({"w": f.tensor(rest=(False, {}))}),
    "requires_grad of no sense": lambda f: program({"w": f.tensor(rest=("yes", NO_HOOKS))}),
    "metadata of no sense": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, {"a": 3}))}),
    "metadata none": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, None))}),
    "size is a list": lambda f: program({"w": f.tensor(size=[3, 4], stride=[4, 1])}),
    "size is a torch.Size": lambda f: program({"w": f.tensor(size=call("torch.Size", (3, 4)))}),
    "size is a torch.Size of a list": lambda f: program({"w": f.tensor(size=call("torch.Size", [3, 4]))}),
    "fewer arguments": lambda f: program({"w": f.tensor(rest=())}),
    "more arguments": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, None, None, None, None))}),
    "offset is false": lambda f: program({"w": f.tensor(offset=False)}),
    "CUDA's class": lambda f: program({"w": f.tensor(kind=named("torch.cuda.FloatStorage"), location="cuda:0")}),
    "location a number": lambda f: program({"w": f.tensor(location=3)}),
    "location nowhere": lambda f: program({"w": f.tensor(location="../../etc/passwd")}),
    "location of codes": lambda f: program({"w": f.tensor(location="\x1b[2J\n" * 999)}),
    "location none": lambda f: program({"w": f.tensor(location=None)}),
    "NumPy object array": lambda f: program({"m": f.state(), "x": array_of("O8", (2,), b"\x00" * 16)}),
    "NumPy object list": lambda f: program({"m": f.state(), "x": array_of("O8", (2,), [1, MARKED])}),
    "NumPy array": lambda f: program({"m": f.state(), "x": array_of("f4", (2,), b"\x00" * 8)}),
    "NumPy array too short": lambda f: program({"m": f.state(), "x": array_of("f4", (2,), b"\x00" * 7)}),
    "NumPy array too large": lambda f: program({"m": f.state(), "x": array_of("f4", (1 << 61,), b"\x00" * 8)}),
    "NumPy array of 2^29": lambda f: program({"m": f.state(), "x": array_of("f4", (1 << 29,), b"\x00" * 8)}),
    "NumPy array negative": lambda f: program({"m": f.state(), "x": array_of("f4", (-2,), b"\x00" * 8)}),
    "NumPy array of records": lambda f: program({"m": f.state(), "x": array_of("V1000000000", (9,), b"")}),
    "NumPy made large": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (1 << 29,), b"f")}),
    "NumPy scalar of an object": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray.scalar", call("numpy.dtype", "O8", False, True), MARKED)}),
    "NumPy scalar": lambda f: program({"m": f.state(), "x": call("numpy.core.multiarray.scalar", call("numpy.dtype", "f8", False, True), b"\x00" * 8)}),
    "NumPy dtype of no sense": lambda f: program({"m": f.state(), "x": call("numpy.dtype", "f4," * 99_999, False, True)}),
    "NumPy of a class of its own": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray._reconstruct", ORDERED, (0,), b"b")}),
    "bytes by codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "latin1")}),
    "bytes by a slow codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "\u0627" * 200_000, "idna")}),
    "bytes by no codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "npylstm_evil")}),
    "bytes by a text codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "zlib_codec")}),
    "bytes of no text": lambda f: program({"m": f.state(), "x": call("_codecs.encode", [], {})}),
    "a large bytearray": lambda f: program({"m": f.state(), "x": call("builtins.bytearray", 1 << 30)}),
    "a large range": lambda f: program({"m": f.state(), "x": call("builtins.range", 1 << 60), "y": call("builtins.list", call("builtins.range", 1 << 28))}),
    "a large set": lambda f: program({"m": f.state(), "x": call("builtins.set", call("builtins.range", 1 << 27))}),
    "a counter": lambda f: program({"m": f.state(), "x": call("collections.Counter", {"a": 3})}),
    "a default dict": lambda f: program({"m": f.state(), "x": call("collections.defaultdict", named("builtins.list"))}),
    "type of type of type": lambda f: program({"m": f.state(), "x": types_of_types(f, 3000)}),
    "tensor of a type": lambda f: program({"w": types_of_types(f, 1)}),
    "a device": lambda f: program({"m": f.state(), "x": call("torch.device", "cuda", 0), "y": call("torch.device", [])}),
    "a dtype": lambda f: program({"m": f.state(), "x": named("torch.float32")}),
    "a dtype that is called": lambda f: program({"m": f.state(), "x": call("torch.float32", 3)}),
}  # fmt: skip
MARKED = MKDIR


def types_of_types(f: Framing, depth: int) -> Ops:
    """Torch's way of pickling a subclass: a function and its arguments, which may be the same."""
    again, kind = named("torch._tensor._rebuild_from_type_v2"), named("torch.Tensor")
    arguments = code((joined(code(f.pid()), PERSID), 0, (3, 4), (4, 1), False, NO_HOOKS))
    inner = MARK + named("torch._utils._rebuild_tensor_v2") + kind + arguments + b"}t"
    return joined(again, (MARK + again + kind) * (depth - 1), inner, b"}t" * (depth - 1), REDUCE)


def array_of(dtype: str, shape: tuple[int, ...], data: Any) -> Ops:
    """NumPy's way of pickling an array."""
    made = call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b")
    kind = joined(
        call("numpy.dtype", dtype, False, True), code((3, "<", None, None, None, -1, -1, 0)), BUILD
    )
    return joined(made, code((1, shape, kind, False, data)), BUILD)


def harmless_files() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(HARMLESS.items(), FRAMINGS.items()):
        yield (name, framing), f.file(made(f))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", HARMLESS)
def test_refused_or_read_as_it_is(name: str, framing: str, reader: Reader) -> None:
    refused_or_harmless(reader.row(harmless_files, (name, framing)))


def test_a_lazy_sign_is_not_lost(reader: Reader) -> None:
    """Torch writes {"neg": True} behind a view that is to be negated, {"conj": True} likewise."""
    for flag in ("neg", "conj"):
        for f in FRAMINGS.values():
            tensor = f.tensor(rest=(False, NO_HOOKS, {flag: True}))
            outcome = reader.read(f.file(program({"w": tensor})))
            assert outcome.misbehaviour() == []
            if not outcome.error:
                assert flag == "neg"
                assert outcome.tensors == {"w": ["<f4", [3, 4], (-NUMBERS.reshape(3, 4)).tolist()]}
