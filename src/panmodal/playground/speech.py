"""The playground as samples to learn from, and a tokenizer that knows its words."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from panmodal.data.masks import to_rle
from panmodal.data.media import Audio, Depth
from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.data.tokens import THINKING, Tokenizer
from panmodal.playground.questions import KINDS, MULTI_STEP, Question, questions
from panmodal.playground.render import boxes, masks, render
from panmodal.playground.sound import RATE, depth, left_to_right, sound
from panmodal.playground.words import LEVELS, at, caption, full_name, listing, name, one, region
from panmodal.playground.working import worked
from panmodal.playground.world import (
    HELD_OUT,
    SEEN,
    Scene,
    crowded_scene,
    make_scene,
    one_changed,
    pick,
    random_source,
    single_object_scene,
)

DESCRIBE = {  # what asks for each level of caption
    "brief": ("What is in the picture?", "Name the objects.", "Describe the picture briefly.", "Caption this picture."),
    "detailed": ("Describe the picture.", "Describe the picture in detail.", "What do you see?"),
    "exact": ("Where exactly is every object?", "List every object with its coordinates."),
}
HEAR = ("What do you hear?", "What is in the sound?")
TRIES = 16  # for questions in a conversation
PLACES = 2  # asked about in a conversation
REASONED = 0.3  # of its questions
WHY = "How can you tell?"
THOUGHT_OVER = ("relation", "compare", "same", "same")  # kinds that compare two things: thought about before
# the answer; what is the same can seldom be asked, so that it is tried twice
HARD = ("count", "count", "digit", "digit", "colour", *THOUGHT_OVER)  # kinds asked more often
ONE = ("existence", "absent", "colour", "shape", "size", "digit", "position")  # kinds about one object
HARDEST = ("count", "digit", "position", "relation", "chain")  # kinds that are learned last


def caption_sample(seed: int, split: str = "train") -> Sample:
    """A picture, a request to describe it, and the caption, at a level that the seed picks; and the
    picture's objects."""
    rng = random_source("caption", split, seed)
    scene = make_scene(seed, split)
    level = pick(rng, LEVELS)
    asked = pick(rng, DESCRIBE[level])
    messages = (user(Image(render(scene)), asked), assistant(caption(scene, level)))
    return Sample(messages, {"level": level, "objects": _objects(scene)})


def single_sample(seed: int, split: str = "train") -> Sample:
    """A picture of one object, what it is, briefly or in detail, and where."""
    rng = random_source("object", split, seed)
    scene = single_object_scene(seed, *pick(rng, sorted(HELD_OUT) if split == "held-out" else SEEN))
    messages = (user(Image(render(scene))), assistant(caption(scene, pick(rng, LEVELS[:2]))))
    return Sample(messages, {"objects": _objects(scene)})


def match_sample(seed: int, split: str = "train") -> Sample:
    """A picture, its caption, mostly a detailed one, and a `near_miss`: the caption with one attribute of one
    object changed. Every other one is about digits, as far as there are any."""
    rng = random_source("match", split, seed)
    digits = rng.random() < 0.5
    scene = _most_digits(seed, split) if digits else make_scene(seed, split)
    level = "brief" if not digits and rng.random() < 0.3 else "detailed"
    said = miss = caption(scene, level)
    while miss == said:  # a brief caption does not tell everything
        changed = [one_changed(scene, rng) for _ in range(16 if digits else 1)]
        miss = caption(max(changed, key=lambda change: change[0] == "digit")[1], level)
    return Sample((user(Image(render(scene))), assistant(said)), {"near_miss": miss})


def audio_sample(seed: int, split: str = "train") -> Sample:
    """A picture and its sound: every other one of a single object, so that what one sounds like is soon learned."""
    scene = make_scene(seed, split)
    if seed % 2:
        pairs = sorted(HELD_OUT) if split == "held-out" else SEEN
        scene = single_object_scene(seed, *pick(random_source("audio", split, seed), pairs))
    return Sample((user(Image(render(scene)), Audio(sound(scene), RATE)),))


def sound_sample(seed: int, split: str = "train") -> Sample:
    """The sound of a scene, every other time of a single object, and what is heard: each object's colour and shape,
    from left to right."""
    scene = make_scene(seed, split)
    rng = random_source("heard", split, seed)
    if seed % 2:
        scene = single_object_scene(seed, *pick(rng, sorted(HELD_OUT) if split == "held-out" else SEEN))
    heard = listing([one(name({"colour": thing.colour, "shape": thing.shape})) for thing in left_to_right(scene)])
    return Sample((user(Audio(sound(scene), RATE), pick(rng, HEAR)), assistant(heard)))


def depth_sample(seed: int, split: str = "train") -> Sample:
    """A picture and its depth map."""
    scene = make_scene(seed, split)
    return Sample((user(Image(render(scene)), Depth(np.float32(depth(scene)) / 1000)),))


def region_sample(seed: int, split: str = "train") -> Sample:
    """A picture, and a box and a phrase for every object in it: of three scenes the fullest, for a picture
    costs the same however much there is to learn from it."""
    scene = _fullest(make_scene(3 * seed + i, split) for i in range(3))
    return Sample((user(Image(render(scene))),), {"objects": _objects(scene)})


def digit_sample(seed: int, split: str = "train") -> Sample:
    """As `region_sample`, but of four scenes that with the most digits, and of its objects those that carry
    one, and one other: digits are rare, small, and the last to be learned."""
    scene = _most_digits(seed, split)
    listed = list(zip(scene.objects, _objects(scene), strict=True))
    with_digit, without = [said for o, said in listed if o.digit], [said for o, said in listed if not o.digit]
    return Sample((user(Image(render(scene))),), {"objects": with_digit + without[:1]})


def segment_sample(seed: int, split: str = "train") -> Sample:
    """A picture of objects that may overlap, and the mask of what is seen of each, in run lengths."""
    scene = crowded_scene(seed, split)
    return Sample((user(Image(render(scene))),), {"masks": [to_rle(mask) for mask in masks(scene)]})


def _most_digits(seed: int, split: str) -> Scene:
    scenes = (make_scene(4 * seed + i, split) for i in range(4))
    return max(scenes, key=lambda s: sum(o.digit is not None for o in s.objects))


def _fullest(scenes: Iterable[Scene]) -> Scene:
    return max(scenes, key=lambda s: len(s.objects))


def _objects(scene: Scene) -> list[dict[str, object]]:
    named = zip(scene.objects, boxes(scene).tolist(), strict=True)
    return [{"box": box, "phrase": f"{one(full_name(o))} {region(o)}"} for o, box in named]


def instruction_sample(seed: int, split: str = "train", kinds: Sequence[str] = ()) -> Sample:
    """A picture, before or after the first question, and a conversation of many turns about it:
    questions, of `kinds` (or else all, the hard ones more often), some to be answered with reasons, what
    is where, and now and then a caption; last what gives the rest away."""
    rng = random_source("instruction", split, seed)
    scene = make_scene(seed, split)
    turns = [
        (f"{q.text} {WHY}", f"{q.rationale} {q.answer}") if rng.random() < REASONED else (q.text, thought(q))
        for q in questions(scene, TRIES, kinds=kinds or (*KINDS, *HARD))
    ]
    turns += _referring(scene)[:PLACES]
    if rng.random() < 0.3:
        level = pick(rng, LEVELS)
        turns.append((pick(rng, DESCRIBE[level]), caption(scene, level)))
    return conversation([Image(render(scene))], turns, question_first=rng.random() < 0.3)


def multi_step_sample(seed: int, split: str = "train", way: str = "direct") -> Sample:
    """A picture, and questions about it that take several steps, of each kind one if the scene allows.

    `way` says how they are answered: `direct`ly; by `thoughts` with the steps before each answer; or in `two-stage`: by
    the steps, and one of them also by its answer, asked for with the steps told (MM-CoT, Zhang et al., 2023).
    """
    rng = random_source("multi-step", split, seed)

    def scenes() -> Iterator[Scene]:
        return (make_scene(64 * seed + i, split) for i in range(64))

    with_path = (scene for scene in scenes() if questions(scene, 1, kinds=("path",)))  # one in 26
    scene = next(with_path, None) or _fullest(scenes())
    opening, closing = THINKING
    turns: list[tuple[str, str]] = []
    again: list[tuple[str, str]] = []
    for question in questions(scene, len(MULTI_STEP), kinds=MULTI_STEP):
        steps = worked(question.program, scene)
        if way == "direct":
            turns.append((question.text, question.answer))
        elif way == "thoughts":
            turns.append((question.text, f"{opening}{steps}{closing}{question.answer}"))
        else:
            turns.append((f"{question.text} {WHY}", steps))
            again.append((f"{question.text} {steps}", question.answer))
    turns += [pick(rng, again)] if again else []
    return conversation([Image(render(scene))], turns)


def thought_sample(seed: int, split: str = "train") -> Sample:
    """Questions to think about, most of them about relations, and the thoughts, about a picture that is not shown:
    what then can be learned is how the answer follows from the thoughts.

    Of relations most are of the left and above: with as many of the opposites no coordinate alone would make an answer
    likelier, and learning does not begin.
    """
    rng = random_source("thoughts", split, seed)
    scene = _fullest(make_scene(6 * seed + i, split) for i in range(6))
    kinds = (*THOUGHT_OVER, *["relation"] * 4)
    asked = [
        question
        for question in questions(scene, 2 * len(kinds), kinds=kinds)
        if question.program[:2] not in (["is", "right"], ["is", "below"]) or rng.random() < 0.3
    ]
    asked = asked or questions(scene, 1, kinds=("total",))
    return conversation([], [(q.text, thought(q)) for q in asked])


def thought(question: Question) -> str:
    """The answer, after thoughts where a small model needs them."""
    opening, closing = THINKING
    return (f"{opening}{question.rationale}{closing}" if question.kind in THOUGHT_OVER else "") + question.answer


def text_sample(seed: int, split: str = "train") -> Sample:
    """An exact caption in a picture's place, and a few questions, for a model of text alone."""
    scene = make_scene(seed, split)
    turns = [(q.text, q.answer) for q in questions(scene, TRIES // 4)] + _referring(scene)[:1]
    return conversation([caption(scene, "exact") + ". "], turns)


def _referring(scene: Scene) -> list[tuple[str, str]]:
    """What is at the place of each object (referring expression generation)."""
    return [(f"What is {at(o)}?", one(full_name(o))) for o in scene.objects]


def conversation(shown: list[Image | str], turns: list[tuple[str, str]], question_first: bool = False) -> Sample:
    (question, answer), *others = turns
    messages = [user(question, *shown) if question_first else user(*shown, question), assistant(answer)]
    for question, answer in others:
        messages += [user(question), assistant(answer)]
    return Sample(tuple(messages))


SPECIAL = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "image_token": "<image>",
    "user_token": "<|user|>",
    "assistant_token": "<|assistant|>",
    "system_token": "<|system|>",
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = """
a above am an and any are at background below big black blue bottom brief briefly can caption carry centre circle
circles color colors colour colours coordinates could count cross crosses cyan describe detail diamond diamonds digit
digits do does each every exactly fewer find five four give green grey has have hello how i image in is it its large
larger left leftmost list look lowest makes many me more much name no not number object objects of on one or orange
other photo picture pink please position purple quarter read red right rightmost same say see seen shape shapes show
six size small smaller somewhere square squares star stars tell than thanks that the their them there these they thing
things this three to top topmost total triangle triangles two was what where which white with yellow yes you your
""".split()


def tokenizer() -> Tokenizer:
    """One token for every word of the playground and every number below 100; letters for the rest."""
    alphabet = string.ascii_lowercase + string.digits
    pieces = [
        *SPECIAL.values(),
        *(str(n) for n in range(100)),
        *string.punctuation,
        *string.ascii_lowercase,
        *(w for w in WORDS if len(w) > 1),
        *("##" + c for c in alphabet),
        *THINKING,
    ]
    backend = Backend(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", pieces.index("<s>")), ("</s>", pieces.index("</s>"))]
    )
    backend.add_special_tokens(list(SPECIAL.values()))
    backend.add_tokens(list(THINKING))
    return Tokenizer(backend, SPECIAL)
