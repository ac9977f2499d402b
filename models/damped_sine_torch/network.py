"""The network of an article on stacked LSTMs in PyTorch: sequence first, state in the open."""

from __future__ import annotations

import torch
from torch import nn

LENGTH, FEATURES, HIDDEN, LAYERS, OUTPUT = 50, 1, 20, 2, 5


class DampedSineWavePredictionModel(nn.Module):
    """Two stacked LSTM layers and a Linear on every step."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, output_size: int
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(
        self, input: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Predict (steps, batch, output) from (steps, batch, input) and both states."""
        output, (h, c) = self.lstm(input, (h, c))
        return self.out(output), (h, c)
