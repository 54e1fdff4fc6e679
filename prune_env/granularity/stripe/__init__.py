"""Stripe: for each filter the positions of its kernel that stay (system C)."""

from prune_env.granularity.stripe.edit import StripeEdit, stripes_of, why_not_striped
from prune_env.granularity.stripe.granularity import Stripe
from prune_env.granularity.stripe.striped import StripedConv2d

__all__ = ["Stripe", "StripeEdit", "StripedConv2d", "stripes_of", "why_not_striped"]
