"""The importer for ONNX models.

``reading``            the file, with the onnx package
``inputs``             which axis is the batch
``translator``         the nodes, one after another
``folding``, ``sizes`` what is known before the model runs: constants, arithmetic on sizes
``rows``               every supported operator
``runner``             onnxruntime, to record its outputs
"""

from npylstm_converters.onnx.importer import IMPORTER, from_onnx

__all__ = ["IMPORTER", "from_onnx"]
