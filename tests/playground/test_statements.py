"""Three boxes, statements about them, and the samples that teach to judge them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

import panmodal as pm
from panmodal.playground.box_world import COLOURS, SIDE, Item, description, is_tower, make_boxes, picture
from panmodal.playground.statements import box_sample, statement_sample, statements

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "boxes.toml"
STACK = tuple(Item(colour, "square", "medium", 40, y) for colour, y in (("blue", 38), ("black", 59), ("black", 80)))
LOOSE = (
    Item("yellow", "circle", "small", 0, 10),
    Item("blue", "triangle", "big", 30, 30),
    Item("black", "square", "medium", 80, 80),
)


def test_boxes_are_described_from_the_top_down_with_the_sides_that_are_touched():
    assert description((STACK, STACK[1:], LOOSE)) == (
        "tower blue black black; tower black black; "
        "small yellow circle left, big blue triangle, medium black square right bottom"
    )


def test_a_seed_gives_the_same_boxes_and_things_never_touch():
    towers = 0
    for seed in range(200):
        boxes = make_boxes(seed)
        assert boxes == make_boxes(seed) and len(boxes) == 3
        towers += is_tower(boxes[0])
        for box in boxes:
            covered = sum(int((picture((item,)) != picture(())).any(-1).sum()) for item in box)
            assert covered == (picture(box) != picture(())).any(-1).sum()
    assert 70 < towers < 130


def test_a_picture_shows_what_is_there():
    shown = picture(LOOSE)
    assert shown.shape == (SIDE, SIDE, 3) and shown.dtype == np.uint8
    assert tuple(shown[15, 5]) == COLOURS["yellow"] and tuple(shown[99, 99]) == COLOURS["black"]
    assert tuple(shown[58, 45]) == COLOURS["blue"] and tuple(shown[31, 32]) == (211, 211, 211)  # beside the tip


KNOWN = {
    r"there (is|are) (exactly|only) (two|2) black blocks?": lambda n: n == 2,
    r"there (is|are) (a|one|1) black blocks?": lambda n: n >= 1,
    r"there (is|are) at ?least (two|2) black blocks": lambda n: n >= 2,
    r"there (is|are) no black blocks?": lambda n: n == 0,
}


def test_what_statements_say_holds():
    """Those of a few simple kinds are read again, without what made them."""
    found: Counter[str] = Counter()
    for seed in range(1000):
        boxes = make_boxes(seed)
        blacks = sum(item.colour == "black" for box in boxes for item in box)
        for said in statements(boxes, Random(seed), 8):
            for pattern, rule in KNOWN.items():
                if re.fullmatch(pattern, said.text):
                    assert said.holds(boxes) == rule(blacks), said.text
                    assert sum(said.counts(boxes)) == blacks
                    found[pattern] += 1
    assert len(found) == len(KNOWN)


def test_half_of_all_statements_are_true():
    truths = [
        said.holds(boxes)
        for seed in range(200)
        for boxes in [make_boxes(seed)]
        for said in statements(boxes, Random(seed), 6)
    ]
    assert len(truths) == 1200 and 540 < sum(truths) < 660


ENOUGH = {"least": int.__ge__, "exactly": int.__eq__, "most": int.__le__}


def follows(thought: str) -> bool:
    """The verdict, worked out from what thoughts count and want alone, which must agree with their own sums."""
    *parts, last = thought.split(", ")
    kind, wanted, *between, said, total = last.split()
    assert said == "total"
    if between[:1] == ["box"]:
        hits = [True] * 3
        for part in parts:
            of, many, *_, a, b, c = part.split()
            hits = [hit and ENOUGH[of](int(n), int(many)) for hit, n in zip(hits, (a, b, c), strict=True)]
        assert between[1:] == [str(int(hit)) for hit in hits] and int(total) == sum(hits), thought
    else:
        counts = [int(n) for n in parts[0].split()[-3:]]
        same = max(map(counts.count, counts))
        assert len(parts) == 1 and int(total) == (same if between == ["same"] else sum(counts)), thought
    return ENOUGH[kind](int(total), int(wanted))


@pytest.mark.parametrize("shown", [True, False])
def test_thoughts_tell_the_truth_of_statements(shown):
    verdicts = Counter[str]()
    for seed in range(100):
        sample = statement_sample(seed, shown=shown)
        assert sample == statement_sample(seed, shown=shown) and len(sample.images) == 3 * shown
        told, messages = description(make_boxes(seed)), sample.messages[2 * shown :]
        assert sample.messages[1].text == told if shown else sample.messages[0].text.startswith(f"{told}. ")
        assert all(m.text.endswith("True or false?") for m in messages[::2])
        for answer in messages[1::2]:
            found = re.fullmatch(r"<think>(.*)</think>(true|false)", answer.text)
            assert found and follows(found[1]) == (found[2] == "true")
            verdicts[found[2]] += 1
    assert min(verdicts.values()) > 30


def test_a_box_and_what_lies_in_it():
    sample = box_sample(3)
    assert len(sample.images) == 1 and sample.messages[1].text in description(make_boxes(3)).split("; ")


def test_they_fit_the_model_that_learns_them():
    from panmodal.training.recipe import read_recipe
    from panmodal.training.run import build

    model = build(read_recipe(RECIPE).model)
    assert isinstance(model, pm.families.Chat)
    spelled = Counter(
        word
        for seed in range(100)
        for message in statement_sample(seed, shown=False).messages
        for word in re.findall("[a-z]+", message.text.lower())
        if len(model.processor.tokenizer.encode(word, special=False)) > 1
    )
    assert not set(spelled) - {"think", "ll"}, spelled  # "ll" is an All without its A
    assert all(model.processor.encode(statement_sample(seed).messages).ids for seed in range(100))
