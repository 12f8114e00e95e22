"""Numbers as pictures inside a page: data URIs of PNG, or of WebP where a PNG would be large."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np

__all__ = ["DIFFERENCE", "FOLD", "JACOBIAN", "colour", "grey", "mapped", "reduced"]

LARGE = 120_000  # bytes of a PNG, from which WebP takes its place
QUALITY = 90
DIFFERENCE = ("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4")
JACOBIAN = (
    *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
    *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
)
FOLD = "#00ff00"


def reduced(values: np.ndarray, factor: int, how: Callable[..., np.ndarray] = np.mean) -> np.ndarray:
    """Blocks of `factor` x `factor` pixels as one; the last ones are filled up with the border.

    Args:
        values: (rows, columns).
        factor: at least 1, which changes nothing.
        how: what one pixel is made of; a function with an `axis`.
    """
    if factor == 1:
        return values
    rows, columns = (-(-n // factor) for n in values.shape)
    missing = [(0, m * factor - n) for m, n in zip((rows, columns), values.shape, strict=True)]
    blocks = np.pad(values, missing, mode="edge").reshape(rows, factor, columns, factor)
    return how(blocks, axis=(1, 3))


def grey(shares: np.ndarray) -> str:
    """A picture of (rows, columns) shares, 0 black to 1 white."""
    return _uri(_bytes(shares))


def colour(channels: Sequence[np.ndarray]) -> str:
    """A picture of red, green and blue, or of grey alone, each (rows, columns) 0 to 1."""
    return grey(channels[0]) if len(channels) == 1 else _uri(np.stack([_bytes(channel) for channel in channels], -1))


def mapped(shares: np.ndarray, anchors: Sequence[str], marked: np.ndarray | None = None) -> str:
    """A picture in the colours of a scale.

    Args:
        shares: (rows, columns), 0 to 1 along the scale.
        anchors: colours at equal steps along it, `#rrggbb`.
        marked: (rows, columns), true where a pixel has the colour of a fold instead.
    """
    stops = np.array([_rgb(one) for one in anchors])
    at = np.linspace(0, 1, 255)
    table = np.stack([np.interp(at, np.linspace(0, 1, len(stops)), stops[:, k]) for k in range(3)], 1)
    table = np.concatenate([table, [_rgb(FOLD)]]).round().astype(np.uint8)
    index = (np.clip(shares, 0, 1) * 254).round().astype(np.uint8)
    return _uri(index if marked is None else np.where(marked, np.uint8(255), index), table)


def _bytes(shares: np.ndarray) -> np.ndarray:
    return (np.clip(shares, 0, 1) * 255).round().astype(np.uint8)


def _rgb(name: str) -> tuple[int, int, int]:
    return int(name[1:3], 16), int(name[3:5], 16), int(name[5:7], 16)


def _uri(pixels: np.ndarray, palette: np.ndarray | None = None) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        image.putpalette(palette.tobytes())
    kind, data = "png", _encoded(image, format="PNG", compress_level=6)
    if len(data) > LARGE:
        kind, data = "webp", _encoded(image.convert("RGB"), format="WEBP", quality=QUALITY, method=2)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _encoded(image: object, **how: object) -> bytes:
    stream = BytesIO()
    image.save(stream, **how)  # pyright: ignore[reportAttributeAccessIssue]
    return stream.getvalue()
