"""`panmodal ask`: a question about a picture or a video, or about each of many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from panmodal.cli.shared import (
    AllowPickle,
    Contrast,
    Device,
    Json,
    Noise,
    Plausible,
    contrasting,
    load_model,
    media,
    model_option,
    print_json,
)
from panmodal.errors import InputError

NAME = "ask"
EXAMPLE = 'panmodal ask examples/scene.png "How many red circles are there?"'


def run(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Pictures, videos, folders or -, and last the question; or a .jsonl of conversations."),
    ],
    model: str = model_option("tiny/chat"),
    together: Annotated[bool, typer.Option("--together", help="Show all of them at once, as one question.")] = False,
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0: the likeliest answer; more: more varied ones.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes varied answers repeatable.")] = None,
    thoughts: Annotated[bool, typer.Option("--thoughts", help="Show what the model thinks before it answers.")] = False,
    contrast: Contrast = None,
    noise: Noise = None,
    plausible: Plausible = None,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Ask a question about a picture, or a video if the model takes them, or the same about each of several.

    A file of conversations (one JSON object a line, `{"messages": […]}`) is answered line by line.
    """
    from panmodal.cli.hint import hint
    from panmodal.data.sample import Image, user

    conversations = inputs[0].endswith((".jsonl", ".json")) and len(inputs) == 1
    if len(inputs) < 2 and not conversations:
        raise InputError("give one or more pictures or videos and then the question")
    chat = load_model(model, "reply", device, allow_pickle)
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "thoughts": thoughts,
        **contrasting(contrast, noise, plausible),
    }
    if conversations:
        _answer_file(chat, Path(inputs[0]), options, json)
        return
    *places, question = inputs
    shown = list(media(places, chat.takes))
    groups = [shown] if together else [[one] for one in shown]
    for group in groups:
        names = [name for name, _ in group]
        reply = chat.reply([user(*(medium for _, medium in group), question)], **options)
        if json:
            print_json({"model": model, "images": names, "question": question, "answer": reply.text})
        else:
            print(reply.text if len(groups) == 1 else f"{', '.join(names)}: {reply.text}", flush=True)
        hint(model, [medium for _, medium in group if isinstance(medium, Image)])


def _answer_file(chat: Any, path: Path, options: dict[str, Any], json: bool) -> None:
    """Answers a file's conversations; one that cannot be is reported and the others go on."""
    from panmodal.data.formats import open_data

    source, failures = open_data(path), 0
    for i in range(source.size or 0):
        try:
            sample = source.sample(i)
            messages = list(sample.messages)
            if messages and messages[-1].role == "assistant":
                messages.pop()
            reply = chat.reply(messages, **options)
        except InputError as error:
            failures += 1
            print(f"panmodal: {error}", file=sys.stderr)
            continue
        print_json({"line": i + 1, "answer": reply.text}) if json else print(reply.text, flush=True)
    if failures:
        raise InputError(f"{failures} of {source.size} conversations could not be answered")
