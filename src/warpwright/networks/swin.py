"""Swin transformer encoder on images with any number of axes (Liu et al., ICCV 2021), as TransMorph uses it.

Self-attention works within windows; every second block shifts the windows by half, so that neighbours meet. Features are
(B, *T, C) inside, channels last. Masks and indices follow from the sizes at call time: nothing here depends on an image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.networks.layers import CONVOLUTION, Block

__all__ = ["Merge", "SwinBlock", "SwinEncoder", "WindowAttention", "from_windows", "to_windows"]

PATCH = 4  # voxels to a token along each axis


class SwinEncoder(nn.Module):
    """Patches of 4 voxels, then a stage of Swin blocks on each of several lattices, each half as fine and twice as wide.

    Args:
        dim: axes of the images.
        channels: channels of the input.
        embed: channels of the first stage.
        depths: blocks of each stage.
        heads: attention heads of each stage, divisors of its channels.
        window: window of attention, tokens along each axis.
        drop_path: how often a block's branch is left out in training, rising linearly from 0 to this over all blocks.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        embed: int,
        *,
        depths: Sequence[int],
        heads: Sequence[int],
        window: Sequence[int],
        drop_path: float,
    ) -> None:
        super().__init__()
        widths = [embed * 2**i for i in range(len(depths))]
        rates = iter([drop_path * k / (sum(depths) - 1) for k in range(sum(depths))])
        self.embedding = CONVOLUTION[dim](channels, embed, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(embed)
        self.stages = nn.ModuleList(
            nn.Sequential(*(SwinBlock(c, h, window, shifted=i % 2 == 1, drop_path=next(rates)) for i in range(depth)))
            for c, h, depth in zip(widths, heads, depths, strict=True)
        )
        self.merges = nn.ModuleList(Merge(dim, fine, coarse) for fine, coarse in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of each stage, fine to coarse.

        Args:
            images: (B, channels, *S), any S; zeros fill up the last patch.

        Returns:
            (B, embed 2^i, *T_i), T_0 = ceil(S / 4), T_i = ceil(T_(i - 1) / 2).
        """
        whole = _fill(images.movedim(1, -1), [PATCH] * (images.ndim - 2)).movedim(-1, 1)
        tokens = self.norm(self.embedding(whole).movedim(1, -1))
        out: list[Tensor] = []
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            tokens = stage(self.merges[i - 1](tokens) if i else tokens)
            out.append(norm(tokens).movedim(-1, 1))
        return out


class SwinBlock(Block):
    """Window attention and a perceptron of one hidden layer, each behind a layer norm and beside a residual path."""

    def __init__(self, channels: int, heads: int, window: Sequence[int], *, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window, shifted=shifted)
        self.norm2 = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def compute(self, *inputs: Tensor) -> Tensor:
        """(B, *T, C) to the same shape."""
        (tokens,) = inputs
        tokens = tokens + self._drop(self.attention(self.norm1(tokens)))
        return tokens + self._drop(self.perceptron(self.norm2(tokens)))

    def _drop(self, branch: Tensor) -> Tensor:
        """In training, a branch without some samples; the others are scaled up, so that its mean stays."""
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        return branch * branch.new_empty(len(branch), *[1] * (branch.ndim - 1)).bernoulli_(keep).div_(keep)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every offset between two tokens of a window.

    The lattice is filled with zeros to whole windows; these take part, with key and value zero, as in the original. A shifted
    lattice is rolled by half a window; tokens that only the rolling brought together do not see one another.
    """

    def __init__(self, channels: int, heads: int, window: Sequence[int], *, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = tuple(window)
        self.shift = tuple(w // 2 if shifted else 0 for w in window)
        self.bias = nn.Parameter(torch.empty(prod(2 * w - 1 for w in window), heads))  # offset, head
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.projection = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, *T, C) to the same shape, any T."""
        axes = tuple(range(1, tokens.ndim - 1))
        filled = _fill(tokens, self.window)
        windows = to_windows(filled.roll([-s for s in self.shift], axes), self.window)
        size = filled.shape[1:-1]
        out = from_windows(self._attend(windows, self._logits(size)), self.window, size)
        return self.projection(out.roll(self.shift, axes)[(slice(None), *(slice(n) for n in tokens.shape[1:-1]))])

    def _attend(self, windows: Tensor, logits: Tensor) -> Tensor:
        """Attention of (B, n, N, C) with logits (n, heads, N, N), or (1, heads, N, N) for all windows."""
        queries, keys, values = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        flat = (-1, len(logits) * self.heads, *queries.shape[3:])  # (B n, heads, ...) or (B, n heads, ...): no copies of logits
        mask = logits.flatten(0, 1)[None].to(queries.dtype)
        out = F.scaled_dot_product_attention(queries.reshape(flat), keys.reshape(flat), values.reshape(flat), attn_mask=mask)
        return out.reshape(queries.shape).transpose(2, 3).flatten(3)

    def _logits(self, size: Sequence[int]) -> Tensor:
        """What is added to the logits: the bias, and minus infinity where two tokens of a shifted window are strangers."""
        bias = self.bias[offset_index(self.window, self.bias.device)].permute(2, 0, 1)[None]
        if not any(self.shift):
            return bias
        region = torch.zeros((1, *size, 1), dtype=torch.long, device=bias.device)
        for axis, (n, s) in enumerate(zip(size, self.shift, strict=True), start=1):
            wrapped = torch.arange(n, device=bias.device) >= n - s
            region = 2 * region + wrapped.reshape(-1, *[1] * (len(size) - axis + 1))
        region = to_windows(region, self.window)[0]
        return bias.masked_fill((region != region.mT)[:, None], float("-inf"))


class Merge(nn.Module):
    """Each 2^D neighbours become one token of twice the channels."""

    def __init__(self, dim: int, fine: int, coarse: int) -> None:
        super().__init__()
        self.window = (2,) * dim
        self.norm = nn.LayerNorm(2**dim * fine)
        self.reduction = nn.Linear(2**dim * fine, coarse, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, *T, fine) to (B, *ceil(T / 2), coarse)."""
        filled = _fill(tokens, self.window)
        merged = self.reduction(self.norm(to_windows(filled, self.window).flatten(2)))
        return merged.unflatten(1, [n // 2 for n in filled.shape[1:-1]])


def to_windows(tokens: Tensor, window: Sequence[int]) -> Tensor:
    """(B, *T, C), T whole windows, to (B, windows, tokens of a window, C), both in row-major order."""
    dim = len(window)
    for axis in reversed(range(dim)):
        tokens = tokens.unflatten(1 + axis, (-1, window[axis]))
    outer, inner = range(1, 1 + 2 * dim, 2), range(2, 2 + 2 * dim, 2)
    return tokens.permute(0, *outer, *inner, 1 + 2 * dim).flatten(1, dim).flatten(2, 1 + dim)


def from_windows(windows: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """The way back from `to_windows`: (B, windows, tokens of a window, C) to (B, *size, C)."""
    dim = len(window)
    tokens = windows.unflatten(2, list(window)).unflatten(1, [n // w for n, w in zip(size, window, strict=True)])
    pairs = (i for axis in range(1, 1 + dim) for i in (axis, axis + dim))
    return tokens.permute(0, *pairs, 1 + 2 * dim).reshape(len(windows), *size, -1)


def offset_index(window: Sequence[int], device: torch.device) -> Tensor:
    """For tokens i and j of a window, the row-major number of the offset i - j, from 1 - w to w - 1 along each axis: (N, N)."""
    places = torch.cartesian_prod(*(torch.arange(w, device=device) for w in window))
    index = torch.zeros((len(places),) * 2, dtype=torch.long, device=device)
    for axis, w in enumerate(window):
        index = index * (2 * w - 1) + places[:, None, axis] - places[None, :, axis] + w - 1
    return index


def _fill(tokens: Tensor, window: Sequence[int]) -> Tensor:
    """Zeros at the end of each axis of (B, *T, C), up to whole windows."""
    missing = [-n % w for n, w in zip(tokens.shape[1:-1], window, strict=True)]
    ends = [e for m in reversed(missing) for e in (0, m)]
    return F.pad(tokens, [0, 0, *ends]) if any(missing) else tokens
