"""Colour photographs as images of one channel, and photographs of the fundus with their contrast evened out."""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import numpy as np
import scipy  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch import Tensor

__all__ = ["enhance_fundus", "equalise", "field_of_view", "green_channel", "luminance"]

WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in the luminance: ITU-R BT.601
BRIGHT = 99.0  # percentile of the brightest channel that stands for the inside of the field of view
SHARE = 0.1  # of it, above which a pixel is inside: the disc's own area within 0.5 % on all photographs of CHASE_DB1
DARK = 8.0  # of 255: no pixel below is inside
LEVELS = 256  # of grey, for histograms
GAMMA = 1.2


def green_channel(photograph: Tensor) -> Tensor:
    """The channel in which vessels stand out: (3, *S) RGB to (1, *S); an image of one channel is its own."""
    return photograph[1:2] if len(photograph) == 3 else photograph


def luminance(photograph: Tensor) -> Tensor:
    """Brightness to the eye (ITU-R BT.601): (3, *S) RGB to (1, *S) in the same unit; an image of one channel is its own."""
    if len(photograph) != 3:
        return photograph
    return (photograph * photograph.new_tensor(WEIGHTS).reshape(3, *(1,) * (photograph.ndim - 1))).sum(0, keepdim=True)


def field_of_view(photograph: Tensor) -> Tensor:
    """Where the camera saw the fundus: the largest connected part that is not dark, its holes filled.

    A pixel is not dark where its brightest channel (red, as a rule) is above a tenth of that channel's 99th percentile.

    Args:
        photograph: (C, *S), 0 to 255.

    Returns:
        (1, *S) float32, 1 inside and 0 outside; 0 everywhere if the photograph is dark.
    """
    untyped = cast(Any, scipy.ndimage)
    brightest = photograph.amax(0).cpu().numpy()
    parts, count = untyped.label(brightest > max(SHARE * float(np.percentile(brightest, BRIGHT)), DARK))
    if not count:
        return torch.zeros_like(photograph[:1], dtype=torch.float32)
    sizes = np.bincount(parts.ravel())
    whole = untyped.binary_fill_holes(parts == 1 + np.argmax(sizes[1:]))
    return torch.as_tensor(whole[None], dtype=torch.float32, device=photograph.device)


def equalise(image: Tensor, *, tiles: int = 8, clip: float = 2.0) -> Tensor:
    """Contrast-limited adaptive histogram equalisation: brightness and contrast become alike all over the image.

    Each tile maps grey levels by its cumulative histogram, in which no level counts more than `clip` times the mean of all and
    the excess is spread evenly over them; between the centres of tiles their maps are interpolated linearly. An image
    whose size is no multiple of the tiles' is mirrored at its far ends.

    Args:
        image: (1, *S), 0 to 255; each axis at least `tiles` long.
        tiles: along each axis.
        clip: limit of the contrast.

    Returns:
        (1, *S) float32, 0 to 255.

    Reference:
        Zuiderveld: Contrast Limited Adaptive Histogram Equalization, Graphics Gems IV, 1994. As in OpenCV the limit is in
        units of the mean count; unlike there maps are not rounded, and the centre of a tile is exact.
    """
    shape = image.shape[1:]
    edges = [-(-n // tiles) for n in shape]
    margins = [m for n, edge in zip(shape[::-1], edges[::-1], strict=True) for m in (0, tiles * edge - n)]
    padded = torch.nn.functional.pad(image[None].to(torch.float32), margins, mode="reflect")[0, 0]
    tile = _flat([torch.arange(n, device=image.device) // e for n, e in zip(padded.shape, edges, strict=True)], tiles)
    codes = tile * LEVELS + padded.clamp(0, LEVELS - 1).long()
    counts = torch.bincount(codes.flatten(), minlength=LEVELS * tiles ** len(shape)).reshape(-1, LEVELS).to(torch.float64)
    mean = padded.numel() / counts.numel()
    limited = counts.clamp(max=max(clip * mean, 1.0))
    limited += (counts - limited).mean(1, keepdim=True)
    curves = (limited.cumsum(1) * ((LEVELS - 1) / (LEVELS * mean))).to(torch.float32).flatten()
    level = image[0].clamp(0, LEVELS - 1).long()
    places = [(torch.arange(n, device=image.device) + 0.5) / e - 0.5 for n, e in zip(shape, edges, strict=True)]
    result = torch.zeros_like(image[0], dtype=torch.float32)
    for corner in product((0, 1), repeat=len(shape)):
        near = [p.floor().long() + c for p, c in zip(places, corner, strict=True)]
        found = curves[_flat([n.clamp(0, tiles - 1) for n in near], tiles) * LEVELS + level]
        for axis, (place, index) in enumerate(zip(places, near, strict=True)):
            found *= _along(1 - (place - index).abs(), axis, len(shape))
        result += found
    return result[None].clamp_(max=LEVELS - 1)  # the weights sum to one but for rounding


def enhance_fundus(photograph: Tensor, view: Tensor) -> Tensor:
    """Vessels of a fundus photograph in even light: the green channel, equalised, with a gamma of 1.2.

    It is first stretched to 0 to 255 (a standardisation before that, which some do, would change nothing).

    Args:
        photograph: (3, *S) RGB or (1, *S), 0 to 255; each axis at least 8 long.
        view: (1, *S), 1 in the field of view and 0 outside.

    Returns:
        (1, *S) float32, 0 to 1; 0 outside the field of view.
    """
    green = green_channel(photograph).to(torch.float32)
    low, high = green.aminmax()
    stretched = (green - low) * ((LEVELS - 1) / (high - low).clamp(min=torch.finfo(torch.float32).eps))
    return (equalise(stretched) / (LEVELS - 1)) ** (1 / GAMMA) * view


def _along(values: Tensor, axis: int, dim: int) -> Tensor:
    """(n,) as a tensor of `dim` axes that varies along one of them."""
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])


def _flat(indices: list[Tensor], tiles: int) -> Tensor:
    """Numbers (*S) of the tiles with the given indices along each axis."""
    number = torch.zeros((), dtype=torch.long, device=indices[0].device)
    for axis, index in enumerate(indices):
        number = number * tiles + _along(index, axis, len(indices))
    return number
