from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.formats import open_data
from panmodal.data.masks import from_rle
from panmodal.errors import InputError
from panmodal.playground import (
    COLOURS,
    HELD_OUT,
    KINDS,
    LEVELS,
    SEEN,
    SHAPES,
    SPLITS,
    boxes,
    caption,
    crowded_scene,
    make_scene,
    masks,
    objects_named,
    one_changed,
    questions,
    render,
    run,
    single_object_scene,
    sound,
)
from panmodal.playground.recognise import is_scene
from panmodal.playground.speech import (
    HARD,
    WHY,
    caption_sample,
    digit_sample,
    instruction_sample,
    match_sample,
    region_sample,
    segment_sample,
    single_sample,
    text_sample,
    thought_sample,
    tokenizer,
)
from panmodal.playground.world import random_source
from panmodal.training.stages import OBJECTIVES


def test_a_seed_gives_the_same_bytes_everywhere():
    """Of scenes, pictures, captions and questions. If this fails, every model must be trained anew."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for seed in range(40):
            scene = make_scene(seed, split)
            digest.update(repr(scene).encode())
            digest.update(render(scene).tobytes())
            digest.update(render(scene, 71).tobytes())
            digest.update("".join(caption(scene, level) for level in LEVELS).encode())
            digest.update(repr(questions(scene, 20)).encode())
    assert digest.hexdigest() == "4db35516fd0864c5df3f51b35714e8e398ebd5dbab64347292288426f0b255f4"


def test_splits_do_not_meet():
    for seed in range(200):
        for split in ("train", "test"):
            assert not {(o.colour, o.shape) for o in make_scene(seed, split).objects} & HELD_OUT
        assert {(o.colour, o.shape) for o in make_scene(seed, "held-out").objects} & HELD_OUT
    assert make_scene(3, "train").objects != make_scene(3, "test").objects
    assert len(HELD_OUT) == 8 and len(SEEN) == 40
    with pytest.raises(InputError, match="did you mean 'held-out'"):
        make_scene(0, "heldout")


def test_scenes_are_varied_and_evenly_drawn():
    scenes = [make_scene(seed) for seed in range(3000)]
    counts = Counter(len(s.objects) for s in scenes)
    assert set(counts) == set(range(1, 7)) and max(counts.values()) < 1.25 * min(counts.values())
    themes = Counter(len(s.fitting(s.theme)) for s in scenes)
    assert set(themes) == set(range(5)) and max(themes.values()) < 1.25 * min(themes.values())
    for attribute, values in (("colour", COLOURS), ("shape", SHAPES), ("size", ("small", "large"))):
        seen = Counter(getattr(o, attribute) for s in scenes for o in s.objects)
        assert set(seen) == set(values) and max(seen.values()) < 1.4 * min(seen.values())


def test_objects_keep_apart_and_inside():
    for seed in range(300):
        things = make_scene(seed).objects
        for i, a in enumerate(things):
            assert a.radius < a.x < 96 - a.radius and a.radius < a.y < 96 - a.radius
            for b in things[:i]:
                assert (a.x - b.x) ** 2 + (a.y - b.y) ** 2 >= (a.radius + b.radius) ** 2


@pytest.mark.parametrize("size", [48, 96, 97, 256])
def test_masks_and_boxes_are_where_the_paint_is(size):
    for seed in range(40):
        scene = make_scene(seed)
        picture, shown, around = render(scene, size).astype(int), masks(scene, size), boxes(scene, size)
        assert picture.shape == (size, size, 3) and shown.shape == (len(scene.objects), size, size)
        assert (shown.sum(0) <= 1).all()
        painted = np.abs(picture - picture[0, 0]).max(-1) > 20
        inside = shown.any(0)
        assert (inside & ~painted).mean() < 0.02  # ink as dark as the background, at most
        assert (painted & ~inside).mean() < 6 / size  # half-covered pixels of the outline
        for thing, mask, (x0, y0, x1, y1) in zip(scene.objects, shown, around, strict=True):
            ys, xs = mask.nonzero()
            assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
            assert abs((x0 + x1) / 2 - thing.x * size / 96) < 3 * size / 96
            assert np.abs(picture[mask] - thing.tint).max(-1).min() < 12


def test_a_crowd_overlaps_and_hides_nothing_whole():
    shares = []
    for split in SPLITS:
        for seed in range(100):
            scene = crowded_scene(seed, split)
            assert scene == crowded_scene(seed, split)
            seen = masks(scene).sum((1, 2))
            whole = [masks(replace(scene, objects=(thing,))).sum() for thing in scene.objects]
            shares += (seen / whole).tolist()
            assert bool({(o.colour, o.shape) for o in scene.objects} & HELD_OUT) == (split == "held-out")
    assert min(shares) > 0.3
    assert sum(share < 0.95 for share in shares) > len(shares) / 6
    sample = segment_sample(3)
    assert [from_rle(rle).tolist() for rle in sample.about["masks"]] == masks(crowded_scene(3)).tolist()


def test_captions():
    scene = make_scene(7)
    assert caption(scene, "brief").count(" a ") + 1 >= 2
    for thing in scene.objects:
        assert f"{thing.size} {thing.colour} {thing.shape}" in caption(scene, "detailed")
        assert f"at {thing.x} {thing.y}" in caption(scene, "exact")
    with pytest.raises(InputError, match="did you mean 'brief'"):
        caption(scene, "breif")


@pytest.mark.parametrize("level", LEVELS)
def test_objects_named_in_captions(level):
    for seed in range(50):
        scene = make_scene(seed, "held-out")
        assert objects_named(caption(scene, level)) == Counter((o.colour, o.shape) for o in scene.objects)
    assert objects_named("no red stars, a redder star and three small pink crosses") == {
        ("red", "star"): 0,
        ("pink", "cross"): 3,
    }


@pytest.mark.parametrize("split", SPLITS)
def test_a_near_miss_differs_in_one_word(split):
    seen = Counter()
    for seed in range(200):
        scene = make_scene(seed, split)
        attribute, other = one_changed(scene, random_source("test", seed))
        words, others = caption(scene).split(), caption(other).split()
        assert sum(a != b for a, b in zip(words, others, strict=True)) == 1
        changed = [(a, b) for a, b in zip(scene.objects, other.objects, strict=True) if a != b]
        assert [replace(a, **{attribute: getattr(b, attribute)}) for a, b in changed] == [b for _, b in changed]
        assert split == "held-out" or all((o.colour, o.shape) in SEEN for o in other.objects)
        seen[attribute] += 1
    assert seen.keys() == {"colour", "shape", "size", "digit"}


def test_matches_bring_a_caption_and_a_near_miss():
    digits = 0
    for seed in range(60):
        sample = match_sample(seed)
        said, miss = sample.messages[1].text, sample.about["near_miss"]
        scenes = [make_scene(s) for s in (seed, *range(4 * seed, 4 * seed + 4))]
        assert said != miss and said in {caption(scene, level) for scene in scenes for level in LEVELS[:2]}
        digits += sum((Counter(said) - Counter(miss)).values()) == 1 and any(c.isdigit() for c in said)
    assert digits > 20


def test_there_are_all_kinds_and_each_is_asked():
    asked = Counter(q.kind for seed in range(300) for q in questions(make_scene(seed), len(KINDS)))
    assert len(KINDS) >= 12 and set(asked) == set(KINDS)
    assert min(asked.values()) > 90


def test_answers_are_what_programs_find_and_pictures_show():
    """Each answer is worked out again here, from the objects alone."""
    for split in SPLITS:
        for seed in range(150):
            scene = make_scene(seed, split)
            for q in questions(scene, 20):
                assert run(q.program, scene) == q.answer
                assert json.loads(json.dumps(q.program)) == q.program
                assert q.rationale.endswith(".")
                things = scene.objects
                if q.kind in ("existence", "absent"):
                    wanted = q.program[1][1]
                    assert (q.answer == "yes") == any(
                        all(getattr(t, a) == v for a, v in wanted.items()) for t in things
                    )
                elif q.kind == "total":
                    assert int(q.answer) == len(things)
                elif q.kind == "count":
                    assert int(q.answer) == sum(all(getattr(t, a) == v for a, v in scene.theme.items()) for t in things)
                elif q.kind == "relation":
                    _, way, (_, (_, a)), (_, (_, b)) = q.program
                    (first,), (second,) = scene.fitting(a), scene.fitting(b)
                    further = {
                        "left": first.x < second.x,
                        "right": first.x > second.x,
                        "above": first.y < second.y,
                        "below": first.y > second.y,
                    }[way]
                    assert (q.answer == "yes") == further


@pytest.fixture(scope="module", params=["train", "held-out"])
def asked(request):
    found = defaultdict(list)
    for seed in range(6000):
        for q in questions(make_scene(seed, request.param), 20):
            found[q.kind].append((q.text, q.answer))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_can_be_answered_from_the_question_alone(kind, asked):
    """Two guessers that never see a picture learn from half of the questions and answer the others:
    one knows each question's most common answer, the other adds up what each word tells. Chance is
    one over the number of answers of the kind."""
    pairs = asked[kind]
    learn, test = pairs[::2], pairs[1::2]
    answers = sorted({answer for _, answer in pairs})
    usual = Counter(answer for _, answer in learn)
    by_text, by_word = defaultdict(Counter), defaultdict(Counter)
    for text, answer in learn:
        by_text[text][answer] += 1
        for word in {*text.split(), *zip(text.split(), text.split()[1:], strict=False)}:
            by_word[word][answer] += 1

    def remembered(text):
        return (by_text.get(text) or usual).most_common(1)[0][0]

    def reckoned(text):
        score = Counter({a: float(np.log(usual[a] + 1)) for a in answers})
        for word in {*text.split(), *zip(text.split(), text.split()[1:], strict=False)}:
            for a in answers:
                score[a] += float(np.log((by_word[word][a] + 1) / (usual[a] + len(by_word))))
        return score.most_common(1)[0][0]

    for guess in (remembered, reckoned):
        right = sum(guess(text) == answer for text, answer in test) / len(test)
        assert right <= 1 / len(answers) + 0.05, f"{guess.__name__}: {right:.3f} of {len(answers)} answers"


def test_one_object_scenes():
    scene = single_object_scene(3, "red", "star")
    assert [(o.colour, o.shape) for o in scene.objects] == [("red", "star")]


def test_the_tokenizer_knows_every_word():
    words = tokenizer()
    for seed in range(300):
        samples = (caption_sample, single_sample, instruction_sample, text_sample)
        for sample in [make(seed) for make in samples]:
            for message in sample.messages:
                pieces = words.backend.encode(message.text, add_special_tokens=False).tokens
                assert not [p for p in pieces if p.startswith("##") or p == "<unk>"], message.text
    assert words.decode(words.encode("How many red circles are there?")) == "how many red circles are there?"
    assert words.decode(words.encode("Xylophone 7x!")) == "xylophone 7x!"


def test_programs_name_their_mistakes():
    scene = make_scene(0)
    with pytest.raises(InputError, match="did you mean 'count'"):
        run(["cuont", ["find", {}]], scene)
    with pytest.raises(InputError, match="'only' needs exactly one object"):
        run(["only", ["find", {"colour": "no such"}]], scene)


def test_scenes_are_told_from_photographs(fixtures):
    assert all(
        is_scene(Pil.fromarray(render(make_scene(seed, split), size)))
        for seed in range(60)
        for split in SPLITS
        for size in (96, 224)
    )
    photos = [pm.Image(path).pixels for path in (fixtures / "photos").glob("*.jpg")]
    assert sum(is_scene(photo) for photo in photos) <= len(photos) // 20


def test_export(command, tmp_path):
    result = command("playground", tmp_path / "out", "--count", 5, "--split", "held-out", "--size", 128, "--json")
    assert (result.code, json.loads(result.out)["scenes"]) == (0, 5)
    source = open_data(tmp_path / "out" / "data.jsonl")
    sample = source.sample(2)
    assert sample.images[0].pixels.size == (128, 128)
    assert sample.messages[1].role == "assistant"
    assert {q["kind"] for q in sample.about["questions"]} <= set(KINDS)
    numbers = np.asarray(Pil.open(tmp_path / "out" / "masks" / "000002.png"))
    assert numbers.max() == len(sample.about["objects"])
    x0, y0, x1, y1 = sample.about["objects"][0]["box"]
    assert (numbers[y0:y1, x0:x1] == 1).any() and (numbers == 1).sum() == (numbers[y0:y1, x0:x1] == 1).sum()
    assert (OBJECTIVES["masks"].encode(None, sample)[1].numpy().sum(0) == (numbers > 0)).all()
    for objective in ("regions", "contrastive_captioning"):  # which read the objects
        OBJECTIVES[objective].encode(pm.load("tiny/clip").processor, sample)
    heard = pm.Audio(tmp_path / "out" / sample.about["sound"])
    assert heard == pm.Audio(sound(make_scene(2, "held-out")), 16_000)
    away = pm.Depth(tmp_path / "out" / sample.about["depth"]).values
    assert away.shape == (128, 128) and (away[numbers == 0] == 6).all() and (away[numbers > 0] < 5).all()
    assert Pil.open(tmp_path / "out" / "overview.png").width > 1000
    assert "not empty" in command("playground", tmp_path / "out").err


def test_regions_are_many():
    usual = sum(len(make_scene(seed).objects) for seed in range(200))
    assert sum(len(region_sample(seed).about["objects"]) for seed in range(200)) > usual + 200


def test_digits_are_many():
    for seed in range(50):
        phrases = [o["phrase"] for o in digit_sample(seed).about["objects"]]
        assert sum("digit" not in phrase for phrase in phrases) <= 1 <= len(phrases)
    assert sum(len(digit_sample(seed).about["objects"]) for seed in range(200)) > 500


def test_objects_are_listed_with_their_boxes():
    for seed in range(50):
        sample = caption_sample(seed)
        assert len(sample.about["objects"]) == len(make_scene(seed).objects)
        (only,) = single_sample(seed).about["objects"]
        kind = " ".join(only["phrase"].split()[2:4])
        text = single_sample(seed).messages[-1].text
        assert kind in text
        assert sum(text.count(shape) for shape in SHAPES) == 1
        assert not any(f"{colour} {shape}" in text for colour, shape in HELD_OUT)


def test_places_are_asked_about_last():
    """What a turn gives away must not spare the earlier ones a look at the picture."""
    scene = make_scene(6)
    texts = [m.text for m in instruction_sample(6).messages]
    places = [i for i, text in enumerate(texts) if text.startswith("What is at ")]
    assert places and min(places) >= 2 * len(questions(scene, 16, kinds=(*KINDS, *HARD)))
    for asked, said in zip(texts[min(places) :: 2], texts[min(places) + 1 :: 2], strict=True):
        x, y = map(int, asked.removeprefix("What is at ").rstrip("?").split())
        (there,) = [o for o in scene.objects if (o.x, o.y) == (x, y)]
        assert said.startswith(f"a {there.size} {there.colour} {there.shape}")


def test_some_questions_are_answered_with_reasons():
    turns = 0
    for seed in range(100):
        texts = [m.text for m in instruction_sample(seed, kinds=("colour",)).messages]
        for asked, said in zip(texts[::2], texts[1::2], strict=True):
            if asked.endswith("How can you tell?"):
                assert said.split()[-1] in COLOURS
                assert said.count(".") == 1
                turns += 1
    assert turns > 20


def test_thoughts_are_mostly_about_relations_and_of_those_of_the_left_and_above():
    asked = " ".join(m.text for seed in range(50) for m in thought_sample(seed).messages[::2])
    towards = Counter(re.findall("(left of|right of|above|below) the", asked))
    assert sum(towards.values()) > asked.count("?") / 2
    assert min(towards["left of"], towards["above"]) > 2 * max(towards["right of"], towards["below"])


def test_two_things_are_compared_after_thoughts():
    thought = re.compile("<think>(.+)[.]</think>(yes|no)")
    for seed in range(50):
        texts = [m.text for m in thought_sample(seed).messages]
        assert texts and all(thought.fullmatch(said) for said in texts[1::2])
        texts = [m.text for m in instruction_sample(seed).messages]
        for asked, said in zip(texts[::2], texts[1::2], strict=True):
            compares = re.match(r"(Is the .*(left|right|above|below) |Are there (more|fewer) |.* the same )", asked)
            if not asked.endswith(WHY):
                assert bool(thought.fullmatch(said)) == bool(compares), asked
