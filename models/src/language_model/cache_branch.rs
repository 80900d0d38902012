//! Takes the branch with a cache of a merged export.
//!
//! optimum's `decoder_model_merged.onnx` has two graphs: one without a cache for the prompt, one
//! with it for every later token, and an If on the input `use_cache_branch`. The second one also
//! reads a prompt, after a cache of no tokens. So its nodes take the place of the If. Must not know
//! what the nodes compute.

use tract_onnx::pb::{self, NodeProto};

/// The input that chooses the branch.
pub(super) const USE_CACHE: &str = "use_cache_branch";

/// Puts the nodes of the branch with a cache in the place of the If. `scopes` has an entry for each
/// node. Does nothing if the model has no such input.
///
/// # Errors
/// The input does not choose between two branches, or a branch is malformed.
pub(super) fn take(
    graph: &mut pb::GraphProto,
    scopes: &mut Vec<Option<String>>,
) -> Result<(), String> {
    if !graph.input.iter().any(|input| input.name == USE_CACHE) {
        return Ok(());
    }
    let refuse = |why: &str| Err(format!("has the input {USE_CACHE}, but {why}"));
    let (mut nodes, mut kept, mut taken) = (Vec::new(), Vec::new(), false);
    let before = std::mem::take(&mut graph.node).into_iter().zip(std::mem::take(scopes));
    for (node, scope) in before {
        let chooses =
            node.op_type == "If" && node.input.first().is_some_and(|input| input == USE_CACHE);
        if !chooses {
            if node.input.iter().any(|input| input == USE_CACHE) {
                return refuse("a node other than If reads it; export the model again");
            }
            nodes.push(node);
            kept.push(scope);
            continue;
        }
        taken = true;
        let branch =
            node.attribute.into_iter().find(|of| of.name == "then_branch").and_then(|of| of.g);
        let Some(mut branch) = branch else { return refuse("its If has no branch for it") };
        if !branch.input.is_empty() || branch.output.len() != node.output.len() {
            return refuse("the branch for it does not fit its If");
        }
        let inner: Vec<String> = branch.output.drain(..).map(|output| output.name).collect();
        for (inner, outer) in inner.iter().zip(&node.output).filter(|(inner, outer)| inner != outer)
        {
            // Named anew rather than renamed: an output may be an input, or be given twice.
            branch.node.push(NodeProto {
                op_type: "Identity".into(),
                input: vec![inner.clone()],
                output: vec![outer.clone()],
                name: format!("zklora.{outer}"),
                ..NodeProto::default()
            });
        }
        kept.extend(branch.node.iter().map(|node| super::scopes::from_name(&node.name)));
        nodes.extend(branch.node);
        graph.initializer.extend(branch.initializer);
    }
    if !taken {
        return refuse("no If reads it; export the model again");
    }
    graph.node = nodes;
    *scopes = kept;
    graph.input.retain(|input| input.name != USE_CACHE);
    Ok(())
}
