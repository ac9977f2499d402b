"""Edit the source in some forty ways, each a mistake that people make, and see the tests fail.

python tests/mutations/source.py              all edits, each with the tests of what it touches
python tests/mutations/source.py --only 3 7   some of them

Every edit is made in a copy of the tree. An edit whose text is no longer in its file is an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OPS, UNIT = "tests/operations", "tests/npylstm"
LAYOUTS = "tests/converters/test_layouts.py"
FILES = "tests/converters/test_keras_old_files.py"
LSTM, TORCH = f"{UNIT}/test_lstm.py", "tests/converters/test_torch_weights.py"


class Edit(NamedTuple):
    """What is wrong, where, the text and what replaces it, and the tests that must notice."""

    what: str
    file: str
    old: str
    new: str
    tests: str


EDITS = [
    # Cells.
    Edit("LSTM: input and forget gate swapped", "npylstm/ops/cells.py",
         "i, f, o = gates[:, 0], gates[:, 1], gates[:, 2]", "f, i, o = gates[:, 0], gates[:, 1], gates[:, 2]", OPS),
    Edit("LSTM: output gate forgotten", "npylstm/ops/cells.py", "h = o * (self.output_activation or a)(c)", "h = (self.output_activation or a)(c)", OPS),
    Edit("LSTM: cell state not kept", "npylstm/ops/cells.py", "c = f * c + i * c_tilde", "c = i * c_tilde", OPS),
    Edit("LSTM: projection ignored", "npylstm/ops/cells.py", 'h = product(h, packed["P"])', 'h = h[:, : self.projection]', OPS),
    Edit("GRU: update gate inverted", "npylstm/ops/cells.py",
         "h = update * h + (1 - update) * h_tilde", "h = (1 - update) * h + update * h_tilde", OPS),
    Edit("GRU: recurrent bias dropped", "npylstm/ops/cells.py", 'product(h, packed["U"]) + packed["rb"]', 'product(h, packed["U"])', OPS),
    Edit("GRU: reset gate on the wrong side", "npylstm/ops/cells.py", 'product(reset * h, packed["U_h"])', 'reset * product(h, packed["U_h"])', OPS),
    Edit("simple RNN: recurrent product dropped", "npylstm/ops/cells.py",
         'self.activation(self.clipped(z + product(state[0], packed["U"])))', "self.activation(z + 0 * state[0])", OPS),
    Edit("recurrent: input bias dropped", "npylstm/ops/recurrent.py", 'product(block.reshape(-1, features), W) + b', 'product(block.reshape(-1, features), W)', OPS),
    Edit("recurrent: direction ignored", "npylstm/ops/recurrent.py", "reversed(times) if self.go_backwards else times", "times", OPS),
    Edit("recurrent: mask ignored in the state", "npylstm/ops/recurrent.py", "if mask is not None:  #", "if mask is None and False:  #", OPS),
    Edit("recurrent: output at masked steps", "npylstm/ops/recurrent.py",
         "np.zeros_like(h) if self.zero_output_for_mask else main", "np.zeros_like(h)", OPS),
    Edit("bidirectional: backward output not turned", "npylstm/ops/bidirectional.py",
         "if layer.go_backwards and layer.return_sequences:", "if False:", OPS),
    Edit("bidirectional: average is a sum", "npylstm/ops/bidirectional.py", 'total / 2 if self.merge_mode == "ave" else total', "total", OPS),
    # Other operations.
    Edit("dense: bias dropped", "npylstm/ops/dense.py", 'y = y + packed["bias"]', "y = y + 0.0", OPS),
    Edit("embedding: ids shifted", "npylstm/ops/dense.py", 'packed["embeddings"][x.astype(np.int64)]',
         'packed["embeddings"][x.astype(np.int64) - 1]', OPS),
    Edit("conv1d: dilation ignored", "npylstm/ops/convolution.py", "[:, :: self.stride, :, :: self.dilation]\n        kernels",
         "[:, :: self.stride, :, : self.size]\n        kernels", OPS),
    Edit("conv1d: same pads in front", "npylstm/ops/windows.py", "return (half, total - half) if self.same",
         "return (total - half, half) if self.same", OPS),
    Edit("batch norm: mean not taken off", "npylstm/ops/normalization.py",
         '- wide["moving_mean"] * factor', "- 0 * factor", OPS),
    Edit("layer norm: epsilon outside of the root", "npylstm/ops/normalization.py",
         "np.sqrt(np.mean(off * off, axis=axes, keepdims=True) + self.epsilon)",
         "np.sqrt(np.mean(off * off, axis=axes, keepdims=True)) + self.epsilon", OPS),
    Edit("attention: scale forgotten", "npylstm/ops/attention.py", "/ np.sqrt(self.key_units)", "/ 1.0", OPS),
    Edit("attention: causal mask looks ahead", "npylstm/ops/attention_weights.py", "np.tri(*scores.shape[-2:])", "np.tri(*scores.shape[-2:], k=1)", OPS),
    Edit("select: another step", "npylstm/ops/indexing.py", "self.axis + (self.index,)", "self.axis + (0,)", OPS),
    Edit("flip: nothing reversed", "npylstm/ops/indexing.py", "np.flip(inputs[0], self.axes)", "inputs[0]", OPS),
    Edit("masked mean: mask ignored", "npylstm/ops/masking.py", "(x * counts).sum(1, keepdims=self.keepdims)", "x.sum(1, keepdims=self.keepdims)", OPS),
    Edit("softmax: not divided", "npylstm/activations.py", "y: Array = e / e.sum(axis=axis, keepdims=True)", "y: Array = e", OPS),
    Edit("hard sigmoid: the other slope", "npylstm/activations.py", "np.clip(0.2 * x + 0.5, 0, 1)", "np.clip(x / 6 + 0.5, 0, 1)", OPS),
    # Declarations.
    Edit("axes: softmax mixes nothing", "npylstm/ops/pointwise.py", "mixed = {} if axis is None else", "mixed = {} if True else", OPS),
    Edit("axes: time passes a reversed layer", "npylstm/ops/recurrent.py", "        if self.go_backwards:\n            return tuple(axes.mixing", "        if False:\n            return tuple(axes.mixing", OPS),
    Edit("axes: batch not checked", "npylstm/ops/axis_map.py", "if not separate or at in axes.mixed or at in axes.carried:", "if False:", OPS),
    # Kernels and programs.
    Edit("kernel: masked state moves on", "npylstm/kernels/recurrent_steps.py", "if row[A.MASKED]:\n        _keep_masked_states", "if 0:\n        _keep_masked_states", f"{UNIT}/test_masks.py"),
    Edit("kernel: steps in the wrong order", "npylstm/kernels/recurrent_steps.py", "return row[A.STEPS] - 1 - t if row[A.REVERSE] else t", "return t", f"{UNIT}/test_recurrent.py"),
    Edit("kernel: initial state not read", "npylstm/runtime/program.py", "self._copy(STORE, initial[k].start, places[key])", "pass", OPS),
    Edit("packing: bias of another layer", "npylstm/kernels/bind_layers.py", '"BIAS": columns.arrange(bias)}', '"BIAS": columns.arrange(0 * bias)}', OPS),
    Edit("program: computed ids are overwritten", "npylstm/runtime/program.py", "last[self._embedded[tensor].inputs[0]] = k", "pass", f"{UNIT}/test_embedding_tables.py"),
    Edit("program: flags in memory that others use", "npylstm/runtime/program.py", "self._work.append(1)", "self._work.reserve(1)", f"{UNIT}/test_pool.py"),
    Edit("rewriting: activation of another layer", "npylstm/runtime/rewriting.py", "readers[edge.inputs[0]] == 1", "True", f"{UNIT}/test_rewriting.py"),
    Edit("program: memory that is read later is overwritten", "npylstm/runtime/program.py", "if tensor in unused and place.shape", "if place.shape", f"{UNIT}/test_memory_in_place.py"),
    Edit("program: what is no id is the first one", "npylstm/runtime/program.py", "0 if weights is not None else ids", "0", f"{UNIT}/test_one_hot_ids.py"),
    Edit("quantization: any difference is in the budget", "npylstm/quantization.py", " or measured.max_abs > most.max_abs:", ":", f"{UNIT}/test_budgets.py"),
    Edit("storage: scales of columns for embeddings", "npylstm/graph/parts.py", "return 0 if operation.weight_role(weight) == _TABLE else -1", "return -1", f"{UNIT}/test_integer_products.py"),
    Edit("pool: keys of the last call never change", "npylstm/runtime/pool_rows.py", "self._removals += 1", "pass", f"{UNIT}/test_pool_slots.py"),
    # Importers.
    Edit("layouts: torch gates in another order", "converters/npylstm_converters/layouts.py", '"torch": "ifco"', '"torch": "fico"', LAYOUTS),
    Edit("layouts: torch GRU gates", "converters/npylstm_converters/layouts.py", 'TORCH_GRU_ORDER = "rzh"', 'TORCH_GRU_ORDER = "zrh"', LAYOUTS),
    Edit("layouts: Keras 1 lists f before c", "converters/npylstm_converters/layouts.py", 'for gate in "icfo"', 'for gate in "ifco"', FILES),
    Edit("toolkit: unknown arguments pass", "converters/npylstm_converters/toolkit/translation.py",
         "elif ours not in signature.parameters:", "elif False:", "tests/converters/test_translation.py"),
    Edit("builder: shared weights are two layers", "npylstm/graph/builder.py", "if share and key in self._shared:", "if False:", f"{UNIT}/test_graph_builder.py"),
    Edit("files: format 1 permutes from 0", "npylstm/io/format1.py", '_replaced(config, "dims", "axes", [0])', '_renamed(config, {"dims": "axes"})', f"{UNIT}/test_format1.py"),
]  # fmt: skip


def is_noticed(edit: Edit, tree: Path) -> bool:
    """Make an edit, run its tests, and take it back."""
    path = tree / edit.file
    text = path.read_text(encoding="utf-8")
    if text.count(edit.old) != 1:
        raise SystemExit(f"{edit.what}: its text is {text.count(edit.old)} times in {edit.file}")
    path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'converters'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", edit.tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1, 2):  # passed, failed, or not even collected
        raise SystemExit(f"{edit.what}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", type=int, default=[*range(len(EDITS))])
    options = parser.parse_args()
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        kept = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in kept.stdout.splitlines():
            if (ROOT / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, tree / name)
        for number in options.only:
            edit = EDITS[number]
            noticed = is_noticed(edit, tree)
            print(f"{number:2} {'noticed' if noticed else 'SURVIVED'}: {edit.what}", flush=True)
            survivors += [] if noticed else [edit.what]
    print(f"{len(options.only) - len(survivors)} of {len(options.only)} edits turn the tests red")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
