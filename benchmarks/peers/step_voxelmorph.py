"""Seconds of training steps of the public PyTorch VoxelMorph (voxelmorph 0.2): JSON on standard output.

Its local cross-correlation puts a tensor of ones on a GPU whatever there is; here such a tensor stays where it is. It also
asks `inspect.getargspec`, which Python no longer has, for the names that `getfullargspec` gives. Nothing else is changed.
"""

import inspect
import json
import os
import resource
import sys
import time
from types import SimpleNamespace

os.environ |= {"VXM_BACKEND": "pytorch", "NEURITE_BACKEND": "pytorch"}
inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]

import torch  # noqa: E402
import voxelmorph.torch.losses as losses  # noqa: E402
import voxelmorph.torch.networks as networks  # noqa: E402


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
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        moved, flow = model(moving, fixed)
        loss = compare(fixed, moved) + 0.01 * smooth(None, flow)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"seconds": seconds, "parameters": parameters, "loss": float(loss.detach()), "memory_gb": peak}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:5]))
