"""Seconds of training steps of the public code of GradICON (icon-registration), stage 1 in 2-D: JSON on standard output.

The dense penalty, with a point for every pixel, which is what its 2-D experiments use. Nothing is changed.
"""

import sys

import icon_registration as icon
import torch
from icon_registration import networks
from steps import report


def main(_: str, size: int, steps: int, threads: int) -> None:
    """Train `steps` steps on a batch of 8 random pairs of `size`^2 pixels."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = (8, 1, size, size)

    def one() -> torch.nn.Module:
        return icon.FunctionFromVectorField(networks.tallUNet2(dimension=2))

    inner = icon.TwoStepRegistration(icon.DownsampleRegistration(one(), dimension=2), one())
    network = icon.TwoStepRegistration(icon.DownsampleRegistration(inner, dimension=2), one())
    model = icon.GradientICON(network, icon.LNCC(sigma=5), lmbda=1.5)
    model.assign_identity_map(shape)
    parameters = sum(p.numel() for p in model.parameters())
    fixed, moving = torch.rand(2, *shape)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-5)

    def step(_: int) -> float:
        optimiser.zero_grad()
        loss = model(moving, fixed).all_loss
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    report(step, steps, parameters)


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:5]))
