"""Chat templates: a checkpoint's own Jinja template, rendered in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from panmodal.data.media import Medium, plural
from panmodal.data.sample import Message, Text
from panmodal.errors import CheckpointError, InputError

MAX_TEMPLATE = 200_000  # characters
MAX_PROMPT = 10_000_000  # characters that a template may make
MAX_STEPS = 100_000  # numbers that its ranges may give in all

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # a base model continues the text


class ChatTemplate:
    """Renders conversations as one model wants them.

    `image` is what the template, or this class where the template takes plain strings, puts in a
    picture's place; `others` in that of each other kind of media that the model takes. Raises InputError where the
    template refuses a conversation, and CheckpointError where the template itself is broken, too large
    or too slow.
    """

    def __init__(
        self,
        source: str,
        image: str = "<image>",
        special: dict[str, str] | None = None,
        others: Mapping[str, str] | None = None,
    ) -> None:
        if len(source) > MAX_TEMPLATE:
            raise CheckpointError(f"the chat template has {len(source):,} characters; the limit is {MAX_TEMPLATE:,}")
        self.source, self.image, self.special, self.others = source, image, special or {}, dict(others or {})
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template does not parse: {error}") from None
        self._takes_parts = self._reads_parts()
        self._as_text = {kind for kind in self.others if kind not in source}  # which it does not know

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[Any, ...]]:
        return ChatTemplate, (self.source, self.image, self.special, self.others)  # for processes that make batches

    def render(self, messages: Sequence[Message], reply: bool = False) -> str:
        """The conversation as text; `reply` ends it where the assistant's next turn begins."""
        return self._render([self._as_dict(m) for m in messages], reply)

    def _as_dict(self, message: Message) -> dict[str, Any]:
        words = {"image": self.image, **self.others}
        for medium in message.media:
            if medium.kind not in words:
                *most, last = ["text", *map(plural, words)]
                raise InputError(f"this model converses about {', '.join(most)} and {last}, not {medium.kind}")
        if not self._takes_parts:
            texts = [p.text if isinstance(p, Text) else words[p.kind] + "\n" for p in message.parts]
            return {"role": message.role, "content": "".join(texts)}
        parts = [
            {"type": p.kind} if isinstance(p, Medium) and p.kind not in self._as_text
            else {"type": "text", "text": p.text if isinstance(p, Text) else words[p.kind]}
            for p in message.parts
        ]  # fmt: skip
        return {"role": message.role, "content": parts}

    def _reads_parts(self) -> bool:
        """Whether the template loops over content parts, or wants content to be one string."""
        probe = {"role": "user", "content": [{"type": "text", "text": "\x01"}]}
        try:
            said = self._render([probe], False)
        except (InputError, CheckpointError):
            return False
        return "\x01" in said and "'type'" not in said and '"type"' not in said

    def _render(self, messages: list[dict[str, Any]], reply: bool) -> str:
        steps = [0]
        context = {
            "messages": messages,
            "add_generation_prompt": reply,
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "range": _counted_range(steps),
            **self.special,
        }
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(**context):
                size += len(piece)
                if size > MAX_PROMPT:
                    raise CheckpointError(f"the chat template makes more than {MAX_PROMPT:,} characters")
                pieces.append(piece)
        except TemplateError as error:
            raise InputError(f"the model's chat template refuses this conversation: {error}") from None
        except (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise CheckpointError(f"the chat template fails: {error}") from None
        return "".join(pieces)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, and no products or powers that could fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(x, int | float) for x in (left, right)):
            raise CheckpointError(f"the chat template uses {operator} on {type(left).__name__}, which is not allowed")
        return left * right


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which some templates put around the reply: no effect."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _counted_range(steps: list[int]) -> Callable[..., range]:
    def bounded(*bounds: int) -> range:
        numbers = range(*bounds)
        steps[0] += len(numbers)
        if steps[0] > MAX_STEPS:
            raise CheckpointError(f"the chat template counts beyond {MAX_STEPS:,}")
        return numbers

    return bounded


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
