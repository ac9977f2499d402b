"""Mutations of stored models: every change of a file's meaning must make ``verify`` fail."""
