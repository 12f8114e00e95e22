"""What a training is saved as: tensors by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["optimiser_state", "restore_optimiser", "under"]


def optimiser_state(optimiser: torch.optim.Optimizer, name: str) -> dict[str, Tensor]:
    """The tensors of an optimiser by name."""
    return {
        f"{name}.{index}.{key}": torch.as_tensor(value)
        for index, entries in optimiser.state_dict()["state"].items()
        for key, value in entries.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor], name: str) -> None:
    """Take up what `optimiser_state` gave."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in under(state, f"{name}.").items():
        index, rest = key.split(".", 1)
        entries.setdefault(int(index), {})[rest] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
