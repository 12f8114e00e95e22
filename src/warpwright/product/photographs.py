"""Photographs (RGB or grey pictures) as the images of one channel that a registration compares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.product.choices import Header, Photograph
from warpwright.product.inputs import ImageLike, any_image, mask_on, one_channel
from warpwright.sampling import enhance_fundus, field_of_view, green_channel, luminance

__all__ = ["Seen", "seen", "size_note"]

LEAST_VIEW = 0.1  # of the picture, that a field of view covers
LEAST_SIDE = 8  # pixels: contrast is evened out in 8 x 8 tiles
UNLIKE = 2.0  # times the size of the other photograph's pixels, from which a person is told
HINT = " (of a photograph, --photograph fundus, green or grey takes one)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """An image as a registration sees it.

    Args:
        image: (1, *S) float32.
        view: (1, *S), 1 in the field of view of a fundus photograph and 0 outside; None for all else.
        colours: the photograph itself, (1, *S) or (3, *S), 0 to 255; None for an image that is none.
    """

    image: Image
    view: Image | None = None
    colours: Image | None = None

    def mask(self, given: ImageLike | None, role: str, header: Header) -> Image | None:
        """The weights that a person gave for this image, or else its field of view.

        Raises:
            BadInput: see `mask_on`.
        """
        return self.view if given is None else mask_on(given, self.image, role, header)


def seen(value: ImageLike, role: str, header: Header, series: str | None, photograph: Photograph | None) -> Seen:
    """Read an image, as a photograph of the given kind or, with None, as an image of one channel.

    Args:
        value: see `ImageLike`.
        role: what a message calls it when it has no name of its own.
        header: which affine of a NIfTI image counts when its two disagree.
        series: which series of a DICOM folder that holds several.
        photograph: "green" takes the green channel and "grey" the luminance, 0 to 255; "fundus" the green channel with its
            contrast evened out, 0 to 1, and the field of view. A photograph of one channel is its own green and grey.

    Raises:
        BadInput: it cannot be read, is constant, has several channels and is no photograph, or is no photograph that can be
            used: 3 axes, other channels than grey or RGB with or without alpha, negative values, no field of view.
    """
    image = any_image(value, role, header, series)
    if photograph is None:
        return Seen(image=one_channel(image, HINT if image.grid.dim == 2 else ""))
    colours = _colours(image)
    if photograph == "fundus":
        return _fundus(colours)
    data = (green_channel if photograph == "green" else luminance)(colours.data)
    return Seen(image=_structured(replace(colours, data=data), data), colours=colours)


def size_note(fixed: Seen, moving: Seen) -> tuple[str, ...]:
    """A sentence if the pixels of two photographs differ much in size: files with and without a resolution in them."""
    one, two = (max(look.image.grid.spacing) for look in (fixed, moving))
    if moving.colours is None or max(one, two) < UNLIKE * min(one, two):
        return ()
    sizes = f"{two:.3g} mm, those of {fixed.image.name} {one:.3g} mm"
    return (f"{moving.image.name}: its pixels are {sizes}, as the files' resolutions say; the search begins from there",)


def _colours(image: Image) -> Image:
    """A picture of 1 or 3 channels, 0 to 255, without alpha."""
    if image.grid.dim != 2:
        raise BadInput(f"{image.name}: has {image.grid.dim} axes, a photograph of 2 was expected")
    if image.channels > 4:
        raise BadInput(
            f"{image.name}: has {image.channels} channels, a photograph was expected: grey or RGB, perhaps with alpha"
        )
    if float(image.data.min()) < 0:
        raise BadInput(f"{image.name}: has a negative value ({float(image.data.min()):g}), a photograph with none was expected")
    data, notes = image.data, image.notes
    if image.channels in (2, 4):
        data, notes = data[:-1], (*notes, f"{image.name}: its alpha channel is left out")
    return Image(data * (255 / _white(data)), image.grid, image.name, notes)


def _white(data: Tensor) -> float:
    """The largest value that pixels can have: 1 of fractions, 255, or more in files of more than 8 bits."""
    top = float(data.max())
    return 1.0 if top <= 1 else max(255.0, 2.0 ** math.ceil(math.log2(top + 1)) - 1)


def _fundus(colours: Image) -> Seen:
    if min(colours.grid.shape) < LEAST_SIDE:
        raise BadInput(f"{colours.name}: has {colours.grid.shape} pixels, at least {LEAST_SIDE} along each axis were expected")
    view = field_of_view(colours.data)
    share = float(view.mean())
    if share < LEAST_VIEW:
        raise BadInput(
            f"{colours.name}: shows no field of view (its largest part that is not dark covers {100 * share:.2g} % of the"
            f" picture), a fundus photograph with at least {100 * LEAST_VIEW:g} % was expected"
        )
    _structured(colours, green_channel(colours.data)[view > 0])
    notes = (*colours.notes, f"{colours.name}: its field of view is {100 * share:.1f} % of the picture")
    image = replace(colours, data=enhance_fundus(colours.data, view), notes=notes)
    return Seen(image=image, view=replace(colours, data=view), colours=colours)


def _structured(image: Image, counted: Tensor) -> Image:
    """The image, unless the pixels that count are all of one value."""
    if bool((counted == counted.flatten()[0]).all()):
        raise BadInput(f"{image.name}: every pixel that counts is {float(counted.flatten()[0]):g}, some structure was expected")
    return image
