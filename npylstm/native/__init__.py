"""Compiled kernels, and where they come from: shipped with the package, or compiled by Numba."""
