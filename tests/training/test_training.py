from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import kills
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.masks import to_rle
from panmodal.data.sample import Batch, Sample, assistant, user
from panmodal.errors import InputError, TrainingError
from panmodal.families import BlipHybrid
from panmodal.generators.everything import boxes_around
from panmodal.generators.masks import BOTTOM_RIGHT, FOREGROUND, NOWHERE, TOP_LEFT
from panmodal.playground import crowded_scene
from panmodal.playground import masks as scene_masks
from panmodal.playground.speech import caption_sample, match_sample, segment_sample
from panmodal.training import Stage, losses, masks, read_recipe, run_recipe, train
from panmodal.training.loop import schedule
from panmodal.training.losses import hard_negatives
from panmodal.training.pairs import _in_boxes
from panmodal.training.run import build
from panmodal.training.stages import OBJECTIVES, parameter_groups
from panmodal.training.state import whole
from panmodal.training.stream import Position, batches, sample_number
from tests.families.small import small
from tests.families.test_every_family import Four

STAGE = {"name": "s", "objective": "answers", "data": "", "rates": {"all": 1e-3}, "steps": 8, "batch": 2}


def stage(**more) -> Stage:
    return Stage(**{**STAGE, **more})


def run(family, source=None, resume=None, until=None, **more):
    found = []
    for step in train(family, source or Four(True), stage(**more), resume=resume):
        found.append(step.loss)
        if step.number == until:
            break
    return found


# Losses


def test_contrastive_loss_is_that_of_its_paper():
    logits = torch.randn(5, 5)
    target = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    assert losses.contrastive_loss(logits) == pytest.approx(expected.item(), abs=1e-6)
    assert losses.contrastive_loss(torch.zeros(5, 5)) == pytest.approx(math.log(5), abs=1e-6)


def test_equal_texts_are_no_negatives():
    alike = torch.eye(4)
    alike[0, 1] = alike[1, 0] = 1
    good = torch.where(alike > 0, 20.0, -20.0)
    assert losses.contrastive_loss(good, alike) == pytest.approx(math.log(2) / 2, abs=1e-3)
    assert losses.contrastive_loss(good) > losses.contrastive_loss(good, alike) - 1e-6


def test_sigmoid_loss_is_that_of_its_paper():
    logits = torch.randn(4, 4)
    signs = 2 * torch.eye(4) - 1
    expected = -torch.stack(
        [torch.log(torch.sigmoid(s * z)) for s, z in zip(signs.flatten(), logits.flatten(), strict=True)]
    )
    assert losses.sigmoid_loss(logits) == pytest.approx(expected.sum().item() / 4, abs=1e-5)


def test_hard_negatives_are_drawn_by_likeness_and_are_never_alike():
    logits = torch.tensor([[9.0, 5.0, 4.0, -9.0], [0.0, 9.0, 0.0, 0.0], [1.0, 1.0, 9.0, 1.0]])
    alike = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    drawn = Counter()
    for _ in range(400):
        rows, columns = hard_negatives(logits, alike)
        drawn.update(zip(rows.tolist(), columns.tolist(), strict=True))
    assert drawn.keys() == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)}  # what fits all texts has no negative
    assert drawn[0, 1] / 400 == pytest.approx(0.75 / (1 + math.exp(-1)) + 0.25 / 3, abs=0.1)
    assert drawn[1, 2] / 400 == pytest.approx(0.5, abs=0.1)


class Matched:
    size = 4

    def sample(self, index):
        return match_sample(index)


def test_blip_learns_with_near_misses_and_without():
    objective, family = OBJECTIVES["blip"], small("blip", std=0.05)
    encoded = [objective.encode(family.processor, Matched().sample(i)) for i in range(4)]
    batch = objective.batch(family.processor, encoded)
    assert len(batch.ids) == 8 and len(batch.images) == objective.weight(batch) == 4
    judged = []
    match = family.model.match
    family.model.match = lambda source, ids, pad: judged.append(len(ids)) or match(source, ids, pad)
    objective.loss(family.model, batch).backward()
    assert sum(judged) == 4 + 4 + 4 + 4  # true pairs, a hard text and a hard picture for each, near misses
    assert all(p.grad is not None for p in family.model.parameters())
    some = objective.batch(family.processor, [(*encoded[0][:2], ""), *encoded[1:]])
    assert len(some.ids) == 4
    alone = objective.loss(family.model, objective.batch(family.processor, encoded[:1]))
    assert alone.isfinite()  # nothing in the batch to be told apart from


def test_each_picture_is_encoded_once():
    family, seen = small("blip"), []
    family.model.image.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    list(train(family, Matched(), Stage("one", "blip", "", {"all": 1e-3}, steps=1, batch=4)))
    assert seen == [4]


def test_what_an_objective_needs_of_a_blip():
    files = small("blip").checkpoint.files
    captioner = BlipHybrid.fresh({**small("blip").config, "architectures": ["BlipForConditionalGeneration"]}, files)
    steps = train(captioner, Matched(), Stage("two", "captions", "", {"all": 1e-3}, steps=2, batch=4))
    assert all(math.isfinite(step.loss) for step in steps)
    with pytest.raises(InputError, match="must be BlipForPreTraining"):
        list(train(captioner, Matched(), Stage("two", "blip", "", {"all": 1e-3}, steps=2, batch=4)))


class Named:
    """Four scenes with a box and a phrase for every object."""

    size = 4

    def sample(self, index):
        return caption_sample(index)


@pytest.mark.parametrize("objective", ["regions", "points", "contrastive_captioning"])
def test_objects_in_their_boxes_are_named(objective):
    family = small("clip", std=0.05)
    stage = Stage("four", objective, "", {"all": 2e-3}, steps=120, batch=4)
    losses = [step.loss for step in train(family, Named(), stage)]
    assert losses[-1] < 0.2 * losses[0]
    broken = Sample(Named().sample(0).messages, {"objects": [{"box": [1, 2]}]})
    with pytest.raises(InputError, match="a box of four numbers and a phrase"):
        OBJECTIVES[objective].encode(family.processor, broken)


def test_an_object_is_the_mean_of_its_box_or_a_token_in_it():
    """Tokens that hold their own place, on a grid of four by four"""
    places = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy"), -1).view(1, 16, 2)
    model = SimpleNamespace(image=SimpleNamespace(embed=SimpleNamespace(grid=4)))
    batch = Batch(torch.zeros(2, 1), regions=torch.tensor([[0, 0.25, 0, 1, 0.5], [0, 0.5, 0.75, 0.875, 1]]))
    assert _in_boxes(model, places, batch, points=False).tolist() == [[2, 0.5], [pytest.approx(2 + 1 / 3), 3]]
    drawn = {tuple(_in_boxes(model, places, batch, points=True)[0].tolist()) for _ in range(200)}
    assert drawn == {(x, y) for x in (1, 2, 3) for y in (0, 1)}


def test_separate_answers_are_those_of_conversations_of_one_turn():
    family = pm.load("tiny/chat")
    model, processor = family.model.eval(), family.processor
    picture, other = (caption_sample(seed).images[0] for seed in (0, 1))
    said = [user(picture, "How many objects are there?"), assistant("2"), user("Is there a star?"), assistant("yes")]
    both = [Sample(tuple(said)), Sample((user(other, "What is it?"), assistant("a red star")))]
    apart, plain = OBJECTIVES["separate_answers"], OBJECTIVES["answers"]
    batch = apart.batch(processor, [apart.encode(processor, sample) for sample in both])
    with torch.inference_mode():
        hidden = model.read(batch)
        for row, sample in enumerate((Sample(tuple(said[:2])), both[1])):
            alone = plain.batch(processor, [plain.encode(processor, sample)])
            expected = model.read(alone)[0]
            torch.testing.assert_close(hidden[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)
        shared, second = (batch.pad[0] == 1, batch.pad[0] == 3)
        ids = torch.cat([batch.ids[0, shared], batch.ids[0, second]])
        expected = model.read(Batch(ids[None], images=batch.images[:1]))[0, int(shared.sum()) :]
        torch.testing.assert_close(hidden[0, second], expected, atol=1e-4, rtol=1e-4)
    assert processor.tokenizer.decode(batch.ids[0, second].tolist()) == "is there a star? yes"


def test_of_conclusions_the_thoughts_are_read_and_not_learned(monkeypatch):
    processor = pm.load("tiny/chat").processor
    turns = [pm.user("Which?"), pm.assistant("<think>red.</think>yes"), pm.user("Why?"), pm.assistant("red. yes")]
    for objective, said in (
        ("separate_answers", "<think>red.</think>yes</s>red. yes</s>"),
        ("conclusions", "yes</s>red. yes</s>"),
    ):
        encoded = OBJECTIVES[objective].encode(processor, Sample(tuple(turns)))
        learned = [token for token, learn in zip(encoded.ids, encoded.learned, strict=True) if learn]
        assert learned == processor.tokenizer.spans(said).ids
    monkeypatch.setattr(processor.tokenizer, "id_of", lambda token: None)
    with pytest.raises(InputError, match="no token '</think>', at which thoughts end"):
        OBJECTIVES["conclusions"].encode(processor, Sample(tuple(turns)))


def test_next_token_loss_is_shifted_once_and_masked():
    hidden = torch.randn(2, 6, 10)
    labels = torch.randint(0, 10, (2, 6))
    labels[0, :3] = -100
    expected = torch.nn.functional.cross_entropy(
        hidden[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    assert losses.next_token_loss(hidden, labels, lambda h: h) == pytest.approx(expected.item(), abs=1e-6)


def test_focal_loss_is_that_of_its_paper():
    """Of two masks: for each pixel -weight * (1 - p) ** 2 * log p, p what the truth was given"""
    logits, target = torch.randn(2, 3, 4), torch.randint(0, 2, (2, 3, 4)).bool()
    p = torch.where(target, logits.sigmoid(), 1 - logits.sigmoid())
    expected = -torch.where(target, 0.25, 0.75) * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(losses.focal_loss(logits, target), expected.mean((1, 2)))
    assert losses.focal_loss(torch.randn(5, 3, 4, 4), torch.ones(5, 1, 4, 4)).shape == (5, 3)


def test_dice_loss():
    target = torch.zeros(1, 10, 10, dtype=torch.bool)
    target[:, :5] = True
    sure = torch.where(target, 30.0, -30.0)
    assert losses.dice_loss(sure, target) == pytest.approx(0, abs=1e-6)
    assert losses.dice_loss(-sure, target) == pytest.approx(1 - 1 / 101)
    assert losses.dice_loss(torch.zeros(1, 10, 10), target) == pytest.approx(1 - 51 / 101)


# Masks


def truths():
    return torch.from_numpy(scene_masks(crowded_scene(5)))


def test_first_prompts_are_points_on_the_thing_or_its_box():
    truth = truths().repeat(40, 1, 1)
    boxes = boxes_around(truth)
    points, kinds, pointed = masks.first_prompts(truth, boxes.float())
    assert 0.3 < pointed.float().mean() < 0.7
    x, y = points[pointed, 0].long().T
    assert truth[pointed, y, x].all()
    assert {tuple(k) for k in kinds[pointed].tolist()} == {(FOREGROUND, NOWHERE)}
    off = (points[~pointed].flatten(1) - boxes[~pointed]).abs()
    assert off.max() <= 20 / 1024 * 96 and off.mean() > 0.3
    assert {tuple(k) for k in kinds[~pointed].tolist()} == {(TOP_LEFT, BOTTOM_RIGHT)}
    drawn = [masks.first_prompts(truth, boxes.float(), alike=True)[2] for _ in range(20)]
    assert {tuple(set(pointed.tolist())) for pointed in drawn} == {(True,), (False,)}


def test_corrections_are_clicks_where_the_answer_is_wrong():
    truth = truths()
    logits = torch.where(truth, 5.0, -5.0)
    logits[0] = -5  # all missed
    logits[1, 40:60, 40:60] = 5  # more than there is
    for _ in range(20):
        points, kinds = masks.correction(logits, truth)
        x, y = points[:, 0].long().T
        inside = truth[torch.arange(len(truth)), y, x]
        assert torch.equal(kinds[:, 0] == FOREGROUND, inside)
        assert inside[0] and not inside[1] and inside[2:].all()  # what is right is clicked once more
        assert 40 <= x[1] < 60 and 40 <= y[1] < 60


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "needs one picture, and run lengths"),
        ({"masks": [{"size": [96, 96], "counts": [9216]}]}, "is empty or not of its picture's size"),
        ({"masks": [{"size": [2, 2], "counts": [0, 4]}]}, r"a mask of \[2, 2\] pixels is empty or not"),
        ({"masks": [{"size": [96, 96], "counts": [3]}]}, "add up to its 9216 pixels"),
    ],
)
def test_samples_without_masks_to_learn_from(about, message):
    with pytest.raises(InputError, match=message):
        OBJECTIVES["masks"].encode(None, Sample(segment_sample(0).messages, about))


def test_masks_are_learned_at_the_models_size():
    """Of pictures of two sizes, one of them not square, with a mask that is lost when the picture is made smaller"""
    family, objective = small("sam"), OBJECTIVES["masks"]
    wide = torch.zeros(2, 96, 192, dtype=torch.bool)
    wide[0, :48, :96], wide[1, 1, 1] = True, True
    picture = user(pm.Image(Pil.new("RGB", (192, 96))))
    samples = [segment_sample(0), Sample((picture,), {"masks": [to_rle(mask) for mask in wide]})]
    batch = objective.batch(family.processor, [objective.encode(family.processor, s) for s in samples])
    count = len(samples[0].about["masks"])
    assert batch.images.shape == (2, 3, 32, 32) and batch.masks.shape == (count + 1, 32, 32)
    assert batch.regions[:, 0].tolist() == [0] * count + [1]
    assert batch.regions[-1].tolist() == [1, 0, 0, 0.5, 0.25]
    assert batch.masks[-1].sum() == 16 * 8
    with pytest.raises(InputError, match="by SAM models only"):
        objective.batch(small("vit").processor, [objective.encode(None, samples[0])])


def test_a_picture_is_encoded_once_for_all_its_masks(monkeypatch):
    family, objective = small("sam"), OBJECTIVES["masks"]
    samples = [segment_sample(seed) for seed in range(2)]
    batch = objective.batch(family.processor, [objective.encode(family.processor, s) for s in samples])
    encoded, decoded = [], []
    encode, decode = family.model.encode, family.model.decode
    monkeypatch.setattr(family.model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    monkeypatch.setattr(family.model, "decode", lambda *a, **more: decoded.append(a) or decode(*a, **more))
    objective.loss(family.model, batch)
    assert encoded == [2]
    assert [(len(points), points.shape[1]) for _, points, *_ in decoded] == [(len(batch.masks), n) for n in (2, 3, 4)]
    assert decoded[0][3] is None and decoded[1][3].shape == decoded[2][3].shape == batch.masks.shape


# Stages


def test_what_has_no_rate_is_frozen():
    family = small("llava")
    before = {n: p.clone() for n, p in family.model.named_parameters()}
    run(family, rates={"connector": 1e-2}, steps=2)
    for name, parameter in family.model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("connector."), name
    run(family, rates={"connector": 1e-2, "language": 1e-2}, steps=2)
    changed = {n.split(".")[0] for n, p in family.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"connector", "language"}


def test_the_nearest_part_gives_the_rate():
    model = small("llava").model
    groups = parameter_groups(
        model, stage(rates={"all": 1e-4, "language": 1e-3, "language.embed": 1e-5}, weight_decay=0.1)
    )
    rates = {id(p): (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rates[id(model.language.embed.vectors.weight)] == (1e-5, 0.1)
    assert rates[id(model.language.body.norm.weight)] == (1e-3, 0.0)
    assert rates[id(model.connector.up.weight)] == (1e-4, 0.1)


def test_a_part_that_the_model_lacks():
    with pytest.raises(InputError, match="'conector', which the model lacks; did you mean 'connector'"):
        parameter_groups(small("llava").model, stage(rates={"conector": 1}))


def test_the_schedule_rises_and_falls():
    shares = [schedule(stage(steps=100, warmup=0.1, final=0.1), i) for i in range(100)]
    assert shares[0] == 0.1 and shares[9] == 1.0 and shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] == pytest.approx(0.1, abs=0.01)


# The loop


def test_accumulating_is_one_large_batch():
    """Also where the parts have unequal numbers of tokens to learn."""

    def weights(**how):
        family = small("llava")
        run(family, steps=3, clip_norm=1e9, **how)
        return torch.cat([p.detach().flatten() for p in family.model.parameters()])

    torch.testing.assert_close(weights(batch=4), weights(batch=2, accumulate=2), rtol=0, atol=2e-4)


def test_samples_of_like_length_share_a_batch():
    class Lines:
        size = 40

        def sample(self, index):
            return Sample((user("how many?"), assistant("one two " * (index + 1))))

    processor = small("llava").processor
    (made, position) = next(batches(Lines(), processor, stage(batch=4, accumulate=4), 0, Position()))
    lengths = [length for batch in made for length in batch.pad.sum(1).tolist()]
    assert position.taken == len(lengths) == 16
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_bfloat16_learns_too():
    found = run(small("llava"), precision="bfloat16", steps=30, rates={"all": 3e-3})
    assert found[-1] < 0.7 * found[0]


def test_the_average_of_the_weights_is_kept():
    family, plain = small("llama"), small("llama")
    run(family, Four(False), ema=0.9)
    run(plain, Four(False))
    assert not torch.equal(family.model.head.weight, plain.model.head.weight)


def test_a_loss_that_is_not_finite_changes_nothing_and_then_stops_the_run():
    family = small("llama")
    with torch.no_grad():
        family.model.body.norm.weight[0] = torch.nan
    before = [p.clone() for p in family.model.parameters()]
    with pytest.raises(TrainingError, match="not been finite for 5 steps"):
        run(family, Four(False))
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(before, family.model.parameters(), strict=True))


def test_resuming_continues_bit_for_bit(tmp_path):
    whole_run = run(small("llava"), ema=0.99)
    family = small("llava")
    found = []
    for step in train(family, Four(True), stage(ema=0.99)):
        found.append(step.loss)
        if step.number == 3:
            step.save(tmp_path / "state")
            break
    other = small("llava", std=0.2)  # whatever the weights are, the state brings its own
    found += run(other, resume=tmp_path / "state", ema=0.99)
    assert found == whole_run
    expected = small("llava")
    run(expected, ema=0.99)
    assert all(torch.equal(a, b) for a, b in zip(other.model.parameters(), expected.model.parameters(), strict=True))


def test_a_damaged_state_is_not_resumed_from(tmp_path):
    for step in train(small("llama"), Four(False), stage(steps=1)):
        step.save(tmp_path / "state")
    assert whole(tmp_path / "state")
    file = tmp_path / "state" / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert not whole(tmp_path / "state")
    with pytest.raises(pm.CheckpointError, match="not a whole training state"):
        run(small("llama"), Four(False), resume=tmp_path / "state")


def test_every_sample_once_an_epoch_in_another_order_each():
    source = Four(True)
    epochs = [[sample_number(source, 7, 4 * e + i) for i in range(4)] for e in range(20)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


class Sometimes:
    """A source in which some samples are bad."""

    def __init__(self, size: int, bad: set[int]) -> None:
        self.size, self.bad = size, bad

    def sample(self, index: int) -> Sample:
        if index in self.bad:
            raise InputError(f"line {index + 1}: broken")
        return Sample((user(f"number {index}"), assistant("yes")))


def test_processes_make_the_same_batches_in_the_same_order():
    source, processor = Sometimes(300, {5, 41}), small("llava").processor

    def steps(workers):
        with closing(batches(source, processor, stage(batch=3, accumulate=2), 0, Position(), workers)) as made:
            return [([batch.ids for batch in step], position) for step, position in islice(made, 20)]

    alone, together = steps(0), steps(2)
    assert alone[-1][1].taken == 120 and alone[-1][1].bad == 1
    for (ids, position), (same, there) in zip(alone, together, strict=True):
        assert position == there
        assert all(map(torch.equal, ids, same))


def test_a_step_without_a_usable_sample_is_left_out():
    with closing(batches(Sometimes(200, {7}), small("llava").processor, stage(batch=1), 0, Position())) as made:
        steps = list(islice(made, 199))
    assert steps[-1][1].taken == 200 and all(len(batch.ids) == 1 for step, _ in steps for batch in step)


def test_the_death_of_a_process_that_makes_batches_is_told():
    made = batches(Four(True), small("llava").processor, stage(), 0, Position(), workers=1)
    next(made)
    for child in active_children():
        child.kill()
    with pytest.raises(TrainingError, match="a process that makes batches died"):
        list(islice(made, 20))


def test_a_bad_sample_is_counted_and_skipped():
    steps = list(train(small("llama"), Sometimes(400, {17}), stage(steps=100, batch=4)))
    assert steps[-1].skipped == 1
    assert steps[-1].run.position.skipped == {"line 18: broken": 1}
    assert steps[-1].run.position.taken in (400, 401)


def test_too_many_bad_samples_stop_the_run_with_the_reasons():
    with pytest.raises(TrainingError, match=r"2 of \d+ samples could not be used, more than 1%: line .*: broken"):
        list(train(small("llama"), Sometimes(40, set(range(0, 40, 4))), stage(steps=100)))


# Recipes

RECIPE = (
    kills.RECIPE
    + """
[[stages]]
kind = "instruct"
data = "{data}"
rates = {{ all = 1e-4 }}
steps = 4
batch = 4
"""
)


@pytest.fixture
def recipe(tmp_path):
    def write(steps=6, data="playground/text", out=None):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(out=out or tmp_path / "out", steps=steps, data=data))
        return path

    return write


def losses_of(out: Path) -> list[float]:
    from panmodal.training.journal import read_log

    return [loss for stage in read_log(out).values() for _, loss in sorted(stage.items())]


def test_a_finished_run_shows_what_was_done(recipe, capsys):
    read = read_recipe(recipe())
    run_recipe(read, quiet=True)
    run_recipe(read)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "4/4" in shown and "nan" not in shown


def test_a_recipe_runs(recipe, tmp_path):
    family = run_recipe(recipe(), quiet=True)
    out = tmp_path / "out"
    assert len(losses_of(out)) == 10
    assert Pil.open(out / "loss.png").size == (960, 480)
    for last in (out / "model", out / "stages" / "instruct"):
        assert pm.load(last).reply("red", max_tokens=5) == family.reply("red", max_tokens=5)
    first, second = (pm.load(out / "stages" / name).model.state_dict() for name in ("words", "instruct"))
    assert not all(torch.equal(second[name], weight) for name, weight in first.items())


def test_a_killed_run_goes_on_bit_for_bit(recipe, tmp_path):
    """A real process, killed for good at a moment that nobody chose."""
    expected = read_recipe(recipe(12), [f"out={tmp_path / 'whole'}"])
    run_recipe(expected, quiet=True)
    code = f"import torch; torch.set_num_threads(2); from panmodal.training import run_recipe; run_recipe({str(recipe(12))!r}, quiet=True)"
    log = tmp_path / "out" / "log.jsonl"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline, enough = time.monotonic() + 120, len(losses_of(tmp_path / "out")) + 4
        while process.poll() is None and len(losses_of(tmp_path / "out")) < enough and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run_recipe(recipe(12), quiet=True)
    assert losses_of(tmp_path / "out") == losses_of(tmp_path / "whole")
    assert log.exists()
    ours, theirs = pm.load(tmp_path / "out" / "model"), pm.load(tmp_path / "whole" / "model")
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True))


def test_a_run_that_is_asked_to_stop_saves_first(recipe, tmp_path):
    code = f"from panmodal.cli import main; import sys; sys.argv = ['panmodal', 'train', {str(recipe(10**6))!r}, '--json']; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(losses_of(tmp_path / "out")) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "run the same command to go on" in err and "Traceback" not in err
    number = len(losses_of(tmp_path / "out"))
    assert whole(tmp_path / "out" / "states" / "0-words" / f"step-{number:07d}")


def test_a_run_of_another_recipe_is_not_mixed_in(recipe, tmp_path):
    run_recipe(recipe(1), quiet=True)
    with pytest.raises(InputError, match="another recipe; name another out, or throw it away with --restart"):
        run_recipe(recipe(2), quiet=True)
    run_recipe(recipe(2), quiet=True, restart=True)
    assert len(losses_of(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.stps=3", "unknown key 'stages.0.stps'; did you mean 'steps'"),
        ("sed=3", "unknown key 'sed'; did you mean 'seed'"),
        ("model.vison=x", "unknown key 'model.vison'; did you mean 'vision'"),
        ("stages.0.steps=many", "'stages.0.steps': Input should be a valid integer.*'many'"),
        ("stages.0.steps=0", "steps is 0; it must be at least 1"),
        ("stages.0.objective=anwers", "did you mean 'answers'"),
        ("stages.1.kind=intsruct", "did you mean 'instruct'"),
        ("stages.7.steps=1", "no such place"),
        ("steps", "takes key=value"),
        ("dtype=float64", "'dtype': Input should be 'float32', 'float16' or 'bfloat16'"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(change, message, recipe):
    with pytest.raises(InputError, match=message):
        read_recipe(recipe(), [change])


def test_recipes_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("name = ")
    with pytest.raises(InputError, match="is not TOML"):
        read_recipe(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("name = 'x'")
    with pytest.raises(InputError, match=r"needs \[\[stages\]\]"):
        read_recipe(tmp_path / "b.toml")


def test_data_that_is_not_there(recipe):
    with pytest.raises(InputError, match="no data 'playground/txt': .*did you mean 'playground/text'"):
        run_recipe(read_recipe(recipe(1), ["stages.0.data=playground/txt"]), quiet=True)


def test_a_model_with_the_image_encoder_of_another():
    spec = read_recipe(Path(__file__).parents[2] / "recipes" / "tiny" / "blip.toml").model
    family, clip = build(replace(spec, vision="tiny/clip")), pm.load("tiny/clip")
    for name, weight in clip.model.image.state_dict().items():
        assert torch.equal(family.model.image.state_dict()[name], weight)
    assert family.checkpoint.image_processor == clip.checkpoint.image_processor
    assert family.config["vision_config"]["model_type"] == "clip_vision_model"
    picture = clip.processor.pictures(caption_sample(0).images)
    with torch.no_grad():  # the class token is CLIP's, and the others are as loud
        tokens = family.model.image(picture)
        torch.testing.assert_close(tokens[:, 0], clip.model.image.pooled(picture))
        assert tokens.std() < 1.5
        assert clip.model.image(picture).std() > 5


@pytest.mark.parametrize("name", ["clip", "chat", "bind", "blip", "sam", "prone", "prefer", "lora"])
def test_the_recipes_that_are_shipped(name):
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "tiny" / f"{name}.toml")
    assert recipe.name == f"tiny/{name}"


def test_a_file_of_conversations_is_learned_from(recipe, tmp_path):
    lines = [
        {"messages": [{"role": "user", "content": f"number {i}"}, {"role": "assistant", "content": "yes"}]}
        for i in range(150)
    ]
    file = tmp_path / "data.jsonl"
    text = [json.dumps(line) for line in lines]
    text[7] = text[7][:-9]
    file.write_text("\n".join(text))
    run_recipe(read_recipe(recipe(1, file), ["stages.1.steps=40"]), quiet=True)
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["skipped"] == 1 and (tmp_path / "out" / "model").exists()
