"""Decoding depth maps, thermal pictures and motion to arrays of float32, and from maps to a model's numbers."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from panmodal.data.pictures import DAMAGED, MAX_BYTES, MAX_PIXELS, open_picture, read_file
from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.media import Array, File

Values = NDArray[np.float32]


def depth(source: File | Array, name: str) -> Values:
    """-> metres, [height, width]. Raises InputError for another shape, negative depths and what is not finite."""
    values = _loaded(source, name)
    if isinstance(values, Pil.Image):
        if values.mode.startswith("I"):
            values = np.asarray(values, np.float32) / np.float32(1000)
        elif values.mode == "F":
            values = np.asarray(values)
        else:
            raise InputError(f"{name} is a picture of mode {values.mode}; depth is 16 bits of millimetres, or floats")
    values = _checked(values, "a depth map is [height, width]", name)
    if (values < 0).any():
        raise InputError(f"{name} has negative depths; 0 is for what was not measured")
    return values


def thermal(source: File | Array, name: str) -> Values:
    """-> from 0 to 1, [height, width]."""
    values = _loaded(source, name)
    if isinstance(values, Pil.Image):
        sixteen = values.mode.startswith("I")
        grey = np.asarray(values if sixteen else values.convert("L"), np.float32)
        values = grey / np.float32(65535 if sixteen else 255)
    return _checked(values, "a thermal picture is [height, width]", name)


def imu(source: File | Array, name: str) -> Values:
    """-> [channels, samples]."""
    values = _loaded(source, name)
    if isinstance(values, Pil.Image):
        raise InputError(f"{name} is a picture; motion is [channels, samples] numbers in a .npy file")
    return _checked(values, "motion is [channels, samples]", name)


DECODERS: dict[str, Callable[[Any, str], Values]] = {"depth": depth, "thermal": thermal, "imu": imu}


def _loaded(source: File | Array, name: str) -> NDArray[Any] | Pil.Image:
    if isinstance(source, np.ndarray):
        return source
    data = read_file(Path(source), MAX_BYTES) if isinstance(source, str | os.PathLike) else source
    if not data.startswith(b"\x93NUMPY"):
        picture = open_picture(data, name)
        try:
            picture.load()
        except DAMAGED as error:
            raise InputError(f"{name} is a damaged or cut off picture ({error}); get a whole copy") from None
        return picture
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} has {len(data):,} bytes, over the limit of {MAX_BYTES:,}")
    try:
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{name} is a damaged .npy file ({error})") from None
    return array


def _checked(values: NDArray[Any], shape: str, name: str) -> Values:
    if values.ndim != 2 or not values.size or not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{name}: {shape} numbers, not {list(values.shape)} {values.dtype}")
    if values.size > MAX_PIXELS:
        raise InputError(f"{name} has {values.size:,} values; the limit is {MAX_PIXELS:,}")
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} has values that are not finite (NaN or infinite)")
    return numbers
