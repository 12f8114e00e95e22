"""Seconds of training steps of the public PyTorch VoxelMorph (voxelmorph 0.2): JSON on standard output.

Its local cross-correlation puts a tensor of ones on a GPU whatever there is; here such a tensor stays where it is. It also
asks `inspect.getargspec`, which Python no longer has, for the names that `getfullargspec` gives. Nothing else is changed.
"""

import inspect
import os
import sys
from types import SimpleNamespace

os.environ |= {"VXM_BACKEND": "pytorch", "NEURITE_BACKEND": "pytorch"}
inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]

import torch  # noqa: E402
import voxelmorph.torch.losses as losses  # noqa: E402
import voxelmorph.torch.networks as networks  # noqa: E402
from steps import report  # noqa: E402


class _Staying(torch.Tensor):
    def to(self, *_args, **_kwargs):
        return self.as_subclass(torch.Tensor)


def _ones(shape):
    return torch.ones(shape).as_subclass(_Staying)


def main(similarity: str, size: int, steps: int, threads: int) -> None:
    """Train `steps` steps on one random pair of `size`^3 voxels."""
    torch.set_num_threads(threads)
    losses.torch = SimpleNamespace(ones=_ones, mean=torch.mean, sum=torch.sum, abs=torch.abs)
    torch.manual_seed(0)
    shape = (size,) * 3
    model = networks.VxmDense(shape, int_steps=7, int_downsize=2)
    parameters = sum(p.numel() for p in model.parameters())
    fixed, moving = torch.rand(2, 1, 1, *shape)
    compare = losses.NCC().loss if similarity == "ncc" else losses.MSE().loss
    smooth = losses.Grad("l2", loss_mult=2).loss
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(_: int) -> float:
        moved, flow = model(moving, fixed)
        loss = compare(fixed, moved) + 0.01 * smooth(None, flow)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    report(step, steps, parameters)


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:5]))
