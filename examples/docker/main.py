"""Compute a model's outputs: one sequence a line on stdin, JSON in and out.

echo '[[0.1], [0.2], [0.3], [0.4], [0.5]]' | python main.py model.npz
"""

import json
import sys

import numpy as np

import npylstm

model = npylstm.load(sys.argv[1])
print(f"npylstm {npylstm.__version__}, back end {model.backend}", file=sys.stderr)
for line in sys.stdin:
    x = np.asarray(json.loads(line), np.float32)
    print(json.dumps(model.predict(x[None])[0].tolist()), flush=True)
