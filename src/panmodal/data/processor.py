"""From texts, pictures and conversations to batches: every shape is final when it leaves here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from panmodal.data.media import Medium, Video
from panmodal.data.noise import in_noise
from panmodal.data.pictures import ImageTransform
from panmodal.data.sample import Batch, Image, Message
from panmodal.data.template import ChatTemplate
from panmodal.data.tiles import Size, Tiling
from panmodal.data.tokens import Tokenizer
from panmodal.errors import ContextError, InputError, LabelError, PlaceholderError, suggest

IGNORED = -100  # the label of a token that is not to be learned


@dataclass(frozen=True)
class Encoded:
    """One conversation: ids with every placeholder expanded, which of them to learn, its pictures and videos in
    the order of their places, the number of vectors that each fills, and the size by which it is cut into tiles,
    0 x 0 if it is not."""

    ids: list[int]
    learned: list[bool]
    media: list[Medium]
    vectors: list[int]
    sizes: list[Size]

    @property
    def images(self) -> list[Image]:
        return [medium for medium in self.media if isinstance(medium, Image)]

    @property
    def shown(self) -> list[tuple[Medium, Size]]:
        return list(zip(self.media, self.sizes, strict=True))

    @property
    def labels(self) -> list[int]:
        return [i if learn else IGNORED for i, learn in zip(self.ids, self.learned, strict=True)]


class Processor:
    """What a family needs of these: a tokenizer, an image transform, a chat template.

    `context` is the longest text or conversation in tokens; `fixed` pads texts to just that
    (SigLIP); `image_token` is the placeholder's id, which every picture fills `image_vectors` times, or,
    where it is cut into tiles, as often as `tiling` says; `video_token` and `video_vectors` are those of videos,
    for models that converse about them; `media` makes numbers of the other media that the model takes, by kind.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        images: ImageTransform | None = None,
        template: ChatTemplate | None = None,
        *,
        context: int = 0,
        fixed: bool = False,
        image_token: int | None = None,
        image_vectors: int = 0,
        tiling: Tiling | None = None,
        video_token: int | None = None,
        video_vectors: int = 0,
        media: Mapping[str, Callable[[Sequence[Any]], Tensor]] | None = None,
    ) -> None:
        self._tokenizer, self._images, self._template = tokenizer, images, template
        self.context, self.fixed = context, fixed
        self.image_token, self.image_vectors, self.tiling = image_token, image_vectors, tiling
        self.video_token, self.video_vectors = video_token, video_vectors
        self.placeholders = {t for t in (image_token, video_token) if t is not None}  # the tokens that media fill
        self.media: dict[str, Callable[[Sequence[Any]], Tensor]] = {"image": self.pictures, **(media or {})}

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InputError(
                "the checkpoint has no tokenizer that panmodal reads (tokenizer.json, vocab.txt, or vocab.json with "
                "merges.txt); a SentencePiece model is converted by transformers' "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        return self._tokenizer

    @property
    def images(self) -> ImageTransform:
        if self._images is None:
            raise InputError("this model does not see pictures: its checkpoint has no preprocessor_config.json")
        return self._images

    @property
    def template(self) -> ChatTemplate:
        if self._template is None:
            raise InputError("this model does not converse: it has no chat template")
        return self._template

    @property
    def converses(self) -> bool:
        """Whether the model has conversations; if not, what it reads are texts on their own."""
        return self._template is not None

    def pictures(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        """-> [N, 3, H, W]; with the sizes by which pictures are cut, N are the tiles of all of them"""
        pictures, noise = [image.pixels for image in images], [image.noise for image in images]
        if self.tiling is not None and sizes:
            cuts = [self.tiling.cut(p, s, self.images.resample) for p, s in zip(pictures, sizes, strict=True)]
            pictures, noise = (
                [t for cut in cuts for t in cut],
                [n for n, cut in zip(noise, cuts, strict=True) for _ in cut],
            )
        return in_noise(self.images(pictures), noise)

    def vectors(self, size: Size = (0, 0)) -> int:
        """How many places a picture fills that is cut by `size`."""
        return self.tiling.vectors(size) if self.tiling else self.image_vectors

    def medium(self, kind: str, media: Sequence[Medium]) -> Tensor:
        """Media of one kind -> [N, ...]"""
        if kind not in self.media:
            raise InputError(f"this model does not take {kind}{suggest(kind, self.media)}")
        return self.media[kind](media)

    def texts(self, texts: Sequence[str], truncate: bool = False) -> Batch:
        """Texts on their own, padded on the right."""
        rows = [self.tokenizer.encode(text) for text in texts]
        for i, row in enumerate(rows):
            if len(row) > self.context:
                if not truncate:
                    raise InputError(
                        f"a text has {len(row)} tokens and the model reads {self.context}: {texts[i][:60]!r}…; "
                        "shorten it, or cut it with truncate=True"
                    )
                rows[i] = [*row[: self.context - 1], row[-1]]  # the end token stays
        if self.fixed:
            rows = [row + [self.tokenizer.pad_id] * (self.context - len(row)) for row in rows]
        return pad_rows(rows, self.tokenizer.pad_id)

    def encode(self, messages: Sequence[Message], reply: bool = False) -> Encoded:
        """A conversation as the model's template writes it; `reply` ends it where its answer begins.

        The assistant's turns are the tokens to learn. Nothing is ever cut. Raises LabelError, with both counts:
        PlaceholderError if pictures and placeholders do not match, ContextError if the conversation is longer than
        the context, and itself if there are answers of which no token is left to learn.
        """
        encoded = self.expand(messages, reply)
        if len(encoded.ids) > self.context:
            raise ContextError(
                f"the conversation has {len(encoded.ids)} tokens ({sum(encoded.vectors)} of them for "
                f"{_counted(encoded.media)}) and the model reads {self.context}; shorten it"
            )
        return encoded

    def expand(self, messages: Sequence[Message], reply: bool = False) -> Encoded:
        """As `encode`, of any length."""
        text = self.template.render(messages, reply)
        answers = [] if reply else self._answers(messages, text)
        spans = self.tokenizer.spans(text)
        media = self._placed(messages, spans.ids)
        images = [medium for medium in media if isinstance(medium, Image)]
        cuts = iter(self.tiling.sizes(images) if self.tiling else ())
        sizes = [next(cuts, (0, 0)) if isinstance(medium, Image) else (0, 0) for medium in media]
        vectors = [
            self.vectors(size) if isinstance(medium, Image) else self.video_vectors
            for medium, size in zip(media, sizes, strict=True)
        ]
        left = iter(vectors)
        ids = self._start(text)
        learned = [False] * len(ids)
        for token, (start, end) in zip(*spans, strict=True):
            copies = next(left) if token in self.placeholders else 1
            ids += [token] * copies
            learned += [any(a < end and start < b and a <= start for a, b in answers)] * copies
        if answers and not any(learned):
            raise LabelError(
                f"the conversation has {len(answers)} answers and {len(ids)} tokens, 0 of them to learn: its answers "
                "are empty, and there is nothing to learn from it"
            )
        return Encoded(ids, learned, media, vectors, sizes)

    def batch(self, encoded: Sequence[Encoded], left: bool = False) -> Batch:
        """Rows of unequal length, padded: on the right to learn from, on the left to go on from."""
        batch = pad_rows([e.ids for e in encoded], self.tokenizer.pad_id, left)
        labels = pad_rows([e.labels for e in encoded], IGNORED, left).ids
        shown = [one for e in encoded for one in e.shown]
        images = [(medium, size) for medium, size in shown if isinstance(medium, Image)]
        videos = [medium for medium, _ in shown if isinstance(medium, Video)]
        batch = Batch(batch.ids, batch.pad, labels, media={"video": self.medium("video", videos)} if videos else {})
        if not images:
            return batch
        pictures, sizes = zip(*images, strict=True)
        return replace(batch, images=self.pictures(pictures, sizes), sizes=torch.tensor(sizes))

    def _placed(self, messages: Sequence[Message], ids: Sequence[int]) -> list[Medium]:
        """A conversation's media in the order of their places, which is the template's: of a message, LLaVA-OneVision's
        puts pictures first, then videos."""
        media = [medium for message in messages for medium in message.media]
        waiting: dict[int | None, Iterator[Medium]] = {}
        for kind, name, token in ((Image, "pictures", self.image_token), (Video, "videos", self.video_token)):
            these = [medium for medium in media if isinstance(medium, kind)]
            places = ids.count(token) if token is not None else 0
            if len(these) != places:
                raise PlaceholderError(
                    f"the conversation has {len(these)} {name} and its text {places} placeholders for them"
                    + ("" if token is not None else f"; this model does not see {name}")
                )
            waiting[token] = iter(these)
        return [next(waiting[token]) for token in ids if token in self.placeholders]

    def _start(self, text: str) -> list[int]:
        """The start token, where the tokenizer puts one before a text and the template has not. (BLIP-2 has its
        pictures before it.)"""
        start = self.tokenizer.special.get("bos_token")
        first = self.tokenizer.encode("")[:1]
        begun = bool(start) and text.replace(self.template.image, "").startswith(str(start))
        return first if start and first == [self.tokenizer.id_of(start)] and not begun else []

    def _answers(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """The stretches of the text that the assistant says, each with what ends its turn."""
        spans = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.template.render(messages[:i], reply=True)
            after = self.template.render(messages[: i + 1])
            if not (after.startswith(before) and text.startswith(after)):
                raise InputError(
                    f"the model's chat template rewrites earlier turns, so that turn {i + 1} of this conversation "
                    "reads otherwise in training than in use; give it as a conversation of its own"
                )
            spans.append((len(before), len(after)))
        return spans


def _counted(media: Sequence[Medium]) -> str:
    """As "2 pictures and 1 videos"."""
    videos = sum(isinstance(medium, Video) for medium in media)
    return f"{len(media) - videos} pictures" + (f" and {videos} videos" if videos else "")


def pad_rows(rows: Sequence[Sequence[int]], fill: int, left: bool = False) -> Batch:
    longest = max(map(len, rows))
    if all(len(row) == longest for row in rows):
        return Batch(torch.tensor(rows))
    ids = torch.full((len(rows), longest), fill)
    pad = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(len(row))
        ids[i, where] = torch.tensor(row, dtype=torch.long)
        pad[i, where] = True
    return Batch(ids, pad)
