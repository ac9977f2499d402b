"""Sessions in files: saved, read in another process, and refused when they are damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_chain
from session_models import CHAINS, DTYPES, chain, numbers, same

import npylstm
from npylstm import Model, StateError
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense

ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
import npylstm
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.model.npz")):
    name = str(path).removesuffix(".model.npz")
    session = npylstm.load(path, sys.argv[2]).session(3)
    session.restore(name + ".session.npz")
    x = np.load(name + ".x.npy")
    np.save(name + ".y.npy", session.push(x[:, :5]))
    np.save(name + ".step.npy", session.step(x[:, 5]))
    session.save(name + ".after.npz")
"""


def test_a_saved_session_goes_on_in_another_process(tmp_path: Path, backend: str) -> None:
    going = {}
    for kind in CHAINS:
        for dtype in DTYPES:
            name = f"{kind.replace(' ', '_')}_{dtype}"
            model = Model(chain(kind, dtype), backend)
            x = numbers(3, 13, 3, dtype=dtype)
            session = model.session(3)
            session.push(x[:, :7])
            model.save(tmp_path / f"{name}.model.npz")
            session.save(tmp_path / f"{name}.session.npz")
            np.save(tmp_path / f"{name}.x.npy", x[:, 7:])
            going[name] = (session, session.push(x[:, 7:12]), session.step(x[:, 12]))
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path), backend], check=True, timeout=120
    )
    for name, (session, y, step) in going.items():
        same(np.load(tmp_path / f"{name}.y.npy"), y)
        same(np.load(tmp_path / f"{name}.step.npy"), step)
        restored = session.copy()
        restored.reset()
        restored.restore(tmp_path / f"{name}.after.npz")
        same(restored.state, session.state)


def test_a_session_file_is_plain_and_holds_every_bit(tmp_path: Path, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    odd = session.state
    odd["layer_0"]["h"][0, :4] = [np.nan, -np.inf, -0.0, 1e-45]
    session.state = odd
    path = tmp_path / "s.npz"
    session.save(str(path))
    with np.load(path, allow_pickle=False) as file:
        assert all(file[key].dtype != object for key in file.files)
    other = session.copy()
    other.reset()
    other.restore(str(path))
    for layer, entries in odd.items():
        for name, array in entries.items():
            assert other.state[layer][name].tobytes() == array.tobytes()


def test_sessions_are_saved_over_older_ones(tmp_path: Path, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.save(tmp_path / "s.npz")
    session.push(numbers(2, 5, 3))
    session.save(tmp_path / "s.npz")
    kept = session.state
    session.reset()
    session.restore(tmp_path / "s.npz")
    same(session.state, kept)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


class Bomb:
    """Sets a flag where it is unpickled."""

    gone_off: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return (Bomb.gone_off.append, (1,))


def damaged_files(folder: Path, model: Model) -> dict[str, Path]:
    """Files that are no session of this model, each for one reason."""
    session = model.session(2)
    session.push(numbers(2, 5, 3))
    good = folder / "good.npz"
    session.save(good)
    with np.load(good) as file:
        arrays = {key: file[key] for key in file.files}
    state_keys = [k for k, a in arrays.items() if a.shape[:1] == (2,)]
    files: dict[str, Path] = {}

    def write(name: str, change: dict[str, Any], drop: str | None = None) -> None:
        files[name] = folder / f"{len(files)}.npz"
        kept = {k: a for k, a in {**arrays, **change}.items() if k != drop}
        np.savez(files[name], **kept)

    def write_bytes(name: str, content: bytes) -> None:
        files[name] = folder / f"{len(files)}.npz"
        files[name].write_bytes(content)

    key = state_keys[-1]
    write("a missing state", {}, drop=key)
    write("another key", {"unheard/of": np.zeros((2, 2), "float32")})
    write("another shape", {key: arrays[key][:, :-1]})
    write("another batch in one state", {key: arrays[key][:1]})
    write("objects", {key: np.array([[Bomb()], [Bomb()]], dtype=object)})
    write("words", {key: np.full(arrays[key].shape, "a")})
    write("complex numbers", {key: arrays[key] * 1j})
    content = good.read_bytes()
    write_bytes("half a file", content[: len(content) // 2])
    write_bytes("nothing", b"")
    write_bytes("prose", b"no archive at all")
    data = arrays[key].tobytes()
    at = content.rindex(data)  # the archive does not compress, or this test must
    flipped = bytearray(content)
    flipped[at + 2] ^= 64
    write_bytes("a flipped bit", bytes(flipped))
    files["a model"] = folder / "model.npz"
    model.save(files["a model"])
    for name, other, batch in (
        ("another batch", model, 3),
        ("another model", Model(chain("gru"), "numpy"), 2),
        ("other units", Model(make_chain(LSTM(3, 20, return_sequences=True),
         GRU(20, 9, return_sequences=True), SimpleRNN(9, 3), Dense(3, 2)), "numpy"), 2),
    ):  # fmt: skip
        files[name] = folder / f"{len(files)}.npz"
        other.session(batch).save(files[name])
    return files


DAMAGES = (
    "a missing state", "another key", "another shape", "another batch in one state", "objects",
    "words", "complex numbers", "half a file", "nothing", "prose", "a flipped bit", "a model",
    "another batch", "another model", "other units",
)  # fmt: skip

# The file itself is wrong, not the state that it holds.
DAMAGED = {
    "another key", "objects", "words", "complex numbers", "half a file", "nothing", "prose",
    "a flipped bit", "a model",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_session_of_the_model_is_refused(
    damage: str, tmp_path: Path, backend: str
) -> None:
    model = Model(chain("stacked"), backend)
    files = damaged_files(tmp_path, model)
    assert set(files) == set(DAMAGES)
    session = model.session(2)
    session.push(numbers(2, 4, 3, seed=1))
    before = session.state
    expected: Any = (StateError, npylstm.FormatError) if damage in DAMAGED else StateError
    with pytest.raises(expected):
        session.restore(files[damage])
    same(session.state, before)
    assert not Bomb.gone_off


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(1)
    with pytest.raises(FileNotFoundError):
        session.restore(tmp_path / "nowhere.npz")
