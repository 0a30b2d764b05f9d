"""SAM's prompt encoder and mask decoder (Kirillov et al., 2023).

Shape legend, besides those of `transformer` and `encoders.grid`:
    P prompts   Q points of a prompt   M masks for each
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.encoders.grid import ChannelNorm
from panmodal.errors import InputError
from panmodal.transformer import MLP, Attention, TransformerConfig

# What a point of a prompt is. A box is two points, its corners; a prompt of points alone ends with a point NOWHERE.
NOWHERE, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3

# Which masks are made: for a prompt that may mean several things three, or else one.
SINGLE, SEVERAL, ALL = slice(0, 1), slice(1, None), slice(None)

Point = tuple[float, float]  # x and y in pixels of the picture
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


class PromptEncoder(nn.Module):
    """Points, boxes and masks as vectors of the image features' width."""

    def __init__(self, dim: int, image_size: int, mask_dim: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.dim, self.image_size = dim, image_size
        self.waves = nn.Parameter(torch.zeros(2, dim // 2))  # random, and not trained by the publishers
        self.kinds = nn.ParameterList(torch.zeros(1, dim) for _ in range(4))
        self.nowhere = nn.Parameter(torch.zeros(1, dim))
        self.no_mask = nn.Parameter(torch.zeros(1, dim))
        self.mask = MaskEmbedding(dim, mask_dim, norm_eps)

    def points(self, points: Tensor, kinds: Tensor) -> Tensor:
        """points [P, Q, 2], x and y in pixels of the model's input; kinds [P, Q], see above -> [P, Q, D]"""
        placed = self.place((points + 0.5) / self.image_size)
        placed = torch.where((kinds == NOWHERE)[..., None], 0, placed)
        return placed + torch.cat([self.nowhere, *self.kinds])[kinds + 1]

    def grid(self, rows: int, cols: int) -> Tensor:
        """The positions of the image features, [R, C, D]"""
        y = (torch.arange(rows, device=self.waves.device) + 0.5) / rows
        x = (torch.arange(cols, device=self.waves.device) + 0.5) / cols
        return self.place(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1))

    def place(self, at: Tensor) -> Tensor:
        """x and y from 0 to 1, [..., 2] -> [..., D]: sines and cosines of random frequencies (Tancik et al., 2020)"""
        turns = 2 * math.pi * ((2 * at - 1) @ self.waves.float())
        return torch.cat([turns.sin(), turns.cos()], dim=-1).to(self.waves.dtype)

    def masks(self, logits: Tensor | None) -> Tensor:
        """What is added to the image features: for masks [P, 4R, 4C] of an earlier answer [P, R, C, D], or [1, D]"""
        return self.no_mask if logits is None else self.mask(logits[:, None]).movedim(1, -1)


class MaskEmbedding(nn.Module):
    """Two convolutions that halve a mask's sides, and one that widens it: [P, 1, 4R, 4C] -> [P, D, R, C]"""

    def __init__(self, dim: int, mask_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, mask_dim // 4, 2, 2), ChannelNorm(mask_dim // 4, eps=norm_eps)
        self.second, self.second_norm = nn.Conv2d(mask_dim // 4, mask_dim, 2, 2), ChannelNorm(mask_dim, eps=norm_eps)
        self.widen = nn.Conv2d(mask_dim, dim, 1)

    def forward(self, masks: Tensor) -> Tensor:
        x = F.gelu(self.first_norm(self.first(masks)))
        out: Tensor = self.widen(F.gelu(self.second_norm(self.second(x))))
        return out


class Placed(Source):
    """A source whose keys, unlike its values, know their positions."""

    def __init__(self, vectors: Tensor, positions: Tensor) -> None:
        super().__init__(vectors)
        self.positions = positions

    def seen_by(self, attention: Attention) -> tuple[Tensor, Tensor]:
        made = attention.k(self.vectors + self.positions), attention.v(self.vectors)
        k, v = (x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for x in made)
        return k, v

    def glance(self, attention: Attention, tokens: int) -> bool:
        return False  # for keys are not of the vectors alone


class Across(Attention):
    """Attention between a prompt's few tokens and an image's many vectors, one way or the other.

    The weights of the image's side are applied to the tokens, which is less work for up to about 17: a query times a
    key, q . Kx, is K'q . x, and a mean of values, Vx, is V times the mean of x.
    """

    def to_image(self, queries: Tensor, image: Tensor, placed: Tensor) -> Tensor:
        """Tokens look at the image: queries [P, Q, D]; image [P or 1, R * C, D], without positions and with
        -> [P, Q, D]"""
        asked = self.by_head(self.q(queries) * self.head_dim**-0.5, self.k.weight)
        weights = (asked @ placed.mT).softmax(dim=-1)  # [P, H * Q, R * C]; keys' bias would add the same to all scores
        seen = (weights @ image).view(len(queries), -1, *queries.shape[1:])  # [P, H, Q, D]
        values = torch.einsum("phqd,hed->pqhe", seen, self.v.weight.view(-1, self.head_dim, seen.shape[3]))
        out: Tensor = self.out(values.flatten(2) + self.v.bias)
        return out

    def to_tokens(self, placed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The image looks at tokens: placed [P or 1, R * C, D]; keys and values [P, Q, D] -> [P, R * C, D]"""
        k = self.k(keys) * self.head_dim**-0.5
        scores = self.by_head(k, self.q.weight) @ placed.mT + self.by_head(k, self.q.bias[:, None])
        weights = scores.view(len(k), -1, k.shape[1], scores.shape[2]).softmax(dim=2)  # [P, H, Q, R * C]
        return weights.flatten(1, 2).mT @ self.by_head(self.v(values), self.out.weight.T) + self.out.bias

    def by_head(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [P, Q, H * E] times each head's part of weight [H * E, D] -> [P, H * Q, D]"""
        heads = x.view(*x.shape[:2], -1, self.head_dim), weight.view(-1, self.head_dim, weight.shape[1])
        return torch.einsum("pqhe,hed->phqd", *heads).flatten(1, 2)


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the image, and the image to the tokens."""

    def __init__(self, config: TransformerConfig, across: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.first = layer == 0
        self.attn, self.attn_norm = Attention(config), config.make_norm()
        self.cross, self.cross_norm = Across(across), config.make_norm()
        self.mlp, self.mlp_norm = MLP(config), config.make_norm()
        self.back, self.back_norm = Across(across), config.make_norm()

    def forward(self, tokens: Tensor, image: Tensor, prompts: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [P, Q, D] with their positions, the prompts as they came; image [P or 1, R * C, D] with its own."""
        tokens = self.attn(tokens) if self.first else tokens + self.attn(tokens + prompts, Placed(tokens, prompts))
        tokens = self.attn_norm(tokens)
        placed = image + places
        tokens = self.cross_norm(tokens + self.cross.to_image(tokens + prompts, image, placed))
        tokens = self.mlp_norm(tokens + self.mlp(tokens))
        image = self.back_norm(image + self.back.to_tokens(placed, tokens + prompts, tokens))
        return tokens, image


class MaskDecoder(nn.Module):
    """Masks and their predicted IoU: one for a prompt that leaves no doubt, and `several` for one that does.

    Attention between tokens and image is `narrowing` times narrower than the rest.
    """

    def __init__(self, config: TransformerConfig, narrowing: int, several: int, iou_dim: int, iou_depth: int) -> None:
        super().__init__()
        dim = self.dim = config.dim
        across = replace(config, head_dim=dim // narrowing // config.heads)
        self.iou_token = nn.Parameter(torch.zeros(1, dim))
        self.mask_tokens = nn.Parameter(torch.zeros(1 + several, dim))
        self.blocks = nn.ModuleList(TwoWayBlock(config, across, layer) for layer in range(config.depth))
        self.cross, self.norm = Across(across), nn.LayerNorm(dim)
        self.enlarge, self.enlarge_norm = nn.ConvTranspose2d(dim, dim // 4, 2, 2), nn.LayerNorm(dim // 4, eps=1e-6)
        self.enlarge_again = nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2)
        self.filters = nn.ModuleList(Perceptron(dim, dim, dim // 8, 3) for _ in range(1 + several))
        self.iou = Perceptron(dim, iou_dim, 1 + several, iou_depth)

    def forward(
        self, image: Tensor, places: Tensor, prompts: Tensor, which: slice = ALL, fine: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """image [P or 1, R, C, D], its positions [R, C, D], prompts [P, Q, D] -> logits [P, M, 4R, 4C], IoU [P, M]

        `fine`, if the encoder has any, are features of twice and of four times the resolution, as `by_place` has them.
        """
        rows, cols = places.shape[:2]
        image, places = image.flatten(1, 2), places.flatten(0, 1)
        own = torch.cat(self.own_tokens()).expand(len(prompts), -1, -1)
        tokens = prompts = torch.cat([own, prompts], dim=1)
        for block in self.blocks:
            tokens, image = block(tokens, image, prompts, places)
        tokens = self.norm(tokens + self.cross.to_image(tokens + prompts, image, image + places))
        large = enlarged(self.enlarge, image)  # [P, R * C, 4, D / 4]
        large = F.gelu(self.enlarge_norm(large + fine[0] if fine else large))
        large = enlarged(self.enlarge_again, large)  # [P, R * C, 4, 4, D / 8]
        large = F.gelu(large + fine[1] if fine else large)
        asked = range(1 + len(self.filters))[1:][which]
        filters = torch.stack([self.filters[i - 1](tokens[:, i]) for i in asked], dim=1)  # [P, M, D / 8]
        logits = torch.einsum("ptabd,pmd->pmtab", large, filters)
        logits = logits.view(*logits.shape[:2], rows, cols, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return logits.reshape(*logits.shape[:2], 4 * rows, 4 * cols), self.iou(tokens[:, 0])[:, which]

    def own_tokens(self) -> list[Tensor]:
        """What stands before a prompt: the token that tells the IoU, then those of the masks"""
        return [self.iou_token, self.mask_tokens]


class FineMaskDecoder(MaskDecoder):
    """SAM 2's (Ravi et al., 2024): masks are drawn over features of higher resolution, too. If a single mask is asked
    for whose size would change by more than 1 - `steady` with a threshold `delta` higher or lower, it is that of the
    several of which the model expects most."""

    def __init__(
        self,
        config: TransformerConfig,
        narrowing: int,
        several: int,
        iou_dim: int,
        iou_depth: int,
        delta: float,
        steady: float,
    ) -> None:
        super().__init__(config, narrowing, several, iou_dim, iou_depth)
        dim, self.delta, self.steady = self.dim, delta, steady
        self.fine = nn.ModuleList([nn.Conv2d(dim, dim // 8, 1), nn.Conv2d(dim, dim // 4, 1)])
        self.thing_token = nn.Parameter(torch.zeros(1, dim))  # finds whether there is anything, which videos ask

    def own_tokens(self) -> list[Tensor]:
        return [*super().own_tokens(), self.thing_token]

    def forward(
        self, image: Tensor, places: Tensor, prompts: Tensor, which: slice = ALL, fine: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        logits, scores = super().forward(image, places, prompts, ALL, fine)
        scores = scores.sigmoid()
        if which != SINGLE or self.training:
            return logits[:, which], scores[:, which]
        large, small = ((logits[:, 0] > edge).flatten(1).sum(dim=1) for edge in (-self.delta, self.delta))
        best = torch.where(small >= self.steady * large, 0, 1 + scores[:, 1:].argmax(dim=1))
        rows = torch.arange(len(best), device=best.device)
        return logits[rows, best, None], scores[rows, best, None]


def by_place(fine: Tensor, doublings: int) -> Tensor:
    """Features of 2 ** doublings the resolution, by the place of the coarse grid in which they lie, as `enlarged` makes
    them: [B, 2R, 2C, D] -> [B, R * C, 4, D], [B, 4R, 4C, D] -> [B, R * C, 4, 4, D]"""
    times, twos = 2**doublings, (2,) * doublings
    batch, rows, cols, dim = fine.shape
    x = fine.reshape(batch, rows // times, *twos, cols // times, *twos, dim)
    within = (axis for i in range(doublings) for axis in (2 + i, 3 + doublings + i))
    return x.permute(0, 1, 2 + doublings, *within, -1).reshape(batch, -1, *(4,) * doublings, dim)


def enlarged(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed 2 x 2 convolution of stride 2 as a product, [..., D] -> [..., 4, out]: of each vector four,
    in reading order."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [4 * out, D]
    assert layer.bias is not None
    return F.linear(x, weight, layer.bias.repeat(4)).view(*x.shape[:-1], 4, -1)


class Perceptron(nn.Module):
    """`depth` linear maps with ReLU between them."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 2))
        self.last = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for layer in self.middle:
            x = F.relu(layer(x))
        out: Tensor = self.last(x)
        return out


def as_prompts(
    size: tuple[int, int], points: Sequence[Point], labels: Sequence[int] | None, boxes: Sequence[Box]
) -> tuple[Tensor, Tensor]:
    """Points [P, Q, 2] and their kinds [P, Q], of a prompt for each box, or else one; checked."""
    width, height = size
    labels = [FOREGROUND] * len(points) if labels is None else list(labels)
    if len(labels) != len(points) or not {*labels} <= {BACKGROUND, FOREGROUND}:
        raise InputError(f"each of the {len(points)} points needs a label, 1 on the thing or 0 beside it, not {labels}")
    if points and len(boxes) > 1:
        raise InputError(f"{len(points)} points go with one box, not with {len(boxes)}: segment one thing at a time")
    for name, given, count in (("point", points, 2), ("box", boxes, 4)):
        for numbers in given:
            if len(numbers) != count:
                raise InputError(f"a {name} is {count} numbers, not {tuple(numbers)}")
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"the point {x:g},{y:g} lies outside the picture, which is {width} x {height} pixels")
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"the box {x0:g},{y0:g},{x1:g},{y1:g} is empty; it needs x0 < x1 and y0 < y1")
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise InputError(
                f"the box {x0:g},{y0:g},{x1:g},{y1:g} reaches outside the picture, which is {width} x {height} pixels"
            )
    if boxes:
        at = [[*points, box[:2], box[2:]] for box in boxes]
        kinds = [*labels, TOP_LEFT, BOTTOM_RIGHT]
    else:
        at = [[*points, (0, 0)] if points else []]
        kinds = [*labels, NOWHERE] if points else []
    found = torch.tensor(at, dtype=torch.float64).view(len(at), -1, 2)
    return found, torch.tensor(kinds, dtype=torch.long).expand(len(at), -1)
