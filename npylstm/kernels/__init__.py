"""Native code: one table of kernels, and the kernels."""
