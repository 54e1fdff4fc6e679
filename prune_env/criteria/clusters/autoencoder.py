"""An autoencoder of filters, whose latent numbers are the filters' features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

STEPS = 500
NOISE = 0.05
LATENT_PENALTY = 1e-4
RATE = 1e-3
BATCH = 256
"""Filters per step; a layer with fewer filters uses all of them in every step."""


class FilterAutoencoder(nn.Module):
    """An autoencoder with one hidden ReLU layer on either side and a linear latent layer.

    The sizes and settings are our choice; the paper says only "a DNN model". The random numbers come from the
    autoencoder's own generator, so torch's global generator does not change.

    Args:
        inputs: Input numbers per filter.
        latent: Features per filter.
        hidden: Hidden neurons on either side.
        seed: Seed of the initial weights, the noise and the batches.
    """

    def __init__(self, inputs: int, latent: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.encoder = self._layers((inputs, hidden, latent))
        self.decoder = self._layers((latent, hidden, inputs))

    def _layers(self, sizes: Sequence[int]) -> nn.Sequential:
        layers = [nn.utils.skip_init(nn.Linear, one, other) for one, other in pairwise(sizes)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=self.generator)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(layers[0], nn.ReLU(), layers[1])

    def fit(self, rows: Tensor, steps: int = STEPS, batch: int = BATCH) -> Tensor:
        """Trains the autoencoder with Adam to restore filters from noisy filters, then encodes the filters.

        Args:
            rows: Filters, float32 [n, inputs], with a standard deviation of about 1.
            steps: Training steps.
            batch: Filters per step.

        Returns:
            The filters' features [n, latent].
        """
        optimizer = torch.optim.Adam(self.parameters(), RATE, fused=True)
        for _ in range(steps):
            clean = rows
            if len(rows) > batch:
                clean = rows[torch.randint(len(rows), (batch,), generator=self.generator)]
            noise = torch.randn(clean.shape, generator=self.generator)
            latent = self.encoder(clean + NOISE * noise)
            loss = (self.decoder(latent) - clean).square().mean()
            loss = loss + LATENT_PENALTY * latent.square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.encode(rows)

    @torch.no_grad()
    def encode(self, rows: Tensor) -> Tensor:
        """Returns the features [n, latent] of filters [n, inputs]."""
        features: Tensor = self.encoder(rows)
        return features
