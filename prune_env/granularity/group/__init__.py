"""Groups: channels, and convolutions that fall into groups which read inputs of their own choice (AGSPRL)."""
