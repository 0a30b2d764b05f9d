"""panmodal: one PyTorch library for the whole family tree of multimodal foundation models.

    import panmodal as pm

    clip = pm.load("tiny/clip")
    clip.embed([pm.Image("cat.jpg"), "a photo of a cat"])

    chat = pm.load("tiny/chat")
    chat.reply([pm.user(pm.Image("scene.png"), "How many red circles are there?")])

Names are imported when first used, so that `import panmodal` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panmodal.data.sample import Image, Message, Sample, Text, assistant, system, user
    from panmodal.errors import CheckpointError, InputError, PanmodalError, TrainingError
    from panmodal.evaluation import evaluate
    from panmodal.families import compose, load
    from panmodal.families.flamingo import flamingo
    from panmodal.training.run import run_recipe as train

__version__ = "0.1.0"

_HOMES = {
    "data.sample": ("Image", "Message", "Sample", "Text", "assistant", "system", "user"),
    "errors": ("CheckpointError", "InputError", "PanmodalError", "TrainingError"),
    "evaluation": ("evaluate",),
    "families": ("compose", "load"),
    "families.flamingo": ("flamingo",),
    "training.run": ("train",),
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}
_CALLED = {"train": "run_recipe"}  # at home, where `train` is the loop within

__all__ = [
    "CheckpointError", "Image", "InputError", "Message", "PanmodalError", "Sample", "Text", "TrainingError",
    "assistant", "compose", "evaluate", "flamingo", "load", "system", "train", "user",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'panmodal' has no attribute {name!r}")
    return getattr(import_module(f"panmodal.{_WHERE[name]}"), _CALLED.get(name, name))


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
