"""Prompts that begin with the same picture are gone through once up to its end, and answered as if they were not."""

from __future__ import annotations

import pytest

import panmodal as pm
from panmodal.playground import make_scene, render
from tests.families.small import small


@pytest.mark.parametrize("kind", ["llava", "blip2"])
def test_answers_are_those_of_whole_prompts(kind, monkeypatch):
    family = small(kind, std=0.3)
    pictures = [render(make_scene(seed)) for seed in range(3)]
    texts = ["is it red?", "how many circles are there?", "what is it that is large?"]
    asked = [[pm.user(pm.Image(pictures[i % 3]), texts[i // 3])] for i in range(9)]
    asked += [[*asked[0], pm.assistant("yes"), pm.user(pm.Image(pictures[1]), "and this?")]]
    alone = []
    for said in asked:
        family.forget()
        alone.append(family.reply(said, max_tokens=8).text)
    rows, decode = [], family.language.decode

    def counting(x, *rest):
        rows.append(x.shape[:2])
        return decode(x, *rest)

    monkeypatch.setattr(family.language, "decode", counting)
    assert [reply.text for reply in family.reply_all(asked[:9], rows=9, max_tokens=8)] == alone[:9]
    assert (rows[0][0], rows[1][0]) == (3, 9)  # three pictures, and then nine questions
    assert [reply.text for reply in family.reply_all(asked, rows=10, max_tokens=8)] == alone
    assert len(set(alone)) > 1
