"""From a SavedModel folder or a checkpoint of TensorFlow to a ModelSpec."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.ops.external import Function
from npylstm_converters.files import sha256_of
from npylstm_converters.keras.advice import describe
from npylstm_converters.keras.alternatives import convert_others
from npylstm_converters.keras.assembling import convert_container
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.translating import Options
from npylstm_converters.registry import Importer, Runner
from npylstm_converters.tensorflow.containers import Opened, open_tensorflow
from npylstm_converters.tensorflow.function_runner import FunctionRunner
from npylstm_converters.tensorflow.functions import convert_functions, find_signature
from npylstm_converters.tensorflow.runner import load_runner
from npylstm_converters.tensorflow.sources import SourceFiles, find_files

__all__ = ["IMPORTER", "from_savedmodel"]


def from_savedmodel(
    source: str | os.PathLike[str],
    architecture: str | os.PathLike[str] | None = None,
    *,
    layers: str | None = None,
    key: str | None = None,
    allow_unused: Sequence[str] | None = None,
    custom: Mapping[str, Function] | None = None,
) -> ModelSpec:
    """Convert a SavedModel folder or a checkpoint; TensorFlow is not needed.

    Keras models are converted by their configs. A folder without one holds functions, as
    ``model.export()`` writes them: they are converted by their operations, which needs the onnx
    package.

    Parameters
    ----------
    source
        A SavedModel folder; a checkpoint by its prefix, its ``.index``, or the folder that holds
        it.
    architecture
        The text of ``model.to_json()`` or a JSON file with it, for sources without layers.
    layers
        The chain of layers instead: ``"lstm(last) -> dense(softmax)"``.
    key
        The attribute of the saved object that is the model, if it has several; or the name of a
        signature, to convert its function.
    allow_unused, custom
        As for :func:`npylstm_converters.from_keras`.

    Returns
    -------
    ModelSpec
        Without recorded cases.

    Raises
    ------
    UnsupportedError
        If something is not supported, or the source does not say how its layers are connected; the
        message lists every reason.
    FormatError
        If a file is damaged or missing, or the source is neither a SavedModel nor a checkpoint.
    NpylstmError
        If the folder holds functions and the onnx package is not installed.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> from_savedmodel("tests/data/tensorflow/functional").outputs
    ('out',)
    """
    files = _files(source)
    options = Options(tuple(allow_unused or ()), dict(custom or {}))
    label = os.fspath(source)
    try:
        signature = None if architecture or layers else find_signature(files, key)
        if signature is not None:
            spec = _from_functions(files, signature, key)
        else:
            opened = open_tensorflow(files, architecture, key)
            container = opened.container
            if layers is not None:
                container = with_chain(container, layers)
            if container.document is None:
                raise UnsupportedError(_ask(opened, label))
            spec = convert_container(container, options)
    except UnsupportedError:
        raise
    except FormatError as error:
        text = str(error)
        raise FormatError(text if text.startswith(label) else f"{label}: {text}") from None
    digest = sha256_of(f"{files.prefix}.index")
    return replace(spec, provenance={**spec.provenance, "source_sha256": digest})


def _files(source: Any) -> SourceFiles:
    files = find_files(source)
    if files is None:
        raise FormatError(f"{source!s:.500}: neither a SavedModel folder nor a checkpoint")
    return files


def _from_functions(files: SourceFiles, signature: str, key: str | None) -> ModelSpec:
    """Convert a signature; the error says what else can be done."""
    try:
        return convert_functions(files, signature)
    except UnsupportedError as error:
        if key == signature:
            raise
        ask = _ask(open_tensorflow(files, None, key), os.fspath(files.folder or files.prefix))
        raise UnsupportedError([*error.reasons, ask]) from None


def _ask(opened: Opened, label: str) -> str:
    """Return the error for a source without a config, with the ways to supply one."""
    return (
        f"{label}: {opened.lacks}; or give the architecture, the text of model.to_json(), by "
        f"--architecture model.json, or state the layers by --layers: `npylstm info "
        f"{shlex.quote(label)}` shows what to state"
    )


class _TensorFlowImporter(Importer):
    name = "savedmodel"
    options = ("architecture", "layers", "key", "allow_unused", "custom")

    def accepts(self, source: Any, head: bytes) -> bool:
        return find_files(source) is not None

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_savedmodel(source, **options)

    def can_describe(self, source: Any, **options: Any) -> bool:
        if "architecture" in options or "layers" in options:
            return False
        files, key = _files(source), options.get("key")
        signature = find_signature(files, key)
        if signature is None:
            return open_tensorflow(files, None, key).container.document is None
        try:
            convert_functions(files, signature)
        except UnsupportedError:
            return key != signature
        return False

    def describe(self, source: Any, **options: Any) -> dict[str, Any]:
        opened = open_tensorflow(_files(source), None, options.get("key"))
        flags = f" --key {shlex.quote(options['key'])}" if "key" in options else ""
        container = replace(opened.container, notes=(opened.lacks, *opened.container.notes))
        return describe(container, source, flags)

    def alternatives(self, source: Any, **options: Any) -> Iterator[tuple[str, ModelSpec]]:
        if "layers" not in options:
            return
        files, key = _files(source), options.get("key")
        said = Options(tuple(options.get("allow_unused") or ()), dict(options.get("custom") or {}))
        yield from convert_others(
            lambda: open_tensorflow(files, None, key).container, options["layers"], said
        )

    def files(self, source: Any) -> list[str]:
        files = find_files(source)
        if files is None or files.folder is not None:
            return super().files(source)
        return glob.glob(f"{glob.escape(files.prefix)}.*")

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Runner:
        files, key = _files(source), options.get("key")
        if "architecture" not in options and "layers" not in options:
            signature = find_signature(files, key)
            if signature is not None:
                return FunctionRunner(files, signature, spec)
        opened = open_tensorflow(files, options.get("architecture"), key)
        return load_runner(opened, spec, options.get("layers"))


IMPORTER = _TensorFlowImporter()
