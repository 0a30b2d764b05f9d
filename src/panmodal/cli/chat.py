"""`panmodal chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, model_option, print_json
from panmodal.errors import InputError, PanmodalError

if TYPE_CHECKING:
    from panmodal.data.sample import Image

NAME = "chat"
EXAMPLE = "panmodal chat --image examples/scene.png"
HELP = "/image PATH shows a picture, /clear begins anew, /quit ends (so does Ctrl-D)"


def run(
    model: str = model_option("tiny/chat"),
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", help="A picture to begin with; may be given again.")
    ] = None,
    system: Annotated[str, typer.Option(help="Instructions that hold for the whole conversation.")] = "",
    max_tokens: Annotated[int, typer.Option(help="The longest reply, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0: the likeliest reply; more: more varied ones.")] = 0.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="On a CPU: answer quicker, from further copies of the weights.")
    ] = False,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Talk with a model about pictures, turn by turn.

    In the conversation, `/image PATH` shows a picture, `/clear` begins anew and `/quit` ends. Lines may
    also come from a file or another program on standard input.
    """
    from panmodal.cli.hint import hint
    from panmodal.data.sample import Image, Message, assistant, user
    from panmodal.data.sample import system as instructions

    chat = load_model(model, "stream", device, allow_pickle)
    if quick:
        if not chat.does("quicken"):
            raise InputError(f"{model} is not quickened from here; leave out --quick")
        chat.quicken()
    terminal = sys.stdin.isatty() and not json
    if terminal:
        print(f"{model}. {HELP}.")
    start: list[Message] = [instructions(system)] if system else []
    said, waiting = list(start), []
    for path in image or []:
        waiting.append(_shown(Image(path), terminal))
    while (line := _line(terminal)) is not None:
        command, _, rest = line.partition(" ")
        try:
            if command == "/quit":
                break
            elif command == "/clear":
                said, waiting = list(start), []
            elif command == "/image":
                waiting.append(_shown(Image(rest.strip()), terminal))
            elif line.startswith("/"):
                raise InputError(f"{command} is no command; {HELP}")
            elif line:
                asked = user(*waiting, line)
                hint(model, waiting)
                pieces = []
                for piece in chat.stream([*said, asked], max_tokens=max_tokens, temperature=temperature):
                    pieces.append(piece)
                    if not json:
                        print(piece, end="", flush=True)
                if not json:
                    print()
                said += [asked, assistant("".join(pieces))]
                waiting = []
                if json:
                    print_json(said[-1].to_json())
        except PanmodalError as error:
            if not terminal:
                raise
            print(f"! {error}")


def _shown(image: Image, terminal: bool) -> Image:
    size = image.pixels.size  # decoded here, so that a mistake is told at once
    if terminal:
        print(f"  [{image.name}, {size[0]} x {size[1]}]")
    return image


def _line(terminal: bool) -> str | None:
    try:
        return input("you> " if terminal else "").strip()
    except EOFError:
        return None
