"""What importers share: translating operations, and array operations in one vocabulary."""
