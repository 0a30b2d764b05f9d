from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panmodal.checkpoints import names
from panmodal.checkpoints.imagebind import TOWERS
from panmodal.checkpoints.names import SPARE, To, settle, to_ours, to_theirs, under

TABLES = (
    {
        name: table
        for name, table in vars(names).items()
        if isinstance(table, dict) and name.isupper() and name[0] != "_"
    }
    | {"GPT_NEOX": names.gpt_neox(4)}
    | {f"imagebind-{kind}": part.names for kind, (_, part) in TOWERS.items()}
)


@pytest.mark.parametrize("table", TABLES)
@given(st.data())
def test_every_row_goes_there_and_back(table, data):
    """Ours of theirs of ours, for every row, whatever the numbers."""
    settled = settle(TABLES[table])
    for theirs, to in settled.items():
        if to == SPARE:
            continue
        published = theirs
        while "{}" in published:
            published = published.replace("{}", str(data.draw(st.integers(0, 99))), 1)
        for leaf in ("", ".weight", ".bias"):
            ours = to_ours(published + leaf, settled)
            assert ours is not None
            back = to_theirs(ours.names, settled)
            assert back == {published + leaf: ours}


@pytest.mark.parametrize("table", TABLES)
def test_no_two_rows_collide(table):
    ours = [n for to in TABLES[table].values() for n in ((to,) if isinstance(to, str) else to.names)]
    assert len(ours) == len(set(ours))


def test_prefixes_that_some_files_have():
    assert to_ours("transformer.h.3.ln_1.bias", settle(names.GPT2, ["transformer.wte.weight"]))
    assert to_ours("h.3.ln_1.bias", settle(names.GPT2, ["wte.weight"])) == To(("body.blocks.3.attn_norm.bias",))
    inner = under("vision_tower.", names.CLIP_IMAGE, "encoder.")
    for start in ("vision_tower.vision_model.", "vision_tower."):
        key = start + "encoder.layers.0.mlp.fc1.weight"
        assert to_ours(key, settle(inner, [key])) == To(("encoder.body.blocks.0.mlp.up.weight",))


def test_an_unknown_name_is_none():
    assert to_ours("model.layers.0.mlp.extra.weight", names.LLAMA) is None
    assert to_ours("lm_head_2.weight", names.LLAMA) is None


def test_splits_and_turns():
    to = to_ours("h.0.attn.c_attn.weight", settle(names.GPT2, []))
    assert to == To(tuple(f"body.blocks.0.attn.{c}.weight" for c in "qkv"), transposed=True)
    assert to_ours("h.0.attn.c_attn.bias", settle(names.GPT2, [])).transposed is False
