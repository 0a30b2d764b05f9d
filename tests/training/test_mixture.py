"""Several data sets as one: proportions, order, and going on in the middle."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from itertools import islice

import pytest
import torch

from panmodal.data.sample import Sample, assistant, user
from panmodal.errors import InputError, TrainingError
from panmodal.training import read_recipe, run_recipe, train
from panmodal.training.mixture import Joined, Mixture
from panmodal.training.run import open_source
from panmodal.training.stream import STRIDE, Position, batches, sample_number
from tests.families.small import small
from tests.training.test_training import recipe, stage  # noqa: F401 (a fixture)


class Numbered:
    """A source whose samples say which they are."""

    def __init__(self, name: str, size: int | None) -> None:
        self.name, self.size = name, size

    def sample(self, index: int) -> Sample:
        assert self.size is None or index < self.size
        return Sample((user(f"what is {self.name}"), assistant(f"{self.name} {index}")))


def said(source, positions, seed: int = 0) -> list[tuple[str, int]]:
    found = [source.sample(sample_number(source, seed, p)).messages[1].text.split() for p in positions]
    return [(name, int(number)) for name, number in found]


def test_each_has_its_share_in_every_round():
    mixed = Mixture([Numbered("a", 30), Numbered("b", 700), Numbered("c", None)], [4.0, 2.0, 2.0])
    for turn in range(3):
        counts = Counter(name for name, _ in said(mixed, range(1000 * turn, 1000 * (turn + 1))))
        assert counts == {"a": 500, "b": 250, "c": 250}
    near = Counter(name for name, _ in said(mixed, range(3000, 3100)))
    assert 30 <= near["a"] <= 70  # and within a round they are mixed
    thirds = Mixture([Numbered(name, 5) for name in "abc"], [1, 1, 1])
    assert sorted(Counter(name for name, _ in said(thirds, range(1000))).values()) == [333, 333, 334]


def test_each_goes_through_epochs_of_its_own():
    mixed = Mixture([Numbered("a", 30), Numbered("b", 700)], [1.0, 1.0])
    drawn = said(mixed, range(2000), seed=5)
    first = [number for name, number in drawn if name == "a"]
    assert all(sorted(first[30 * e : 30 * (e + 1)]) == list(range(30)) for e in range(33))
    assert len({tuple(first[30 * e : 30 * (e + 1)]) for e in range(33)}) > 30
    second = [number for name, number in drawn if name == "b"]
    assert sorted(second[:700]) == list(range(700))
    endless = Mixture([Numbered("a", 30), Numbered("c", None)], [1.0, 1.0])
    assert sorted(n for name, n in said(endless, range(1000), seed=5) if name == "c") == [
        5 * STRIDE + i for i in range(500)
    ]


def test_a_place_and_a_seed_tell_the_sample():
    def mixed():
        return Mixture([Numbered("a", 30), Numbered("b", 700)], [3.0, 1.0])

    whole = said(mixed(), range(2500), seed=3)
    assert said(mixed(), range(1234, 1300), seed=3) == whole[1234:1300]
    assert said(mixed(), range(2499, 1200, -1), seed=3) == whole[2499:1200:-1]  # whatever was asked before
    assert said(mixed(), range(100), seed=4) != whole[:100]


def test_a_mixture_goes_on_where_it_was_with_any_number_of_workers():
    source, processor = Mixture([Numbered("a", 7), Numbered("b", 50)], [2.0, 1.0]), small("llava").processor

    def steps(start, count, workers=0):
        with closing(batches(source, processor, stage(batch=3), 1, start, workers)) as made:
            return [([batch.ids for batch in step], position) for step, position in islice(made, count)]

    whole = steps(Position(), 12)
    for workers in (0, 2):
        later = steps(whole[4][1], 7, workers)
        for (ids, position), (same, there) in zip(whole[5:], later, strict=True):
            assert position == there and all(map(torch.equal, ids, same))


def test_a_list_is_one_data_set():
    joined = Joined([Numbered("a", 3), Numbered("b", 4)])
    assert joined.size == 7
    assert sorted(said(joined, range(7))) == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2), ("b", 3)]
    with pytest.raises(InputError, match="an endless source is not one of a list"):
        Joined([Numbered("a", 3), Numbered("c", None)])


def test_weights_that_are_none():
    for weights in ([1.0, 0.0], [1.0, -1.0], []):
        with pytest.raises(InputError, match="weights of data are above 0"):
            Mixture([Numbered("a", 3)] * len(weights), weights)
    with pytest.raises(InputError, match="under 0.001 of all of them is too small"):
        Mixture([Numbered("a", 3), Numbered("b", 3)], [1.0, 1e-6])


def lines(file, texts):
    turns = [[{"role": "user", "content": "what?"}, {"role": "assistant", "content": text}] for text in texts]
    file.write_text("\n".join(json.dumps({"messages": turn}) for turn in turns))
    return file


def test_a_recipe_names_several(recipe, tmp_path):  # noqa: F811
    one, two = lines(tmp_path / "one.jsonl", ["yes"] * 5), lines(tmp_path / "two.jsonl", ["no"] * 9)
    table = read_recipe(recipe(1, one), [f'stages.1.data={{"{one}"=2.0, "{two}"=1.0, "playground/text"=1.0}}'])
    mixed = open_source(table.stages[1].data)
    assert isinstance(mixed, Mixture) and mixed.shares == [500, 250, 250]
    listed = read_recipe(recipe(1, one), [f'stages.1.data=["{one}", "{two}"]', "stages.1.steps=2"])
    assert open_source(listed.stages[1].data).size == 14
    run_recipe(listed, quiet=True)
    assert (tmp_path / "out" / "model").exists()
    with pytest.raises(InputError, match="no data 'playground/txt'.*did you mean 'playground/text'"):
        open_source({"playground/txt": 1.0})


# The promise about labels


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"messages": [{"role": "user", "content": "<image> what?"}, {"role": "assistant", "content": "x"}]},
         "the conversation has 0 pictures and its text 1 placeholders"),
        ({"image": ["a.png"], "conversations": [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "x"}]},
         "the record has 1 pictures and its text 0 placeholders"),
        ({"messages": [{"role": "user", "content": "red " * 400}, {"role": "assistant", "content": "x"}]},
         r"the conversation has 4\d\d tokens \(0 of them for 0 pictures\) and the model reads 256"),
        ({"messages": [{"role": "user", "content": "what?"}]},
         r"none of the conversation's 1 messages is the assistant's: 0 of its \d+ tokens"),
    ],
)  # fmt: skip
def test_one_sample_that_would_lose_its_labels_stops_the_training(bad, words, tmp_path):
    file = lines(tmp_path / "data.jsonl", ["yes"] * 300)
    text = file.read_text().splitlines()
    text[40] = json.dumps(bad)
    file.write_text("\n".join(text))
    steps = batches(open_source(str(file)), small("llava").processor, stage(batch=4), 0, Position())
    with pytest.raises(TrainingError, match=f"data.jsonl, line 41: {words}.*`panmodal data check` finds all"):
        list(islice(steps, 80))


def test_it_does_in_a_process_that_makes_batches_too(tmp_path):
    file = lines(tmp_path / "data.jsonl", ["red " * 400])
    steps = train(small("llava"), open_source(str(file)), stage(), workers=1)
    with pytest.raises(TrainingError, match="data.jsonl, line 1: the conversation has .* tokens"):
        list(steps)


def test_what_is_made_up_is_left_out(tmp_path):
    """Of an endless source no line can be mended."""

    class MadeUp:
        size = None

        def sample(self, index: int) -> Sample:
            return Sample((user("what?"), assistant("red " * 400 if index == 7 else "yes")))

    with closing(batches(MadeUp(), small("llava").processor, stage(batch=4), 0, Position())) as made:
        *_, (_, position) = islice(made, 4)
    assert position.bad == 1
