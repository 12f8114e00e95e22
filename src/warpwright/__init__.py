"""Warpwright: deformable medical image registration that learns, optimises, or both."""
