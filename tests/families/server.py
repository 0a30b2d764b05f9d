"""A server on loopback that speaks the OpenAI chat protocol, with the faults that it is told to have."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append((self.path, dict(self.headers)))
            plan = self.server.plan
            answer = plan.pop(0) if len(plan) > 1 else plan[0]
        self.body = body
        answer(self)

    def send(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Each request gets the next answer of `plan`, and all further ones the last. `asked` are the bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Answer] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def say(text: str | Callable[[dict[str, Any]], str] | None, **message: Any) -> Answer:
    """A whole answer, or one made of what was asked"""

    def answer(handler: Handler) -> None:
        said = text(handler.body) if callable(text) else text
        choice = {"index": 0, "message": {"role": "assistant", "content": said, **message}, "finish_reason": "stop"}
        handler.send(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

    return answer


def fail(status: int, message: str = "", code: str = "", **headers: str) -> Answer:
    error = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return lambda handler: handler.send(status, json.dumps(error).encode(), **headers)


def raw(content: bytes, kind: str = "application/json") -> Answer:
    return lambda handler: handler.send(200, content, kind)


def stream(*pieces: str, end: str = "data: [DONE]\n\n", finish: str | None = "stop") -> Answer:
    """Pieces as server-sent events, with the comments and the usage that servers send among them"""
    chunks = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
    chunks += [{"choices": [{"index": 0, "delta": {"content": p}, "finish_reason": None}]} for p in pieces]
    if finish:
        chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": {}}]
    events = "".join(f": ping\n\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return raw((events + end).encode(), "text/event-stream; charset=utf-8")


def silence(until: threading.Event) -> Answer:
    """Nothing, for as long as the test lasts"""

    def answer(handler: Handler) -> None:
        until.wait(30)
        handler.close_connection = True

    return answer


def hang_up(handler: Handler) -> None:
    handler.close_connection = True
