"""The importer for ONNX models.

``reading``             the file, with the onnx package
``inputs``              which axis is the batch
``translator``          the nodes, one after another, into a ``graph``
``folding``, ``sizes``  what is known before the model runs: constants, arithmetic on sizes
``rows``                every supported operator, and its function: ``recurrent``, ``layers``, ...
``loops``, ``steps``    Loop and Scan: the graph of one step
``runner``              onnxruntime, to record its outputs
"""

from npylstm_converters.onnx.importer import IMPORTER, from_onnx

__all__ = ["IMPORTER", "from_onnx"]
