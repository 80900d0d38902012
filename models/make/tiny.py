"""Makes the small base models of the tests, as ONNX.

    python tiny.py FIXTURES_BASE [MODEL ...]

FIXTURES_BASE is fixtures/base; without MODEL, all models are made. For tiny-gpt2 and tiny-llama,
whose weights are in that folder, this writes `legacy.onnx` and `dynamo.onnx`, one for each exporter
of torch, and `cached.onnx`, which takes and gives its cache of keys and values. The other two are
made here, with seeded random weights. tiny-qwen2: biases on q, k and v only, tied embeddings, and
position ids as an input of the legacy export. tiny-mistral: heads wider than hidden_size / heads,
norm gains around 1, an untied last layer, and no sliding window.
`logits.safetensors` beside the models is what torch computes for `input_ids`.
"""

import os
import sys

import torch
from base_onnx import export, export_cached
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

torch.set_num_threads(1)
base = sys.argv[1]
asked = sys.argv[2:] or ["tiny-gpt2", "tiny-llama", "tiny-qwen2", "tiny-mistral"]

shared = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
)
configs = {
    "tiny-qwen2": Qwen2Config(tie_word_embeddings=True, **shared),
    "tiny-mistral": MistralConfig(
        head_dim=16, sliding_window=None, tie_word_embeddings=False, **shared
    ),
}

for name in asked:
    if name not in configs:
        continue
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(
        configs[name], dtype=torch.float32, attn_implementation="eager"
    )
    for parameter_name, parameter in model.named_parameters():
        # The initial biases of transformers are zero, which would not test their addition.
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
        # Its initial gains are one. The gains of tiny-qwen2 stay so: its files are older.
        elif name == "tiny-mistral":
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.save_pretrained(os.path.join(base, name))
    os.remove(os.path.join(base, name, "generation_config.json"))

for name in asked:
    folder = os.path.join(base, name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for style in ["legacy", "dynamo"]:
        path = os.path.join(folder, f"{style}.onnx")
        export(
            model,
            path,
            folder,
            dynamo=style == "dynamo",
            position_ids=(name, style) == ("tiny-qwen2", "legacy"),
        )
        print(path, os.path.getsize(path))
    if name in ("tiny-gpt2", "tiny-llama"):
        export_cached(model, os.path.join(folder, "cached.onnx"), folder)
    ids = torch.tensor([[(7 * i * i + 3 * i + 11) % model.config.vocab_size for i in range(24)]])
    with torch.no_grad():
        save_file(
            {"input_ids": ids[0].contiguous(), "logits": model(ids).logits[0].contiguous()},
            os.path.join(folder, "logits.safetensors"),
        )
