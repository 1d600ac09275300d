"""Scenes: a benchmark of rendered things with exact answers, and the program that explains them."""

from training.scenes.files import scenes, write

__all__ = ["scenes", "write"]
