"""The hint that a tiny model knows nothing but the playground."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panmodal.data.sample import Image

FOR_PHOTOGRAPHS = "llava-hf/llava-1.5-7b-hf"
FOR_EMBEDDING = "openai/clip-vit-base-patch32"
FOR_SEGMENTING = "facebook/sam-vit-base"
FOR_CAPTIONS = "Salesforce/blip-image-captioning-base"
FOR_MATCHING = "Salesforce/blip-itm-base-coco"


def hint(model: str, images: Sequence[Image], instead: str = FOR_PHOTOGRAPHS) -> None:
    """Says so on standard error when a built-in model is shown a picture that is not of its world."""
    from panmodal.playground.recognise import is_scene

    if model.startswith("tiny/") and not all(is_scene(image.pixels) for image in images):
        print(
            f"hint: {model} knows only the playground's coloured shapes; for photographs, use --model {instead}",
            file=sys.stderr,
        )
