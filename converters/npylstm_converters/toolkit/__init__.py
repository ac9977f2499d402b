"""Shared by importers.

``translation`` and ``array_ops`` bring a framework's operations into a graph, ``chain`` reads
``--layers``, and ``ledger`` records what became of each tensor.
"""
