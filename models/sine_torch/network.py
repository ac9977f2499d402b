"""The network of an introduction to LSTMs in PyTorch: the next value of a noisy sine wave."""

from __future__ import annotations

import torch
from torch import nn

LENGTH, FREQ, HIDDEN = 50, 60.0, 5


class Predictor(nn.Module):
    """LSTM over (batch, steps, features), last step, Linear."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_size=input_size, hidden_size=hidden_size, batch_first=True)
        self.output_layer = nn.Linear(hidden_size, output_size)

    def forward(
        self, inputs: torch.Tensor, hidden0: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Predict (batch, output) from (batch, steps, input)."""
        output, (_hidden, _cell) = self.rnn(inputs, hidden0)
        return self.output_layer(output[:, -1, :])
