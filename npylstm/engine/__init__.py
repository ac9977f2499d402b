"""Compiling kernels, and loading what was compiled."""
