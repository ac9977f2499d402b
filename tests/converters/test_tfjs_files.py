"""Files that TensorFlow.js writes, against the numbers that it computed; and how they are found.

``tests/tfjs/make_models.js`` builds models and runs them. Where Node and the package are at hand it
does so now, otherwise its files are in ``tests/data/tfjs``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_files import DATA, MODELS, NEWEST, RARE, ROOT, attempted, content, converted, recorded

import npylstm
from npylstm import Model, ModelSpec

SCRIPT = ROOT / "tests/tfjs"
OLD = sorted(str(p.parent.relative_to(DATA)) for p in DATA.glob("[01].*/*/model.json"))

# Rounding: TensorFlow.js computes float32 tensors with sums in float64. Where it is lucky, some
# units in the last place of the output are none the less what float32 can do.
RATIO, ULPS = 1.5, 8

# Everything here contracts and has sums of some ten terms of size one; so all roundings together
# stay below this many units in the last place. A wrong slope or a lost bias is 1e-3 and more.
FAR = 64
EPS = float(np.finfo(np.float32).eps)

Array = np.ndarray[Any, Any]


# --- files and what they hold --------------------------------------------------------------------


def has_node() -> bool:
    return bool(shutil.which("node")) and (SCRIPT / "node_modules/@tensorflow/tfjs").is_dir()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as TensorFlow.js writes them: now, if it is installed, or when they were recorded."""
    if not has_node():
        return DATA / NEWEST
    folder = tmp_path_factory.mktemp("tfjs")
    command = ["node", str(SCRIPT / "make_models.js"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def tensor(entry: Mapping[str, Any]) -> Array:
    return np.array(entry["data"], entry["dtype"]).reshape(entry["shape"])


def cases(folder: Path) -> Iterator[tuple[list[Array], list[Array]]]:
    for case in json.loads((folder / "cases.json").read_text())["cases"]:
        yield [tensor(x) for x in case["inputs"]], [tensor(y) for y in case["outputs"]]


def listed(y: Any) -> list[Array]:
    return list(y.values()) if isinstance(y, Mapping) else [y]


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def assert_close(ours: Array, exact: Array, theirs: Array, what: object) -> None:
    """Explained by rounding, and not worse than TensorFlow.js."""
    assert ours.shape == theirs.shape, what
    assert ours.dtype == np.float32, what
    size = float(np.abs(theirs).max())
    assert np.abs(theirs - exact).max() <= FAR * EPS * max(1.0, size), what
    error, limit = rms(ours - exact), RATIO * rms(theirs - exact)
    assert error <= max(limit, ULPS * EPS * size), (what, error, limit)


def assert_parity(spec: ModelSpec, folder: Path, backend: str) -> None:
    model = Model(spec, backend)
    exact = model.astype("float64")
    for k, (inputs, outputs) in enumerate(cases(folder)):
        x = inputs if len(inputs) > 1 else inputs[0]
        ours, truth = listed(model.predict(x)), listed(exact.predict(x))
        assert len(ours) == len(outputs) == len(spec.outputs)
        for name, *values in zip(spec.outputs, ours, truth, outputs, strict=True):
            assert_close(*values, what=(k, name))


# --- what TensorFlow.js writes -------------------------------------------------------------------


def test_every_model_is_recorded(written: Path) -> None:
    assert sorted(p.name for p in written.iterdir()) == MODELS
    script = (SCRIPT / "make_models.js").read_text()
    assert all(f"  {name}: () =>" in script for name in MODELS)
    assert len(MODELS) == 38
    assert json.loads((SCRIPT / "package.json").read_text())["dependencies"] == {
        "@tensorflow/tfjs": NEWEST
    }
    assert sum(p.stat().st_size for p in DATA.rglob("*")) < 1 << 20


@pytest.mark.skipif(not has_node(), reason="needs Node: npm install in tests/tfjs")
@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_files_are_up_to_date(name: str, written: Path) -> None:
    now, then = written / name, DATA / NEWEST / name
    assert (now / "model.json").read_text() == (then / "model.json").read_text()
    if name != "trained":  # Node's arithmetic
        assert (now / "model.weights.bin").read_bytes() == (then / "model.weights.bin").read_bytes()
    for one, other in zip(cases(now), cases(then), strict=True):
        for x, y in zip((*one[0], *one[1]), (*other[0], *other[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=4 * EPS)  # exp and tanh are Node's


@pytest.mark.parametrize("name", [m for m in MODELS if m not in {"stateful", *RARE}])
def test_gives_the_numbers_of_tfjs(name: str, written: Path, backend: str) -> None:
    assert_parity(nc.from_tfjs(written / name / "model.json"), written / name, backend)


@pytest.mark.parametrize("path", [p for p in OLD if "stateful" not in p])
def test_gives_the_numbers_of_old_tfjs(path: str, backend: str) -> None:
    assert_parity(nc.from_tfjs(DATA / path / "model.json"), DATA / path, backend)


@pytest.mark.parametrize("name", RARE)
def test_rare_models_are_refused_or_right(name: str, written: Path, backend: str) -> None:
    spec, message = attempted(written / name / "model.json")
    if spec is None:
        assert RARE[name] in message
    else:
        assert_parity(spec, written / name, backend)


@pytest.mark.parametrize("path", [f"{NEWEST}/stateful", "1.7.4/stateful"])
def test_stateful_models_carry_their_state(path: str, written: Path, backend: str) -> None:
    folder = written / "stateful" if path.startswith(NEWEST) else DATA / path
    spec = nc.from_tfjs(folder / "model.json")
    stateful = [n.config["stateful"] for n in spec.layers if n.kind != "dense"]
    assert stateful == [True, True, True]
    assert spec.inputs[0].shape[0] == "batch"  # TensorFlow.js pins it to 3
    model, exact = Model(spec, backend), Model(spec.astype("float64"), backend)
    known = [(x[0], y[0]) for x, y in cases(folder)]
    (x0, y0), (x1, y1), (x2, y2) = known
    ours, state = model.predict(x0, return_state=True)
    truth, wide = exact.predict(x0, return_state=True)
    assert_close(ours, truth, y0, "first")
    ours, truth = model.predict(x1, state=state), exact.predict(x1, state=wide)
    assert_close(ours, truth, y1, "carried")
    assert np.abs(model.predict(x1) - y1).max() > 1e-3  # the state matters
    assert_close(model.predict(x2), exact.predict(x2), y2, "reset")
    session = model.session(3)
    for k, (x, y) in enumerate(known):
        if k == 2:
            session.reset()
        np.testing.assert_allclose(session.push(x), y, rtol=0, atol=FAR * EPS)
    assert model.predict(np.zeros((5, 4, 2))).shape == (5, 2)


def test_gates_are_what_the_file_says() -> None:
    def gates(path: str) -> list[str]:
        spec = nc.from_tfjs(DATA / path / "model.json")
        return [n.config["recurrent_activation"] for n in spec.layers if n.kind in ("lstm", "gru")]

    fifth = "hard_sigmoid_fifth"
    assert gates("4.22.0/lstm") == gates("1.7.4/lstm") == gates("0.15.3/lstm") == [fifth]
    assert gates("4.22.0/lstm_stack") == ["sigmoid", fifth, fifth]
    assert gates("0.15.3/gru") == [fifth, "sigmoid", fifth]


def test_inputs_go_by_name_and_by_order(written: Path, backend: str) -> None:
    model = Model(nc.from_tfjs(written / "two_inputs/model.json"), backend)
    assert [t.name for t in model.inputs] == ["static_facts", "theSeries"]
    assert list(model.spec.outputs) == ["zScore", "alarm"]
    ((facts, series), outputs), *_ = cases(written / "two_inputs")
    named = model.predict({"theSeries": series, "static_facts": facts})
    ordered = model.predict([facts, series])
    assert list(named) == ["zScore", "alarm"]
    for key, expected in zip(named, outputs, strict=True):
        np.testing.assert_array_equal(named[key], ordered[key])
        np.testing.assert_allclose(named[key], expected, rtol=0, atol=FAR * EPS)


def test_shared_layers_have_one_set_of_weights() -> None:
    spec = nc.from_tfjs(DATA / NEWEST / "shared/model.json")
    assert [n.name for n in spec.layers].count("encoder") == 1
    assert sum(e.layer == "encoder" for e in spec.edges) == 2
    assert spec.parameters == sum(w.array.size for w in recorded("shared").weights)


def test_layers_of_nested_models_are_named_after_them() -> None:
    spec = nc.from_tfjs(DATA / NEWEST / "nested/model.json")
    inner = {"innerChain.innerGru", "innerChain.inner_dense", "innerGraph.l", "innerGraph.g"}
    assert {n.name for n in spec.layers if n.weights} == inner
    assert sum(e.layer == "innerChain.innerGru" for e in spec.edges) == 3


def test_the_encoder_can_be_cut_off(backend: str) -> None:
    folder = DATA / NEWEST / "seq2seq"
    whole = nc.from_tfjs(folder / "model.json")
    encoder = Model(whole.subgraph(["source"], ["enc/h", "enc/c"]), backend)
    decoder = Model(
        whole.subgraph(["target", "enc/h", "enc/c"], ["out", "dec/h", "dec/c"]), backend
    )
    for (source, target), outputs in cases(folder):
        state = encoder.predict(source)
        y = decoder.predict({"target": target, **state})
        for ours, theirs in zip(y.values(), outputs, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=FAR * EPS)


def test_ids_come_as_integers_or_floats(backend: str) -> None:
    folder = DATA / NEWEST / "ids"
    model = Model(nc.from_tfjs(folder / "model.json"), backend)
    ((ids,), (y,)), *_ = cases(folder)
    assert ids.dtype == np.int32
    for x in (ids, ids.astype("f4"), ids.astype("i8"), ids.tolist()):
        np.testing.assert_allclose(model.predict(x), y, rtol=0, atol=FAR * EPS)
    with pytest.raises(npylstm.ShapeError):  # TensorFlow.js: "not in [0, 10]"
        model.predict(ids + 11)


@pytest.mark.parametrize("name", ["nested", "seq2seq", "merges", "two_inputs", "shared"])
def test_layers_in_any_order(name: str, tmp_path: Path, backend: str) -> None:
    """A graph is where its nodes say, not where its layers stand."""
    layout = recorded(name).with_layers(lambda layers: layers.reverse())
    spec = converted(layout, tmp_path)
    whole = nc.from_tfjs(DATA / NEWEST / name / "model.json")
    assert spec.outputs == whole.outputs
    assert spec.inputs == whole.inputs
    assert_parity(spec, DATA / NEWEST / name, backend)


def test_one_of_a_pair_of_directions(tmp_path: Path, backend: str) -> None:
    """A merge mode of null means none: the first output is the forward direction alone."""
    folder = DATA / NEWEST / "bidirectional_pair"
    layout = recorded("bidirectional_pair").edited(
        lambda d: d["modelTopology"]["config"]["output_layers"].pop()
    )
    spec, message = attempted(layout.write(tmp_path))
    if spec is None:
        assert "bidirectional" in message
    else:
        for (x,), (y, _) in cases(folder):
            found = Model(spec, backend).predict(x)
            assert found.shape == y.shape
            np.testing.assert_allclose(found, y, rtol=0, atol=FAR * EPS)


def test_survives_npz(written: Path, tmp_path: Path, backend: str) -> None:
    for name in ("nested", "gates", "names"):
        spec = nc.from_tfjs(written / name / "model.json")
        npylstm.save(spec, tmp_path / "m.npz")
        again = npylstm.load(tmp_path / "m.npz", backend)
        assert content(again.spec) == content(spec)
        assert_parity(again.spec, written / name, backend)


# --- found by content, from Python and from the shell --------------------------------------------


def test_convert_finds_it(written: Path, tmp_path: Path) -> None:
    path = written / "nested/model.json"
    expected = content(nc.from_tfjs(path))
    assert content(nc.convert(path)) == content(nc.convert(str(path))) == expected
    assert content(nc.from_tfjs(str(path))) == expected
    assert nc.find_importer(path).name == "tfjs"
    assert "from_tfjs" in nc.__all__


def test_from_a_relative_path(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(nc.from_tfjs(written / "lstm/model.json"))
    monkeypatch.chdir(written / "lstm")
    assert content(nc.from_tfjs("model.json")) == content(nc.convert("model.json")) == expected
    monkeypatch.chdir(written)
    assert content(nc.convert("lstm/model.json")) == expected


def dressed(form: str, document: Any) -> bytes:
    """The same JSON with nothing telling in its first 512 bytes."""
    if form == "metadata first":
        return json.dumps({"userDefinedMetadata": {"text": "x" * 5000}, **document}).encode()
    if form == "manifest first":
        last = {"weightsManifest": document["weightsManifest"], **document}
        last["modelTopology"] = last.pop("modelTopology")
        return json.dumps(last, indent=4).encode()
    if form == "topology first":
        return json.dumps({"modelTopology": 0, **document}, indent=8).encode()
    if form == "blanks first":
        return b" \r\n\t" * 60 + json.dumps(document).encode()
    assert form == "windows"
    return json.dumps(document, indent=2).replace("\n", "\r\n").encode()


@pytest.mark.parametrize("name", ["model.json", "model.h5", "model"])
@pytest.mark.parametrize(
    "form", ["metadata first", "manifest first", "topology first", "blanks first", "windows"]
)
def test_found_by_content_alone(form: str, name: str, tmp_path: Path) -> None:
    path = recorded("lstm_stack").write(tmp_path)
    data = dressed(form, json.loads(path.read_text()))
    path.unlink()
    (tmp_path / name).write_bytes(data)
    expected = content(nc.from_tfjs(DATA / NEWEST / "lstm_stack/model.json"))
    assert content(nc.convert(tmp_path / name)) == expected
    assert content(nc.from_tfjs(tmp_path / name)) == expected


@pytest.mark.parametrize("name", ["lstm_stack", "trained", "two_inputs", "stateful"])
def test_from_the_shell(
    name: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    from npylstm.cli import main

    source, output = written / name / "model.json", tmp_path / "m.npz"
    assert main(["convert", str(source), str(output), "--record", "0"]) == 0
    assert capsys.readouterr().err == ""
    model = npylstm.load(output, backend)
    assert content(model.spec) == content(nc.from_tfjs(source))
    if name != "stateful":
        assert_parity(model.spec, written / name, backend)
    output.unlink()
    assert main(["convert", str(source), str(output)]) == 0  # without Node nothing is recorded
    assert output.exists()
    assert main(["info", str(source)]) == 0
    capsys.readouterr()
    assert main(["verify", str(output), "--against", str(source)]) == 2
    err = capsys.readouterr().err
    assert "TensorFlow.js" in err
    assert err.count("\n") == 1


def test_says_where_it_came_from(written: Path) -> None:
    said = json.dumps(dict(nc.from_tfjs(written / "lstm/model.json").provenance))
    assert "tfjs-layers" in said or "TensorFlow.js" in said
    assert NEWEST in said


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tf_keras", "h5py", "torch", "numba", "tensorflowjs"}:
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Wall())
import numpy as np
import npylstm, npylstm_converters as nc
from npylstm.cli import main

source, output, x, y = sys.argv[1:]
if source == "wall":
    import h5py
spec = nc.from_tfjs(source)
np.save(y, npylstm.Model(spec, "numpy").predict(np.load(x)))
assert main(["convert", source, output, "--record", "0"]) == 0
assert npylstm.load(output, "numpy").spec.parameters == spec.parameters
"""


def test_needs_numpy_alone(tmp_path: Path) -> None:
    folder = DATA / NEWEST / "lstm_stack"
    (inputs, outputs), *_ = cases(folder)
    np.save(tmp_path / "x.npy", inputs[0])
    command = [sys.executable, "-c", ALONE, str(folder / "model.json"), str(tmp_path / "m.npz"),
               str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), outputs[0], rtol=0, atol=FAR * EPS)
    command[3] = "wall"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "no h5py here" in done.stderr  # the wall stands
