"""Training of models: the loop, its settings, its files. Nothing that registers images imports this."""

from warpwright.training.run import Event, Outcome, train, trial
from warpwright.training.settings import AnyScheme, Card, Training, Validation

__all__ = ["AnyScheme", "Card", "Event", "Outcome", "Training", "Validation", "train", "trial"]
