"""Scalars per pair, lower is better: similarities, regularities, prompts."""
