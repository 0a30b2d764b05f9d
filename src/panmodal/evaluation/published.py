"""Published benchmarks by name."""

from __future__ import annotations

from panmodal.evaluation.multiple_choice import MmBench, Mmmu, ScienceQa, SeedBench
from panmodal.evaluation.open_answers import DocVqa, Gqa, TextVqa, Vqa
from panmodal.evaluation.task import Task
from panmodal.evaluation.yes_no import HallusionBench, Mme, NlvrTask, Pope

PUBLISHED: dict[str, Task] = {
    "docvqa": DocVqa(),
    "gqa": Gqa(),
    "hallusionbench": HallusionBench(),
    "mmbench": MmBench(),
    "mme": Mme(),
    "mmmu": Mmmu(),
    "nlvr": NlvrTask(),
    "ok-vqa": Vqa(),
    "pope": Pope(),
    "scienceqa": ScienceQa(),
    "seed-bench": SeedBench(),
    "textvqa": TextVqa(),
    "vqav2": Vqa("v2_"),
}
