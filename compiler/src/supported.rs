//! Writes the text of `docs/onnx.md`: the supported operators and the tested files.
//!
//! Text only: the test that has the fixtures collects the cases.

use std::fmt::Write;

use crate::ingest::supported_operators;

/// One ONNX file of the fixtures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// Its content, and how it was created.
    pub origin: String,
    /// Version of the ONNX operator set.
    pub opset: i64,
    /// The operators in it, each once, in alphabetical order.
    pub operators: Vec<String>,
    /// The compiler's result.
    pub verdict: String,
}

/// The page, in Markdown.
#[must_use]
pub fn supported(cases: &[Case]) -> String {
    let mut page = String::from(HEAD);
    for operator in supported_operators() {
        let _ =
            writeln!(page, "| {} | {} | {} |", operator.operators, operator.when, operator.becomes);
    }
    page.push_str(REFUSED);
    let _ = writeln!(page, "\n## Tested files\n\n{} files.\n", cases.len());
    page.push_str(
        "| file | what it is | opset | operators | result |\n| -- | -- | -- | -- | -- |\n",
    );
    for case in cases {
        let Case { name, origin, opset, operators, verdict } = case;
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let operators = operators.join(", ");
        let _ = writeln!(
            page,
            "| `{name}` | {} | {opset} | {operators} | {} |",
            cell(origin),
            cell(verdict)
        );
    }
    page
}

const HEAD: &str = "\
# ONNX files that zklora compiles

A command writes this page, from the compiler's list of operators and from the files that its tests
run:

```sh
ZKLORA_WRITE_DOCS=1 cargo test --release --workspace --test supported
```

A module must be linear: every output row is a fixed linear function of one input row, plus a
constant. The compiler determines this function, whatever operators the exporter chose. It refuses a
graph that is not linear and names the first node that is not. Operator sets 7 to 23 are tested.
`zklora compile --explain` shows what each node became.

## Rows and features

- `[rows, features]`, `[batch, sequence, features]` and a flat `[rows * features]` are equivalent:
  features are last.
- Dimensions may be symbolic, with any name or none. All inputs have the same rows, whatever their
  dimensions are called.
- Convolutions with a kernel of size 1: positions are rows, channels are features. Row
  `batch * positions + position` is the content of `[batch, channels, height, width]` at that
  position; give activations channels last.
- Other convolutions: one row is a whole image, `channels * height * width` values in the order of
  the tensor. The batch axis is one of rows.
- A graph that mixes rows, like the original ZKLoRA exporter's
  `x@A@B + x.mean() + A.sum() + B.sum()`, is compiled as the map of all rows as one row, if their
  number is fixed. The result is correct, and expensive, because the format's terms all have the
  same rows. The compiler warns about the cost, and that the constant reveals the sum of the
  weights. To avoid both, export only the delta, as `zklora export` does.
- A dense matrix (a merged adapter) is committed to as a product with an identity, with as many
  pairs as its smaller side is long. The result is correct, and the compiler warns about the cost.
- Features that are only moved (Split, Slice, Gather, Concat, Pad) are moved in the adjacent matrix,
  whose rank does not change. An input that is split and joined again is one factor per feature.
  Only features that reach other positions of the output without any matrix become a matrix, with as
  many pairs as there are such features.

## Weights in other files

External data are read only from the model's folder: absolute paths, `..`, and links out of the
folder are refused, as are lengths that do not fit the tensor's shape.

## Operators

This table is for operators between an input and the output. Subgraphs that do not depend on the
input are computed while compiling, whatever their operators, and in double precision where rounding
would depend on the machine.

| ONNX operator | when | becomes |
| -- | -- | -- |
";

const REFUSED: &str = "
All other operators are refused, with the name of the node: activations (Relu, Gelu, Clip),
normalisation (LayerNormalization, Softmax), products of two values that depend on the input, live
Dropout, quantised operators, control flow (If, Loop, Scan), operators of other domains, and casts
to integers.
";
