"""A model behind a server: what is sent, what comes back, and the faults that servers have."""

from __future__ import annotations

import base64
import io
import logging
import sys
import threading

import numpy as np
import pytest
from PIL import Image as Pil

import panmodal as pm
from panmodal.families import Conversational, Pace, Remote
from tests.families.server import fail, hang_up, raw, say, serving, silence, stream

KEY = "sk-not-to-be-seen"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture
def slept():
    return []


@pytest.fixture
def model(server, slept):
    return Remote("m", pace=Pace(tries=4, timeout=10), sleep=slept.append)


def test_a_question(server):
    server.plan = [say("Two.")]
    model = pm.load("openai:m")
    assert isinstance(model, Conversational) and model.name == "openai:m"
    assert model.reply("How many?").text == "Two."
    assert server.asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "How many?"}],
            "max_tokens": 256,
            "temperature": 0.0,
            "seed": 0,
        }
    ]
    path, headers = server.headers[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"


def test_no_key_is_sent_where_there_is_none(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server.plan = [say("Two.")]
    pm.load("openai:m", base_url=server.url + "/").reply("How many?")
    assert server.headers[0][0] == "/v1/chat/completions" and "Authorization" not in server.headers[0][1]


def test_options(server, model):
    server.plan = [say("")]
    model.reply("?", max_tokens=9, temperature=0.5, top_p=0.9, stop="\n", thoughts=True)
    body = server.asked[0]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (9, 0.5, 0.9, ["\n"])
    assert "seed" not in body
    model.reply("?", temperature=0.5, seed=7)
    assert server.asked[1]["seed"] == 7
    for option in ({"beams": 2}, {"top_k": 3}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"length_penalty": 2.0}):
        with pytest.raises(pm.InputError, match=f"the chat protocol has no {next(iter(option))}; leave it out"):
            model.reply("?", **option)
    with pytest.raises(pm.InputError, match="did you mean 'temperature'"):
        model.reply("?", temprature=0)
    assert len(server.asked) == 2


def test_openai_is_told_the_limit_by_its_new_name(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    body = pm.load("openai:gpt-4o")._body("?", {})
    assert body["max_completion_tokens"] == 256 and "max_tokens" not in body


def test_pictures_and_sounds_arrive(server, model, tmp_path):
    server.plan = [say("a dog")]
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    Pil.fromarray(pixels).save(tmp_path / "a.jpg")
    Pil.fromarray(pixels).save(tmp_path / "a.png")
    turned = Pil.Exif()
    turned[0x0112] = 6
    Pil.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned)
    samples = np.array([0, 1000, -1000, 32767], np.int16)
    pictures = [pm.Image(tmp_path / "a.jpg", "low"), pm.Image(tmp_path / "a.png"), pm.Image(tmp_path / "turned.jpg")]
    model.reply([pm.system("Be brief."), pm.user(*pictures, pm.Image(pixels), pm.Audio(samples, 16000), "What is it?")])
    first, second = server.asked[0]["messages"]
    assert first == {"role": "system", "content": "Be brief."}
    *shown, heard, text = second["content"]
    assert text == {"type": "text", "text": "What is it?"}
    heads, files = zip(*(part["image_url"]["url"].split(",") for part in shown), strict=True)
    assert heads == ("data:image/jpeg;base64", *["data:image/png;base64"] * 3)
    assert [part["image_url"].get("detail") for part in shown] == ["low", None, None, None]
    assert base64.b64decode(files[0]) == (tmp_path / "a.jpg").read_bytes()  # as it is
    for file, sent in zip(files, [*pictures, pm.Image(pixels)], strict=True):
        assert np.array_equal(Pil.open(io.BytesIO(base64.b64decode(file))), sent.pixels)
    assert heard["type"] == "input_audio" and heard["input_audio"]["format"] == "wav"
    arrived = pm.Audio(base64.b64decode(heard["input_audio"]["data"]))
    assert arrived.rate == 16000 and np.array_equal(arrived.samples * 32768, samples)


def test_a_sound_in_a_file_is_written_out(server, model, tmp_path):
    server.plan = [say("a dog")]
    (tmp_path / "a.wav").write_bytes(pm.Audio(np.zeros(9, np.int16), 8000)._file()[1])
    model.reply(pm.user(pm.Audio(tmp_path / "a.wav"), "What is it?"))
    assert server.asked[0]["messages"][0]["content"][0]["type"] == "input_audio"


def test_what_is_not_sent(server, model, tmp_path):
    server.plan = [say("")]
    (tmp_path / "a.jpg").write_text("no picture")
    for part, why in (
        (pm.Video(np.zeros((2, 4, 4, 3), np.uint8), 1.0), "texts, pictures and sounds, and this is Video"),
        (pm.Image(tmp_path / "a.jpg"), "a.jpg is not a picture"),
        (pm.Image(tmp_path / "b.jpg"), "there is no file"),
    ):
        with pytest.raises(pm.InputError, match=why):
            model.reply(pm.user(part, "What is it?"))
    assert server.asked == []


def test_a_stream(server, model):
    server.plan = [stream("Tw", "o", " röd.")]
    pieces = model.stream("How many?")
    assert next(pieces) == "Tw" and list(pieces) == ["o", " röd."]
    assert server.asked[0]["stream"] is True
    server.plan = [stream("Two", end="")]  # it has said why it ends
    assert list(model.stream("How many?")) == ["Two"]


@pytest.mark.parametrize("pieces", [["<think>\nHm </th", "ink>\n", "\nTwo", "."], ["<thi", "nk></think> Two."]])
def test_thoughts_are_left_out(pieces, server, model):
    server.plan = [stream(*pieces), say("".join(pieces)), say("".join(pieces))]
    assert "".join(model.stream("?")) == "Two." == model.reply("?").text
    assert model.reply("?", thoughts=True).text == "".join(pieces)


@pytest.mark.parametrize("text", ["<b>Two</b>", "<", "<thin", "a <think>b</think>", ""])
def test_what_is_no_thought_stays(text, server, model):
    server.plan = [say(text), stream(*text)]
    assert model.reply("?").text == text == "".join(model.stream("?"))


def test_thoughts_without_an_end_are_no_answer(server, model):
    server.plan = [say("<think>Hm, so"), stream("<think>", "Hm")]
    assert model.reply("?").text == "" and list(model.stream("?")) == []


def test_many_at_once_keep_their_order(server):
    """All four are in the server's hands together, or none would be answered."""
    together = threading.Barrier(4, timeout=30)

    def answer(body):
        together.wait()
        return "re: " + body["messages"][0]["content"]

    server.plan = [say(answer)]
    model = Remote("m", pace=Pace(together=4))
    asked = [[pm.user(str(i))] for i in range(8)]
    assert [reply.text for reply in model.reply_all(asked, rows=64)] == [f"re: {i}" for i in range(8)]


def test_after_an_error_no_more_is_asked(server):
    server.plan = [fail(401, "no")]
    with pytest.raises(pm.RemoteError, match="401"):
        Remote("m", pace=Pace(together=1)).reply_all([[pm.user("?")]] * 50)
    assert len(server.asked) < 5


def test_overload_is_waited_out(server, model, slept):
    server.plan = [fail(429, "slow down", Retry_After="3"), fail(500), hang_up, say("Two.")]
    assert model.reply("?").text == "Two."
    assert slept[0] == 3 and 1 <= slept[1] <= 2 <= slept[2] <= 4
    assert server.asked == [server.asked[0]] * 4


def test_a_date_to_wait_for(server, model, slept):
    """It is by the server's clock, whatever ours says."""
    now, soon = (f"Thu, 26 Nov 1998 18:{minute}:00 GMT" for minute in (20, 21))
    dated = fail(503, Date=now, Retry_After=soon)
    server.plan = [dated, fail(503, Date=soon, Retry_After=now), fail(503, Retry_After=soon), say("Two.")]
    model.reply("?")
    assert slept[0] == 60 and 1 <= slept[1] <= 2 <= slept[2] <= 4


def test_the_tries_are_bounded(server, model, slept):
    server.plan = [fail(503, "overloaded")]
    with pytest.raises(
        pm.RemoteError, match=r"503 Service Unavailable: overloaded \(tried 4 times\); try again later$"
    ):
        model.reply("?")
    assert len(server.asked) == 4 and len(slept) == 3


def test_too_long_a_wait_is_told(server, model, slept):
    server.plan = [fail(429, "limit", Retry_After="3600")]
    with pytest.raises(pm.RemoteError, match="asks to wait 3600 seconds"):
        model.reply("?")
    assert slept == []


def test_nobody_there(model, slept):
    gone = Remote("m", "http://127.0.0.1:9", Pace(tries=2), sleep=slept.append)
    with pytest.raises(pm.RemoteError, match=r"ConnectError .*\(tried 2 times\)"):
        gone.reply("?")


def test_a_silent_server(server, slept):
    over = threading.Event()
    server.plan = [silence(over), say("Two.")]
    model = Remote("m", pace=Pace(tries=2, timeout=0.2), sleep=slept.append)
    assert model.reply("?").text == "Two." and len(slept) == 1
    server.plan = [silence(over)]
    with pytest.raises(pm.RemoteError, match="ReadTimeout"):
        model.reply("?")
    over.set()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            fail(401, f"Incorrect API key {KEY}\x1b[2J\nprovided"),
            pm.RemoteError,
            "Incorrect API key …[2J provided; set",
        ),
        (fail(403, "no"), pm.RemoteError, "403 Forbidden: no; set OPENAI_API_KEY"),
        (fail(404, "no model m"), pm.RemoteError, "404 Not Found: no model m; check the model's name"),
        (fail(429, "pay", code="insufficient_quota"), pm.RemoteError, "429 Too Many Requests: pay"),
        (fail(400, "too many tokens"), pm.InputError, "400 Bad Request: too many tokens"),
        (fail(307, Location="http://127.0.0.1:9/v1"), pm.RemoteError, "redirects to http://127.0.0.1:9/v1; if you"),
        (lambda h: h.send(418, b"<html>tea"), pm.RemoteError, "<html>tea"),
        (lambda h: h.send(422, b'{"detail": "bad"}'), pm.InputError, "422 Unprocessable.*: bad"),
        (raw(b"<html>"), pm.RemoteError, "no JSON object; check the base_url: b'<html>'"),
        (raw(b"[]"), pm.RemoteError, "no JSON object"),
        (raw(b'{"choices": []}'), pm.RemoteError, r"without choices\[0\].message.content"),
        (raw(b'{"choices": [{"message": {"content": [1]}}]}'), pm.RemoteError, "without choices"),
        (raw(b'{"choices": [{"message": "Two"}]}'), pm.RemoteError, "without choices"),
    ],
)
def test_what_is_not_tried_again(answer, kind, words, server, model, caplog):
    caplog.set_level(logging.DEBUG)
    server.plan = [answer]
    with pytest.raises(kind, match=words.replace("[2J", r"\[2J")) as told:
        model.reply("?")
    assert len(server.asked) == 1
    assert str(told.value).startswith(f"openai:m at {server.url}: ")
    assert KEY not in str(told.value) + repr(model) + caplog.text and str(told.value).isprintable()


def test_withheld_answers_are_empty(server, model):
    server.plan = [say(None), say(None, refusal="I would rather not.")]
    assert [model.reply("?").text for _ in range(2)] == ["", "I would rather not."]


def test_a_broken_stream(server, model, slept):
    """Before the first piece it is asked for again; after it that would say the beginning twice."""
    server.plan = [stream(end="", finish=None), stream("Two")]
    assert list(model.stream("?")) == ["Two"] and len(slept) == 1
    server.plan = [stream("Tw", end="", finish=None)]
    pieces = model.stream("?")
    assert next(pieces) == "Tw"
    with pytest.raises(pm.RemoteError, match="the stream broke off; try again later"):
        next(pieces)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stream("Tw", end='data: {"error": {"message": "out of memory"}}\n\n', finish=None), "/v1: out of memory$"),
        (stream("Tw", end="data: {nothing\n\n", finish=None), "no JSON object; check the base_url: '{nothing'"),
        (raw(b"{}"), "text/event-stream"),
    ],
)
def test_a_bad_stream(answer, words, server, model):
    server.plan = [answer]
    with pytest.raises(pm.RemoteError, match=words):
        list(model.stream("?"))
    assert len(server.asked) == 1


def test_requests_per_minute(server):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    server.plan = [say("")]
    model = Remote("m", pace=Pace(together=1, per_minute=30), sleep=sleep, clock=lambda: now[0])
    model.reply_all([[pm.user("?")]] * 3)
    assert slept == [2.0, 2.0]
    now[0] += 60
    model.reply("?")
    assert slept == [2.0, 2.0]


def test_the_pace_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("PANMODAL_REQUESTS_PER_MINUTE", "90")
    assert pm.load("openai:m").pace.per_minute == 90
    monkeypatch.setenv("PANMODAL_REQUESTS_PER_MINUTE", "many")
    with pytest.raises(pm.InputError, match="REQUESTS_PER_MINUTE is 'many'"):
        pm.load("openai:m")


def test_what_cannot_be_loaded(server, monkeypatch):
    for load, why in {
        lambda: pm.load("openai:"): "which model",
        lambda: pm.load("openai:m", device="cuda"): "runs where its server is",
        lambda: pm.load("tiny/clip", base_url=server.url): "as openai:tiny/clip",
        lambda: pm.load("openai:m", base_url="file:///etc"): "as https://HOST/v1",
        lambda: pm.load("openai:m", base_url="https://me:secret@host/v1"): "without a user",
        lambda: Pace(together=0): "together is 0; it must be 1 or more",
        lambda: Pace(timeout=float("nan")): "timeout is nan",
    }.items():
        with pytest.raises(pm.InputError, match=why) as told:
            load()
        assert "secret" not in str(told.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ö")
    with pytest.raises(pm.InputError, match="characters that no key has"):
        pm.load("openai:m")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(pm.InputError, match="set OPENAI_API_KEY to your key"):
        pm.load("openai:m", base_url="https://api.openai.com/v1/")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[remote\]'"):
        pm.load("openai:m")


def test_an_evaluation_asks_it_as_any_chat_model(server):
    server.plan = [say("yes")]
    report = pm.evaluate(pm.load("openai:m"), "playground/vqa", count=28)
    assert report.model == "openai:m" and 0 < report.metrics["accuracy"] < 1 and len(server.asked) == 28
    with pytest.raises(pm.InputError, match="asks for a Contrastive model, and openai:m is Remote"):
        pm.evaluate(pm.load("openai:m"), "playground/zero-shot")
