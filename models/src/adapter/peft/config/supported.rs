//! The tables of `adapter_config.json` in docs/adapters.md, from the lists that decide.

use std::fmt::Write;

use super::{roles, tuner};

/// Types and keys of PEFT adapters, in Markdown.
pub(in crate::adapter::peft) fn tables() -> String {
    let mut page = String::from("## Types of PEFT\n\n| `peft_type` | |\n| -- | -- |\n");
    for (name, _) in tuner::SUPPORTED {
        let _ = writeln!(page, "| `{name}` | exported |");
    }
    for (names, reason) in tuner::REFUSED {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {} | refused: {} |", names.join(", "), cell(reason));
    }
    page.push_str("\n## Keys of PEFT\n\n| key | in | |\n| -- | -- | -- |\n");
    let mut row = |key: &str, types: &str, what: &str| {
        let _ = writeln!(page, "| `{key}` | {types} | {} |", cell(what));
    };
    for key in roles::HARMLESS {
        row(key, "all", "read, or without effect on a trained adapter");
    }
    for (name, tuner) in tuner::SUPPORTED {
        for key in roles::harmless_for(*tuner) {
            row(key, name, "read, or without effect on a trained adapter");
        }
    }
    row("bias", "all", "none, or which biases were trained; the tensors show it");
    row(
        "init_lora_weights",
        "LORA",
        "true, false, gaussian, orthogonal, eva, mica; others change the base weights, and are \
         refused with what to do",
    );
    for key in roles::OF_INITIALISATIONS {
        row(key, "LORA", "ignored without the initialisation that it belongs to, as by peft");
    }
    for key in roles::OF_TRAINING {
        row(key, "all", "of training, of another library or an old version: ignored, as by peft");
    }
    for (key, _, reason) in roles::UNSUPPORTED {
        row(key, "all", &format!("refused unless it is off: {reason}"));
    }
    page.push_str(
        "\nA key that is not listed is refused unless it is `null`, `false`, `[]` or `{}`: it may \
         change what\nthe adapter computes.\n",
    );
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
