"""How wheels with compiled kernels are built; nothing here is installed."""
