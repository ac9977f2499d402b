"""The Keras importer: files of Keras 1, 2 and 3 and model objects, without Keras.

=====================  ============================================================
module                 content
=====================  ============================================================
``importer``           the interface: from a source to a ModelSpec
``files``              containers; ``archives``: zips and folders
``hdf5``               HDF5, read in a child process under limits
``weights``            where the arrays are stored; ``legacy``, ``numbered``: other forms
``tensors``            the arrays of one layer
``parsing``            model configs of Keras 1, 2 and 3; their form is in ``graph``, calls are
                       read by ``calls``, names of early TensorFlow by ``early_names``
``inlining``           models inside models written out
``translating``        layers with their arrays; ``layers`` has a function per class
``precision``          policies of reduced precision
``config``             a layer's config, activations by name, which Keras wrote the file
``operations``         functions on tensors: ``rows``, ``nodes`` have a row for each name,
                       ``ops``, ``shape_ops`` the functions, ``plans`` what they compute
``preprocessing``      layers of text in front, which are left out
``masks``              the path of Keras' masks
``assembling``         the whole conversion: calls become edges
``runner``             runs the source in its own framework, for recorded cases;
                       ``loading`` loads it there
``callback``           ExportNpz for ``model.fit``
=====================  ============================================================
"""

from __future__ import annotations

from npylstm_converters.keras.callback import ExportNpz
from npylstm_converters.keras.importer import IMPORTER, from_keras

__all__ = ["IMPORTER", "ExportNpz", "from_keras"]
