"""New words: in each lesson made-up words name colours and shapes anew, so that only its examples, pictures with
sentences such as "this is a dax wug.", can tell what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tokenizers import AddedToken

from panmodal.data.sample import Image, Message, Sample, assistant, user
from panmodal.data.tokens import Tokenizer
from panmodal.playground import speech
from panmodal.playground.render import render
from panmodal.playground.world import (
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    Scene,
    between,
    pick,
    random_source,
    shuffled,
    single_object_scene,
)

NEW_WORDS = tuple(
    "bamo blicket dax fep gazzer jof kiki koba lorp manu modi nooka patoo rif sopi tanzer tega toma tulver vash "
    "wiso wug yok zib".split()
)
KINDS = 4  # colours in a lesson, and shapes
ANSWERED = 9  # of the pictures in a lesson to learn from
RENAMED = ((), ("colour",), ("shape",), ("colour", "shape"))  # the others keep their names, as a first step


@dataclass(frozen=True)
class Example:
    """A picture of one object, and the two words for its colour and shape."""

    scene: Scene
    words: tuple[str, str]

    @property
    def text(self) -> str:
        return f"this is a {' '.join(self.words)}."


class Lesson:
    """Four colours and four shapes, and the words that name those of their attributes which are `renamed`.

    `query` is what is asked about: as likely any of the colours with any of the shapes, in the split `held-out` two
    that no picture of a training has together.
    """

    def __init__(self, seed: int, split: str = "train", renamed: tuple[str, ...] = RENAMED[-1]) -> None:
        self.rng = random_source("new words", split, seed)
        self.asked = pick(self.rng, sorted(HELD_OUT) if split == "held-out" else SEEN)
        self.colours, self.shapes = (
            [one, *[other for other in shuffled(self.rng, every) if other != one][: KINDS - 1]]
            for one, every in zip(self.asked, (tuple(COLOURS), SHAPES), strict=True)
        )
        named = dict(zip([*self.colours, *self.shapes], shuffled(self.rng, NEW_WORDS), strict=False))
        kept = ("colour" not in renamed) * self.colours + ("shape" not in renamed) * self.shapes
        self.words = named | {name: name for name in kept}
        self.query = self.example(*self.asked)

    def example(self, colour: str, shape: str) -> Example:
        scene = single_object_scene(between(self.rng, 0, 10**9), colour, shape)
        return Example(scene, (self.words[colour], self.words[shape]))

    def shots(self, count: int) -> list[Example]:
        """Examples, none of them with both attributes of the query.

        They come in rounds of four in which each colour and each shape is shown once: from four on, every word has
        been shown, and equally often if they are a multiple of four; with fewer, the query's may not have been.
        """
        found: list[Example] = []
        while len(found) < count:
            pairs = list(zip(shuffled(self.rng, self.colours), shuffled(self.rng, self.shapes), strict=True))
            if self.asked not in pairs and not HELD_OUT.intersection(pairs):
                found += [self.example(*pair) for pair in pairs]
        return found[:count]

    def more(self, count: int, known: Sequence[Example] = ()) -> list[Example]:
        """Further examples, each drawn on its own, so that none can be told from those before it; of the colours and
        the shapes of those `known` alone, if there are any."""
        things = [thing for example in known for thing in example.scene.objects]
        colours = [c for c in self.colours if not things or c in {thing.colour for thing in things}]
        shapes = [s for s in self.shapes if not things or s in {thing.shape for thing in things}]
        pairs = [(c, s) for c in colours for s in shapes if (c, s) not in HELD_OUT]
        return [self.example(*pick(self.rng, pairs)) for _ in range(count)]


def domain_sample(seed: int, pairs: Sequence[tuple[str, str]]) -> Sample:
    """A picture of one object, of one of the `pairs` of colour and shape, and what it is called: on every background
    by other words, so that only examples on the same one tell what they mean."""
    scene = single_object_scene(seed, *pick(random_source("domain mix", seed), pairs))
    named = dict(zip([*COLOURS, *SHAPES], shuffled(random_source("domain", scene.background), NEW_WORDS), strict=False))
    (thing,) = scene.objects
    example = Example(scene, (named[thing.colour], named[thing.shape]))
    return Sample((user(Image(render(scene))), assistant(example.text)), {"words": example.words})


def new_words_sample(seed: int, split: str = "train", *, mixed: bool = False, shown: bool = True) -> Sample:
    """A lesson to learn from: a first round, in which nothing can be known, is given, and then each picture is to be
    answered. If `mixed`, colours or shapes or both may keep their names. If not `shown`, they are said in the
    pictures' place, for a model of text alone to learn how the words follow from them."""
    renamed = pick(random_source("renamed", split, seed), RENAMED) if mixed else RENAMED[-1]
    lesson = Lesson(seed, split, renamed)
    return _lesson_sample(lesson.shots(KINDS), [*lesson.more(ANSWERED - 1), lesson.query], shown)


def few_words_sample(seed: int, split: str = "train") -> Sample:
    """A lesson that begins with one to three examples, and then asks about what they have shown alone."""
    lesson = Lesson(seed, split)
    given = lesson.more(between(lesson.rng, 1, KINDS - 1))
    return _lesson_sample(given, lesson.more(ANSWERED, given))


def _lesson_sample(given: Sequence[Example], asked: Sequence[Example], shown: bool = True) -> Sample:
    messages: list[Message] = []
    for i, example in enumerate((*given, *asked)):
        (thing,) = example.scene.objects
        seen = Image(render(example.scene)) if shown else f"{thing.colour} {thing.shape}. "
        told = i < len(given)
        messages += [user(seen, example.text + "<|endofchunk|>")] if told else [user(seen), assistant(example.text)]
    return Sample(tuple(messages))


SAMPLES: dict[str, Callable[[int], Sample]] = {
    "playground/new-words": new_words_sample,
    "playground/new-words-few": few_words_sample,
    "playground/new-words-mixed": partial(new_words_sample, mixed=True),
    "playground/new-words-text": partial(new_words_sample, mixed=True, shown=False),
}


def tokenizer() -> Tokenizer:
    """The playground's, which knows the new words, too."""
    made = speech.tokenizer()
    made.backend.add_tokens([AddedToken(word, single_word=True) for word in NEW_WORDS])
    made.add_special("<|endofchunk|>")
    return made
