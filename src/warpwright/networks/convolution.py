"""Convolution of volumes that always takes the quicker way on a CPU."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["Convolution3d"]

Axes = list[int]


class Convolution3d(nn.Conv3d):
    """As `torch.nn.Conv3d`, by oneDNN also for one small volume.

    For a batch of one whose channels times the first two of its three axes are at most 20480, torch takes a way of its own that
    is up to six times slower; the rule was made for images. Results agree to rounding. The transforms of `torch.func` do not
    know the quicker way.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if len(input) > 1 or input.ndim != 5 or not plain or not _served(input, weight):
            return super()._conv_forward(input, weight, bias)
        settings = [list(cast(tuple[int, ...], s)) for s in (self.padding, self.stride, self.dilation)]
        return cast(Tensor, _OneDNN.apply(input, weight, bias, *settings, self.groups))


def _served(volume: Tensor, weight: Tensor) -> bool:
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 and not t.is_mkldnn for t in (volume, weight))
    traced = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    return plain and not traced and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


class _OneDNN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, weight: Tensor, bias: Tensor | None, padding: Axes, stride: Axes, dilation: Axes, groups: int
    ) -> Tensor:
        ctx.save_for_backward(volume, weight)
        ctx.settings = (None if bias is None else list(bias.shape), stride, padding, dilation, False, [0, 0, 0], groups)
        return torch.ops.aten.mkldnn_convolution(volume, weight, bias, padding, stride, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        volume, weight = ctx.saved_tensors
        needed, cotangent = list(ctx.needs_input_grad[:3]), cotangents[0]
        if torch.is_grad_enabled():  # a second derivative goes torch's way
            found = torch.ops.aten.convolution_backward(cotangent, volume, weight, *ctx.settings, needed)
        else:
            blocked = cotangent.to_mkldnn(), volume.to_mkldnn()
            found = torch.ops.aten.convolution_backward(*blocked, weight, *ctx.settings, needed)
            found = tuple(None if f is None else f.to_dense() if f.is_mkldnn else f for f in found)
        return (*found, None, None, None, None)
