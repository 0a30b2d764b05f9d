"""Draws the pictures of these pages with the built-in models: python docs/pictures.py"""

from __future__ import annotations

from pathlib import Path
from random import Random
from textwrap import wrap

from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

import panmodal as pm
from panmodal.data.masks import overlay
from panmodal.playground import caption, crowded_scene, make_scene, one_changed, render
from panmodal.playground.new_words import Lesson

OUT = Path(__file__).parent / "images"
SIZE, GAP = 240, 12
FONT = ImageFont.load_default(15)


def strip(pictures: list[tuple[Pil.Image, str]]) -> Pil.Image:
    """Pictures beside each other, each with lines of text under it"""
    lines = max(text.count("\n") + 1 for _, text in pictures)
    sheet = Pil.new("RGB", (GAP + (SIZE + GAP) * len(pictures), SIZE + 2 * GAP + 20 * lines), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, text) in enumerate(pictures):
        x = GAP + i * (SIZE + GAP)
        sheet.paste(picture.convert("RGB").resize((SIZE, SIZE), Pil.Resampling.LANCZOS), (x, GAP))
        draw.multiline_text((x, SIZE + GAP + 6), text, "black", FONT)
    return sheet


def sam() -> Pil.Image:
    """A click, a box, and everything"""
    model, image = pm.load("tiny/sam"), pm.Image(render(crowded_scene(7, "test"), 480))
    seen = model.embed_image(image)
    things = model.segment_everything(image)
    thing = max(things, key=lambda t: t.score)
    x, y = (thing.box[0] + thing.box[2]) // 2, (thing.box[1] + thing.box[3]) // 2
    clicked, other = model.segment(seen, points=[(x, y)]), min(things, key=lambda t: t.box[0])
    boxed = model.segment(seen, boxes=[other.box])
    click = overlay(image.pixels, [clicked.masks[clicked.best]])
    ImageDraw.Draw(click).ellipse((x - 7, y - 7, x + 7, y + 7), "black", "white", 3)
    box = overlay(image.pixels, [boxed.masks[boxed.best]])
    ImageDraw.Draw(box).rectangle(other.box, outline="black", width=3)
    everything = overlay(image.pixels, [t.mask for t in things])
    return strip([(image.pixels, "a picture"), (click, "one click"), (box, "a box"), (everything, "everything")])


def flamingo() -> Pil.Image:
    """Four examples with made-up words, and what the model says of a fifth picture"""
    model, lesson = pm.load("tiny/flamingo"), Lesson(3, "held-out")
    shots = lesson.shots(4)
    said = [m for s in shots for m in (pm.user(pm.Image(render(s.scene))), pm.assistant(s.text))]
    reply = model.reply([*said, pm.user(pm.Image(render(lesson.query.scene)))]).text
    shown = [(pm.Image(render(s.scene, 240)).pixels, s.text) for s in shots]
    asked = pm.Image(render(lesson.query.scene, 240)).pixels
    return strip([*shown, (asked, f"tiny/flamingo: {reply.strip()}")])


def blip() -> Pil.Image:
    """Captions, how well they fit, and how well they fit with a word changed"""
    model, told = pm.load("tiny/blip"), []
    for seed in (2, 11, 20):
        scene = make_scene(seed, "test")
        image, other = pm.Image(render(scene, 240)), caption(one_changed(scene, Random(seed))[1])
        said = model.caption(image)
        fits = model.match(image, [said, other])
        lines = [
            line
            for text, odds in zip((said, other), fits, strict=True)
            for line in (*wrap(text, 34), f"{odds:.0%}", "")
        ]
        told.append((image.pixels, "\n".join(lines)))
    return strip(told)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for draw in (sam, flamingo, blip):
        draw().save(OUT / f"{draw.__name__}.png", optimize=True)
