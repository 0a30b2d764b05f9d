"""Decoding pictures safely to upright RGB, and the published image processors as one transform."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from torch import Tensor

from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.sample import Picture

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
DAMAGED = (OSError, ValueError, SyntaxError, EOFError)  # what decoding a damaged file raises


def decode(source: Picture, name: str = "picture") -> Pil.Image:
    """Decodes a picture to RGB: turned upright by its EXIF note, transparency over white, 16 bits
    scaled to 8, of an animation the first frame.

    Raises InputError for what is no picture, is damaged, or is over MAX_BYTES or MAX_PIXELS; size is
    checked before any pixel is decoded.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise InputError(f"an array picture is [height, width, 3] uint8, not {source.shape} {source.dtype}")
        return Pil.fromarray(source)
    if isinstance(source, Pil.Image):
        return _to_rgb(source)
    data = read_file(Path(source), MAX_BYTES) if isinstance(source, str | os.PathLike) else source
    picture = open_picture(data, name)
    try:
        return _to_rgb(ImageOps.exif_transpose(picture))
    except DAMAGED as error:
        raise InputError(f"{name} is a damaged or cut off picture ({error}); get a whole copy") from None


def jpeg_as_seen(source: Picture) -> bytes | None:
    """The bytes of a JPEG that `decode` neither turns nor makes RGB of; None of anything else."""
    if not isinstance(source, str | os.PathLike | bytes):
        return None
    data = source if isinstance(source, bytes) else read_file(Path(source), MAX_BYTES)
    picture = open_picture(data, "picture")
    seen = picture.format == "JPEG" and picture.mode == "RGB" and picture.getexif().get(Base.Orientation, 1) == 1
    return data if seen else None


def open_picture(data: bytes, name: str) -> Pil.Image:
    """A picture's size and mode known, and within the limits; its pixels not decoded yet."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} has {len(data):,} bytes, over the limit of {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():  # of size, which is checked here
            warnings.simplefilter("ignore")
            picture = Pil.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture in a format that panmodal reads ({', '.join(FORMATS)})") from None
    except Pil.DecompressionBombError:
        raise InputError(f"{name} has too many pixels; the limit is {MAX_PIXELS:,}") from None
    except DAMAGED as error:
        raise InputError(f"{name} is a damaged picture ({error})") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width} x {height} pixels; the limit is {MAX_PIXELS:,}")
    return picture


def read_file(path: Path, limit: int) -> bytes:
    """A file's bytes, one more than `limit` at most. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


def _to_rgb(picture: Pil.Image) -> Pil.Image:
    if picture.mode == "RGB":
        picture.load()
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 or 32 bits a pixel, or floats
        grey = np.asarray(picture, dtype=np.float64)
        most = grey.max(initial=0)
        top = 65535.0 if picture.mode.startswith("I;16") or most > 255 else 1.0 if most <= 1 else 255.0
        picture = Pil.fromarray(np.uint8(np.clip(grey / top, 0, 1) * 255 + 0.5))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Pil.new("RGBA", picture.size, "white")
        return Pil.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


@dataclass(frozen=True)
class ImageTransform:
    """From a picture to the numbers that a model was trained on.

    Resizes (to an exact size, or so that the shorter side fits), crops the centre, scales to [0, 1]
    and normalises by channel, each as `preprocessor_config.json` says; as the reference processors
    of CLIP, SigLIP, ViT and DINOv2 do.
    """

    height: int
    width: int
    shortest: int | None = None  # resize the shorter side to this, then crop; None: resize exactly
    resample: int = int(Pil.Resampling.BICUBIC)
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    scale: float = 1 / 255
    pad_square: bool = False  # first pad to a square with the mean colour, as LLaVA-1.5 was trained

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageTransform:
        """Reads a published `preprocessor_config.json`, or `video_preprocessor_config.json` for frames."""
        named = ("image_processor_type", "video_processor_type", "feature_extractor_type")
        kind = str(next((config[name] for name in named if name in config), ""))
        defaults = next((d for word, d in _DEFAULTS.items() if kind.startswith(word)), {})
        c = {**defaults, **config}
        crops = bool(c.get("do_center_crop", False))
        size = _sides(c.get("size", c.get("image_size", 224)), square=not crops)  # IDEFICS's name for it
        crop = _sides(c.get("crop_size", 224), square=True)
        if not c.get("do_resize", True):
            raise InputError("preprocessor_config.json turns resizing off; panmodal needs one size for all pictures")
        shortest = size.get("shortest_edge")
        if shortest is not None and not crops:
            raise InputError("preprocessor_config.json keeps pictures of unequal sizes (no centre crop)")
        final = crop if shortest is not None else size
        normalise = c.get("do_normalize", True)
        return cls(
            final["height"],
            final["width"],
            shortest,
            int(c.get("resample", Pil.Resampling.BICUBIC)),
            tuple(c["image_mean"]) if normalise and c.get("image_mean") else (0.0, 0.0, 0.0),
            tuple(c["image_std"]) if normalise and c.get("image_std") else (1.0, 1.0, 1.0),
            float(c.get("rescale_factor", 1 / 255)) if c.get("do_rescale", True) else 1.0,
            bool(c.get("do_pad", False)),
        )

    def __call__(self, pictures: Sequence[Pil.Image]) -> Tensor:
        """RGB pictures of any sizes -> [N, 3, height, width] float32"""
        stack = np.stack([self.pixels(p) for p in pictures])
        numbers = torch.from_numpy(stack).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return numbers.mul_((self.scale / std)[:, None, None]).sub_((mean / std)[:, None, None])

    def pixels(self, picture: Pil.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """What the model gets to see -> [height, width, 3] uint8"""
        if self.pad_square and picture.width != picture.height:
            side = max(picture.size)
            colour = tuple(int(255 * m) for m in self.mean)
            square = Pil.new("RGB", (side, side), colour)
            square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            picture = square
        if self.shortest is None:
            return np.asarray(self._resized(picture, self.width, self.height))
        short, long = sorted(picture.size)
        longer = int(self.shortest * long / short)
        wide = picture.width > picture.height
        picture = self._resized(picture, *((longer, self.shortest) if wide else (self.shortest, longer)))
        left, top = (picture.width - self.width) // 2, (picture.height - self.height) // 2
        return np.asarray(picture.crop((left, top, left + self.width, top + self.height)))

    def _resized(self, picture: Pil.Image, width: int, height: int) -> Pil.Image:
        return picture.resize((width, height), Pil.Resampling(self.resample))


class PaddedTransform(ImageTransform):
    """As SAM has its pictures: the longer side fits, and what is then left, on the right or below, is zeros."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PaddedTransform:
        """Reads SAM's `preprocessor_config.json`."""
        side = config.get("size", {}).get("longest_edge", 1024)
        padded = config.get("pad_size", {"height": side, "width": side})
        if not config.get("do_resize", True) or padded != {"height": side, "width": side}:
            raise InputError(
                f"preprocessor_config.json makes pictures {side} pixels long and pads them to {padded}; panmodal reads "
                "squares of that length only"
            )
        exact = ImageTransform.from_config({**_SAM, **config, "size": padded, "do_pad": False})
        return cls(**vars(exact))

    def fitted(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that a picture has in the model's input"""
        scale = self.width / max(width, height)
        return int(width * scale + 0.5), int(height * scale + 0.5)

    def __call__(self, pictures: Sequence[Pil.Image]) -> Tensor:
        """RGB pictures of any sizes -> [N, 3, height, width] float32"""
        out = torch.zeros(len(pictures), 3, self.height, self.width)
        for filled, picture in zip(out, pictures, strict=True):
            width, height = self.fitted(*picture.size)
            exact = ImageTransform(height, width, None, self.resample, self.mean, self.std, self.scale)
            filled[:, :height, :width] = exact([picture])[0]
        return out

    def masks(self, masks: Tensor) -> Tensor:
        """Masks over a picture [M, H, W] bool -> over the model's input [M, height, width] bool"""
        width, height = self.fitted(masks.shape[2], masks.shape[1])
        out = torch.zeros(len(masks), self.height, self.width, dtype=torch.bool)
        out[:, :height, :width] = F.interpolate(masks[None].byte(), (height, width), mode="nearest-exact")[0].bool()
        return out


class StretchedTransform(PaddedTransform):
    """As SAM 2 has its pictures: stretched to a square."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> StretchedTransform:
        """Reads SAM 2's `preprocessor_config.json`."""
        return cls(**vars(ImageTransform.from_config({**_SAM, "size": 1024, **config, "do_pad": False})))

    def fitted(self, width: int, height: int) -> tuple[int, int]:
        return self.width, self.height


_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_SAM = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225), "resample": 2}
_DEFAULTS: dict[str, dict[str, Any]] = {  # what the published files may leave out
    "CLIP": {"size": {"shortest_edge": 224}, "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "LlavaOnevision": {"size": {"height": 384, "width": 384}, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "Llava": {"size": {"shortest_edge": 224}, "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "IdeficsImage": {"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "Blip": {"size": {"height": 384, "width": 384}, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "Siglip": _HALF,
    "ViT": {**_HALF, "resample": int(Pil.Resampling.BILINEAR)},
    "Bit": {"size": {"shortest_edge": 224}, "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
}


def _sides(size: int | Mapping[str, int], square: bool) -> Mapping[str, int]:
    if isinstance(size, int):  # as files of the first generation say it
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    return size
