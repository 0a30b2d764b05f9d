"""The library's few error types. Each message names the value, the limit and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class PanmodalError(Exception):
    """Base of every error that a user can cause and mend."""


class InputError(PanmodalError, ValueError):
    """A file, text, option or conversation that cannot be used as it is."""


class LabelError(InputError):
    """A sample of which something to be learned would be lost: training stops at it."""


class PlaceholderError(LabelError):
    """A conversation whose placeholders differ in number from its pictures or videos."""


class ContextError(LabelError):
    """A conversation longer than the model reads: cut, it would lose answers or a part of a picture."""


class CheckpointError(PanmodalError):
    """A checkpoint that is missing, damaged, unsafe or of another shape than its configuration says."""


class TrainingError(PanmodalError):
    """A training run that cannot go on: too many bad samples, or a loss that is not finite."""


class RemoteError(PanmodalError):
    """A server that cannot be reached, refuses, or answers what cannot be used."""


@contextmanager
def at(place: str) -> Iterator[None]:
    """Puts the place of a sample (a file and a line) before the errors about it."""
    try:
        yield
    except InputError as error:
        if not place:
            raise
        raise type(error)(f"{place}: {error}") from None


def suggest(name: str, known: Iterable[str]) -> str:
    """`'; did you mean 'clip'?'` for a near miss, else the whole choice if it is short."""
    options = sorted(known)
    near = get_close_matches(name, options, n=3, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    if len(options) <= 20:
        return "; known: " + ", ".join(options)
    return ""
