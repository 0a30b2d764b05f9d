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
    from panmodal.data.media import IMU, Audio, Depth, Thermal, Video
    from panmodal.data.sample import Image, Message, Sample, Text, assistant, system, user
    from panmodal.errors import CheckpointError, InputError, PanmodalError, RemoteError, TrainingError
    from panmodal.evaluation import evaluate
    from panmodal.families import compose, flamingo, load, minigpt4
    from panmodal.training.run import run_recipe as train

__version__ = "0.1.0"

_HOMES = {
    "data.media": ("IMU", "Audio", "Depth", "Thermal", "Video"),
    "data.sample": ("Image", "Message", "Sample", "Text", "assistant", "system", "user"),
    "errors": ("CheckpointError", "InputError", "PanmodalError", "RemoteError", "TrainingError"),
    "evaluation": ("evaluate",),
    "families": ("compose", "flamingo", "load", "minigpt4"),
    "training.run": ("train",),
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}
_CALLED = {"train": "run_recipe"}  # at home, where `train` is the loop within

__all__ = [
    "IMU", "Audio", "CheckpointError", "Depth", "Image", "InputError", "Message", "PanmodalError", "RemoteError",
    "Sample", "Text", "Thermal", "TrainingError", "Video", "assistant", "compose", "evaluate", "flamingo", "load",
    "minigpt4", "system", "train", "user",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'panmodal' has no attribute {name!r}")
    return getattr(import_module(f"panmodal.{_WHERE[name]}"), _CALLED.get(name, name))


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
