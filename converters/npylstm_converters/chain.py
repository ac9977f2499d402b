"""The old place of :mod:`npylstm_converters.toolkit.chain`, while some importers still use it."""

from npylstm_converters.toolkit.chain import Step, command_of, parse_steps, plausible_values

__all__ = ["Step", "command_of", "parse_steps", "plausible_values"]
