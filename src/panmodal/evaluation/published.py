"""Published benchmarks by name."""

from __future__ import annotations

from panmodal.evaluation.captioning import CocoCaptions, Flickr30k, NoCaps
from panmodal.evaluation.coco_objects import CocoHallucinations
from panmodal.evaluation.grounding import RefCoco
from panmodal.evaluation.labelling import Esc50, ImageNet
from panmodal.evaluation.multiple_choice import MathVista, MmBench, Mmmu, ScienceQa, SeedBench
from panmodal.evaluation.omniglot import Omniglot
from panmodal.evaluation.open_answers import DocVqa, Gqa, TextVqa, Vqa
from panmodal.evaluation.task import Task
from panmodal.evaluation.yes_no import HallusionBench, Mme, NlvrTask, Pope

PUBLISHED: dict[str, Task] = {
    "coco-captions": CocoCaptions(),
    "docvqa": DocVqa(),
    "esc50": Esc50(),
    "flickr30k": Flickr30k(),
    "gqa": Gqa(),
    "hallucination": CocoHallucinations(),
    "hallusionbench": HallusionBench(),
    "imagenet": ImageNet(),
    "mathvista": MathVista(),
    "mmbench": MmBench(),
    "mme": Mme(),
    "mmmu": Mmmu(),
    "nlvr": NlvrTask(),
    "nocaps": NoCaps(),
    "ok-vqa": Vqa(),
    "omniglot": Omniglot(),
    "pope": Pope(),
    "refcoco": RefCoco("refcoco", "unc", ("val", "testA", "testB", "train")),
    "refcoco+": RefCoco("refcoco+", "unc", ("val", "testA", "testB", "train")),
    "refcocog": RefCoco("refcocog", "umd", ("val", "test", "train")),
    "scienceqa": ScienceQa(),
    "seed-bench": SeedBench(),
    "textvqa": TextVqa(),
    "vqav2": Vqa("v2_"),
}
