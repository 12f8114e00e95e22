"""What a run leaves to read: `metrics.jsonl`, TensorBoard events on demand, the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwright.errors import Failed
from warpwright.io.atomic import replacing
from warpwright.networks.scoring import VoxelMap
from warpwright.product.output import plain
from warpwright.training.settings import Training

__all__ = ["Journal", "model_card"]

SCORES = """Figures on the validation pairs (the model was chosen by them, so they flatter it):

| figure | value |
|---|---|"""


class Journal:
    """Lines of figures, one JSON object a line.

    Args:
        path: `metrics.jsonl`; lines of a later step than `step` are dropped: they will be written again.
        step: where the run goes on from.
        events: folder for TensorBoard, or None.

    Raises:
        Failed: TensorBoard is asked for and not installed, or the lines could not be written (a full disk).
    """

    def __init__(self, path: Path, step: int, events: Path | None) -> None:
        self.path = path
        self.board: Any = None
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if step and path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        if events is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise Failed(
                    "tensorboard = true needs the package tensorboard, expected an installation of warpwright[tensorboard]"
                ) from None
            self.board = SummaryWriter(str(events), purge_step=step + 1 if step else None)

    def write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Add a line: the step, what kind of figures they are, the figures.

        Raises:
            Failed: it could not be written (a full disk).
        """
        line = json.dumps(plain({"step": step, "kind": kind, **figures}), allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise Failed(f"{self.path}: could not be written ({error.strerror or error})") from error
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """End the TensorBoard events."""
        if self.board is not None:
            self.board.close()


def model_card(
    training: Training, step: int, figures: Mapping[str, float], parameters: int, score: VoxelMap | None = None
) -> str:
    """The model card in Markdown; `score` is what was learned beside the model, if anything."""
    card, model = training.card, training.model
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    scores = f"{SCORES}\n{rows}" if figures else "There were no validation pairs: these are the weights of the last step."
    network, beside = type(model.network).__name__, ""
    if score is not None:
        weights = sum(weight.numel() for weight in score.parameters())
        beside = f"\n- **Score**: {weights:,} weights, where residuals can be trusted; `register --score` shows it"
    return f"""# {card.title}

- **Use**: {card.use}
- **Data**: {card.data}
- **Licence of the weights**: {card.licence}
- **Network**: {network}, {parameters:,} weights, images of {model.dim} axes, {model.channels} channel(s){beside}
- **Training**: {step} of {training.steps} steps, {training.batch * training.accumulate} pair(s) a step, seed {training.seed}

{scores}

`warpwright register FIXED MOVING --model FOLDER --output RESULT` uses this folder; `model.json` holds every setting. The
weights are numbers in safetensors, nothing in this folder is code. Not a medical device.
"""
