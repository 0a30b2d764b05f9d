"""From a name to a checkpoint folder: built-in, local, or downloaded from the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

from panmodal.checkpoints.store import BARE, SIDECARS
from panmodal.errors import CheckpointError, suggest

BUILT_IN = Path(__file__).parent.parent / "models"

# Published checkpoints in layouts that the library reads, for `panmodal models` and for suggestions.
KNOWN = {
    "openai/clip-vit-base-patch32": "CLIP",
    "openai/clip-vit-base-patch16": "CLIP",
    "openai/clip-vit-large-patch14": "CLIP",
    "openai/clip-vit-large-patch14-336": "CLIP",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "CLIP",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "CLIP",
    "google/siglip-base-patch16-224": "SigLIP",
    "google/siglip-so400m-patch14-384": "SigLIP",
    "google/siglip2-base-patch16-224": "SigLIP 2",
    "google/siglip2-so400m-patch14-384": "SigLIP 2",
    "google/vit-base-patch16-224": "ViT",
    "google/vit-large-patch16-224": "ViT",
    "facebook/dinov2-small": "DINOv2",
    "facebook/dinov2-base": "DINOv2",
    "facebook/dinov2-large": "DINOv2",
    "facebook/dinov2-giant": "DINOv2",
    "google-bert/bert-base-uncased": "BERT",
    "google-bert/bert-large-uncased": "BERT",
    "openai-community/gpt2": "GPT-2",
    "openai-community/gpt2-xl": "GPT-2",
    "facebook/opt-125m": "OPT",
    "facebook/opt-2.7b": "OPT",
    "huggyllama/llama-7b": "LLaMA",
    "meta-llama/Llama-2-7b-chat-hf": "LLaMA",
    "meta-llama/Llama-3.1-8B-Instruct": "LLaMA",
    "meta-llama/Llama-3.2-1B-Instruct": "LLaMA",
    "lmsys/vicuna-7b-v1.5": "Vicuna",
    "mistralai/Mistral-7B-Instruct-v0.3": "Mistral",
    "Qwen/Qwen2-0.5B-Instruct": "Qwen2",
    "Qwen/Qwen2.5-0.5B-Instruct": "Qwen2.5",
    "Qwen/Qwen2.5-7B-Instruct": "Qwen2.5",
    "Qwen/Qwen3-0.6B": "Qwen3",
    "Qwen/Qwen3-8B": "Qwen3",
    "Salesforce/blip2-opt-2.7b": "BLIP-2",
    "Salesforce/blip2-opt-2.7b-coco": "BLIP-2",
    "Salesforce/blip2-opt-6.7b": "BLIP-2",
    "Salesforce/blip2-opt-6.7b-coco": "BLIP-2",
    "Salesforce/blip2-itm-vit-g": "BLIP-2, retrieval",
    "Salesforce/blip2-itm-vit-g-coco": "BLIP-2, retrieval",
    "Salesforce/instructblip-vicuna-7b": "InstructBLIP",
    "Salesforce/instructblip-vicuna-13b": "InstructBLIP",
    "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5",
    "llava-hf/llava-1.5-13b-hf": "LLaVA-1.5",
    "Salesforce/blip-image-captioning-base": "BLIP",
    "Salesforce/blip-image-captioning-large": "BLIP",
    "Salesforce/blip-vqa-base": "BLIP",
    "Salesforce/blip-itm-base-coco": "BLIP",
    "Salesforce/blip-itm-large-coco": "BLIP",
    "HuggingFaceM4/idefics-9b": "IDEFICS",
    "HuggingFaceM4/idefics-9b-instruct": "IDEFICS",
    "HuggingFaceM4/idefics-80b": "IDEFICS",
    "HuggingFaceM4/idefics-80b-instruct": "IDEFICS",
    "llava-hf/llava-v1.6-mistral-7b-hf": "LLaVA-NeXT",
    "llava-hf/llava-v1.6-vicuna-7b-hf": "LLaVA-NeXT",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": "LLaVA-OneVision",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "LLaVA-OneVision",
    "facebook/sam-vit-base": "SAM",
    "facebook/sam-vit-large": "SAM",
    "facebook/sam-vit-huge": "SAM",
}


def built_in() -> list[str]:
    """The names of the models inside the package."""
    return sorted(f"tiny/{path.parent.name}" for path in (BUILT_IN / "tiny").glob("*/config.json"))


def locate(name: str | os.PathLike[str], allow_pickle: bool = False) -> Path:
    """The folder of a checkpoint: `tiny/…`, a local folder, or `owner/name[@revision]` on the hub.

    Raises CheckpointError, with near names, for one that is nowhere.
    """
    known = [*built_in(), *KNOWN]
    text = os.fspath(name)
    if text in built_in():
        return BUILT_IN / text
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.name in BARE and folder.exists():
        return folder.parent
    if folder.exists():
        raise CheckpointError(f"{text} is a file; name the checkpoint's folder")
    repository, _, revision = text.partition("@")
    if text.startswith(("tiny/", ".", "/", "~")) or repository.count("/") != 1:
        raise CheckpointError(f"no model {text!r}: neither built in nor a folder here{suggest(text, known)}")
    return _download(repository, revision or None, allow_pickle, known)


def _download(repository: str, revision: str | None, allow_pickle: bool, known: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "adapter_config.json", "*.safetensors", "model.safetensors.index.json", *SIDECARS]
    if allow_pickle:
        wanted += ["pytorch_model*.bin", "adapter_model.bin", "checkpoint.pt"]
    where = f"{repository}@{revision}" if revision else repository
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except HFValidationError as error:
        raise CheckpointError(f"{where!r} is no name for a model: {error}") from None
    except LocalEntryNotFoundError:
        reason = "it is not in the local cache and the hub cannot be reached"
    except HfHubHTTPError as error:
        reason = str(error).splitlines()[0]
    except OSError as error:
        reason = str(error).splitlines()[0]
    raise CheckpointError(
        f"no model {where!r}: neither built in nor a folder here, and {reason}{suggest(repository, known)}"
    )
