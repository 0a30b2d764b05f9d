"""Pictures in noise, as visual contrastive decoding sets them beside the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from panmodal.data.sample import Conversation, Guise, Image, Message
from panmodal.errors import InputError

STEPS = 1000  # of diffusion
BETAS = (1e-5, 5e-3)  # the variance that the first step and the last add, and between them a sigmoid
SEED = 0


class Noisy(Guise):
    """A picture, seen through `noise` steps of diffusion."""

    def __init__(self, image: Image, noise: int) -> None:
        super().__init__(image)
        self.noise = noise

    @cached_property
    def key(self) -> str:
        return f"{self.image.key} in noise {self.noise}"


def all_in_noise(said: Conversation, noise: int) -> Conversation:
    """A conversation with all its pictures in noise. Raises InputError if it has none."""
    if not any(message.images for message in said):
        raise InputError(
            "contrast is between a picture and the same in noise, and here is none; show one, or leave it out"
        )
    return [Message(m.role, tuple(Noisy(p, noise) if isinstance(p, Image) else p for p in m.parts)) for m in said]


def in_noise(pixels: Tensor, steps: Sequence[int]) -> Tensor:
    """A model's pictures [N, 3, H, W], each after so many steps of diffusion (Leng et al., 2024); 0 leaves it as it is.

    The noise is the same each time, and for all: answers can be repeated, and do not hang on what is beside."""
    if not any(steps):
        return pixels
    low, high = BETAS
    betas = torch.linspace(-6, 6, STEPS).sigmoid() * (high - low) + low
    kept = (1 - betas).cumprod(0)[list(steps)][:, None, None, None]  # of the picture's variance
    drawn = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(SEED))
    there = torch.tensor(steps)[:, None, None, None] > 0
    return torch.where(there, kept.sqrt() * pixels + (1 - kept).sqrt() * drawn, pixels)
