"""Planted mistakes: what ``npylstm.diagnose`` says of outputs that somebody else got wrong.

The wrong outputs come from :mod:`planted.oracle`, a forward pass of its own that shares no code with
npylstm. :mod:`planted.mistakes` changes the model that the oracle reads, its data or its formulas;
:mod:`planted.matrix` asks npylstm for the diagnosis and scores it.
"""
