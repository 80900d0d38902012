"""Makes a base model with the shapes of GPT-2 (124M) or Llama-3.2-1B and random weights, and a LoRA
of rank 8 on it: what docs/benchmarks.md measures of them. Run as

    python random_base.py gpt2|llama-3.2-1b OUT

It writes OUT/hf, OUT/onnx/model.onnx and OUT/adapter. Neither has a tokenizer: the integer model is
made with `zklora integer compile --generated-tokens`. Llama takes 7 GB of memory and 10 GB of disk.
"""

import os
import sys

import torch
from base_onnx import export
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

LLAMA = dict(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    rms_norm_eps=1e-5,
    max_position_embeddings=131072,
    rope_theta=500000.0,
    rope_scaling={
        "rope_type": "llama3",
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    },
    tie_word_embeddings=True,
    bos_token_id=128000,
    eos_token_id=128001,
)


def main(name, out):
    config, lora, options = {
        "gpt2": (
            GPT2Config(),
            {"target_modules": ["c_attn"], "fan_in_fan_out": True},
            {"dynamo": False},
        ),
        "llama-3.2-1b": (
            LlamaConfig(**LLAMA),
            {"target_modules": ["q_proj", "v_proj"]},
            {"external": True},
        ),
    }[name]
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    hf, onnx = os.path.join(out, "hf"), os.path.join(out, "onnx")
    os.makedirs(onnx, exist_ok=True)
    model.save_pretrained(hf)
    export(model, os.path.join(onnx, "model.onnx"), hf, **options)
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", **lora))
    for parameter, values in adapted.named_parameters():
        if "lora_B" in parameter:
            torch.nn.init.normal_(values, std=0.01)
    adapted.save_pretrained(os.path.join(out, "adapter"))


if __name__ == "__main__":
    main(*sys.argv[1:])
