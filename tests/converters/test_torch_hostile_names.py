"""Names in PyTorch's pickles, and objects that pretend to be others: refused, each by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hostile_reader import PLAIN, Reader, refused, refused_or_harmless
from torch_pickles import (
    BUILD,
    FRAMINGS,
    MARK,
    NO_HOOKS,
    NONE,
    ORDERED,
    PERSID,
    REDUCE,
    ZIP,
    Framing,
    Ops,
    call,
    code,
    joined,
    named,
    program,
    stack_named,
)

# Names that no state_dict needs. Those with dots inside could lead from what is allowed to all.
NAMES = [
    "os.system", "posix.system", "nt.system", "builtins.eval", "builtins.exec", "builtins.getattr",
    "builtins.setattr", "builtins.__import__", "builtins.compile", "builtins.open", "builtins.type",
    "builtins.object", "builtins.globals", "builtins.print", "builtins.breakpoint", "builtins.map",
    "__builtin__.eval", "__builtin__.getattr", "subprocess.Popen", "io.open", "_io.FileIO",
    "pathlib.PosixPath", "argparse.Namespace", "types.FunctionType", "types.CodeType",
    "importlib.import_module", "operator.attrgetter", "pydoc.locate", "webbrowser.open",
    "antigravity.geohash", "ctypes.CDLL", "socket.socket", "shutil.rmtree", "pickle.loads",
    "codecs.encode", "codecs.decode", "copyreg._reconstructor", "copy_reg._reconstructor",
    "collections.namedtuple", "functools.partial", "itertools.count", "logging.config.listen",
    "numpy.load", "numpy.fromfile", "numpy.memmap", "numpy.testing._private.utils.runstring",
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load", "torch.classes.load_library",
    "torch.nn.modules.rnn.LSTM", "torch.nn.Module",
    "torch.utils.cpp_extension.load", "torch.set_default_device", "torch.from_file",
    "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_tensor_v9", "torch._utils.exec",
    "torch._tensor._rebuild_from_type_v3", "__main__.Net", "__torch__.Net", "net.Net", "Net.Net",
    "dill._dill._create_function", "cloudpickle.cloudpickle._make_function",
    "os.FloatStorage", "torch.NoStorage", "torch.floatStorage", "Torch.FloatStorage",
    "torch.nn.FloatStorage", "collections.abc.OrderedDict", "collections.ordereddict",
]  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NAMES)
def test_refused_by_name(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    module, _, attribute = name.rpartition(".")
    things = [
        named(name), stack_named(module, attribute), call(name), call(name, "a", [3]),
        joined(named(name), b")\x81"), joined(named(name), code({"a": 3}), BUILD),
        joined(MARK, code("a"), b"i", module.encode(), b"\n", attribute.encode(), b"\n"),
    ]  # fmt: skip
    spelled = re.escape(name).replace("__builtin__", "(__builtin__|builtins)")
    spelled = spelled.replace("copy_reg", "(copy_reg|copyreg)")  # Python 2's name, or 3's
    for outcome in reader.read_all(f.file(program(f.state(x=thing))) for thing in things):
        refused(outcome, "UnsupportedError", spelled)


DOTTED = [
    ("torch", "FloatStorage.from_file"), ("torch", "FloatStorage.__init__.__globals__"),
    ("collections", "OrderedDict.fromkeys"), ("collections", "OrderedDict.__class__"),
    ("collections", "_sys.modules"), ("collections", "OrderedDict.__reduce__"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch._utils", "sys.modules"),
    ("torch", "_utils._rebuild_tensor_v2"), ("torch", "serialization.load"), ("torch", "Size.__new__"),
    ("torch.Size", "__new__"), ("", "eval"), ("torch", ""), ("", ""), ("torch ", "FloatStorage"),
    ("torch", "FloatStorage\x00"), ("torch", "FloatStorage\nos\nsystem"), ("t\u00f6rch", "FloatStorage"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), DOTTED)
def test_refused_by_a_name_that_resembles(module: str, name: str, reader: Reader) -> None:
    thing = stack_named(module, name)
    values = (ZIP.state(x=thing), ZIP.state(x=call(thing, 3)), {"w": ZIP.tensor(kind=thing)})
    for outcome in reader.read_all(ZIP.file(program(value)) for value in values):
        refused(outcome)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_refused_name_at_once(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    names = (
        "os.system",
        "posix.mkdir",
        "builtins.exec",
        "net.Net",
        "argparse.Namespace",
        "a.kind",
        "a.b",
    )
    thing = {
        "a": call("os.system", "mkdir executed"), "w": f.tensor(),
        "b": [joined(call("net.Net"), code({"x": call("posix.mkdir", "a")}), BUILD)],
        "c": joined(call("builtins.exec", "a"), b"0", NONE), "d": (named("argparse.Namespace"),),
        "v": f.tensor(kind=named("a.kind")), "e": joined(MARK, code(3), b"ia\nb\n"),
    }  # fmt: skip
    outcome = reader.read(f.file(program(thing)))
    refused(outcome, "UnsupportedError")
    assert [name for name in names if name not in outcome.text] == []
    outcome = reader.read(f.file(program({"model": f.state(), **thing})), key="model")
    assert outcome.tensors == PLAIN  # nothing of it is needed, and nothing was run
    assert outcome.misbehaviour() == []


# --- objects that are dressed up ---------------------------------------------------------------------

INSIDES = [
    "__class__", "__reduce__", "__dict__", "__init__", "__iter__", "__len__", "__getitem__", "items",
    "keys", "values", "get", "name", "module", "shape", "size", "stride", "dtype", "data", "key",
    "offset", "storage", "args", "function", "state", "array", "count", "numel", "location", "tensor",
    "_tensor", "kind", "value", "path",
]  # fmt: skip
BUILDABLE: dict[str, Callable[[Framing], Any]] = {
    "a tensor": lambda f: f.tensor(),
    "a parameter": lambda f: call("torch._utils._rebuild_parameter", f.tensor(), True, NO_HOOKS),
    "a storage": lambda f: joined(code(f.pid()), PERSID),
    "an ordered dict": lambda f: call(ORDERED),
    "a class": lambda f: ORDERED,
    "a function": lambda f: named("torch._utils._rebuild_tensor_v2"),
    "a kind of storage": lambda f: named("torch.FloatStorage"),
    "a size": lambda f: call("torch.Size", (3, 4)),
    "a dict": lambda f: {},
    "a list": lambda f: [],
    "a text": lambda f: "abc",
    "a number": lambda f: 3,
    "a tuple": lambda f: (3, 4),
    "nothing": lambda f: None,
}
STATES: dict[str, Any] = {
    "inside": dict.fromkeys(INSIDES, 3),
    "inside of slots": (None, dict.fromkeys(INSIDES, 3)),
    "inside of both": (dict.fromkeys(INSIDES, ORDERED), {key: [] for key in INSIDES}),
    "class": {"__class__": ORDERED},
    "reduce": {"__reduce__": ORDERED, "__setstate__": ORDERED, "__del__": ORDERED},
    "numbers for keys": {3: 4, None: 5},
    "a number": 3,
    "a text": "abc",
    "nothing": None,
    "a pair": (3, 4),
    "a triple": (None, {}, {}),
    "itself": Ops(b"2"),
}


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_build_changes_nothing(name: str, framing: str, reader: Reader) -> None:
    """BUILD sets attributes: of an instance, or, of a class, of the whole process."""
    f = FRAMINGS[framing]
    after = [f.tensor(), call(ORDERED), call("torch.Size", (3,)), f.tensor()]
    values: list[Any] = []
    for state in STATES.values():
        thing = joined(code(BUILDABLE[name](f)), code(state), BUILD)
        values.append({"model": f.state(), "x": [thing, *after]})
        if name in ("a tensor", "a parameter"):
            values.append({"w": thing})
    refused_or_harmless(*reader.read_all(f.file(program(value)) for value in values))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_state_of_the_state_dict_itself(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    metadata = {"_metadata": call(ORDERED, [("", {"version": 1})])}
    outcomes = reader.read_all(
        f.file(
            program(joined(call(ORDERED), MARK, code("w"), f.tensor(), b"u", code(state), BUILD))
        )
        for state in (metadata, *STATES.values())
    )
    assert outcomes[0].tensors == PLAIN
    refused_or_harmless(*outcomes)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", BUILDABLE)
def test_only_functions_are_called(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    ends = (REDUCE, b"\x81", code({"a": 3}) + b"\x92")
    values = [
        {"model": f.state(), "x": joined(code(BUILDABLE[name](f)), code(arguments), end)}
        for arguments in ((), (3,), ([("w", 3)],), "abc", None, [3]) for end in ends
    ]  # fmt: skip
    refused_or_harmless(*reader.read_all(f.file(program(value)) for value in values))
