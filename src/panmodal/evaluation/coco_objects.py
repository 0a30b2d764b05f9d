"""What captions name of COCO's 80 kinds of things, and hallucinations in photographs by it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.hallucination import CHAIR, Hallucination
from panmodal.evaluation.layouts import fields, found, maybe, read_json
from panmodal.evaluation.task import Example
from panmodal.evaluation.yes_no import Pope

DESCRIBE = "Please describe this image in detail."
SYNONYMS = """
person: man, woman, boy, girl, child, kid, baby, lady, guy, player, skier, surfer, rider, pedestrian, batter, pitcher,
  adult, toddler, crowd, snowboarder, skateboarder
bicycle: bike, cycle
car: automobile, sedan, suv, taxi, cab, minivan
motorcycle: motorbike, scooter, moped
airplane: plane, aeroplane, jet, aircraft, airliner
bus: minibus, coach
train: locomotive
truck: pickup, lorry, firetruck
boat: ship, sailboat, canoe, kayak, ferry, yacht
traffic light: stoplight, traffic signal, stop light
fire hydrant: hydrant
stop sign
parking meter
bench
bird: duck, goose, seagull, gull, pigeon, parrot, owl, swan, geese
cat: kitten, kitty
dog: puppy, pup
horse: pony, foal
sheep: lamb
cow: cattle, bull, calf, ox, calves
elephant
bear: bear cub
zebra
giraffe
backpack: rucksack, knapsack
umbrella: parasol
handbag: purse
tie: necktie
suitcase: luggage
frisbee
skis: ski
snowboard
sports ball: ball, baseball, football, basketball, soccer ball, tennis ball
kite
baseball bat: bat
baseball glove: glove, mitt
skateboard
surfboard
tennis racket: racket, racquet, tennis racquet
bottle
wine glass: wineglass
cup: mug
fork
knife
spoon
bowl
banana
apple
sandwich: burger, hamburger
orange
broccoli
carrot
hot dog: hotdog
pizza
donut: doughnut
cake: cupcake
chair: armchair, stool
couch: sofa, loveseat
potted plant: houseplant, plant
bed
dining table: table, desk
toilet
tv: television, monitor
laptop
mouse: computer mouse, mice
remote: remote control
keyboard
cell phone: phone, cellphone, smartphone, mobile phone
microwave: microwave oven
oven: stove
toaster
sink
refrigerator: fridge
book
clock
vase
scissors
teddy bear: teddybear
hair drier: hairdryer, hair dryer, blow dryer
toothbrush
"""
IRREGULAR = {"man": "men", "woman": "women", "child": "children", "person": "people", "knife": "knives", "ox": "oxen"}


class CocoHallucinations(Hallucination):
    """POPE's questions (see `Pope`), and descriptions of the pictures that they are about, of which
    `instances_val2014.json` and, where it is there, what people say in `captions_val2014.json` tell what is there
    (CHAIR, Rohrbach et al., 2018). The synonyms of the 80 kinds are this library's own."""

    splits = ("val",)

    def examples(self, data: Path, split: str) -> list[Example]:
        asked = []
        for one in Pope().examples(data, "all"):
            picture = one.parts[0]
            assert isinstance(picture, Image)
            about = {"kind": f"pope_{one.about['kind']}", "picture": Path(picture.name).name}
            asked.append(Example(one.id, one.parts, one.truth, about))
        pictures = {one.about["picture"]: one.parts[0] for one in asked}
        there = self._there(data)
        if missing := [name for name in pictures if name not in there]:
            raise InputError(
                f"instances_val2014.json tells nothing of {missing[0]}, and of {len(missing) - 1:,} others"
            )
        described = [
            Example(f"{CHAIR}/{name}", (picture, DESCRIBE), there[name], {"kind": CHAIR, "picture": name})
            for name, picture in pictures.items()
        ]
        return [*asked, *described]

    def _there(self, data: Path) -> dict[str, list[str]]:
        """By its file's name, the kinds of things in a picture"""
        path = found(data, "annotations/instances_val2014.json", "instances_val2014.json")
        images, notes, categories = fields(read_json(path), path, "images", "annotations", "categories")
        kinds = {one["id"]: one["name"] for one in categories}
        seen: dict[Any, set[str]] = defaultdict(set)
        for note in notes:
            picture, category = fields(note, path, "image_id", "category_id")
            seen[picture].add(kinds[category])
        if captions := maybe(data, "annotations/captions_val2014.json", "captions_val2014.json"):
            for note in fields(read_json(captions), captions, "annotations")[0]:
                picture, caption = fields(note, captions, "image_id", "caption")
                seen[picture] |= self.named(caption).keys()
        return {one["file_name"]: sorted(seen[one["id"]]) for one in images}

    def named(self, text: str) -> Counter[str]:
        pattern, kinds = _words()
        return Counter(kinds[word] for word in re.findall(pattern, text.lower()))


@cache
def _words() -> tuple[str, dict[str, str]]:
    """A pattern of all names of things, the longest first, and which kind each is of"""
    kinds: dict[str, str] = {}
    for line in SYNONYMS.replace("\n ", "").strip().splitlines():
        kind, _, others = line.partition(": ")
        for word in (kind, *filter(None, others.split(", "))):
            plural = IRREGULAR.get(word) or word + ("es" if word.endswith(("s", "ch", "sh", "x")) else "s")
            kinds |= {word: kind, plural: kind}
            if word[-1] == "y":
                kinds[f"{word[:-1]}ies"] = kind
    longest = sorted(kinds, key=len, reverse=True)
    return rf"\b({'|'.join(longest)})\b", kinds
