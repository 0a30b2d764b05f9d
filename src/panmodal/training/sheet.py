"""A page that shows samples as the model will see them: the template's text with the trained tokens marked, and
pictures after preprocessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

import torch
from PIL import Image as Pil
from torch import Tensor

from panmodal.data.media import plural
from panmodal.data.processor import Encoded, Processor
from panmodal.data.readers import Source
from panmodal.data.sample import Batch, Image, Sample
from panmodal.errors import InputError
from panmodal.training.check import objective_for

MOST = 12  # pictures of a sample, tiles and frames among them
STYLE = """
:root { --ink: #1d2126; --faint: #6b7280; --page: #f4f5f7; --card: #fff; --line: #e2e5ea; --learn: #c9f2d2;
  --learned: #0b5a24; --chip: #dbe6ff; --chipped: #1e3f8f; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --faint: #9aa2ae; --page: #14171b; --card: #1d2126;
  --line: #31363d; --learn: #1d4a2b; --learned: #b7f0c6; --chip: #26365f; --chipped: #c5d5ff; --bad: #ff8a80 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 1100px; padding: 24px }
h1 { font-size: 22px; margin: 0 } header p { color: var(--faint); margin: 4px 0 20px }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin-bottom: 16px; display: flex; flex-wrap: wrap; gap: 16px }
h2 { flex-basis: 100%; font-size: 13px; font-weight: 600; margin: 0; color: var(--faint); overflow-wrap: anywhere }
figure { margin: 0; display: flex; flex-wrap: wrap; gap: 6px; align-content: flex-start; max-width: 300px }
img { width: 144px; border-radius: 6px; border: 1px solid var(--line); image-rendering: pixelated }
img:only-child { width: 288px }
.text { flex: 1; min-width: 280px; font: 14px/1.75 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere }
b { font-weight: inherit; background: var(--learn); color: var(--learned) }
i { font-style: normal; background: var(--chip); color: var(--chipped); border-radius: 4px; padding: 1px 6px }
u { text-decoration: underline wavy var(--bad) }
.bad { color: var(--bad) }
"""


class Piece(NamedTuple):
    """Some of the text that one token stands for (none, of a token's later places), and what becomes of it: whether it
    is learned, and the number of places that a medium of some kind fills here."""

    text: str
    token: int | None = None
    learned: bool = False
    vectors: int = 0
    kind: str = ""


def pieces(processor: Processor, sample: Sample, encoded: Encoded) -> Iterator[Piece]:
    """The text that the template makes of a conversation, token by token; what lies between tokens is none."""
    text = processor.template.render(sample.messages)
    tokens, where = processor.tokenizer.spans(text)
    media = iter(zip(encoded.vectors, (medium.kind for medium in encoded.media), strict=True))
    filled = [next(media) if token in processor.placeholders else (0, "") for token in tokens]
    place = len(encoded.ids) - sum(n or 1 for n, _ in filled)  # after what the tokenizer puts before a text
    for token in encoded.ids[:place]:
        yield Piece(str(processor.tokenizer.backend.id_to_token(token)), token)
    done = 0
    for token, (start, end), (count, kind) in zip(tokens, where, filled, strict=True):
        if start > done:
            yield Piece(text[done:start])
        yield Piece(text[max(start, done) : end], token, encoded.learned[place], count, kind)
        place, done = place + (count or 1), max(end, done)
    if done < len(text):
        yield Piece(text[done:])


def pictures(processor: Processor, batch: Batch) -> list[Pil.Image]:
    """The pictures, tiles and frames of a batch, as the model gets them, back from numbers to colours; and sounds as
    their spectra, low tones at the bottom"""
    given = [batch.images] if batch.images is not None else []
    if (videos := batch.media.get("video")) is not None:
        given.append(videos.transpose(2, 3).flatten(0, 2))
    shown = [_picture(processor, numbers) for some in given for numbers in some[:MOST]]
    if (sounds := batch.media.get("audio")) is not None:
        shown += [_spectrum(clip) for clip in sounds.flatten(0, 2)[:MOST]]
    return shown


def _spectrum(numbers: Tensor) -> Pil.Image:
    """[bins, frames]"""
    grey = (numbers - numbers.min()) / (numbers.max() - numbers.min()).clamp(min=1e-6)
    return Pil.fromarray((255 * grey.flip(0)).to(torch.uint8).numpy()).convert("RGB")


def _picture(processor: Processor, numbers: Tensor) -> Pil.Image:
    """[3, H, W]"""
    transform = processor.images
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    colours = ((numbers * std + mean) / transform.scale).round().clamp(0, 255).to(torch.uint8)
    return Pil.fromarray(colours.permute(1, 2, 0).numpy())


def sheet(source: Source, processor: Processor, count: int, title: str) -> str:
    """A page, complete in itself, of `count` samples, evenly from the first to the last, or the first of an endless
    source. A sample that cannot be used is there with the reason."""
    size = count if source.size is None else source.size
    count = min(count, size)
    numbers = [i * size // count for i in range(count)]
    cards = "\n".join(_card(source, number, processor) for number in numbers)
    size_told = "endless" if source.size is None else f"{size:,} samples"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<header><h1>{escape(title)}</h1><p>{count} of {size_told}. <b>Marked</b>: the tokens that are learned.
<i>picture</i>: the places that its vectors fill. <u>Underlined</u>: a token that the model does not know. A
token's name is shown where the pointer rests on it. Pictures are as the model gets them.</p></header>
{cards}
</body></html>
"""


def _card(source: Source, number: int, processor: Processor) -> str:
    place, said, shown = f"sample {number + 1}", "", list[Pil.Image]()
    objective = objective_for(processor)
    try:
        sample = source.sample(number)
        place = sample.place or place
        encoded: Any = objective.encode(processor, sample)
        shown = pictures(processor, objective.batch(processor, [encoded]))
        if isinstance(encoded, Encoded):
            said = _marked(processor, pieces(processor, sample, encoded))
            place += f" · {len(encoded.ids)} tokens, {sum(encoded.learned)} learned"
        else:
            said = escape(encoded[1])
    except InputError as error:
        said = f'<span class="bad">{escape(str(error))}</span>'
    images = "".join(f'<img alt="" src="{Image(picture).data_url()}">' for picture in shown)
    figure = f"<figure>{images}</figure>" if images else ""
    return f'<article><h2>{escape(place)}</h2>{figure}<div class="text">{said}</div></article>'


def _marked(processor: Processor, found: Iterator[Piece]) -> str:
    backend, out, counts = processor.tokenizer.backend, list[str](), Counter[str]()
    unknown = processor.tokenizer.id_of(processor.tokenizer.special.get("unk_token"))
    for piece in found:
        text = escape(piece.text)
        if piece.vectors:
            counts[piece.kind] += 1
            name = plural(piece.kind).removesuffix("s")
            out.append(f'<i title="{text}">{name} {counts[piece.kind]} × {piece.vectors}</i>')
        elif piece.token is None or not text:
            out.append(text)
        else:
            mark = "u" if piece.token == unknown else "b" if piece.learned else "span"
            name = escape(f"{backend.id_to_token(piece.token)} {piece.token}", quote=True)
            out.append(f'<{mark} title="{name}">{text}</{mark}>')
    return "".join(out)
