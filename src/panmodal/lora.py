"""Low-rank adapters: a language model's linear maps, frozen, and beside each a narrow one that is learned (LoRA, Hu
et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.errors import InputError, suggest
from panmodal.foreign import ForeignLanguage
from panmodal.language import LanguageModel
from panmodal.quantised import Bits, FrozenProduct, dequantise, quantise

TARGETS = ("q", "k", "v", "out", "up", "gate", "down")  # the linear maps of a block


@dataclass(frozen=True)
class Lora:
    """What adapters are like: of rank `rank`, what they add multiplied by `alpha` / `rank`, in training with `dropout`
    of what they are given. `targets` names the linear maps of every block that get one; all, if it is empty. `base`
    says in what the weights beneath are kept: as they are, or quantised, "nf4" or "int8" (`quantised`)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    base: Literal["", "nf4", "int8"] = ""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(f"{self}: rank must be at least 1, alpha above 0, and dropout from 0 to below 1")
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(f"lora has the unknown target {target!r}{suggest(target, TARGETS)}")


class LoraLinear(nn.Linear):
    """A linear map over the same parameters, and an adapter: W x + alpha / rank * B A x.

    The adapter is float32; B begins as zeros, so that nothing changes at first. It is left out while `on` is False.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        device = linear.weight.device
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as PEFT's
        self.rank, self.alpha, self.dropout, self.on = rank, alpha, dropout, True
        self.train(linear.training)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def beneath(self, x: Tensor) -> Tensor:
        """What the map does without its adapter."""
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        out = self.beneath(x)
        if not self.on:
            return out
        narrow = F.linear(F.dropout(x.to(self.lora_a.dtype), self.dropout, self.training), self.lora_a)
        return out + (F.linear(narrow, self.lora_b) * self.scale).to(out.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain linear map over the same parameters, into which the adapter has gone."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        plain.weight.copy_(self.weight.float() + self.scale * (self.lora_b @ self.lora_a).float())
        return plain


class QuantisedLora(LoraLinear):
    """As LoraLinear, over a weight in `bits`, which is no parameter, so that no table and no optimiser knows it.
    Merging brings back the weight that the codes stand for, not the one from before."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float, bits: Bits) -> None:
        super().__init__(linear, rank, alpha, dropout)
        codes, scales = quantise(linear.weight, bits)
        del self.weight
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.bits, self.dtype = bits, linear.weight.dtype

    def _beneath(self) -> tuple[Any, ...]:
        return self.codes, self.scales, (self.out_features, self.in_features), self.bits

    def beneath(self, x: Tensor) -> Tensor:
        out: Tensor = FrozenProduct.apply(x, *self._beneath())  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(out.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        self.weight = nn.Parameter(dequantise(*self._beneath()).to(self.dtype))
        return super().merged()


def linears(language: LanguageModel) -> dict[str, nn.Linear]:
    """The linear maps of attention and MLP in every block, by their names: what can have an adapter. Layers that other
    families put between the blocks, as Flamingo's gates, are none of the language model's own."""
    if isinstance(language, ForeignLanguage):
        head = language.model.get_output_embeddings()
        return {n: m for n, m in language.named_modules() if isinstance(m, nn.Linear) and m is not head}
    return {
        f"body.blocks.{i}.{part}.{name}": module
        for i, block in enumerate(language.body.blocks)
        for part in ("attn", "mlp")
        for name, module in getattr(block, part).named_children()
        if isinstance(module, nn.Linear)
    }


def adapters(module: nn.Module) -> dict[str, LoraLinear]:
    """The linear maps within that have an adapter, by their names."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLinear)}


def add_lora(language: LanguageModel, lora: Lora) -> None:
    """Gives linear maps of the language model's blocks adapters, and no module outside of it whatever its name.

    Raises InputError if it has adapters, or none of the `targets`.
    """
    if adapters(language):
        raise InputError("this model has adapters already: go on with these, without `lora`, or merge() them first")
    chosen = {n: m for n, m in linears(language).items() if not lora.targets or n.rpartition(".")[2] in lora.targets}
    if not chosen:
        raise InputError(f"the language model has none of lora's targets {', '.join(lora.targets)}")
    for name, linear in chosen.items():
        settings = (linear, lora.rank, lora.alpha, lora.dropout)
        language.set_submodule(name, QuantisedLora(*settings, lora.base) if lora.base else LoraLinear(*settings))


def merge_lora(language: LanguageModel) -> None:
    """Adds what the adapters have learned to the weights, and leaves plain linear maps."""
    for name, adapter in adapters(language).items():
        language.set_submodule(name, adapter.merged())


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Within, the model is what it was without its adapters, to the last bit."""
    found = adapters(module).values()
    for adapter in found:
        adapter.on = False
    try:
        yield
    finally:
        for adapter in found:
            adapter.on = True


def beneath_adapters(model: nn.Module) -> set[str]:
    """The names of the parameters that adapters stand for: all others of the language model that has them."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, part in model.named_modules()
        if isinstance(part, LanguageModel) and adapters(part)
        for name, _ in part.named_parameters()
        if not is_adapter(name)
    }


def is_adapter(name: str) -> bool:
    """Of a parameter's name"""
    return name.endswith((".lora_a", ".lora_b"))
