"""Stripe: for each filter the positions of its kernel that stay (system C)."""

from prune_env.granularity.stripe.edit import StripeEdit, why_not_striped
from prune_env.granularity.stripe.striped import StripedConv2d

__all__ = ["StripeEdit", "StripedConv2d", "why_not_striped"]
