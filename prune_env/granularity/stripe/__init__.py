"""Stripes: each filter keeps some positions of its kernel (PFF, Meng et al., NeurIPS 2020)."""

from prune_env.granularity.stripe.edit import StripeEdit, why_not_striped
from prune_env.granularity.stripe.striped import StripedConv2d

__all__ = ["StripeEdit", "StripedConv2d", "why_not_striped"]
