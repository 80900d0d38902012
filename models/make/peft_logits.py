"""Records the logits that peft computes with adapters on the small base models.

    python peft_logits.py FIXTURES

FIXTURES is the folder fixtures. Writes adapters/NAME/logits.safetensors (`input_ids` and `logits`,
f32) for the adapters below.
"""

import os
import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
fixtures = sys.argv[1]
tokenizer = Tokenizer.from_file(os.path.join(fixtures, "base", "tiny-llama", "tokenizer.json"))
prompt = torch.tensor([tokenizer.encode("let x = 5; // ok").ids[:12]])
for name in [
    "gpt2_all_r8_rslora_patterns",
    "gpt2_c_attn_r4",
    "gpt2_dora_r4",
    "gpt2_ia3",
    "gpt2_lora_bias",
    "gpt2_wte_embedding_r4",
    "llama_all_linear_r8",
    "llama_dora_r4",
    "llama_embedding_dora_r2",
    "llama_ia3",
    "llama_qv_r4",
]:
    base = os.path.join(fixtures, "base", "tiny-" + name.split("_")[0])
    folder = os.path.join(fixtures, "adapters", name)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        logits = model(prompt).logits[0].contiguous()
    save_file(
        {"input_ids": prompt[0].contiguous(), "logits": logits},
        os.path.join(folder, "logits.safetensors"),
    )
    print(name, float(logits.abs().max()))
