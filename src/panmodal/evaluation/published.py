"""Published benchmarks by name."""

from __future__ import annotations

from panmodal.evaluation.captioning import CocoCaptions, Flickr30k, NoCaps
from panmodal.evaluation.coco_objects import CocoHallucinations
from panmodal.evaluation.grounding import RefCoco
from panmodal.evaluation.instances import CocoMasks, Davis
from panmodal.evaluation.labelling import Esc50, ImageNet
from panmodal.evaluation.multiple_choice import MathVista, MmBench, Mmmu, ScienceQa, SeedBench
from panmodal.evaluation.omniglot import Omniglot
from panmodal.evaluation.open_answers import ChartQa, DocVqa, Gqa, TextVqa, Vqa
from panmodal.evaluation.retrieval import KarpathyRetrieval
from panmodal.evaluation.task import Task
from panmodal.evaluation.yes_no import HallusionBench, Mme, NlvrTask, Pope

PUBLISHED: dict[str, Task] = {
    "chartqa": ChartQa(),
    "coco-captions": CocoCaptions(),
    "coco-masks": CocoMasks(),
    "coco-retrieval": KarpathyRetrieval("coco", "cocoid"),
    "davis": Davis(),
    "docvqa": DocVqa(),
    "esc50": Esc50(),
    "flickr30k": Flickr30k(),
    "flickr30k-retrieval": KarpathyRetrieval("flickr30k", "filename"),
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
