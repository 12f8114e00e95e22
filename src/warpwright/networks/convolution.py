"""Convolutions of volumes that take the quicker way on a CPU, and there in bfloat16 the right one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["Convolution3d", "Transposed3d"]

Axes = list[int]


class Convolution3d(nn.Conv3d):
    """As `torch.nn.Conv3d`, by oneDNN also for one small volume, and in single precision where bfloat16 would come out wrong.

    For a batch of one whose channels times the first two of its three axes are at most 20480, torch takes a way of its own that
    is up to six times slower; the rule was made for images. Results agree to rounding. The transforms of `torch.func` do not
    know the quicker way.

    In bfloat16 the CPU's gradient of the weights reads memory that was never written (torch 2.13.0) where the first axis of the
    volume is shorter than the kernel: at the coarse end of a U-Net, say.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.shape[-3] < self.kernel_size[0] and _halved(input):
            with torch.autocast("cpu", enabled=False):
                return super()._conv_forward(input.float(), weight, bias).to(torch.bfloat16)
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if len(input) > 1 or input.ndim != 5 or not plain or not _served(input, weight):
            return super()._conv_forward(input, weight, bias)
        settings = [list(cast(tuple[int, ...], s)) for s in (self.padding, self.stride, self.dilation)]
        return cast(Tensor, _OneDNN.apply(input, weight, bias, *settings, self.groups))


class Transposed3d(nn.ConvTranspose3d):
    """As `torch.nn.ConvTranspose3d`; on a CPU in single precision where autocast asks for bfloat16.

    There the gradient of small volumes is wrong, or writes beyond its memory and ends the process (torch 2.13.0).
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        if not _halved(input):
            return super().forward(input, output_size)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float(), output_size).to(torch.bfloat16)


def _halved(volume: Tensor) -> bool:
    """Whether autocast has a CPU convolve it in bfloat16."""
    asked = volume.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return asked and torch.get_autocast_dtype("cpu") == torch.bfloat16


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
