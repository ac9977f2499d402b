"""Containers: the kind of a file, its config, and where its weights are."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm.io.stand_ins import check_content
from npylstm_converters.files import zip_names
from npylstm_converters.keras import hdf5
from npylstm_converters.keras.archives import (
    CONFIG,
    WEIGHTS,
    Archive,
    is_archive_folder,
    open_archive,
    read_member,
)
from npylstm_converters.keras.config import Writer, find_writer
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.legacy import LegacyStore
from npylstm_converters.keras.numbered import NumberedStore
from npylstm_converters.keras.preprocessing import Vocabulary
from npylstm_converters.keras.weights import SavedStore, Store

__all__ = [
    "MAX_JSON", "Container", "is_foreign_zip", "is_keras_file", "is_list_of_shards",
    "open_container", "parse_json", "read_architecture", "read_json", "shards_of",
]  # fmt: skip

_MAX_VOCABULARY = 64 << 20
MAX_JSON = 3 << 20  # the worst JSON takes Python thirty times as much memory
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"  # first bytes of a file


@dataclass(frozen=True)
class Container:
    """The content of a source: the config (None in weights-only files) and the weights."""

    document: Any
    store: Store
    writer: Writer
    format: str
    foreign: tuple[str, ...] = ()  # custom classes and functions of a model object
    notes: tuple[str, ...] = ()  # decisions of the reader
    by_name: bool = False  # legacy weights are paired by the names in the user's chain
    stated: tuple[str, ...] = ()  # structure that the user stated and no file proves
    assumed: tuple[str, ...] = ()  # defaults for options that neither determines
    vocabulary: Vocabulary = lambda raw: None  # words that are apart from the config


def is_keras_file(head: bytes) -> bool:
    """Whether a file with these first bytes may be a Keras file: HDF5 or a zip."""
    return head.startswith((_HDF5, _ZIP))


def is_foreign_zip(path: str | os.PathLike[str]) -> bool:
    """Whether a zip has no member that Keras writes."""
    own = (CONFIG, "metadata.json", WEIGHTS)
    names = (name.replace("\\", "/") for name in zip_names(path))
    return not any(name.split("/")[-1] in own for name in names)


def is_list_of_shards(head: bytes) -> bool:
    """Whether a file with these first bytes may be the ``.weights.json`` of Keras 3."""
    return head.lstrip().startswith(b"{") and b'"weight_map"' in head


def shards_of(path: Path) -> list[Path]:
    """Return the files of weights that Keras 3 saved in several; empty for another file.

    ``model.weights.json`` lists them: ``{"metadata": ..., "weight_map": {"/layers/lstm/vars":
    "model_00000.weights.h5", ...}}``; the value may be a list.

    Raises
    ------
    FormatError
        If one of the files is missing, or its name is not one of the same folder.
    """
    with open(path, "rb") as stream:
        if not is_list_of_shards(stream.read(512)):
            return []
    document = read_json(path)
    listed = document.get("weight_map") if isinstance(document, Mapping) else None
    if not isinstance(listed, Mapping):
        return []
    values = [v for held in listed.values() for v in (held if isinstance(held, list) else [held])]
    for name in values:
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise FormatError(f"{path}: weight_map: expected names of files, got {name!r:.80}")
        if not (path.parent / name).is_file():
            raise FormatError(
                f"{path}: lists the file {name}, which is missing: copy it into the same folder"
            )
        check_content(path.parent / name)
    return [path.parent / name for name in dict.fromkeys(values)]


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return an architecture from a file with the text of ``model.to_json()``.

    Raises
    ------
    FormatError
        If it is not JSON.
    OSError
        If it cannot be read.
    """
    check_content(path)
    with open(path, "rb") as stream:
        return parse_json(stream.read(MAX_JSON + 1), os.fspath(path))


def read_architecture(architecture: str | os.PathLike[str]) -> Any:
    """Return a model config from the text of ``model.to_json()``, or from a file that holds it.

    Raises
    ------
    FormatError
        If it is not JSON.
    OSError
        If the file cannot be read.
    """
    if isinstance(architecture, str) and architecture.lstrip().startswith("{"):
        return _unwrapped(parse_json(architecture, "architecture"))
    return _unwrapped(read_json(architecture))


def parse_json(data: bytes | str, label: str) -> Any:
    """Return a JSON document of bounded length.

    Raises
    ------
    FormatError
        If it is too long or not JSON.
    """
    if len(data) > MAX_JSON:
        raise FormatError(f"{label}: expected up to {MAX_JSON} bytes of JSON")
    try:
        document = json.loads(data)
        # Some users pass the string of to_json() to json.dump: JSON in JSON.
        return json.loads(document) if isinstance(document, str) else document
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{label}: not JSON: {error}") from None


def _unwrapped(document: Any) -> Any:
    """Return the model config inside a topology, or inside a dumped ``model_config``."""
    for _ in range(3):
        names = ("modelTopology", "model_config", "model")
        inner = document if isinstance(document, Mapping) else {}
        held = next((inner[n] for n in names if isinstance(inner.get(n), Mapping)), None)
        if held is None or "class_name" in inner:
            break
        version = {k: inner[k] for k in ("keras_version",) if k in inner}
        document = {**version, **held}
    return document


@contextlib.contextmanager
def open_container(
    path: str | os.PathLike[str], architecture: str | os.PathLike[str] | None = None
) -> Iterator[Container]:
    """Open a Keras file; its arrays can be read while the context lasts.

    Parameters
    ----------
    path
        A ``.keras``, full-model ``.h5`` or weights-only ``.h5`` file, detected by content; an
        unzipped ``.keras``; or the ``.weights.json`` of weights in several files.
    architecture
        The config as JSON, or a file with it, for weights-only files.

    Raises
    ------
    FormatError, UnsupportedError, OSError
    """
    path = Path(path)
    if path.is_dir() and not is_archive_folder(path):
        raise UnsupportedError(
            f"{path}: is a folder, and Keras files are files; "
            "from_savedmodel reads the SavedModel folders of TensorFlow"
        )
    given = read_architecture(architecture) if architecture is not None else None
    if path.is_dir():
        with _from_archive(path, given) as container:
            yield container
        return
    if path.exists() and not path.is_file():
        raise FormatError(f"{path}: expected a file")
    check_content(path)
    with open(path, "rb") as stream:
        head = stream.read(8)
    shards = shards_of(path)
    if head.startswith(_HDF5) or shards:
        with hdf5.open_files(shards or [path], str(path)) as root:
            yield _from_hdf5(root, given)
    elif head.startswith(_ZIP):
        with _from_archive(path, given) as container:
            yield container
    else:
        what = "empty" if not head else f"begins with {head!r}"
        raise FormatError(f"{path}: neither HDF5 nor a .keras file ({what})")


@contextlib.contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[Callable[[], Container]]:
    """Open an HDF5 weights file for several conversions; each uses up one container.

    Yields
    ------
    callable
        Returns a new container of the file, while the context lasts.

    Raises
    ------
    FormatError, OSError
    """
    with hdf5.open_files(shards_of(Path(path)) or [Path(path)], str(path)) as root:
        yield lambda: _from_hdf5(root, None)


def _from_hdf5(root: hdf5.File, given: Any) -> Container:
    attributes = (root.attribute(name) for name in ("model_config", "config", "model"))
    text = next(filter(None, attributes), None)
    weights = root.group("model_weights") or root
    version = root.attribute("keras_version") or weights.attribute("keras_version")
    is_legacy = weights.names("layer_names") is not None
    document = _unwrapped(parse_json(text, f"{root.label}: model_config")) if text else None
    if is_legacy:
        store: Store = LegacyStore(weights)
    elif any(root.group(name) for name in SavedStore.ROOTS) or _has_backslashes(root):
        bare = document is None and given is None
        store = NumberedStore(root) if bare else _saved(root)
    else:
        raise FormatError(f"{root.label}: an HDF5 file, but not one of Keras")
    form = "HDF5 weights" if document is None else "HDF5 model"
    if given is not None:
        document = given
    if document is None and version is None and _one_array_per_gate(store):
        return Container(
            document, store, Writer("Keras", "1", "no version; an array for each gate"), form
        )
    if isinstance(store, NumberedStore) and version is None:
        return Container(document, store, _writer_of_numbers(store), form)
    return Container(document, store, find_writer(document, version), form)


def _saved(root: hdf5.File) -> SavedStore:
    groups, datasets = root.walk()
    return SavedStore(groups, [(dataset.path, dataset) for dataset in datasets])


def _writer_of_numbers(store: NumberedStore) -> Writer:
    if store.labels:
        return Writer(
            "Keras", "3", "no version; groups that hold the names of layers are Keras 3's"
        )
    return Writer("Keras", "2.12", "no version; numbered arrays began with Keras 2.12")


def _one_array_per_gate(store: Store) -> bool:
    """Whether recurrent layers have one array per gate, which only Keras 1 writes."""
    groups = store.listed().values() if isinstance(store, LegacyStore) else []
    return any(
        len(sources) in (9, 12) and any(re.search(r"_W_[iz](:0)?$", s.path) for s in sources)
        for sources in groups
    )


def _has_backslashes(root: hdf5.File) -> bool:
    groups, _ = root.walk()
    return any(path.split("/")[0] in SavedStore.ROOTS for path in groups)


@contextlib.contextmanager
def _from_archive(path: Path, given: Any) -> Iterator[Container]:
    with open_archive(path) as archive, tempfile.TemporaryDirectory() as folder:
        document = _member_json(archive, CONFIG, path)
        metadata: Any = {}
        if "metadata.json" in archive.names:
            metadata = _member_json(archive, "metadata.json", path)
        version = metadata.get("keras_version") if isinstance(metadata, Mapping) else None
        if given is not None:
            document = given
        writer = find_writer(document, version if isinstance(version, str) else None)
        # libhdf5 needs a separate file.
        weights = Path(folder) / WEIGHTS
        with weights.open("wb") as target:
            archive.copy(WEIGHTS, target)
        with hdf5.open_file(weights, f"{path}: {WEIGHTS}") as root:
            store = _saved(root)
            words = functools.partial(_words, archive, store)
            yield Container(document, store, writer, "Keras archive", vocabulary=words)


def _words(archive: Archive, store: SavedStore, raw: RawLayer) -> list[Any] | None:
    """Return the words of a layer from ``assets/layers/string_lookup/vocabulary.txt``."""
    group = store.claim(raw)
    names = [f"assets/{root}/{group}/vocabulary.txt" for root in store.ROOTS]
    name = next((name for name in names if name in archive.names), None)
    if name is None or archive.size(name) > _MAX_VOCABULARY:
        return None
    words = read_member(archive, name).decode("utf-8", "replace").split("\n")
    if raw.class_name == "IntegerLookup" and all(re.fullmatch("-?[0-9]{1,19}", w) for w in words):
        return [int(word) for word in words]
    return words


def _member_json(archive: Archive, name: str, path: Path) -> Any:
    label, size = f"{path}: {name}", archive.size(name)
    if size > MAX_JSON:
        raise FormatError(f"{label}: expected up to {MAX_JSON} bytes, got {size}")
    return parse_json(read_member(archive, name), label)
