"""Small random models of the reference library, in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf

import panmodal as pm

VISION = dict(
    hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8
)
TEXT = dict(
    vocab_size=100,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=40,
)


def write(model: Any, folder: Path, **how: Any) -> Any:
    """Randomises every weight, bias and norm, larger than any initialisation, so that no mix-up can
    hide; writes the model; returns it for comparison."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.2)
        if parameter.ndim == 1 and "bias" not in name and "logit" not in name:
            parameter.data += 1
    model.tie_weights()
    model.save_pretrained(folder, **how)
    return model.eval()


def load(folder: Path) -> Any:
    return pm.load(folder)


def close(ours: torch.Tensor, theirs: torch.Tensor, within: float = 2e-5) -> None:
    assert ours.shape == theirs.shape
    worst = (ours - theirs).abs().max().item()
    assert worst < within * max(1.0, theirs.abs().max().item()), f"off by {worst:.1e}"


def same_when_saved(family: Any, theirs: Any, folder: Path) -> None:
    """What was loaded is saved as the reference reads it, to the last bit."""
    family.save(folder)
    again, told = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    kept = again.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in theirs.state_dict().items())


def pictures(count: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def tokens(rows: int = 2, length: int = 9, vocab: int = 90) -> torch.Tensor:
    return torch.randint(5, vocab, (rows, length), generator=torch.Generator().manual_seed(2))


_NEOX = dict(max_position_embeddings=64, rotary_pct=0.5, eos_token_id=None)
LANGUAGE_MODELS: dict[str, Any] = {
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=100, n_positions=64, n_embd=48, n_layer=3, n_head=4, eos_token_id=None)
    ),
    "opt": lambda: tf.OPTForCausalLM(_opt()),
    "opt-350m": lambda: tf.OPTForCausalLM(_opt(word_embed_proj_dim=32, do_layer_norm_before=False)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**{**TEXT, **_NEOX})),
    "gpt_neox-in-turn": lambda: tf.GPTNeoXForCausalLM(
        tf.GPTNeoXConfig(**{**TEXT, **_NEOX, "use_parallel_residual": False, "rotary_pct": 1.0, "rotary_emb_base": 500})
    ),
    "mpt": lambda: tf.MptForCausalLM(_mpt(4)),
    "mpt-6-heads": lambda: tf.MptForCausalLM(_mpt(6)),
    "llama": lambda: tf.LlamaForCausalLM(_llama(tf.LlamaConfig)),
    "llama-tied": lambda: tf.LlamaForCausalLM(_llama(tf.LlamaConfig, tie_word_embeddings=True)),
    "llama-linear-rope": lambda: tf.LlamaForCausalLM(
        _llama(tf.LlamaConfig, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})
    ),
    "llama-3.1-rope": lambda: tf.LlamaForCausalLM(
        _llama(
            tf.LlamaConfig,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        )
    ),
    "mistral": lambda: tf.MistralForCausalLM(_llama(tf.MistralConfig, sliding_window=None)),
    "mistral-window": lambda: tf.MistralForCausalLM(_llama(tf.MistralConfig, sliding_window=5)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(_llama(tf.Qwen2Config, tie_word_embeddings=True)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(_llama(tf.Qwen3Config, head_dim=16)),
}


def _llama(kind: Any, **more: Any) -> Any:
    return kind(
        **{
            **TEXT,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "eos_token_id": None,
            "bos_token_id": 1,
            **more,
        }
    )


def _mpt(heads: int) -> Any:
    return tf.MptConfig(
        vocab_size=100,
        d_model=48,
        n_layers=3,
        n_heads=heads,
        max_seq_len=64,
        eos_token_id=None,
    )


def _opt(**more: Any) -> Any:
    settings = dict(
        vocab_size=100,
        max_position_embeddings=64,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=96,
        word_embed_proj_dim=48,
        eos_token_id=None,
    )
    return tf.OPTForCausalLM.config_class(**{**settings, **more})
