"""A convolution that computes only the stripes that stay: kernel positions of single filters.

The stripes are those of PFF (Meng et al., NeurIPS 2020). PFF's released code multiplies at the input's resolution,
which costs four times as much where the stride is 2. Here every product is at the output's resolution, so that the
multiply-adds are exactly stripes * input channels * output pixels. How the products are batched is our choice, by
measurement: ``benchmarks/stripes.py``.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from prune_env.common.errors import UserError

PIXELS = 64
"""From this number of output pixels on a batched matrix product is faster than a 1 x 1 convolution [measured]."""


class StripedConv2d(nn.Module):
    """An ungrouped convolution that lacks some kernel positions of some filters.

    Args:
        positions: For each filter the kernel positions that stay, ascending; row i and column j of the kernel are
            position i * kernel width + j. A filter without positions computes its bias alone.
        weight: The stripes [stripes, in_channels], ordered by kernel column, then kernel row, then filter.
        bias: [out_channels], or None.
        layer: The convolution whose kernel size, stride, padding and dilation this one has.

    Attributes:
        index: int64 [stripes]: the filter of each stripe.
        counts: For each kernel column and row the number of stripes there, as ``counts[column][row]``.
        start: Where the kernel starts, in rows and columns of the image; negative in the padding.
    """

    index: Tensor
    bias: nn.Parameter | None

    def __init__(
        self, positions: Sequence[Sequence[int]], weight: nn.Parameter, bias: nn.Parameter | None, layer: nn.Conv2d
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, len(positions)
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding = layer.padding
        # torch keeps the padding in numbers, also of "same": left, right, top, bottom.
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        self.start, self._padded = (-top, -left), (top + bottom, left + right)
        at = _filters_by_place(positions, self.kernel_size)
        self.counts = [[len(filters) for filters in column] for column in at]
        index = [number for column in at for filters in column for number in filters]
        # The plan holds the index; a weight file must not change it.
        self.register_buffer("index", torch.tensor(index, device=weight.device), persistent=False)
        self.weight = weight
        self.register_parameter("bias", bias)

    @classmethod
    def from_convolution(cls, layer: nn.Conv2d, positions: Sequence[Sequence[int]]) -> "StripedConv2d":
        """Takes the stripes that stay out of a convolution, with their weights.

        Args:
            layer: An ungrouped convolution that pads with zeros; its tensors are copied.
            positions: For each filter the kernel positions that stay, ascending; at least one in all.

        Raises:
            UserError: If the convolution is grouped or pads otherwise, or the positions do not fit.
        """
        check_stripes(layer, positions)
        dense = layer.weight.detach()
        at = _filters_by_place(positions, layer.kernel_size)
        stripes = [dense[own, :, i, j] for j, column in enumerate(at) for i, own in enumerate(column) if own]
        weight = nn.Parameter(torch.cat(stripes), requires_grad=layer.weight.requires_grad)
        bias = None
        if layer.bias is not None:
            bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
        return cls(positions, weight, bias, layer).train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ...]."""
        kind = images.device.type
        if torch.is_autocast_enabled(kind):  # products then have this type, and sums must have it, too
            images = images.to(torch.get_autocast_dtype(kind))
        height, width = self.output_size(images.shape[2], images.shape[3])
        shape = (images.shape[0], self.out_channels, height, width)
        if self.bias is None:
            outputs = images.new_zeros(shape)
        else:
            bias = self.bias.to(images.dtype)[:, None, None]
            outputs = bias.expand(shape).clone(memory_format=torch.contiguous_format)
        # One product serves all rows of a kernel column if the image has no more rows than the output.
        add = self._add_column if self.stride[0] == 1 and images.shape[2] <= height else self._add_places
        sizes = [sum(counts) for counts in self.counts]
        parts = zip(self.weight.split(sizes), self.index.split(sizes), self.counts, strict=True)
        for column, (weight, filters, counts) in enumerate(parts):
            if len(weight):
                start = self.start[1] + column * self.dilation[1]
                add(outputs, _read(images, 3, start, self.stride[1], width), weight, filters, counts)
        return outputs

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an image of this size, in pixels."""
        rows, columns = (
            (size + padded - dilation * (kernel - 1) - 1) // stride + 1
            for size, padded, dilation, kernel, stride in zip(
                (height, width), self._padded, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        return rows, columns

    def _add_column(
        self, outputs: Tensor, strip: Tensor, weight: Tensor, filters: Tensor, counts: Sequence[int]
    ) -> None:
        """Adds the stripes of one kernel column by one product; each kernel row's share is added shifted."""
        height = outputs.shape[2]
        products = _product(weight, _read(strip, 2, 0, 1, height))
        for row, (own, part) in enumerate(zip(filters.split(counts), products.split(counts, 1), strict=True)):
            start = self.start[0] + row * self.dilation[0]
            first, end = max(0, -start), min(height, height - start)
            if counts[row] and first < end:
                outputs[:, :, first:end].index_add_(1, own, part[:, :, first + start : end + start])

    def _add_places(
        self, outputs: Tensor, strip: Tensor, weight: Tensor, filters: Tensor, counts: Sequence[int]
    ) -> None:
        """Adds the stripes of one kernel column by one product for each kernel row."""
        for row, (own, part) in enumerate(zip(filters.split(counts), weight.split(counts), strict=True)):
            if counts[row]:
                start = self.start[0] + row * self.dilation[0]
                outputs.index_add_(1, own, _product(part, _read(strip, 2, start, self.stride[0], outputs.shape[2])))

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, stripes={len(self.weight)}"
        )


def check_stripes(layer: nn.Conv2d, positions: Sequence[Sequence[int]]) -> None:
    """Refuses stripes that a convolution does not have.

    Raises:
        UserError: Names the filter and the problem.
    """
    if layer.groups != 1 or layer.padding_mode != "zeros":
        raise UserError(
            f"a convolution of {layer.groups} groups with padding mode {layer.padding_mode!r} is given; only an "
            "ungrouped one that pads with zeros can lose stripes."
        )
    if len(positions) != layer.out_channels or not any(positions):
        raise UserError(
            f"{sum(map(len, positions))} stripes of {len(positions)} filters are given for {layer.out_channels} output "
            "channels; there must be one list for each, and at least one stripe."
        )
    kernel = prod(layer.kernel_size)
    for number, own in enumerate(positions):
        if list(own) != sorted(set(own)) or (own and not 0 <= own[0] <= own[-1] < kernel):
            raise UserError(
                f"filter {number} keeps the positions {list(own)}; they must be ascending, each once, of 0 to "
                f"{kernel - 1}."
            )


def _filters_by_place(positions: Sequence[Sequence[int]], kernel_size: tuple[int, ...]) -> list[list[list[int]]]:
    """The filters that keep each kernel position, as ``[column][row]``."""
    height, width = kernel_size
    at: list[list[list[int]]] = [[[] for _ in range(height)] for _ in range(width)]
    for number, own in enumerate(positions):
        for position in own:
            at[position % width][position // width].append(number)
    return at


def _read(images: Tensor, axis: int, start: int, step: int, size: int) -> Tensor:
    """``size`` slices of the images along an axis, ``step`` apart from ``start`` on; zeros outside the images."""
    given = images.shape[axis]
    first = min(max(0, -(start // step)), size)
    end = max(first, min(size, (given - 1 - start) // step + 1))
    low, high = (start + first * step, start + (end - 1) * step + 1) if first < end else (0, 0)
    part = images[(slice(None),) * axis + (slice(low, high, step),)]
    zeros = (first, size - end)
    return functional.pad(part, zeros if axis == 3 else (0, 0, *zeros)) if any(zeros) else part


def _product(weight: Tensor, images: Tensor) -> Tensor:
    """[n, C] times [N, C, H, W] to [N, n, H, W]."""
    if images.shape[2] * images.shape[3] >= PIXELS:
        # torch.matmul would copy the images into one matrix, because the weight needs a gradient.
        products = torch.bmm(weight.expand(images.shape[0], -1, -1), images.flatten(2))
        return products.view(images.shape[0], weight.shape[0], *images.shape[2:])
    return functional.conv2d(images, weight[:, :, None, None])
