#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/llama/: small random models in several shapes and file forms, and the logits
and greedy tokens that Hugging Face transformers computes from those files in f32.

    pip install torch transformers safetensors numpy && python3 scripts/make_fixture.py

torch 2.15.0 and transformers 5.23.0 when the files were made. Each model has a directory:
config.json, the weights, and expected.safetensors with tokens [n], logits [n][vocab] and greedy [m],
the tokens that follow greedily.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, \
    MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "llama"
N_GREEDY = 24
MIN_MARGIN = 0.02  # of greedy choices: other rounding must not turn them
SMALL = dict(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
             initializer_range=0.25, bos_token_id=1, eos_token_id=2)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

# name: (model class, config, element type, bytes of a shard, prompt tokens)
MODELS = {
    "gqa_f32": (LlamaForCausalLM, LlamaConfig(**SMALL, tie_word_embeddings=False),
                torch.float32, None, 150),
    "llama3_tied_bf16": (LlamaForCausalLM,
                         LlamaConfig(**{**SMALL, "head_dim": 12, "eos_token_id": [2, 3]},
                                     rope_parameters=LLAMA3, tie_word_embeddings=True),
                         torch.bfloat16, None, 150),
    "linear_bias_f16": (LlamaForCausalLM,
                        LlamaConfig(**{**SMALL, "vocab_size": 77, "intermediate_size": 40,
                                       "num_key_value_heads": 1},
                                    attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
                                    rope_parameters={"rope_type": "linear", "factor": 4.0,
                                                     "rope_theta": 10000.0}),
                        torch.float16, None, 90),
    "mistral_bf16": (MistralForCausalLM,
                     MistralConfig(**{**SMALL, "num_key_value_heads": 4, "head_dim": 40},
                                   sliding_window=None, tie_word_embeddings=False),
                     torch.bfloat16, None, 70),
    "qwen2_sharded_bf16": (Qwen2ForCausalLM, Qwen2Config(**SMALL, tie_word_embeddings=False),
                           torch.bfloat16, "20KB", 70),
}


def randomise(model):
    """Norms and biases are not left at 1 and 0, where a missing one would not show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)


def old_style(path):
    """gqa_f32 states RoPE as files before transformers 5 do."""
    config = json.loads(path.read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    del config["head_dim"]
    config |= {"rope_theta": theta, "rope_scaling": None}
    path.write_text(json.dumps(config, indent=2) + "\n")


def expect(directory, n_tokens, vocab):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, vocab, (1, n_tokens), generator=generator)
        with torch.no_grad():
            logits = model(tokens).logits[0]
            everything, margin = tokens, float("inf")
            for _ in range(N_GREEDY):
                last = model(everything).logits[0, -1]
                best = last.topk(2).values
                margin = min(margin, (best[0] - best[1]).item())
                everything = torch.cat([everything, last.argmax().view(1, 1)], dim=1)
        if margin >= MIN_MARGIN:
            return {"tokens": tokens[0].int(), "logits": logits.contiguous(),
                    "greedy": everything[0, n_tokens:].int().contiguous()}
    raise SystemExit(f"{directory}: no prompt with clear choices")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for name, (kind, config, dtype, shard, n_tokens) in MODELS.items():
        torch.manual_seed(len(name))
        model = kind(config)
        randomise(model)
        directory = OUT / name
        options = {"max_shard_size": shard} if shard else {}
        model.to(dtype).save_pretrained(directory, **options)
        (directory / "generation_config.json").unlink(missing_ok=True)
        save_file(expect(directory, n_tokens, config.vocab_size),
                  directory / "expected.safetensors")
        if name == "gqa_f32":
            old_style(directory / "config.json")
        print(name, sorted(p.name for p in directory.iterdir()))


main()
