"""Stripes: for each filter of a convolution the kernel positions that stay."""
