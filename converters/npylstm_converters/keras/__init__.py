"""The Keras importer: files of Keras 1, 2 and 3 and model objects, without Keras.

=====================  ============================================================
module                 content
=====================  ============================================================
``files``              containers: zip and HDF5, and which Keras wrote them
``hdf5``               HDF5, read in a child process under limits
``graph``              model configs in the dialects of Keras 1, 2 and 3
``layers``             one function per layer class
``activations``        names of activations, by version
``weights``            where the arrays are stored
``importer``           the whole conversion: from a source to a ModelSpec
``runner``             runs the source in its own framework, for recorded cases
``callback``           ExportNpz for ``model.fit``
=====================  ============================================================
"""

from __future__ import annotations

from npylstm_converters.keras.callback import ExportNpz
from npylstm_converters.keras.importer import IMPORTER, from_keras

__all__ = ["IMPORTER", "ExportNpz", "from_keras"]
