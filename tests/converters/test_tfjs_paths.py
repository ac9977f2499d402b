"""Models of TensorFlow.js whose weights lie outside their folder: nothing there is read."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import pytest
from tfjs_hostile import SHARD, assert_clear, paths, sound

import npylstm

pytestmark = pytest.mark.usefixtures("deadline")


# --- paths ---------------------------------------------------------------------------------------

OPENED: list[str] | None = None


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is None:
        return
    if event == "open" and not (int(arguments[2] or 0) & os.O_NOFOLLOW):
        OPENED.append(str(arguments[0]))
    elif event.split(".")[0] in ("socket", "urllib", "subprocess"):
        OPENED.append(event)


sys.addaudithook(watch)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Everything that is opened meanwhile."""
    global OPENED
    OPENED = found = []
    try:
        yield found
    finally:
        OPENED = None


SECRET = "weights.bin"  # stands beside the folder, in the folder "away" and has the right bytes

OUTSIDE = {
    "parent": "../weights.bin",
    "parent of a folder": "part/../../weights.bin",
    "parent of nothing": "nothing/../../weights.bin",
    "parent in dots": "./.././weights.bin",
    "parent twice": "../model/../weights.bin",
    "and back": "../../{parent}/weights.bin",
    "absolute": "{outside}/weights.bin",
    "absolute, doubled": "/{outside}/weights.bin",
    "home": "~/weights.bin",
    "a variable": "$HOME/weights.bin",
    "file": "file://{outside}/weights.bin",
    "file without host": "file:{outside}/weights.bin",
    "http": "http://127.0.0.1:9/weights.bin",
    "https": "https://example.org/weights.bin",
    "a host": "//127.0.0.1/weights.bin",
    "data": "data:application/octet-stream;base64,AAAA",
    "backslashes": "..\\weights.bin",
    "backslashes in a folder": "part\\..\\..\\weights.bin",
    "a mixture": "..\\/weights.bin",
    "a drive": "C:\\weights.bin",
    "a drive's folder": "C:weights.bin",
    "a share": "\\\\host\\share\\weights.bin",
    "percent": "%2e%2e/weights.bin",
    "percent of a percent": "%252e%252e%252fweights.bin",
    "wide dots": "\uff0e\uff0e/weights.bin",
    "a link": "link.bin",
    "a link to a link": "chain.bin",
    "a folder that is a link": "linked/weights.bin",
    "a link to nowhere": "broken.bin",
    "a link to itself": "loop.bin",
    "a device": "zero.bin",
    "nothing": "",
    "the folder": ".",
    "the parent": "..",
    "a slash": "/",
    "nul": "weights.bin\0.txt",
    "nul at the end": "weights.bin\0",
    "a new line": "weights\n.bin",
    "a long name": "w" * 5000,
    "a long path": "w/" * 5000 + "w",
    "a surrogate": "\ud800.bin",
    "terminal codes": "\x1b[2J.bin",
    "a number": 5,
    "null": None,
    "true": True,
    "a list": ["weights.bin"],
    "an object": {"weights.bin": 1},
}


def lay_traps(folder: Path) -> None:
    outside = folder.parent
    ((_, data),) = sound().parts()[1].items()
    (outside / SECRET).write_bytes(data)
    (outside / "away").mkdir()
    (outside / "away" / SECRET).write_bytes(data)
    (folder / "part").mkdir()
    (folder / "link.bin").symlink_to(outside / SECRET)
    (folder / "chain.bin").symlink_to("link.bin")
    (folder / "linked").symlink_to("../away")
    (folder / "broken.bin").symlink_to(outside / "nowhere")
    (folder / "loop.bin").symlink_to("loop.bin")
    (folder / "zero.bin").symlink_to("/dev/zero")


def foreign(opened: list[str], folder: Path) -> list[str]:
    """What was really opened outside the folder, the installation left aside."""
    inside, around = f"{folder.resolve()}/", str(folder.resolve().parent)
    real = [os.path.realpath(p) if os.path.exists(p) else "" for p in opened]
    far = [p for p in real if p.startswith((around, "/dev")) and not f"{p}/".startswith(inside)]
    return far + [p for p in opened if p.split(".")[0] in ("socket", "urllib", "subprocess")]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("function", ["from_tfjs", "convert"])
def test_nothing_outside_the_folder_is_read(
    name: str, function: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_traps(folder)
    monkeypatch.chdir(folder.parent)  # where a careless reader would find it
    monkeypatch.setenv("HOME", str(folder.parent))
    path = OUTSIDE[name]
    if isinstance(path, str) and "{" in path:
        path = path.format(outside=folder.parent, parent=folder.parent.name)
    paths([path])(folder)
    (folder / SHARD).unlink()
    read_it: Callable[[Path], Any] = getattr(nc, function)
    with watched() as opened, pytest.raises(npylstm.FormatError) as error:
        read_it(folder / "model.json")
    assert_clear(str(error.value).replace(str(folder), ""))
    assert not foreign(opened, folder)
    if isinstance(path, str) and path.isprintable() and 2 < len(path) < 100:
        assert path[:40] in str(error.value) or repr(path)[1:41] in str(error.value)


def test_the_traps_would_be_sound_models(folder: Path) -> None:
    lay_traps(folder)
    (folder / "link.bin").unlink()
    (folder / "link.bin").write_bytes((folder.parent / SECRET).read_bytes())
    paths(["link.bin"])(folder)
    with watched() as opened:
        assert nc.from_tfjs(folder / "model.json").parameters == 192
    assert any(p.endswith("link.bin") for p in opened)  # the watch sees
    with watched() as opened:
        (folder / "../away" / SECRET).read_bytes()
        (folder / "linked" / SECRET).read_bytes()
    assert len(foreign(opened, folder)) == 2


def test_a_bad_path_is_refused_before_anything_is_read(folder: Path) -> None:
    lay_traps(folder)
    layout = sound().in_shards(100)
    manifest, _ = layout.parts()
    path = layout.write(folder)
    found = json.loads(path.read_text())
    found["weightsManifest"][0]["paths"][-1] = "../weights.bin"
    path.write_text(json.dumps(found))
    with watched() as opened, pytest.raises(npylstm.FormatError, match=r"\.\./weights\.bin"):
        nc.from_tfjs(path)
    assert len(manifest[0]["paths"]) > 3
    assert not [p for p in opened if p.endswith(".bin")]


@pytest.mark.parametrize(
    "path", ["part/../group1-shard1of1.bin", "inner.bin", ".//group1-shard1of1.bin"]
)
def test_ways_that_stay_inside_are_right_or_refused(path: str, folder: Path) -> None:
    (folder / "part").mkdir()
    paths([path])(folder)
    (folder / "inner.bin").symlink_to(SHARD)
    with contextlib.suppress(npylstm.FormatError):
        assert nc.from_tfjs(folder / "model.json").parameters == 192


def test_a_folder_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    """The folder is where ``model.json`` is, however one came there."""
    sound().write(folder)
    (tmp_path / "shortcut").symlink_to(folder)
    assert nc.from_tfjs(tmp_path / "shortcut/model.json").parameters == 192


def test_no_permission(folder: Path) -> None:
    path = sound().write(folder)
    nc.from_tfjs(path)  # what it needs is imported by now
    (folder / SHARD).chmod(0)
    user = os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        with pytest.raises((npylstm.FormatError, PermissionError), match="denied"):
            nc.from_tfjs(path)
    finally:
        os.seteuid(user)
