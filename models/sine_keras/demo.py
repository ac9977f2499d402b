"""The demonstration: from the file that Keras wrote to proof, without any framework."""

from __future__ import annotations

import sys
from pathlib import Path

import npylstm_converters as nc
import numpy as np

import npylstm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from pictures import draw  # noqa: E402


def main(folder: Path) -> int:
    """Convert, run, compare, draw; returns 1 if parity failed."""
    folder.mkdir(parents=True, exist_ok=True)
    data = dict(np.load(HERE / "data.npz"))

    spec = nc.convert(HERE / "sine.keras")
    npylstm.save(spec, folder / "sine.npz")
    print(f"converted {HERE.name}/sine.keras, as Keras wrote it, to {folder / 'sine.npz'}\n")

    model = npylstm.load(folder / "sine.npz")
    print(model.summary(), "\n")
    print(f"{len(data['x'])} windows of a noisy sine wave, against what Keras predicted:")
    keras_version = spec.provenance["framework_version"]
    spec = nc.record(spec, lambda x: data["y_keras"], cases=[data["x"]])
    report = npylstm.Model(spec).verify()
    print(report, f"(Keras {keras_version} on TensorFlow)\n")

    for path in draw(model, data, folder):
        print(f"drew {path}")
    frameworks = {"tensorflow", "keras", "torch"} & {name.split(".")[0] for name in sys.modules}
    print(f"\nframeworks imported: {', '.join(sorted(frameworks)) or 'none'}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")))
