"""Native kernels, and the table of kernels."""
