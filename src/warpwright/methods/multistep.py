"""Networks in several steps: each looks at the moving image as the steps before it have left it, or at both at a coarser scale.

A step gives the trail of its estimates; the last one is a displacement on the lattice of the images it was given. Steps nest: a
step at a coarser scale, a step after a step, a step between two halves of another. Sizes are read when a step is called.

Reference: Tian et al., GradICON, CVPR 2023, section 4 (Down, TwoStep, equations 11 and 12). There maps live on a unit cube
whose corners are the middles of the outermost voxels, at every scale, although pooled voxels lie elsewhere (up to half a voxel
at the border). Here a coarse voxel stays where `Grid.downsample` puts it; `AtScale(placing="corners")` does as the code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, cast

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import full_precision, spatial
from warpwright.layers import AnyLayer, Pipeline, enlarged
from warpwright.methods.implicit import Implicit, Solving
from warpwright.methods.pyramid import Pyramid, Pyramidal
from warpwright.methods.step import Step, Trail, laid_out
from warpwright.networks import AnyArchitecture, Displacement, Estimate, Estimator, Velocity
from warpwright.sampling import downsample, warp
from warpwright.transforms import compose

__all__ = [
    "Antisymmetric",
    "AnyNetwork",
    "AtScale",
    "Direct",
    "Step",
    "SymmetricTwoStep",
    "TwoStep",
    "build_step",
    "layered",
    "sized",
    "stage_1",
]


@dataclass(frozen=True, kw_only=True)
class Direct:
    """One estimator with field layers of its own, in place of those that the model names for all.

    Args:
        network: the estimator.
        layers: what turns its estimate into a displacement of the lattice it was given.
    """

    network: AnyArchitecture
    layers: tuple[AnyLayer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TwoStep:
    """One step, then another that sees the moving image as the first has warped it: `x -> first(second(x))`.

    Args:
        first: step of the images as they are.
        second: step of what is left.
    """

    first: AnyNetwork
    second: AnyNetwork


@dataclass(frozen=True, kw_only=True)
class AtScale:
    """A step that looks at coarser images.

    Args:
        network: the step.
        factor: fine voxels to a coarse one along each axis.
        placing: "centres" smooths and samples where `Grid.downsample` puts coarse voxels; "corners" takes means of blocks and
            stretches the field until its outermost voxels lie on those of the image, as the paper's code does.

    Raises:
        BadInput: the factor is below 2.
    """

    network: AnyNetwork
    factor: int = 2
    placing: Literal["centres", "corners"] = "centres"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise BadInput(f"a step at a coarser scale needs a factor of at least 2, got {self.factor}")


@dataclass(frozen=True, kw_only=True)
class SymmetricTwoStep:
    """A step between two halves of another: `x -> first(second(first(x)))`; the second step sees both images moved half way.

    Where swapping the images inverts both steps (`Antisymmetric`), it inverts the whole.

    Args:
        first: step of the images as they are, which is done twice; it must give its inverse.
        second: step of what is left when the moving image is moved by the first and the fixed one by its inverse.

    Reference: Greer et al., ConstrICON, MICCAI 2023, arXiv 2307.07020 (the two-step approach that keeps inverse consistency).
    """

    first: AnyNetwork
    second: AnyNetwork


@dataclass(frozen=True, kw_only=True)
class Antisymmetric:
    """The velocity of a pair less that of the swapped pair, so that swapping the images inverts the map.

    Args:
        network: an estimator of velocities.

    Reference: Greer et al., ConstrICON, MICCAI 2023, arXiv 2307.07020.
    """

    network: AnyArchitecture


AnyNetwork = AnyArchitecture | Antisymmetric | AtScale | Direct | Implicit | Pyramid | SymmetricTwoStep | TwoStep


def stage_1(network: AnyNetwork) -> TwoStep:
    """A network at a quarter, at half and at full resolution, one after the other (GradICON, equation 12)."""
    return TwoStep(first=AtScale(network=TwoStep(first=AtScale(network=network), second=network)), second=network)


def sized(network: AnyNetwork) -> bool:
    """Whether any estimator of a network estimates shares of the size of images, so that it needs that of its training."""
    if isinstance(network, (SymmetricTwoStep, TwoStep)):
        return sized(network.first) or sized(network.second)
    if isinstance(network, (Antisymmetric, AtScale, Direct)):
        return sized(network.network)
    return not isinstance(network, (Implicit, Pyramid)) and network.sized


def layered(network: AnyNetwork) -> bool:
    """Whether any estimator of a network is followed by the layers that a model names for all; without one they do nothing."""
    if isinstance(network, (SymmetricTwoStep, TwoStep)):
        return layered(network.first) or layered(network.second)
    if isinstance(network, AtScale):
        return layered(network.network)
    return not isinstance(network, (Direct, Implicit, Pyramid))


def build_step(
    network: AnyNetwork,
    layers: tuple[AnyLayer, ...],
    dim: int,
    channels: int = 1,
    spacing: tuple[float, ...] | None = None,
) -> Step:
    """A step with fresh weights, drawn from torch's generator.

    Args:
        network: what is built.
        layers: what follows every estimator that has none of its own.
        dim: axes of the images.
        channels: channels of each image.
        spacing: mm of a voxel along each axis, if it is known; for steps that search and layers that smooth.

    Raises:
        BadInput: a step that searches is not told the spacing.
    """

    def built(step: AnyNetwork, larger: int = 1) -> Step:
        return build_step(step, layers, dim, channels, None if spacing is None else tuple(s * larger for s in spacing))

    if isinstance(network, Implicit):
        return Solving(network, dim, channels, spacing)
    if isinstance(network, Pyramid):
        return Pyramidal(network, dim, channels)
    if isinstance(network, (SymmetricTwoStep, TwoStep)):
        kind = Twice if isinstance(network, TwoStep) else Between
        return kind(built(network.first), built(network.second))
    if isinstance(network, AtScale):
        return Coarser(built(network.network, network.factor), network.factor, network.placing)
    if isinstance(network, Direct):
        return build_step(network.network, network.layers, dim, channels, spacing)
    own = network.network if isinstance(network, Antisymmetric) else network
    pipeline = Pipeline([layer.for_spacing(spacing).build(dim) for layer in layers])
    return Single(own.build(dim, channels), pipeline, dim, antisymmetric=own is not network)


class Single(Step):
    """An estimator and its field layers; the estimator may run under autocast, fields stay in the dtype of the images."""

    def __init__(self, network: Estimator, pipeline: Pipeline, dim: int, *, antisymmetric: bool = False) -> None:
        super().__init__()
        self.antisymmetric = antisymmetric
        laid_out(network, dim)
        self.network = network
        self.pipeline = pipeline

    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        """As `Step` says.

        Raises:
            BadInput: the layers do not serve the network's estimate, or do not end at a displacement of the image's lattice.
        """
        estimate = in_dtype(self.network(fixed, moving), fixed.dtype)
        if self.antisymmetric:
            estimate = less(estimate, in_dtype(self.network(moving, fixed), fixed.dtype))
        with full_precision(fixed):
            trail = self.pipeline(estimate)
        last = trail[-1]
        if not isinstance(last, Displacement) or max(last.factors) > 1:
            found = f"{type(last).__name__} on a lattice of factors {last.factors}"
            raise BadInput(f"the layers of the model end at a {found}, expected a Displacement of factors 1 (a layer FullSize)")
        return trail


class Twice(Step):
    """As `TwoStep` says; the inverse is kept where both steps give one."""

    def __init__(self, first: Step, second: Step) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        before = self.first(fixed, moving)
        outer = cast(Displacement, before[-1])
        with full_precision(fixed):
            moved = warp(moving, outer.values)
        after = self.second(fixed, moved)
        inner = cast(Displacement, after[-1])
        with full_precision(fixed):
            values = compose(outer.values, inner.values)
            lost = outer.inverse is None or inner.inverse is None
            inverse = None if lost else compose(cast(Tensor, inner.inverse), cast(Tensor, outer.inverse))
        failed = either(outer.failed, inner.failed)
        return (*before, *after, replace(outer, values=values, inverse=inverse, failed=failed, coarser=()))


class Between(Step):
    """As `SymmetricTwoStep` says."""

    def __init__(self, first: Step, second: Step) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        """As `Step` says.

        Raises:
            BadInput: the first step gives no inverse.
        """
        before = self.first(fixed, moving)
        half = cast(Displacement, before[-1])
        if half.inverse is None:
            raise BadInput(
                "a symmetric two-step needs a first step that gives its inverse, expected layers with Integrate(inverse)"
            )
        with full_precision(fixed):
            images = warp(fixed, half.inverse), warp(moving, half.values)
        after = self.second(*images)
        inner = cast(Displacement, after[-1])
        with full_precision(fixed):
            values = compose(half.values, compose(inner.values, half.values))
            there = inner.inverse
            inverse = None if there is None else compose(half.inverse, compose(there, half.inverse))
        failed = either(half.failed, inner.failed)
        return (*before, *after, replace(half, values=values, inverse=inverse, failed=failed, coarser=()))


class Coarser(Step):
    """As `AtScale` says; estimates are told of the finer lattice, and the last one is enlarged to it."""

    def __init__(self, step: Step, factor: int, placing: Literal["centres", "corners"]) -> None:
        super().__init__()
        self.step = step
        self.factor = factor
        self.placing = placing

    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        shape = spatial(fixed)
        factors = (self.factor,) * len(shape)
        smaller = downsample if self.placing == "centres" else block_means
        with full_precision(fixed):
            images = [smaller(image, factors) for image in (fixed, moving)]
        trail = tuple(on_finer(estimate, shape, factors) for estimate in self.step(*images))
        source = factors if self.placing == "centres" else stretches(spatial(images[0]), shape)
        with full_precision(fixed):
            return (*trail, replace(enlarged(cast(Displacement, trail[-1]), source), coarser=()))


def either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Pairs (B,) that failed in one of two steps; None where neither can fail."""
    known = [failed for failed in (one, other) if failed is not None]
    return torch.stack(known).any(0) if known else None


def block_means(image: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Means of blocks of voxels, of what there is at the end: (B, C, *S) to (B, C, *ceil(S / factors))."""
    pool = torch.nn.functional.avg_pool2d if len(factors) == 2 else torch.nn.functional.avg_pool3d
    size = [min(k, n) for k, n in zip(factors, spatial(image), strict=True)]
    return pool(image, size, list(factors), ceil_mode=True, count_include_pad=False)


def stretches(coarse: tuple[int, ...], fine: tuple[int, ...]) -> tuple[float, ...]:
    """Fine voxels to a coarse one where the outermost voxels of both lie on each other."""
    return tuple((n - 1) / (m - 1) if m > 1 else float(n) for n, m in zip(fine, coarse, strict=True))


def less(estimate: Estimate, other: Estimate) -> Estimate:
    """A velocity less another one, coarser levels likewise.

    Raises:
        BadInput: they are no velocities.
    """
    if not isinstance(estimate, Velocity) or not isinstance(other, Velocity):
        raise BadInput(f"an antisymmetric step needs a network of velocities, this one gives {type(estimate).__name__}")
    coarser = tuple(less(one, two) for one, two in zip(estimate.coarser, other.coarser, strict=True))
    return replace(estimate, values=estimate.values - other.values, coarser=coarser)


def on_finer(estimate: Estimate, shape: tuple[int, ...], factors: tuple[int, ...]) -> Estimate:
    """An estimate about a coarser image as one about the image of `shape` that it was downsampled from by `factors`."""
    coarser = tuple(on_finer(level, shape, factors) for level in estimate.coarser)
    return replace(
        estimate, shape=shape, factors=tuple(a * b for a, b in zip(estimate.factors, factors, strict=True)), coarser=coarser
    )


def in_dtype(estimate: Estimate, dtype: torch.dtype) -> Estimate:
    """An estimate with all its tensors in a dtype."""
    found = {f.name: getattr(estimate, f.name) for f in fields(estimate)}
    changed = {name: value.to(dtype) for name, value in found.items() if isinstance(value, Tensor)}
    coarser = tuple(in_dtype(level, dtype) for level in estimate.coarser)
    return replace(estimate, coarser=coarser, **changed)
