"""The old place of :mod:`npylstm_converters.toolkit.ledger`, while some importers still use it."""

from npylstm_converters.toolkit.ledger import Entry, became

__all__ = ["Entry", "became"]
