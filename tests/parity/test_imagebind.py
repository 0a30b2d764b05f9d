"""ImageBind against plain PyTorch, written here from the paper, through files with the published names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import panmodal as pm
from panmodal.checkpoints.store import BARE
from tests.parity.reference import close

DIM = 24  # of the shared space
SIZES = {  # width, blocks, heads
    "vision": (48, 3, 4), "text": (40, 2, 5), "audio": (32, 2, 4),
    "depth": (24, 2, 3), "thermal": (32, 1, 4), "imu": (16, 2, 2),
}  # fmt: skip
CONFIG = {
    "model_type": "imagebind",
    "projection_dim": DIM,
    **{
        f"{name}_config": {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
        for name, (width, depth, heads) in SIZES.items()
    },
}
CONFIG["vision_config"] |= {"image_size": 28, "patch_size": 7}
CONFIG["text_config"] |= {"vocab_size": 60, "max_position_embeddings": 12}
CONFIG["audio_config"] |= {"height": 36, "width": 49}
CONFIG["depth_config"] |= {"height": 32, "width": 48}
CONFIG["thermal_config"] |= {"height": 32, "width": 32}
CONFIG["imu_config"] |= {"num_samples": 40}
INPUTS = {
    "image": (2, 3, 28, 28), "video": (2, 4, 3, 2, 28, 28), "audio": (2, 3, 1, 36, 49),
    "depth": (2, 1, 32, 48), "thermal": (2, 1, 32, 32), "imu": (2, 6, 40),
}  # fmt: skip


class TheirBlock(nn.Module):
    def __init__(self, width: int, heads: int, bias_kv: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=bias_kv, batch_first=True)
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(x))))


def tree(**parts: nn.Module | nn.Parameter) -> nn.Module:
    made = nn.Module()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Theirs(nn.Module):
    """The tree of modules that the published names spell, and what each modality is put through."""

    def __init__(self) -> None:
        super().__init__()
        width = {name: size[0] for name, size in SIZES.items()}
        norm = {name: nn.LayerNorm(w, eps=1e-6) for name, w in width.items()}

        def spectral(name: str, stride: int, tokens: int, stem: str = "rgbt_stem") -> nn.Module:
            w = width[name]
            made = tree(proj=nn.Conv2d(1, w, 16, stride, bias=False), norm_layer=nn.LayerNorm(w))
            helper = tree(pos_embed=drawn(1, tokens + 1, w))
            return tree(cls_token=drawn(1, 1, w), pos_embedding_helper=helper, **{stem: made})

        self.modality_preprocessors = nn.ModuleDict(
            {
                "vision": tree(
                    cls_token=drawn(1, 1, 48),
                    pos_embedding_helper=tree(pos_embed=drawn(1, 17, 48)),
                    rgbt_stem=tree(
                        proj=nn.Sequential(nn.Identity(), nn.Conv3d(3, 48, (2, 7, 7), (2, 7, 7), bias=False))
                    ),
                ),
                "text": tree(token_embedding=nn.Embedding(60, 40), pos_embed=drawn(1, 12, 40)),
                "audio": spectral("audio", 10, 3 * 4),
                "depth": spectral("depth", 16, 2 * 3, "depth_stem"),
                "thermal": spectral("thermal", 16, 2 * 2),
                "imu": tree(
                    cls_token=drawn(1, 1, 16),
                    pos_embed=drawn(1, 6, 16),
                    imu_stem=tree(proj=nn.Linear(48, 16, bias=False), norm_layer=nn.LayerNorm(16)),
                ),
            }
        )
        mask = torch.full((12, 12), float("-inf")).triu(1)
        self.modality_preprocessors["text"].register_buffer("mask", mask)
        self.modality_trunks = nn.ModuleDict(
            {
                name: tree(
                    pre_transformer_layer=nn.Sequential(
                        nn.LayerNorm(w, eps=1e-6) if name == "vision" else nn.Identity()
                    ),
                    blocks=nn.ModuleList(TheirBlock(w, heads, name not in ("vision", "text")) for _ in range(depth)),
                )
                for name, (w, depth, heads) in SIZES.items()
            }
        )
        self.modality_heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    norm[name], *[nn.Identity()] * (2 if name == "imu" else 1), nn.Linear(w, DIM, bias=False)
                )
                for name, w in width.items()
                if name != "text"
            }
        )
        self.modality_heads["text"] = tree(proj=nn.Sequential(norm["text"], nn.Linear(40, DIM, bias=False)))
        self.modality_postprocessors = nn.ModuleDict(
            {name: nn.Sequential(nn.Identity(), tree(log_logit_scale=drawn())) for name in SIZES if name != "vision"}
        )

    def tokens(self, name: str, x: torch.Tensor) -> torch.Tensor:
        made = self.modality_preprocessors[name]
        if name == "text":
            return made.token_embedding(x) + made.pos_embed
        if name == "imu":
            b, channels, samples = x.shape
            patches = x.reshape(b, channels, samples // 8, 8).permute(0, 2, 1, 3).reshape(b, samples // 8, channels * 8)
            patches = made.imu_stem.norm_layer(made.imu_stem.proj(patches))
            positions = made.pos_embed
        else:
            stem = made.depth_stem if name == "depth" else made.rgbt_stem
            patches = stem.proj(x).flatten(2).transpose(1, 2)
            patches = patches if name == "vision" else stem.norm_layer(patches)
            positions = made.pos_embedding_helper.pos_embed
        return torch.cat([made.cls_token.expand(len(x), -1, -1), patches], dim=1) + positions

    def forward(self, name: str, x: torch.Tensor) -> torch.Tensor:
        tokens = self.modality_trunks[name].pre_transformer_layer(self.tokens(name, x))
        for block in self.modality_trunks[name].blocks:
            tokens = block(tokens, self.modality_preprocessors["text"].mask if name == "text" else None)
        if name == "text":
            out = self.modality_heads["text"].proj(tokens[torch.arange(len(x)), x.argmax(dim=-1)])
        else:
            out = self.modality_heads[name](tokens)[:, 0]
        return F.normalize(out, dim=-1)


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    torch.manual_seed(0)
    model = Theirs()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.2)
        if parameter.ndim == 1 and "bias" not in name:
            parameter.data += 1
    model.modality_postprocessors["imu"][1].log_logit_scale.data.fill_(7)  # more than is allowed
    return model.eval()


@pytest.fixture
def folder(theirs, tmp_path):
    """Our layout: the same tensors, and a configuration."""
    save_file({k: t.contiguous() for k, t in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def given(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if kind == "text":
        ids = torch.randint(1, 50, (3, 12), generator=generator)
        ids[torch.arange(3), torch.tensor([4, 11, 7])] = 59
        return ids
    return torch.randn(INPUTS[kind], generator=generator)


@pytest.mark.parametrize("kind", [*INPUTS, "text"])
def test_every_tower(kind, theirs, folder):
    ours, x = pm.load(folder).model, given(kind)
    with torch.no_grad():
        if kind == "image":  # a still picture is two frames that are alike
            expected = theirs("vision", x[:, :, None].expand(-1, -1, 2, -1, -1))
        elif kind in ("video", "audio"):  # the mean over the clips
            name = "vision" if kind == "video" else kind
            expected = F.normalize(theirs(name, x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(dim=1), dim=-1)
        else:
            expected = theirs(kind, x)
        close(ours.embed(kind, x), expected, 1e-5)


def test_logits(theirs, folder):
    """Against the pictures, at a scale of each kind's own, of which the highest is 100."""
    others = {kind: given(kind) for kind in ("text", "depth", "imu")}
    scales = theirs.state_dict()
    with torch.no_grad():
        logits = pm.load(folder).model(given("image"), others)
        anchor = theirs("vision", given("image")[:, :, None].expand(-1, -1, 2, -1, -1))
        for kind, x in others.items():
            scale = scales[f"modality_postprocessors.{kind}.1.log_logit_scale"].exp().item()
            close(logits[kind], min(scale, 100) * anchor @ theirs(kind, x).T, 1e-4)


def test_a_published_file_alone(theirs, tmp_path, monkeypatch, capsys):
    """As it is published: one pickle of tensors, of one size, and no config.json."""
    monkeypatch.setitem(BARE, "imagebind_huge.pth", {**CONFIG, "license": "a licence of the test"})
    file = tmp_path / "imagebind_huge.pth"
    torch.save(theirs.state_dict(), file)
    with pytest.raises(pm.CheckpointError, match="allow_pickle=True"):
        pm.load(file)
    for place in (file, tmp_path):
        ours = pm.load(place, allow_pickle=True)
        with torch.no_grad():
            close(ours.model.embed("audio", given("audio")[:, :1]), theirs("audio", given("audio")[:, 0]), 1e-5)
    assert capsys.readouterr().err.count("a licence of the test") == 1  # told once
    ours.save(tmp_path / "saved")
    again = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert again["license"] == "a licence of the test"


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"a": Evil()}, tmp_path / "imagebind_huge.pth")
    with pytest.raises(pm.CheckpointError, match="cannot be read as plain weights"):
        pm.load(tmp_path, allow_pickle=True)


def test_saved_as_it_came(folder, tmp_path):
    from safetensors.torch import load_file

    pm.load(folder).save(tmp_path / "saved")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "saved" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_published_size_is_what_an_empty_configuration_says():
    """Shapes alone, as the paper has them: ViT-H for pictures, 24 layers for texts, ViT-B for sounds and heat, ..."""
    from panmodal.families import Binding

    with torch.device("meta"):
        model, _ = Binding.build(BARE["imagebind_huge.pth"])
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    assert shapes["image.embed.project.weight"] == [1280, 3, 2, 14, 14]
    assert shapes["image.embed.positions"] == [257, 1280]
    assert shapes["audio.embed.positions"] == [12 * 19 + 1, 768]
    assert shapes["depth.embed.positions"] == [197, 384]
    assert shapes["imu.embed.positions"] == [251, 512] and shapes["imu.embed.project.weight"] == [512, 48]
    assert shapes["text.embed.positions.weight"] == [77, 1024]
    assert {shapes[f"{kind}.head.weight"][0] for kind in ("image", "text", "audio", "depth", "thermal", "imu")} == {
        1024
    }
    assert [len(model.get_submodule(kind).body.blocks) for kind in ("image", "text", "imu")] == [32, 24, 6]


def test_towers_that_are_not_there(tmp_path):
    from panmodal.families import Binding

    seeing = {key: CONFIG[key] for key in ("model_type", "projection_dim", "vision_config")}
    model = Binding.fresh(seeing, {})
    with pytest.raises(pm.InputError, match="no tower for audio"):
        model.embed([pm.Audio(np.zeros(9, np.int16), 8000)])
    with pytest.raises(pm.CheckpointError, match="no vision_config"):
        Binding.fresh({"model_type": "imagebind", "text_config": CONFIG["text_config"]}, {})
    with pytest.raises(pm.CheckpointError, match="preprocessor_config.json has a setting .*'clps'"):
        Binding.fresh(CONFIG, {"preprocessor_config.json": json.dumps({"audio": {"clps": 1}}).encode()})
