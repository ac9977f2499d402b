"""Shared by importers.

``translation`` and ``array_ops`` bring a framework's operations into a graph, ``chain`` reads
``--layers``, ``ledger`` records what became of each tensor, ``runners`` helps to run a framework.
"""
