"""Chains, ways to reason, votes, and how answers are read."""

from __future__ import annotations

import pytest

import panmodal as pm
from panmodal.errors import InputError
from panmodal.prompting.chains import Chain, infill
from panmodal.prompting.examples import Examples
from panmodal.prompting.reasoning import DECOMPOSE, NEXT, STEP_BY_STEP, Reasoning, parted, sub_questions, vote
from tests.families.small import small
from tests.prompting.test_examples import sample, shade


class Told:
    """Answers by a function of the last turn's text, and keeps what it was asked, and how."""

    name, interleaved = "told", True

    def __init__(self, answer):
        self.answer, self.asked, self.options = answer, [], []

    def reply_all(self, conversations, rows=16, **options):
        self.asked += [[m.text for m in said] for said in conversations]
        self.options.append(options)
        return [pm.assistant(self.answer(said[-1].text)) for said in conversations]


PICTURE = shade(1, 2, 3)
ASKED = [pm.user(PICTURE, "how many?")]


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ("The answer is 42.", "", "42"),
        ("Two and two. So the final answer is: (B). Surely.", "Two and two. So", "B"),
        ("The answer is 3. No, the answer is 3.5 then.\nDone", "The answer is 3. No,", "3.5 then"),
        ("<think>The answer is 1.</think>\n\n2.", "The answer is 1.", "2"),
        ("one\ntwo\n\nThree.\n", "one\ntwo", "Three"),
        ("<think>it never ends", "<think>it never ends", None),
        ("<think>hm</think>", "hm", None),
        (" ...\n", "", None),
    ],
)
def test_the_final_answer(text, rationale, answer):
    assert parted(text) == (rationale, answer)


def test_votes():
    found = vote([("a", "Two"), ("b", None), ("c", "3"), ("d", "two"), ("e", None)])
    assert (found.rationale, found.answer, found.votes) == ("a", "Two", ("Two", None, "3", "two", None))
    assert vote([("a", "3"), ("b", "2"), ("c", "2"), ("d", "3")]).answer == "3"  # first seen
    assert vote([("a", None), ("b", None)]).answer is None and vote([("a", None)]).votes == (None,)


def test_a_chain_has_as_many_steps_as_prompts_or_as_the_model_says():
    model = Told(lambda text: "done" if text == "c" else f"[{text}]")
    (said,) = Chain(("a", "b")).run(model, [ASKED])
    assert [m.text for m in said] == ["how many? a", "[how many? a]", "b", "[b]"] and said[0].images == [PICTURE]
    words = iter(["one", "two", "The ANSWER is 3", "never"])
    (said,) = Chain(("a", "on"), until="answer is").run(Told(lambda _: next(words)), [ASKED])
    assert [m.text for m in said[1:]] == ["one", "on", "two", "on", "The ANSWER is 3"]
    model = Told(lambda text: "done" if "short" in text else "more")
    short, long = Chain(("a",), until="done", most=3).run(model, [[pm.user("short")], [pm.user("long")]])
    assert len(short) == 2 and len(long) == 6 and len(model.options) == 3
    with pytest.raises(InputError, match="at least one prompt"):
        Chain(())
    with pytest.raises(InputError, match="most is 0"):
        Chain(("a",), most=0)


def test_a_chain_ends_where_there_is_no_room(monkeypatch):
    model = small("llava")
    monkeypatch.setattr(model, "reply_all", lambda said, rows: [pm.assistant("a star") for _ in said])
    whole = [*ASKED, pm.assistant("a star"), pm.user("on")]
    room = len(model.processor.expand([*whole, pm.assistant("a star"), pm.user("on")], True).ids)
    monkeypatch.setattr(model.language, "context", room)
    (said,) = Chain(("", "on"), until="never").run(model, [ASKED])
    assert [m.text for m in said] == ["how many?", "a star", "on", "a star"]


def test_gaps_are_filled_from_the_middle():

    (steps,) = infill(Told(lambda text: text.replace("\n...\n", "-").removesuffix("\n?")), [(("a",), ("b",))], 2, "?")
    assert steps == ["a-a-b", "a-b", "a-b-b"]
    assert infill(Told(str), [], 3) == []


def test_ways():
    def heard(way, answer=lambda text: "It is so. The answer is 7.", **more):
        model = Told(answer)
        (found,) = Reasoning(way, **more).solve(model, [ASKED])
        return model.asked, found

    plain, found = heard("thoughts", lambda text: "<think>so</think>7")
    assert plain == [["how many?"]] and (found.rationale, found.answer) == ("so", "7")
    asked, found = heard("zero-shot")
    assert asked == [[f"how many? {STEP_BY_STEP}"]] and found.rationale.startswith("It is so.")
    asked, found = heard("two-stage", lambda text: "because" if "Why" in text else "7", trigger="Why?")
    assert asked[1] == ["how many?\nbecause"] and (found.rationale, found.answer) == ("because", "7")
    asked, _ = heard("adaptive", lambda text: "hm" if STEP_BY_STEP in text else "the answer is 7")
    assert asked[-1] == [f"how many? {STEP_BY_STEP}", "hm", NEXT] and len(asked) == 2
    split = lambda text: "1. Is it?\n- Of what?\nso" if DECOMPOSE in text else f"on {text}"  # noqa: E731
    asked, found = heard("least-to-most", split)
    assert asked[-1][1:] == [split(DECOMPOSE), "Is it?", "on Is it?", "Of what?", "on Of what?", "how many?"]
    assert len(asked) == 4 and found.answer == "on how many"
    store = Examples([sample(shade(200, 0, 0), "a? Why?", "so. 3"), sample(shade(0, 200, 0), "b? Why?", "so. 4")])
    (asked,), _ = heard("few-shot", examples=store, shots=1, trigger="Why?")
    assert asked[0] in ("a? Why?", "b? Why?") and asked[1][:3] == "so." and asked[2] == "how many? Why?"


def test_samples_vote():
    words = iter(["2", "3", "", "3", "2"])
    model = Told(lambda _: next(words))
    (found,) = Reasoning("thoughts", votes=5).solve(model, [ASKED])
    assert found.answer == "2" and found.votes == ("2", "3", None, "3", "2")
    assert [o["seed"] for o in model.options] == [0, 1, 2, 3, 4] and all(o["temperature"] > 0 for o in model.options)


def test_what_cannot_be_asked():
    with pytest.raises(InputError, match="unknown way to reason 'zeroshot'; did you mean 'zero-shot'"):
        Reasoning("zeroshot")
    with pytest.raises(InputError, match="votes is 0"):
        Reasoning(votes=0)
    with pytest.raises(InputError, match="few-shot needs examples"):
        Reasoning("few-shot").solve(Told(str), [ASKED])


def test_sub_questions():
    assert sub_questions("Sure:\n1. Is it red?\n2) Two?\n* Where?\nIt is.") == ["Is it red?", "Two?", "Where?"]
