"""Run a TensorFlow.js model in TensorFlow.js, in Node."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.toolkit.runners import fixed_sizes, named_outputs

__all__ = ["TfjsRunner"]

_SCRIPT = Path(__file__).with_name("run.js")
_HELP = (
    "install Node and the package (npm install @tensorflow/tfjs) and set NODE_PATH to its "
    "node_modules, or attach outputs of your own with npylstm_converters.record"
)


class TfjsRunner:
    """Runs ``model.json`` in a process of Node, which ends with the runner.

    The package ``@tensorflow/tfjs`` is loaded from ``NODE_PATH`` or from Node's global packages,
    never from the folder of the model: no file in that folder is executed.

    Parameters
    ----------
    source
        ``model.json``, or the folder that holds it.
    spec
        The converted model, for names.

    Attributes
    ----------
    description
        Framework and version.
    sets_state
        False: layers of TensorFlow.js start with zero states.
    sizes
        Free sizes of the spec that the model fixes: the batch of a stateful one.

    Raises
    ------
    NpylstmError
        If Node or the package is not there, or cannot load the model.
    """

    sets_state = False

    def __init__(self, source: str | os.PathLike[str], spec: ModelSpec) -> None:
        self._spec = spec
        path = Path(source)
        path = path / "model.json" if path.is_dir() else path
        node = shutil.which("node")
        if node is None:
            raise NpylstmError(f"TensorFlow.js runs in Node, which is not installed: {_HELP}")
        self._process = subprocess.Popen(
            [node, str(_SCRIPT), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process)
        said = self._read()
        self.description = f"tfjs {said['version']}"
        self.sizes: Mapping[str, int] = fixed_sizes(spec.inputs, said["shapes"])

    def __call__(
        self, inputs: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return all outputs by name; every call starts with zero states."""
        if state:
            raise NpylstmError(f"{self.description}: starts from zero states only")
        assert self._process.stdin is not None
        arrays = [_written(inputs[t.name], t.integer) for t in self._spec.inputs]
        try:
            self._process.stdin.write(f"{json.dumps(arrays)}\n")
            self._process.stdin.flush()
        except OSError:
            raise NpylstmError(f"{self.description}: Node has ended") from None
        made = self._read()["outputs"]
        return named_outputs(self._spec.outputs, [_array(y) for y in made])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NpylstmError(f"TensorFlow.js: Node ended without an answer: {_HELP}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            text = " ".join(str(said["error"]).split())[:200]
            if "Cannot find module" in text:
                raise NpylstmError(f"TensorFlow.js: Node does not find @tensorflow/tfjs: {_HELP}")
            raise NpylstmError(f"TensorFlow.js cannot run the model: {text}")
        return said


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _written(x: npt.NDArray[Any], integer: bool) -> dict[str, Any]:
    dtype = "int32" if integer else "float32"
    data = np.ascontiguousarray(x, np.dtype(dtype).newbyteorder("<"))
    text = base64.b64encode(data.tobytes()).decode("ascii")
    return {"shape": list(x.shape), "dtype": dtype, "data": text}


def _array(written: Mapping[str, Any]) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = np.frombuffer(base64.b64decode(written["data"]), "<f4")
    return np.reshape(values.astype(np.float32), written["shape"])
