"""Damaged and malicious SavedModels and checkpoints: right, or refused in one line, cheaply.

The index and the variables have checksums: no damage there gives another model. Metadata have none,
so a changed letter may give another model, or a refusal, but never a traceback.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.tensorflow.checkpoint import OBJECT_GRAPH
from npylstm_converters.tensorflow.objects import ObjectGraph
from npylstm_converters.tensorflow.table import read_table
from npylstm_converters.toolkit.wire import Message
from tensorflow_layout import entry, field, fixed32, masked, table, varint, write

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.cli import main

FOLDER = Path(__file__).parent.parent / "data/tensorflow/functional"
LONGEST_LINE = 4000  # a message that no screen holds is not clear
INDEX, DATA = "variables/variables.index", "variables/variables.data-00000-of-00001"
MB = 1 << 20


@pytest.fixture(scope="module")
def sound() -> ModelSpec:
    return nc.from_savedmodel(FOLDER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit, change a byte, cut, remove, repeat or exchange a part."""
    at, size = rng.randrange(len(data)), rng.randrange(1, 40)
    part = data[at : at + size]
    return {
        "flip": data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        "byte": data[:at] + rng.randbytes(1) + data[at + 1 :],
        "cut": data[:at],
        "remove": data[:at] + data[at + size :],
        "repeat": data[:at] + part + data[at:],
        "zero": data[:at] + bytes(len(part)) + data[at + len(part) :],
        "append": data + part,
    }[rng.choice(["flip", "byte", "cut", "remove", "repeat", "zero", "append"])]


def converted(path: Path) -> ModelSpec | None:
    """Convert, or be refused in one line."""
    try:
        return nc.from_savedmodel(path)
    except (FormatError, UnsupportedError) as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert len(text) < LONGEST_LINE
        return None


def same_weights(a: ModelSpec, b: ModelSpec) -> None:
    for ours, theirs in zip(a.layers, b.layers, strict=True):
        assert (ours.name, ours.layer) == (theirs.name, theirs.layer)
        for key, array in theirs.weights.items():
            np.testing.assert_array_equal(ours.weights[key], array)


@pytest.mark.parametrize(
    ("name", "count"), [(INDEX, 100), (DATA, 50), ("saved_model.pb", 50), ("keras_metadata.pb", 60)]
)
def test_mutants(folder: Path, sound: ModelSpec, name: str, count: int) -> None:
    rng, data = random.Random(name), (FOLDER / name).read_bytes()
    refused = 0
    for _ in range(count):
        (folder / name).write_bytes(damage(data, rng))
        spec = converted(folder)
        refused += spec is None
        if spec is not None and name in (INDEX, DATA):
            same_weights(spec, sound)
    assert refused > count // 10


def test_mutants_of_a_model_of_a_class_of_its_own(folder: Path) -> None:
    """`info` lists the layers with the configs that the metadata hold, whatever they say."""
    path = folder / "keras_metadata.pb"
    nodes = [*Message(path.read_bytes(), 1).messages(1, 2, 4, 5)]
    texts = [b'{"class_name": "Own", "config": {}}', *(bytes(n.data(5) or b"") for n in nodes[1:])]
    data = b"".join(
        field(1, field(2, n.integer(2)) + field(4, n.text(4).encode()) + field(5, text))
        for n, text in zip(nodes, texts, strict=True)
    )
    rng, importer = random.Random(9), nc.find_importer(FOLDER)
    path.write_bytes(data)
    assert len(importer.describe(folder)["modules"]) == 7  # and two inputs
    for _ in range(60):
        path.write_bytes(damage(data, rng))
        with contextlib.suppress(FormatError, UnsupportedError):
            importer.describe(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"[]", b"3", b"{}", b'{"config": 3}', b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1",
        b'{"class_name": "Sequential", "config": {"layers": [' + b'{"config":' * 300 + b"1",
        b'{"class_name": "Functional", "config": {"layers": [{}]}}',
        b'{"class_name": 5, "config": {"layers": [1]}, "keras_version": 7}',
    ],
)  # fmt: skip
def test_metadata_of_other_forms(folder: Path, text: bytes) -> None:
    node = field(2, 0) + field(4, b"_tf_keras_network") + field(5, text)
    (folder / "keras_metadata.pb").write_bytes(field(1, node))
    assert converted(folder) is None


# --- with checksums that fit ----------------------------------------------------------------------
def entries() -> dict[bytes, bytes]:
    return {k: bytes(v) for k, v in read_table((FOLDER / INDEX).read_bytes())}


def test_mutants_of_entries_whose_checksums_fit(folder: Path) -> None:
    rng, known = random.Random(7), entries()
    refused = 0
    for _ in range(80):
        key = rng.choice(sorted(known))
        (folder / INDEX).write_bytes(table({**known, key: damage(known[key] or b"\0", rng)}))
        refused += converted(folder) is None
    assert refused > 20


def object_graph() -> bytes:
    fields = Message(entries()[OBJECT_GRAPH.encode()], 4, 5)
    start, size = fields.integer(4), fields.integer(5)
    stored = (FOLDER / DATA).read_bytes()[start : start + size]
    return stored[stored.index(b"\n") :]


def with_objects(folder: Path, graph: bytes) -> None:
    """Put another object graph behind the data, with its checksums."""
    size = len(graph).to_bytes(4, "little")
    check = masked(size).to_bytes(4, "little")
    stored = varint(len(graph)) + check + graph
    data = (FOLDER / DATA).read_bytes()
    (folder / DATA).write_bytes(data + stored)
    made = field(1, 7) + field(2, b"") + field(4, len(data)) + field(5, len(stored))
    made += fixed32(6, masked(size + check + graph))
    (folder / INDEX).write_bytes(table({**entries(), OBJECT_GRAPH.encode(): made}))


def test_mutants_of_the_object_graph() -> None:
    """Below the checksums: whatever the bytes are, reading ends, and with an error of ours."""
    rng, graph = random.Random(8), object_graph()
    assert len(ObjectGraph(graph).layers(0)) == 9
    refused = 0
    for _ in range(300):
        try:
            objects = ObjectGraph(damage(graph, rng))
            objects.parts()
            for node in objects.layers(0).values():
                objects.variables(node)
        except FormatError:
            refused += 1
    assert refused > 100


def test_a_graph_that_names_other_variables(folder: Path) -> None:
    """A layer whose object has the variables of another is refused by their shapes."""
    graph = object_graph()
    with_objects(folder, graph)
    assert converted(folder) is not None
    with_objects(folder, graph.replace(b"layer-8", b"layer-9", 1))
    assert converted(folder) is None


def test_a_variable_that_is_missing(folder: Path) -> None:
    known = entries()
    key = next(k for k in known if k.endswith(b"gamma/.ATTRIBUTES/VARIABLE_VALUE"))
    (folder / INDEX).write_bytes(table({k: v for k, v in known.items() if k != key}))
    with pytest.raises(UnsupportedError, match="norm: gamma: the checkpoint has no variable"):
        nc.from_savedmodel(folder)


# --- small files that ask for much ----------------------------------------------------------------
def node(children: dict[bytes, int]) -> bytes:
    return b"".join(field(1, field(1, k) + field(2, n)) for n, k in children.items())


def chain(length: int) -> bytes:
    nodes = [node({b"layer-0" if k == 0 else b"a": k + 1}) for k in range(length)]
    return b"".join(field(1, n) for n in [*nodes, b""])


def shared_objects(count: int) -> bytes:
    """A model of many layers that all hold the same many objects."""
    layers = {f"layer-{k}".encode(): 1 + k for k in range(count)}
    below = node({f"x{k}".encode(): count + 2 + k for k in range(count)})
    nodes = [node(layers), *[node({b"all": count + 1})] * count, below, *[b""] * count]
    return b"".join(field(1, n) for n in nodes)


def bombs() -> Iterator[tuple[str, Callable[[], object], str]]:
    deep = chain(20_000)
    yield "deep", lambda: ObjectGraph(deep).variables(0), "too deep"
    wide = field(1, node({b"x" * 900 + str(k).encode(): 1 for k in range(3000)})) + field(1, b"")
    yield "wide", lambda: ObjectGraph(wide).variables(0), ""
    loop = field(1, node({b"layer-0": 0, b"a": 0, b"b": 0}))
    yield "loop", lambda: ObjectGraph(loop).variables(0), ""
    outside = field(1, node({b"layer-0": 5}))
    yield "outside", lambda: ObjectGraph(outside), "no object 5"
    shared = shared_objects(250)
    yield "shared", lambda: [ObjectGraph.variables(g, k) for g in [ObjectGraph(shared)] for k in
                             g.layers(0).values()], "too many objects share others"  # fmt: skip
    keys = table({b"": field(1, 1), b"k" * 40_000 + b"a": b"", b"k" * 40_000 + b"b": b""})
    yield "long keys", lambda: list(read_table(keys)), ""


@pytest.mark.parametrize(("start", "says"), [b[1:] for b in bombs()], ids=[b[0] for b in bombs()])
def test_bombs(start: Callable[[], object], says: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        if says:
            with pytest.raises(FormatError, match=says):
                start()
        else:
            start()
    finally:
        took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert took < 20  # with the tracing of memory, which is slow
    assert most < 600 * MB


def test_a_variable_of_many_layers(tmp_path: Path) -> None:
    """One object under many names: its array is not copied for each of them."""
    data = np.ones((2, 2), "<f4")
    graph = field(1, node({f"layer-{k}".encode(): 1 for k in range(20)}))
    graph += field(1, node({b"kernel": 2}))
    graph += field(1, field(2, field(1, b"VARIABLE_VALUE") + field(3, b"v")))
    size = len(graph).to_bytes(4, "little")
    stored = varint(len(graph)) + masked(size).to_bytes(4, "little") + graph
    check = masked(size + masked(size).to_bytes(4, "little") + graph)
    made = field(1, 7) + field(2, b"") + field(4, 16) + field(5, len(stored)) + fixed32(6, check)
    (tmp_path / "ck.data-00000-of-00001").write_bytes(data.tobytes() + stored)
    own = {b"": field(1, 1), b"v": entry(1, (2, 2), data.tobytes()), OBJECT_GRAPH.encode(): made}
    (tmp_path / "ck.index").write_bytes(table(own))
    layers = [
        {"class_name": "Dense", "config": {"name": f"d{k}", "units": 2, "use_bias": False}}
        for k in range(20)
    ]
    layers[0]["config"]["batch_input_shape"] = [None, 2]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with pytest.raises(UnsupportedError, match="d16: kernel: is a variable of more than 16 layers"):
        nc.convert(tmp_path / "ck", architecture=json.dumps(config))


def test_a_shape_that_is_claimed_costs_nothing(tmp_path: Path) -> None:
    """Sizes are compared with the file before anything is read or allocated."""
    prefix = write(tmp_path / "ck", {"v": (1, np.zeros(3, "<f4"))})
    huge = entry(1, (1 << 40, 1 << 20), b"")
    huge = huge.replace(field(5, 0), field(5, 4 << 60))
    prefix.with_name("ck.index").write_bytes(table({b"": field(1, 1), b"v": huge}))
    with pytest.raises(FormatError, match="expected 4611686018427387904 bytes or more, for v"):
        nc.convert(prefix, layers="v")


def test_the_command_line_names_the_damage_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((FOLDER / DATA).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / DATA).write_bytes(bytes(data))
    assert main(["convert", str(folder), str(folder / "out.npz")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "differs, so the file is damaged: copy it again" in line
    assert not (folder / "out.npz").exists()


@pytest.mark.parametrize("name", [INDEX, DATA, "saved_model.pb", "keras_metadata.pb"])
def test_files_of_other_kinds_in_a_folder(folder: Path, name: str) -> None:
    for data in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"):
        (folder / name).write_bytes(data)
        assert converted(folder) is None
