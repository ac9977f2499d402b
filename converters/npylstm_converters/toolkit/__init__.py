"""Shared by importers: the translation of operations, and array operations."""
