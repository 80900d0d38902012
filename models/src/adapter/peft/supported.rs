//! Writes the text of `docs/adapters.md`: formats, types and keys, and the tested inputs.

use std::fmt::Write;

use super::config;

/// One tested input.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its folder.
    pub name: String,
    /// What it is.
    pub origin: String,
    /// What `zklora export` makes of it.
    pub outcome: String,
}

/// The page, in Markdown.
#[must_use]
pub fn supported(cases: &[Case]) -> String {
    let mut page = format!("{HEAD}{}", config::tables());
    let _ = writeln!(page, "\n## Tested inputs\n\n{} inputs that people had.\n", cases.len());
    page.push_str("| input | what it is | result |\n| -- | -- | -- |\n");
    for Case { name, origin, outcome } in cases {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;");
        let _ = writeln!(page, "| `{name}` | {} | {} |", cell(origin), cell(outcome));
    }
    page
}

const HEAD: &str = "\
# Adapters that zklora exports

A command writes this page, from the lists that decide and from the inputs that its tests read:

```sh
ZKLORA_WRITE_DOCS=1 cargo test --release --workspace --test field
```

`zklora export --adapter PATH` takes a folder or a file, and recognises it by what is in it. It
exports what PEFT 0.21 computes at inference, or, for other libraries, what they compute. What would
give another delta there is refused, with what to do.

- `--module GLOB` reads the matching modules alone, so that an odd layer does not block the others.
- `--rename FROM=TO` replaces text in the names of tensors: for what wrappers leave in them.
- `--base DIR` binds the base model's weights, and is needed by DoRA and VeRA. A quantised base
  model (bitsandbytes, GPTQ, AWQ, FP8) is the right one for plain LoRA that was trained on it; DoRA
  and VeRA need the model that is not quantised. Layers of multimodal models are found under the
  names that older files have, as transformers renames them.
- `--lora-only` leaves layers that were trained whole out, although `--base` is given.
- `--base-name NAME` is the name in the public manifest, where the adapter's own is a path.

## Formats

| format | recognised by | what is read |
| -- | -- | -- |
| PEFT | `adapter_config.json` with `peft_type` | `adapter_model.safetensors`, or shards with their index; see below |
| MLX | `adapter_config.json` with `fine_tune_type` or `lora_parameters`, and `adapters.safetensors` | LoRA and DoRA of linear layers and token tables: `lora_a` and `lora_b` transposed, `scale` as the whole factor |
| kohya's scripts, LyCORIS | one file with `.lora_down.weight`, `.hada_*` or `.lokr_*` | LoRA, LoHa and LoKr, each also with DoRA, of linear layers and convolutions (with cores, too): alpha / rank by module; alpha missing or 0 is the rank. Modules keep the file's names; `--base` finds the layer whose dots are underscores |
| diffusers | one file with `.lora_A.weight`, or the older `_lora.down.weight`, `.lora.down.weight`, `.lora_linear_layer.down.weight` | LoRA and DoRA of linear layers and convolutions, with the header's settings if it has some |
| GGUF (llama.cpp) | the first bytes | LoRA of the linear layers of Llama, Mistral, Qwen 2 and 3, and Gemma 1 and 2, in F32, F16, BF16 and Q8_0; q and k of Llama need `--base`, whose `config.json` says how many heads there are |
| pickles, torchtune, NeMo, FSDP, DeepSpeed, Git LFS pointers, web pages, folders of the cache | names and first bytes | refused, with the command that makes an adapter of it |

Weights in F64 (if exact in F32), F32, F16, BF16, F8_E4M3 and F8_E5M2 are widened exactly.

- *Convolutions* are linear maps on patches: rows of `x` are patches of the layer's input, channel by
  channel. `remote_lora` makes them, and `zklora.layer_rows` does for `record`. Kernels of one to
  three dimensions (LoKr of PEFT: two), with groups (LoRA), without dilation.
- *Experts* of a mixture (`target_parameters` with the module's name, of `gate_up_proj`, `down_proj`,
  or one parameter a module) are modules of their own, `<module>.<expert>.<parameter>`. They are
  exported, compiled and proven. `remote_lora` cannot serve
  them, because no module of the model computes an expert.
- *Layers that were trained whole* (`modules_to_save`, `bias`, `trainable_token_indices`, changed
  copies of base layers) are exported as their difference from the base model that `--base` gives:
  dense for linear layers and embeddings, with its numbers printed, and a row for a bias. A token
  table that is tied to the output layer changes both. Tensors that equal the base model's change
  nothing.
- *Left out*, and named in `export.json`, the manifest and every verdict: such layers without
  `--base`, with `--lora-only` or not asked for with `--module`, and where the difference is not
  known: weights of norms and convolutions, heads that the base model does not have, other shapes,
  quantised layers, the base model's own table where it is tied to another layer, and tables of
  models whose ties are not known here (most causal language models are).

";
