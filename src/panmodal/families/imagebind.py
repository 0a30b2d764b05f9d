"""ImageBind (Girdhar et al., 2023): six modalities in one space, each bound to pictures alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from panmodal.checkpoints.imagebind import TOWERS, clip_towers, tower_configs
from panmodal.checkpoints.names import Names
from panmodal.checkpoints.parts import Config
from panmodal.data.media import Medium
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.signals import MapTransform, MotionTransform, SoundTransform, VideoTransform
from panmodal.data.tokens import Tokenizer
from panmodal.encoders.signal import SignalEncoder
from panmodal.encoders.text import TextEncoder
from panmodal.errors import CheckpointError, InputError, suggest
from panmodal.families.base import Family, embed_texts, encode_media, unit

MAX_SCALE = 100.0  # of the cosines


class ImageBind(nn.Module):
    """A tower for every modality, into one space; pictures and videos share theirs (`image`).

    The similarity of a picture to another medium is `exp(scales[kind])`, at most 100, times the cosine.
    """

    def __init__(self, towers: Mapping[str, SignalEncoder | TextEncoder]) -> None:
        super().__init__()
        for kind, tower in towers.items():
            self.add_module(kind, tower)
        others = [kind for kind in towers if kind != "image"]
        self.scales = nn.ParameterDict({kind: nn.Parameter(torch.tensor(2.6592)) for kind in others})  # log(1 / 0.07)

    def embed(self, kind: str, x: Tensor, pad: Tensor | None = None) -> Tensor:
        """A batch of one kind -> [N, dim] at unit length.

        image [N, 3, H, W]; video [N, clips, 3, frames, H, W]; audio [N, clips, 1, bins, frames]; depth and thermal
        [N, 1, H, W]; imu [N, channels, samples]; text [N, T] ids, of which `pad` says which are real.
        """
        tower: Any = self.get_submodule("image" if kind == "video" else kind)
        if kind == "text":
            return nn.functional.normalize(tower.pooled(x, pad), dim=-1)
        if kind not in ("audio", "video"):
            return nn.functional.normalize(tower.pooled(x), dim=-1)
        each = nn.functional.normalize(tower.pooled(x.flatten(0, 1)), dim=-1)  # [N * clips, dim]
        return nn.functional.normalize(each.view(len(x), -1, each.shape[-1]).mean(dim=1), dim=-1)

    def forward(self, images: Tensor, others: Mapping[str, Tensor], pad: Tensor | None = None) -> dict[str, Tensor]:
        """Pictures and batches of other kinds -> logits of every kind, pictures by others [N, M]"""
        anchor = self.embed("image", images)
        return {kind: self.scale(kind) * anchor @ self.embed(kind, x, pad).T for kind, x in others.items()}

    def scale(self, kind: str) -> Tensor:
        out: Tensor = self.scales[kind].exp().clamp(max=MAX_SCALE)
        return out


class Binding(Family[ImageBind]):
    """Embeds pictures, texts, sounds, videos, depth, heat and motion in one space."""

    @staticmethod
    def build(config: Config) -> tuple[ImageBind, Names]:
        told = tower_configs(config)
        if "image" not in told:
            raise CheckpointError("config.json has no vision_config; ImageBind is bound together by pictures")
        names = {theirs: to for kind in told for theirs, to in TOWERS[kind][1].table(told[kind]).items()}
        return ImageBind({kind: TOWERS[kind][1].build(c) for kind, c in told.items()}), names

    @classmethod
    def read(cls, folder: Path, name: str, dtype: torch.dtype, allow_pickle: bool = False) -> Self:
        family = super().read(folder, name, dtype, allow_pickle)
        if family.config.get("license"):
            tell_licence(family.config["license"])
        return family

    @classmethod
    def upon(cls, clip: Family[Any], config: Config, files: Mapping[str, bytes]) -> Self:
        """A model to train, for pictures and texts with a CLIP's towers, as in the paper; `config` and `files` are
        those of `fresh`, and need not speak of these two.

        A patch over several frames sees in each a share of what CLIP's sees, so that still pictures look the same.
        """
        if clip.config.get("model_type") != "clip":
            raise InputError(f"the towers must be a CLIP's, and {clip.name} is {type(clip).__name__}")
        family = cls.fresh({**clip_towers(clip.config), **config}, files)
        theirs: Any = clip.model
        image = {name.replace("pool.norm", "body.norm"): t for name, t in theirs.image.state_dict().items()}
        patches = image["embed.project.weight"][:, :, None]  # [D, 3, 1, patch, patch]
        frames = tower_configs(family.config)["image"]["num_frames"]
        image["embed.project.weight"] = patches.expand(-1, -1, frames, -1, -1) / frames
        image["head.weight"] = theirs.image_projection.weight
        text = {**theirs.text.state_dict(), "head.weight": theirs.text_projection.weight}
        try:
            family.model.get_submodule("image").load_state_dict(image)
            family.model.get_submodule("text").load_state_dict(text)
        except RuntimeError as error:
            raise InputError(f"the towers of {clip.name} do not fit: {' '.join(str(error).split())[:200]}") from None
        family.model.scales["text"].data.copy_(theirs.scale)
        return family

    def tower(self, kind: str) -> tuple[nn.Module, dict[str, Any]]:
        told = tower_configs(self.config)
        if kind not in told or kind == "text":
            return super().tower(kind)
        return self.model.get_submodule(kind), {"model_type": f"imagebind_{kind}", **told[kind]}

    def make_processor(self) -> Processor:
        told, settings = tower_configs(self.config), self.checkpoint.image_processor
        pictures = ImageTransform.from_config({"image_processor_type": "CLIPImageProcessor", **settings})
        try:
            media = _transforms(told, settings, pictures)
        except TypeError as error:
            raise CheckpointError(f"preprocessor_config.json has a setting that ImageBind lacks: {error}") from None
        return Processor(
            Tokenizer.from_files(self.checkpoint.files),
            pictures,
            context=told.get("text", {}).get("max_position_embeddings", 0),
            media=media,
        )

    def embed(self, items: Sequence[Medium | str], truncate: bool = False) -> Tensor:
        """Media and texts, in any order -> [N, dim] float32 at unit length.

        The vectors of several media may be added, to look for what has something of each. A text longer than
        the model reads raises InputError, or is cut if `truncate`.
        """
        kinds = [item.kind if isinstance(item, Medium) else "text" for item in items]
        found = {kind: iter(self._embed_kind(kind, items, kinds, truncate)) for kind in dict.fromkeys(kinds)}
        return torch.stack([next(found[kind]) for kind in kinds]) if kinds else torch.empty(0)

    def _embed_kind(self, kind: str, items: Sequence[Any], kinds: Sequence[str], truncate: bool) -> Tensor:
        known = [*tower_configs(self.config), "video"]
        if kind not in known:
            raise InputError(f"{self.name or 'this model'} has no tower for {kind}{suggest(kind, known)}")
        own = [item for item, its in zip(items, kinds, strict=True) if its == kind]
        embed = partial(self.model.embed, kind)
        if kind == "text":
            return embed_texts(self, embed, own, truncate)
        return encode_media(self, partial(self.processor.medium, kind), lambda x: unit(embed(x)), own)

    def classify(self, item: Medium, labels: Sequence[str], templates: Sequence[str] = ()) -> dict[str, float]:
        """How likely each label is to tell what a medium is, among the labels given, by the likeness of
        `a photo of a {label}`, or the templates, which are averaged."""
        if not labels:
            raise InputError("classify needs at least one label")
        templates = templates or self.config.get("zero_shot_templates") or ("a photo of a {}",)
        texts = self.embed([t.format(label) for label in labels for t in templates])
        texts = unit(texts.view(len(labels), len(templates), -1).mean(dim=1))
        with torch.inference_mode():
            odds = (self.model.scale("text").float().cpu() * self.embed([item])[0] @ texts.T).softmax(-1)
        return dict(zip(labels, odds.tolist(), strict=True))


def _transforms(
    told: Mapping[str, Config], settings: Config, pictures: ImageTransform
) -> dict[str, Callable[[Any], Tensor]]:
    """For every kind of medium that the towers take; what a kind's settings leave out is as in the paper."""
    own = {kind: settings.get(kind, {}) for kind in (*told, "video")}
    made: dict[str, Callable[[Any], Tensor]] = {
        "video": VideoTransform(pictures, told["image"]["num_frames"], **own["video"])
    }
    for kind, c in told.items():
        if kind == "audio":
            made[kind] = SoundTransform(c["height"], c["width"], **own[kind])
        elif kind == "depth":
            made[kind] = MapTransform(c["height"], c["width"], **{"disparity": 1.0, **own[kind]})
        elif kind == "thermal":
            made[kind] = MapTransform(c["height"], c["width"], **own[kind])
        elif kind == "imu":
            made[kind] = MotionTransform(c["num_channels"], c["num_samples"])
    return made


@cache
def tell_licence(licence: str) -> None:
    """Once in a process, for weights that may not be used for everything."""
    print(f"panmodal: these weights of ImageBind are their authors', under {licence}", file=sys.stderr)
