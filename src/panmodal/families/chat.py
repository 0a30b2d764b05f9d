"""What every family that converses can do: reply, stream, answer many at once."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from panmodal.cache import Cache, Source
from panmodal.checkpoints.adapters import in_memory, read_adapter, save_adapter
from panmodal.checkpoints.names import Names
from panmodal.data.media import Medium, plural
from panmodal.data.noise import all_in_noise
from panmodal.data.processor import Encoded, pad_rows
from panmodal.data.sample import Batch, Conversation, Image, Message, as_conversation, assistant
from panmodal.data.template import PLAIN
from panmodal.data.tiles import Size
from panmodal.data.tokens import THINKING, Tokenizer
from panmodal.errors import InputError
from panmodal.families.base import Family
from panmodal.generate import ENDED, Sampling, generate
from panmodal.language import LanguageModel
from panmodal.lora import Lora, adapters, add_lora, merge_lora
from panmodal.quick import quicken

M = TypeVar("M", bound=nn.Module)

KEPT_MEDIA = 16  # of which the vectors are remembered
Shown = tuple[Medium, Size]  # a medium, and the size by which it is cut into tiles


@runtime_checkable
class Conversational(Protocol):
    """What answers conversations, here (`Chat`) or behind a server (`Remote`)."""

    name: str

    @property
    def interleaved(self) -> bool:
        """Whether it reads several pictures, each among its words, in one prompt."""

    def reply(self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any) -> Message: ...

    def stream(
        self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any
    ) -> Iterator[str]: ...

    def reply_all(
        self, conversations: Sequence[Iterable[Message]], rows: int = 16, *, thoughts: bool = False, **options: Any
    ) -> list[Message]: ...


class Chat(Family[M]):
    """Replies to conversations.

    It remembers what the model made of the last conversation and pictures, and starts from there
    when the next begins alike: a second question about a picture costs the question alone. What is
    remembered is found by content (token ids; digests of pixels), and dropped when weights change.
    """

    interleaved = False  # whether it learned to read several pictures, each with its words, in one prompt
    base = ""  # what its adapters are for, if it has any
    tuned: set[str]  # names of what was trained whole since it has them
    _last: _Remembered | None = None
    _vectors: OrderedDict[Hashable, Tensor]

    @property
    @abstractmethod
    def language(self) -> LanguageModel: ...

    @abstractmethod
    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Iterable[Tensor]:
        """Pictures, and the size by which each is cut into tiles, if any is -> for each [P, D], the vectors that
        stand for it among the words"""

    def encode_others(self, kind: str, media: Sequence[Medium]) -> Iterable[Tensor]:
        """As `encode_images`, of another kind of media, in the families that converse about it"""
        raise InputError(f"this model does not take {plural(kind)}")

    @abstractmethod
    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        """ids [B, T], vectors of all their media [V, D] in reading order -> [B, T, D]"""

    def source(self, ids: Tensor, shown: Sequence[Shown]) -> Source | None:
        """ids [B, S] of whole prompts, and all their pictures in reading order -> what cross-attention looks at, in
        the families that have it"""
        return None

    def reply(self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any) -> Message:
        """The assistant's answer to a question, a message or a conversation.

        Options are those of `Sampling`: `max_tokens`, `temperature`, `top_p`, `seed`, `stop`, …
        What a model thinks before it answers, between `<think>` and `</think>` as Qwen3 does, counts
        among its tokens, and is left out of the answer unless `thoughts` are asked for.
        """
        return assistant("".join(self.stream(said, thoughts=thoughts, **options)))

    def stream(
        self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any
    ) -> Iterator[str]:
        """The answer, piece by piece as it is found."""
        said = as_conversation(said)
        encoded = self.processor.encode(said, reply=True)
        sampling = Sampling.fitting(self._told(options), len(encoded.ids), self.language.context)
        text = self._pieces(encoded, sampling, thoughts)
        keys, cache, chosen = self._keys(encoded), None, list[int]()
        if sampling.contrast or self.language.reads_whole:
            tokens = self._tokens([said], [encoded], sampling)
        else:
            known, cache = self._recall(keys, len(encoded.ids) + sampling.max_tokens)
            ids = torch.tensor([encoded.ids], device=self.device)
            fresh = [shown for shown, first in zip(encoded.shown, self._firsts(encoded), strict=True) if first >= known]
            with torch.inference_mode():
                source = self.source(ids, encoded.shown)
                x = self.vectors(ids[:, known:], self._look(fresh))
            tokens = generate(self.language, ids, x, sampling, self._ends, cache=cache, source=source)
        for token in tokens:
            chosen.append(int(token))
            yield from text.add(int(token))
            if text.stopped:
                break
        if cache is not None and sampling.beams == 1:
            self._last = _Remembered([*keys, *chosen][: cache.length], cache, self._weights())
        yield from text.rest()

    def reply_all(
        self, conversations: Sequence[Iterable[Message]], rows: int = 16, *, thoughts: bool = False, **options: Any
    ) -> list[Message]:
        """Answers to many conversations, `rows` of them at a time; each is what `reply` would say."""
        replies: list[Message] = []
        for start in range(0, len(conversations), rows):
            said = [list(conversation) for conversation in conversations[start : start + rows]]
            encoded = [self.processor.encode(one, reply=True) for one in said]
            sampling = Sampling.fitting(self._told(options), max(len(e.ids) for e in encoded), self.language.context)
            tokens = self._tokens(said, encoded, sampling)
            for asked, row in zip(encoded, torch.stack(list(tokens), dim=1).tolist(), strict=True):
                text = self._pieces(asked, sampling, thoughts)
                pieces = [piece for token in row if not text.stopped for piece in text.add(token)]
                replies.append(assistant("".join([*pieces, *text.rest()])))
        return replies

    def _tokens(self, said: Sequence[Conversation], encoded: Sequence[Encoded], sampling: Sampling) -> Iterator[Tensor]:
        """What `generate` makes of whole conversations, side by side."""
        if sampling.contrast:
            noisy = [all_in_noise(conversation, sampling.noise) for conversation in said]
            encoded = [*encoded, *(self.processor.encode(one, reply=True) for one in noisy)]
        heads = [] if sampling.contrast else self._heads(encoded)
        if len(set(heads)) < len(heads):
            return self._after(heads, encoded, sampling)
        batch = self._padded([e.ids for e in encoded])
        with torch.inference_mode():
            shown = [one for e in encoded for one in e.shown]
            x, source = self.vectors(batch.ids, self._look(shown)), self.source(batch.ids, shown)
            ids, x, pad, source = self.language.begin(batch.ids[: len(said)], x, batch.pad, source)
        return generate(self.language, ids, x, sampling, self._ends, pad, source=source)

    def _heads(self, encoded: Sequence[Encoded]) -> list[tuple[Hashable, ...]]:
        """Prompts up to their last picture; none where one has no picture, or where they are not to be parted: tokens
        look at a source, or no further than a window, or who knows where (a language model of `transformers`)."""
        body = getattr(self.language, "body", None)
        whole = type(self).source is not Chat.source or body is None or body.config.window or self.language.reads_whole
        if whole or not all(e.media for e in encoded):
            return []
        return [tuple(self._keys(e)[: self._firsts(e)[-1] + e.vectors[-1]]) for e in encoded]

    def _after(
        self, heads: Sequence[tuple[Hashable, ...]], encoded: Sequence[Encoded], sampling: Sampling
    ) -> Iterator[Tensor]:
        """The same of prompts of which several begin alike: every head is gone through once."""
        different = dict(zip(heads, encoded, strict=True))
        rows = torch.tensor([list(different).index(head) for head in heads], device=self.device)
        begun = self._padded([e.ids[: len(head)] for head, e in different.items()])
        rest = self._padded([e.ids[len(head) :] for head, e in zip(heads, encoded, strict=True)])
        ids = torch.cat([begun.ids[rows], rest.ids], dim=1)
        pad = torch.cat([begun.real[rows], rest.real], dim=1)
        with torch.inference_mode():
            cache = self.language.make_cache(len(different), ids.shape[1] + sampling.max_tokens)
            seen = self._look([one for e in different.values() for one in e.shown])
            self.language.decode(self.vectors(begun.ids, seen), begun.pad, cache)
            cache.select(rows)
            x = self.vectors(rest.ids, None)
        return generate(self.language, ids, x, sampling, self._ends, None if pad.all() else pad, cache)

    def _padded(self, rows: Sequence[Sequence[int]]) -> Batch:
        return pad_rows(rows, self.processor.tokenizer.pad_id, left=True).to(self.device)

    def quicken(self) -> Self:
        """Makes a float32 model on a CPU answer quicker, from further copies of its weights; see `QuickLinear` for
        what that costs."""
        quicken(self.model)
        return self

    def add_words(self, words: Iterable[str]) -> Self:
        """Gives each word that the tokenizer spells in pieces a token of its own, whose vector begins as the mean of
        theirs: for data whose words are not the model's."""
        tokenizer, language = self.processor.tokenizer, self.language
        spelled = {word: ids for word in words if len(ids := tokenizer.encode(word, special=False)) > 1}
        tokenizer.add_words(spelled)
        rows = max(tokenizer.size, len(language.embed.vectors.weight))
        language.grow(rows)
        with torch.no_grad():
            for table in (language.embed.vectors.weight, language.head.weight):
                for word, ids in spelled.items():
                    table[tokenizer.id_of(word)] = table[ids].mean(0)
        self.config.get("text_config", self.config)["vocab_size"] = rows
        self.checkpoint.files.update(tokenizer.to_files())
        self.processor = self.make_processor()
        self.forget()
        return self

    def adapt(self, lora: Lora | None = None, **settings: Any) -> Self:
        """Puts fresh adapters on the language model, by the settings of a `Lora`: in it, these alone are trained from
        now on, and `save` writes them, and what else was trained since, in PEFT's format."""
        add_lora(self.language, lora or Lora(**settings))
        self.base, self.tuned = self.name, set[str]()
        self.forget()
        return self

    def read_adapter(self, folder: str | os.PathLike[str], allow_pickle: bool = False) -> Self:
        """Puts on the adapters of a folder in PEFT's format. Raises CheckpointError if they do not fit."""
        if adapters(self.model):
            raise InputError("this model has adapters already; merge() them before others come")
        names = self._in_memory()
        tables = [names, self.checkpoint.names]
        self.tuned = read_adapter(Path(folder), self.model, self.language, tables, allow_pickle)
        self.base = self.name
        self.forget()
        return self

    def merge(self) -> Self:
        """Adds the adapters to the weights: the model does what it did with them, and is saved as a whole again."""
        merge_lora(self.language)
        self.forget()
        return self

    def save(self, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        if adapters(self.model):
            save_adapter(Path(folder), self.model, self._in_memory(), self.base, self.tuned)
        else:
            super().save(folder, dtype)

    def _in_memory(self) -> Names:
        with torch.device("meta"):
            return in_memory(type(self).build(self.config)[1], self.config["model_type"])

    def forget(self) -> None:
        """Frees what is remembered of conversations and pictures."""
        self._last, self._vectors = None, OrderedDict()

    def _pieces(self, asked: Encoded, sampling: Sampling, thoughts: bool) -> _Pieces:
        tokenizer, chats = self.processor.tokenizer, self.processor.template.source != PLAIN
        opening, closing = (tokenizer.id_of(t) if chats and not thoughts else None for t in THINKING)
        begun = opening in asked.ids[-2:] and closing not in asked.ids[-2:]  # by the template, and a new line
        return _Pieces(tokenizer, sampling.stop, chats, opening, closing, begun)

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a reply: the tokenizer's, and those of `generation_config.json`."""
        named = self.checkpoint.json("generation_config.json").get("eos_token_id")
        ends = named if isinstance(named, list) else [named]
        return [i for i in {*ends, self.processor.tokenizer.eos_id} if i is not None]

    def _told(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options, and the checkpoint's own strings that end a reply where there is no `stop` among them."""
        return {"stop": self.checkpoint.json("generation_config.json").get("stop_strings") or (), **options}

    def _keys(self, encoded: Encoded) -> list[Hashable]:
        """What stands at each place: a token, or a part of a certain medium."""
        keys: list[Hashable] = list(encoded.ids)
        shown = zip(encoded.shown, self._firsts(encoded), encoded.vectors, strict=True)
        for (medium, size), first, vectors in shown:
            keys[first : first + vectors] = [(medium.key, size, i) for i in range(vectors)]
        return keys

    def _firsts(self, encoded: Encoded) -> list[int]:
        """Where each medium's vectors begin."""
        places = [i for i, token in enumerate(encoded.ids) if token in self.processor.placeholders]
        return [places[sum(encoded.vectors[:i])] for i in range(len(encoded.media))]

    def _recall(self, keys: list[Hashable], size: int) -> tuple[int, Cache]:
        """How many leading tokens are in a cache already, and that cache; at least one is left to do."""
        last, self._last = self._last, None
        if last is None or last.weights != self._weights():
            return 0, self.language.make_cache(1, size)
        known = 0
        for mine, theirs in zip(keys[:-1], last.keys, strict=False):
            if mine != theirs:
                break
            known += 1
        while known and isinstance(keys[known], tuple):  # never part of a picture
            known -= 1
        last.cache.resize(size, known)
        return known, last.cache

    def _look(self, shown: Sequence[Shown]) -> Tensor | None:
        """The vectors of media [V, D], each encoded once."""
        if not shown:
            return None
        if not hasattr(self, "_vectors"):
            self._vectors = OrderedDict()
        weights = self._weights()
        keys = [(medium.key, size, weights) for medium, size in shown]
        new = {key: one for key, one in zip(keys, shown, strict=True) if key not in self._vectors}
        found: dict[Hashable, Tensor] = {}
        if new:
            found = dict(zip(new, self._encode(list(new.values())), strict=True))
        vectors = [found[key] if key in found else self._vectors[key] for key in keys]
        for key, vector in zip(keys, vectors, strict=True):
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
        while new and len(self._vectors) > max(KEPT_MEDIA, len(shown)):
            self._vectors.popitem(last=False)
        return torch.cat(vectors)

    def _encode(self, shown: Sequence[Shown]) -> Iterator[Tensor]:
        """For each medium [P, D]; those of a kind go through the encoder together."""
        found: dict[str, Iterator[Tensor]] = {}
        for kind in dict.fromkeys(medium.kind for medium, _ in shown):
            media, sizes = zip(*((m, size) for m, size in shown if m.kind == kind), strict=True)
            found[kind] = iter(self.encode_images(media, sizes) if kind == "image" else self.encode_others(kind, media))
        return (next(found[medium.kind]) for medium, _ in shown)

    def _weights(self) -> Hashable:
        """Changes whenever a weight does."""
        first = next(self.model.parameters())
        return sum(p._version for p in self.model.parameters()), first.dtype, first.device


@dataclass
class _Remembered:
    keys: list[Hashable]
    cache: Cache
    weights: Hashable


class _Pieces:
    """Tokens to text as they come: whole characters only, up to the first stop string.

    `strip` drops white space before the first word. Thoughts are left out: what comes from `opening`, if
    that is the first token, or if `thinking` has begun already, up to `closing`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: tuple[str, ...],
        strip: bool,
        opening: int | None,
        closing: int | None,
        thinking: bool,
    ) -> None:
        self.tokenizer, self.stop, self.strip = tokenizer, stop, strip
        self.opening, self.closing, self.thinking = opening, closing, thinking
        self.ids: list[int] = []
        self.start = self.done = 0  # ids before `start` are settled; those before `done` are said
        self.held = ""  # text that may yet turn out to begin a stop string
        self.stopped = False

    def add(self, token: int) -> Iterator[str]:
        if token == ENDED:
            return
        self.thinking |= token == self.opening and not self.ids
        if self.thinking:
            self.thinking = token != self.closing
            return
        self.ids.append(token)
        said = self.tokenizer.decode(self.ids[self.start : self.done])
        now = self.tokenizer.decode(self.ids[self.start :])
        if now.endswith("\ufffd"):  # a character whose bytes are not all here
            return
        self.start, self.done = self.done, len(self.ids)
        yield from self._say(now[len(said) :])

    def rest(self) -> Iterator[str]:
        if self.held and not self.stopped:
            yield self.held

    def _say(self, new: str) -> Iterator[str]:
        text = self.held + new
        if self.strip:
            text = text.lstrip()
            self.strip = not text
        cuts = [at for at in (text.find(s) for s in self.stop) if at >= 0]
        if cuts:
            self.stopped, text, self.held = True, text[: min(cuts)], ""
        else:
            keep = max((n for s in self.stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
            text, self.held = text[: len(text) - keep], text[len(text) - keep :]
        if text:
            yield text
