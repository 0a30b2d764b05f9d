"""A model behind the OpenAI chat protocol: what is asked goes to a server, and answers come as from a model here."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from panmodal.data.media import Audio
from panmodal.data.sample import Image, Message, Part, Text, as_conversation, assistant
from panmodal.data.tokens import THINKING
from panmodal.errors import InputError, RemoteError
from panmodal.generate import Sampling

if TYPE_CHECKING:
    import httpx2

PREFIX = "openai:"
OPENAI = "https://api.openai.com/v1"
CONNECT = 10.0  # seconds to reach the server
LONGEST_PAUSE = 60.0  # seconds between two tries, unless the server asks for more,
LONGEST_WAIT = 120.0  # which is waited up to these
MOST_TOKENS = 1_000_000
UNKNOWN = (
    "top_k",
    "min_p",
    "repetition_penalty",
    "beams",
    "length_penalty",
    "contrast",
    "plausible",
    "noise",
)  # to the protocol
TOLD = 300  # characters of what a server says, in an error
REMEDIES = {
    401: "; set OPENAI_API_KEY to a key that this server takes",
    403: "; set OPENAI_API_KEY to a key that may use this model",
    404: "; check the model's name, and the base_url, which mostly ends in /v1",
}


@dataclass(frozen=True)
class Pace:
    """How a server is asked: so many requests `together`, at most `per_minute` begun (0: any number), each of them
    up to `tries` times, and given up after `timeout` seconds in which nothing comes."""

    together: int = 8
    per_minute: float = 0.0
    tries: int = 7
    timeout: float = 300.0

    def __post_init__(self) -> None:
        for name, least in {"together": 1, "per_minute": 0, "tries": 1, "timeout": 0.01}.items():
            if not getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {least} or more")


class _Fault(Exception):
    """What may pass if one tries again, after `wait` seconds at least"""

    def __init__(self, told: str, wait: float = 0.0) -> None:
        super().__init__(told)
        self.wait = wait


class Remote:
    """Replies to conversations through `POST {base_url}/chat/completions`.

    `base_url` is by default that of OPENAI_BASE_URL, or OpenAI's; the key is that of OPENAI_API_KEY, which no message
    shows. Overload, faults of the server and lost connections are tried again after growing pauses, or after what the
    server asks for. Redirects are not followed. At temperature 0 the seed is 0 unless one is given: answers are
    repeatable as far as the server's are. Raises RemoteError for a server that fails, InputError for what it does not
    take.
    """

    takes = ("image", "audio")
    interleaved = True

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        pace: Pace | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not model:
            raise InputError(f"which model? name it, as {PREFIX}gpt-4o")
        self.model, self.name, self.pace = model, PREFIX + model, pace or _usual_pace()
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._client = _client(self.base_url, self._key, self.pace)
        self._sleep, self._clock = sleep, clock
        self._lock, self._next = threading.Lock(), 0.0  # when the next request may begin

    def __repr__(self) -> str:
        return f"Remote({self.model!r}, {self.base_url!r})"

    def does(self, verb: str) -> bool:
        return hasattr(self, verb)

    def reply(self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any) -> Message:
        """The assistant's answer to a question, a message or a conversation.

        Options are those of `Sampling` that the protocol has: `max_tokens`, `temperature`, `top_p`, `seed`, `stop`.
        Thoughts that a server sends before the answer, between `<think>` and `</think>`, are left out unless they are
        asked for.
        """
        return assistant("".join(self._pieces(self._body(said, options), thoughts)))

    def stream(
        self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any
    ) -> Iterator[str]:
        """The answer, piece by piece as it comes. Once a piece has come, a lost connection is an error."""
        return self._pieces({**self._body(said, options), "stream": True}, thoughts)

    def reply_all(
        self, conversations: Sequence[Iterable[Message]], rows: int = 16, *, thoughts: bool = False, **options: Any
    ) -> list[Message]:
        """Answers to many conversations, `rows` of them at a time, or as many as the pace allows."""
        with ThreadPoolExecutor(min(rows, self.pace.together)) as pool:
            return list(pool.map(partial(self.reply, thoughts=thoughts, **options), conversations))

    def _body(self, said: str | Message | Iterable[Message], options: dict[str, Any]) -> dict[str, Any]:
        """What is asked, as the protocol has it"""
        sampling = Sampling.fitting(options, 0, MOST_TOKENS)
        for name in UNKNOWN:
            if getattr(sampling, name) != getattr(Sampling, name):
                raise InputError(f"the chat protocol has no {name}; leave it out")
        # OpenAI's newer models refuse the old name, and other servers do not all know the new one
        limit = "max_completion_tokens" if self.base_url == OPENAI else "max_tokens"
        seed = 0 if sampling.seed is None and not sampling.temperature else sampling.seed
        return {
            "model": self.model,
            "messages": [_to_json(message) for message in as_conversation(said)],
            limit: sampling.max_tokens,
            "temperature": sampling.temperature,
            **({"top_p": sampling.top_p} if sampling.top_p < 1 else {}),
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({"seed": seed} if seed is not None else {}),
        }

    def _pieces(self, body: dict[str, Any], thoughts: bool) -> Iterator[str]:
        pieces = self._persistently(body)
        return pieces if thoughts else _after_thoughts(pieces)

    def _persistently(self, body: dict[str, Any]) -> Iterator[str]:
        """The answer's pieces, asked for again after a fault unless one has come"""
        begun = False
        for tried in range(1, self.pace.tries + 1):
            self._await_turn()
            try:
                for piece in self._ask(body):
                    begun = True
                    yield piece
                return
            except _Fault as fault:
                if begun or tried == self.pace.tries or fault.wait > LONGEST_WAIT:
                    times = f" (tried {tried} times)" if tried > 1 and not begun else ""
                    wait = f"; it asks to wait {fault.wait:.0f} seconds" if fault.wait > LONGEST_WAIT else ""
                    raise RemoteError(f"{self._told(fault)}{times}{wait}; try again later") from None
                pause = min(2.0 ** (tried - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                self._sleep(max(pause, fault.wait))

    def _await_turn(self) -> None:
        if self.pace.per_minute:
            with self._lock:
                now = self._clock()
                turn = max(now, self._next)
                self._next = turn + 60 / self.pace.per_minute
            if turn > now:
                self._sleep(turn - now)

    def _ask(self, body: dict[str, Any]) -> Iterator[str]:
        """One request: the answer's pieces, or the whole of it"""
        import httpx2

        try:
            with self._client.stream("POST", f"{self.base_url}/chat/completions", json=body) as response:
                if not response.is_success:
                    raise self._refusal(response)
                if "stream" in body:
                    yield from self._events(httpx2.EventSource(response))
                else:
                    yield self._text(self._parsed(response.read()), "message")[0]
        except httpx2.SSEError as error:
            raise RemoteError(self._told(error)) from None
        except httpx2.TransportError as error:
            raise _Fault(f"{type(error).__name__} {error}".strip()) from None
        except httpx2.RequestError as error:
            raise RemoteError(self._told(error)) from None

    def _events(self, source: httpx2.EventSource) -> Iterator[str]:
        finished = False
        for event in source:
            if event.data.startswith("[DONE]"):
                return
            answer = self._parsed(event.data)
            if answer.get("error"):
                raise RemoteError(self._told(_reason(answer)))
            if answer.get("choices") != []:  # as in a chunk that has the usage alone
                text, ended = self._text(answer, "delta")
                finished |= ended
                if text:
                    yield text
        if not finished:
            raise _Fault("the stream broke off")

    def _parsed(self, content: str | bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RemoteError(self._told(f"an answer that is no JSON object; check the base_url: {content!r}"))
        return answer

    def _text(self, answer: dict[str, Any], where: str) -> tuple[str, bool]:
        """The text of an answer's `message` or `delta`, and whether it ends there; what is withheld is empty"""
        try:
            choice = answer["choices"][0]
            said, ended = choice[where], choice.get("finish_reason") is not None
            text = said.get("content") or said.get("refusal") or ""
        except (KeyError, IndexError, TypeError, AttributeError):
            text = None
        if not isinstance(text, str):
            raise RemoteError(self._told(f"an answer without choices[0].{where}.content: {answer}"))
        return text, ended

    def _refusal(self, response: httpx2.Response) -> Exception:
        """What an answer that is no success means"""
        status, content = response.status_code, response.read()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = content.decode(errors="replace")
        told = f"{status} {response.reason_phrase}: {_reason(answer)}"
        if (status in (408, 409, 429) or status >= 500) and "insufficient_quota" not in str(answer):
            return _Fault(told, _wait(response.headers))
        if response.is_redirect:
            to = response.headers.get("location", "nowhere")
            return RemoteError(self._told(f"{told} It redirects to {to}; if you trust that, make it the base_url"))
        kind = InputError if status in (400, 413, 422) else RemoteError
        return kind(self._told(told) + REMEDIES.get(status, ""))

    def _told(self, what: object) -> str:
        """One line without the key, whatever the server says"""
        line = "".join(c for c in " ".join(str(what).split()) if c.isprintable())
        shown = line.replace(self._key, "…") if self._key else line
        return f"{self.name} at {self.base_url}: {shown[:TOLD]}"


def _usual_pace() -> Pace:
    given = os.environ.get("PANMODAL_REQUESTS_PER_MINUTE", "0")
    try:
        return Pace(per_minute=float(given))
    except ValueError:
        raise InputError(f"PANMODAL_REQUESTS_PER_MINUTE is {given!r}; it must be a number") from None


def _client(base_url: str, key: str, pace: Pace) -> httpx2.Client:
    try:
        import httpx2
    except ImportError:
        raise InputError("models behind a server need `pip install 'panmodal[remote]'`") from None
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise InputError(f"the base_url cannot be read: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
        raise InputError("the base_url must be as https://HOST/v1, without a user, a password or a query")
    if not key and base_url == OPENAI:
        raise InputError("set OPENAI_API_KEY to your key, or OPENAI_BASE_URL to a server that needs none")
    if not (key.isascii() and key.isprintable()):
        raise InputError("OPENAI_API_KEY has characters that no key has; copy it anew")
    return httpx2.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(pace.timeout, connect=min(CONNECT, pace.timeout)),
        follow_redirects=False,
    )


def _to_json(message: Message) -> dict[str, Any]:
    """A message with its media written out, since the server has not our files"""
    if not message.media:
        return message.to_json()
    return {"role": message.role, "content": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        detail = {} if part.detail == "auto" else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.data_url(), **detail}}
    if isinstance(part, Audio):
        return Audio(part.samples, part.rate).to_json()
    if isinstance(part, Text):
        return part.to_json()
    raise InputError(f"the chat protocol has texts, pictures and sounds, and this is {part!r}")


def _reason(answer: Any) -> str:
    """What a server says is wrong, in the forms that are about"""
    error = answer.get("error", answer.get("detail", answer)) if isinstance(answer, dict) else answer
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _wait(headers: Mapping[str, str]) -> float:
    """Seconds to wait by a `Retry-After`, which is a number of them, or a date by the server's clock; 0 without one"""
    after = headers.get("retry-after", "")
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(after) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _after_thoughts(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of an answer without the thoughts and white space that it begins with"""
    opening, closing = THINKING
    held, begun = "", False
    for piece in pieces:
        if not begun:
            held = (held + piece).lstrip()
            if held.startswith(opening):
                held = held.partition(closing)[2].lstrip() if closing in held else held
            if opening.startswith(held[: len(opening)]):  # nothing yet, or what may be or is a thought
                continue
        yield piece if begun else held
        begun = True
    if not begun and not held.startswith(opening):
        yield held
