"""Storage types: what files hold for a weight, and that all else sees the decoded numbers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm import Model, ModelSpec
from npylstm.errors import FormatError
from npylstm.io.npz import Archive, write_arrays
from npylstm.ops.attention import MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.pointwise import PReLU
from npylstm.spec import LayerSpec
from npylstm.storage import STORAGE, StoredWeight

TYPES = sorted(STORAGE)


def stored_spec(storage: str) -> ModelSpec:
    spec = make_chain(LSTM(features=3, units=4), Dense(features=4, units=2))
    return dataclasses.replace(spec, layers=tuple(n.in_storage(storage) for n in spec.layers))


def weight(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(40, 30)).astype("float32")


@pytest.mark.parametrize("storage", TYPES)
def test_decoding_gives_the_nearest_number_that_the_type_holds(storage: str) -> None:
    w = weight()
    made = StoredWeight.encoded(storage, w)
    error = np.abs(made.weight.astype(np.float64) - w)
    # Half a unit in the last place: bfloat16 has 8 significant bits; the others have equal steps up
    # to the largest number of a column, and the scale is rounded to float32 (2 ** -24).
    largest = np.abs(w).max(axis=0)
    half = {"bfloat16": 2.0**-9 * 2 ** np.ceil(np.log2(np.abs(w)))}
    half |= {name: largest / np.iinfo(name).max / 2 for name in ("int8", "int16")}
    assert (error <= half[storage] * (1 + 2**-7)).all()
    assert error.max() > 0


def test_bfloat16_rounds_as_the_framework_does() -> None:
    dtypes = pytest.importorskip("ml_dtypes", reason="TensorFlow's bfloat16 is an optional package")
    ties = np.arange(0x3F800000, 0x3F8A0000, 0x8000, np.uint32).view(np.float32)
    w = np.concatenate([weight().ravel(), ties, -ties, np.float32([0, 1e-40, 3e38])])
    made = StoredWeight.encoded("bfloat16", w)
    theirs = w.astype(dtypes.bfloat16)
    np.testing.assert_array_equal(made.arrays[""], theirs.view(np.uint16))
    np.testing.assert_array_equal(made.weight, theirs.astype(np.float32))


@pytest.mark.parametrize("storage", TYPES)
def test_files_hold_the_stored_arrays_and_give_the_same_model(storage: str, tmp_path: Path) -> None:
    spec = stored_spec(storage)
    npylstm.save(spec, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        held = {key: file[key] for key in file.files}
    kernel, row = held["layer_1/kernel"], STORAGE[storage]
    assert (kernel.dtype, kernel.shape) == (row.dtypes[""], (4, 2))
    assert held["layer_1/bias"].dtype == np.float32  # only matrices are rounded
    for suffix in row.dtypes.keys() - {""}:
        assert held[f"layer_1/kernel{suffix}"].shape == (2,)
    again = npylstm.load(tmp_path / "m.npz").spec
    assert again == spec
    npylstm.save(again, tmp_path / "again.npz")
    assert (tmp_path / "m.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


@pytest.mark.parametrize("storage", ["bfloat16", "int16"])
def test_engines_see_the_decoded_numbers(storage: str, backend: str) -> None:
    """Bit by bit; products with int8 also round their input (test_integer_products.py)."""
    spec = stored_spec(storage)
    plain = dataclasses.replace(
        spec, layers=tuple(dataclasses.replace(n, stored={}) for n in spec.layers)
    )
    assert plain != spec
    x = np.random.default_rng(1).normal(size=(2, 5, 3))
    y = Model(spec, backend).predict(x)
    np.testing.assert_array_equal(y, Model(plain, backend).predict(x))


def test_copies_keep_the_storage_and_changed_weights_lose_it() -> None:
    spec = stored_spec("bfloat16")
    for other in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec), spec.astype("float32")):
        assert other == spec
        assert other["layer_1"].stored.keys() == {"kernel"}
        assert other["layer_1"].stored["kernel"].weight is other["layer_1"].weights["kernel"]
    assert not spec.astype("float64")["layer_1"].stored
    changed = {**spec["layer_1"].weights, "kernel": spec["layer_1"].weights["kernel"] * 2}
    assert not dataclasses.replace(spec["layer_1"], weights=changed).stored


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown storage type 'int3', expected one of bfloat16"):
        make_chain(Dense(features=3, units=2)).layers[0].in_storage("int3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"bfloat16"', b'"bfloat17"', "unknown storage type 'bfloat17', expected one of"),
        (b'"bfloat16"', b'[]', r"unknown storage type \[\], expected one of"),
        (b'"kernel": "bfloat16"', b'"colonel": "bfloat16"', "the operation has no weight 'colonel'"),
        (b'"storage": {', b'"storage": 3, "other": {', "storage: expected dict, got 3"),
        (b'"kernel": "bfloat16"', b'"bias": "bfloat16"',
         r"m.npz: layer_1/kernel: expected shape \(4, 2\) of float32, got \(4, 2\) of uint16"),
    ],
)  # fmt: skip
def test_damaged_files(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    npylstm.save(stored_spec("bfloat16"), tmp_path / "m.npz")
    with Archive(tmp_path / "m.npz") as archive:
        arrays = {key: archive.array(key) for key in archive.keys}
    head, _, tail = arrays["npylstm/spec"].tobytes().rpartition(old)
    assert head
    arrays["npylstm/spec"] = np.frombuffer(head + new + tail, np.uint8)
    write_arrays(arrays, tmp_path / "m.npz")
    with pytest.raises(FormatError, match=message):
        npylstm.load(tmp_path / "m.npz")


def test_equal_specs_give_equal_bytes_in_any_order_of_weights(tmp_path: Path) -> None:
    (layer, *_) = make_chain(LSTM(features=3, units=4)).layers
    turned = dataclasses.replace(layer, weights=dict(reversed(layer.weights.items())))
    specs = [make_chain(LSTM(features=3, units=4)), make_chain(LSTM(features=3, units=4))]
    for k, own in enumerate((layer, turned)):
        spec = dataclasses.replace(specs[k], layers=(own.in_storage("int16"),))
        npylstm.save(spec, tmp_path / f"{k}.npz")
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()


def test_other_stored_arrays_are_another_layer() -> None:
    (layer,) = make_chain(Dense(features=3, units=2)).layers
    layer = layer.in_storage("int16")
    arrays = layer.stored["kernel"].arrays
    halved = {"": arrays[""] // 2 * 2, ".scale": arrays[".scale"]}
    one = StoredWeight.decoded("int16", halved)
    other = StoredWeight.decoded("int16", {"": halved[""] // 2, ".scale": halved[".scale"] * 2})
    np.testing.assert_array_equal(one.weight, other.weight)
    weights = {**layer.weights, "kernel": one.weight}
    first, second = (
        dataclasses.replace(layer, weights=weights, stored={"kernel": s}) for s in (one, other)
    )
    assert first.stored
    assert first != second


def test_stored_arrays_cannot_be_changed() -> None:
    stored = stored_spec("int16")["layer_1"].stored["kernel"]
    for array in (stored.weight, *stored.arrays.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        stored.arrays[""] = stored.weight  # type: ignore[index]


@pytest.mark.parametrize(
    ("operation", "rounded"),
    [
        (LSTM(3, 4, projection=2), {*(f"{m}_{g}" for m in "WU" for g in "ifco"), "P"}),
        (Embedding(5, 2), {"embeddings"}),
        (LayerNormalization((4, 3), 1e-3), set()),
        (PReLU((1, 3)), set()),
        (MultiHeadAttention(3, 3, 3, heads=2, key_units=2, value_units=2, units=3),
         {f"{part}_kernel" for part in ("query", "key", "value", "output")}),
    ],
    ids=lambda value: getattr(value, "kind", None),
)  # fmt: skip
def test_only_factors_of_products_are_rounded(operation: Operation, rounded: set[str]) -> None:
    layer = LayerSpec("x", operation, {
        key: np.ones(shape, np.float32) for key, shape in operation.weight_shapes().items()
    })  # fmt: skip
    assert layer.in_storage("bfloat16").stored.keys() == rounded


def test_numbers_that_a_type_cannot_hold() -> None:
    with pytest.raises(FormatError, match=r"storage type bfloat16: 3\.4028\d*e\+38 is too large"):
        StoredWeight.encoded("bfloat16", np.full((2, 2), np.finfo(np.float32).max))
    with pytest.raises(
        FormatError, match="expected finite float32 numbers, got float64 with 0 nan"
    ):
        StoredWeight.encoded("int16", np.ones((2, 2)))
    with pytest.raises(FormatError, match="got float32 with 1 nan or inf"):
        StoredWeight.encoded("int16", np.float32([[np.nan, 1]]))
    with pytest.raises(FormatError, match="is too large for it"):
        StoredWeight.encoded("int16", np.full((2, 2), np.finfo(np.float32).max))
    tiny = np.float32([[1e-44, 1.0]])  # smaller than any scale
    assert StoredWeight.encoded("int16", tiny).weight.tolist() == [[0.0, 1.0]]
