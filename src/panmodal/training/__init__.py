"""Training: losses, stages, a loop that yields its steps, and recipes that name them all."""

from panmodal.training.loop import Step, train
from panmodal.training.recipe import Recipe, read_recipe
from panmodal.training.run import run_recipe
from panmodal.training.stages import Stage

__all__ = ["Recipe", "Stage", "Step", "read_recipe", "run_recipe", "train"]
