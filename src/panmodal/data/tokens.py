"""Tokenizers in the published layouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers import Tokenizer as Backend

from panmodal.errors import CheckpointError

THINKING = ("<think>", "</think>")  # what a model puts around its thoughts before an answer, as Qwen3 does


class Spans(NamedTuple):
    ids: list[int]
    where: list[tuple[int, int]]  # the characters that each token stands for


class Tokenizer:
    """Text to ids and back, as `tokenizer.json` says, or the vocabulary files of CLIP, GPT-2 and BERT.

    `special` holds the named tokens (`bos_token`, `eos_token`, …) of `tokenizer_config.json`.
    """

    def __init__(self, backend: Backend, special: Mapping[str, str]) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.special = backend, dict(special)

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Tokenizer | None:
        """`files`: a checkpoint's small files by name; None if none is a tokenizer that is read here.
        Raises CheckpointError if one cannot be read."""
        config: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            config |= json.loads(files.get(name, b"{}"))
        special = {k: _content(v) for k, v in config.items() if k.endswith("_token") and v and _content(v)}
        try:
            if "tokenizer.json" in files:
                return cls(Backend.from_str(files["tokenizer.json"].decode()), special)
            if "vocab.txt" in files:
                return cls(_wordpiece(files["vocab.txt"].decode(), config.get("do_lower_case", True)), special)
            if "vocab.json" in files and "merges.txt" in files:
                vocab = json.loads(files["vocab.json"])
                return cls(_byte_pairs(vocab, files["merges.txt"].decode(), config, special), special)
        except Exception as error:  # the backend raises bare Exception
            raise CheckpointError(f"the tokenizer files cannot be read: {error}") from None
        return None

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of a text; `special` adds what the format puts around one (start, end)."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=special).ids
        return ids

    def spans(self, text: str) -> Spans:
        """Ids of a text, with nothing put around it, and where in it each stands."""
        encoded = self.backend.encode(text, add_special_tokens=False)
        return Spans(encoded.ids, encoded.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def id_of(self, token: str | None) -> int | None:
        found: int | None = None if token is None else self.backend.token_to_id(token)
        return found

    @property
    def size(self) -> int:
        count: int = self.backend.get_vocab_size()
        return count

    @property
    def eos_id(self) -> int | None:
        return self.id_of(self.special.get("eos_token"))

    @property
    def pad_id(self) -> int:
        """The id that fills up rows; it is masked, so where a format names none any will do."""
        return self.id_of(self.special.get("pad_token")) or 0

    def add_special(self, token: str) -> int:
        """The id of a special token, added if it is new."""
        self.backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        found = self.id_of(token)
        assert found is not None
        return found

    def add_words(self, words: Iterable[str]) -> None:
        """Makes each a token, where it stands as a whole word."""
        self.backend.add_tokens([AddedToken(word, single_word=True) for word in words])

    def to_files(self) -> dict[str, bytes]:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special}
        return {
            "tokenizer.json": self.backend.to_str(pretty=True).encode(),
            "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, Mapping) else token if isinstance(token, str) else ""


def _wordpiece(vocab_text: str, lowercase: bool) -> Backend:
    """BERT's."""
    vocab = {word: i for i, word in enumerate(vocab_text.splitlines())}
    backend = Backend(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    backend.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocab])
    return backend


def _byte_pairs(
    vocab: dict[str, int], merges_text: str, config: Mapping[str, Any], special: Mapping[str, str]
) -> Backend:
    """CLIP's, GPT-2's and OPT's: byte-level BPE, told apart by the end-of-word mark."""
    lines = [line for line in merges_text.splitlines() if line and not line.startswith("#version")]
    merges = [(a, b) for a, b in (line.split(" ") for line in lines)]
    if any(word.endswith("</w>") for word in vocab):
        backend = Backend(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(
                    Regex(r"<\|startoftext\|>|<\|endoftext\|>|" + words), behavior="removed", invert=True
                ),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        start, end = ("<|startoftext|>", vocab["<|startoftext|>"]), ("<|endoftext|>", vocab["<|endoftext|>"])
        backend.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
        backend.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    else:
        backend = Backend(models.BPE(vocab, merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
        backend.add_special_tokens(sorted(set(special.values()) & set(vocab)))
        if config.get("add_bos_token") and "bos_token" in special:  # OPT
            bos = special["bos_token"]
            backend.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
            )
    backend.decoder = decoders.ByteLevel()
    return backend
