"""Models that are kept from hallucinating, as tasks ask them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panmodal.data.sample import Conversation, Message, assistant
from panmodal.families import Family
from panmodal.prompting.correction import Correction

YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Mitigated:
    """A model for who asks for nothing but answers: it is decoded by further options of `Sampling`, and what it says is
    corrected unless that is yes or no, or there is no picture."""

    model: Any  # `Conversational`
    decoding: Mapping[str, Any]
    correction: Correction | None = None

    @property
    def name(self) -> str:
        return str(self.model.name)

    def reply_all(self, conversations: Sequence[Conversation], rows: int = 16, **options: Any) -> list[Message]:
        replies: list[Message] = self.model.reply_all(conversations, rows=rows, **options, **self.decoding)
        if self.correction is None:
            return replies
        shown = [[image for message in said for image in message.images] for said in conversations]
        described = [i for i, said in enumerate(replies) if shown[i] and not YES_OR_NO.match(said.text)]
        mended = self.correction.correct([shown[i] for i in described], [replies[i].text for i in described], rows)
        texts = dict(zip(described, (one.text for one in mended), strict=True))
        return [assistant(texts[i]) if i in texts else reply for i, reply in enumerate(replies)]

    def to_json(self) -> dict[str, Any]:
        """What results depend on, beside the model"""
        told: dict[str, Any] = {"decoding": dict(self.decoding)} if self.decoding else {}
        if self.correction is not None:
            checker = self.correction.checker
            known = {"fingerprint": checker.fingerprint()} if isinstance(checker, Family) else {}
            told["correction"] = {**self.correction.to_json(), **known}
        return told
