//! Replaces the calls of a model's local functions by the nodes of the functions, because tract
//! does not support functions.
//!
//! Names inside a function get the name of the call as a prefix, so errors still name the call.

use std::collections::HashMap;

use tract_onnx::pb;

use super::{function_defaults, operator_versions::is_same, screen::MAX_NODES};
use crate::ingest::error::IngestError;

/// Deepest nesting of function calls; ONNX forbids recursion.
const MAX_DEPTH: usize = 16;

/// Replaces every call of a local function by the function's nodes; `bytes` are the model's.
pub(in crate::ingest) fn inline_functions(
    proto: &mut pb::ModelProto,
    bytes: &[u8],
    name: &str,
) -> Result<(), IngestError> {
    if proto.functions.is_empty() {
        return Ok(());
    }
    let refuse = |what: String| IngestError::Graph { name: name.into(), what };
    let defaults = function_defaults::read(bytes);
    let mut functions = HashMap::new();
    for function in &proto.functions {
        let key = (
            domain_of(function.domain.as_deref().unwrap_or_default()),
            function.name.clone().unwrap_or_default(),
        );
        versions_agree(function, &proto.opset_import).map_err(refuse)?;
        let matching = |(domain, name, _): &&(String, String, _)| {
            (domain_of(domain), name) == (key.0.clone(), &key.1)
        };
        let given = defaults.iter().find(matching).map_or(&[][..], |(_, _, given)| given);
        if functions.insert(key.clone(), (function.clone(), given)).is_some() {
            return Err(refuse(format!("two functions are called `{}`", key.1)));
        }
    }
    proto.functions.clear();
    let Some(graph) = proto.graph.as_mut() else { return Ok(()) };
    let mut done = vec![];
    // Stack of the remaining nodes, with the depth of calls that each is in.
    let mut waiting: Vec<(pb::NodeProto, usize)> =
        graph.node.drain(..).rev().map(|node| (node, 0)).collect();
    while let Some((node, depth)) = waiting.pop() {
        let Some((function, given)) =
            functions.get(&(domain_of(&node.domain), node.op_type.clone()))
        else {
            done.push(node);
            continue;
        };
        if depth == MAX_DEPTH {
            return Err(refuse(format!(
                "function `{}` calls itself, or is nested more than {MAX_DEPTH} deep",
                node.op_type
            )));
        }
        if done.len() + waiting.len() + function.node.len() > MAX_NODES {
            let what = "the number of nodes, functions written out,".into();
            return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_NODES });
        }
        let nodes = instance(function, given, &node, done.len() + waiting.len()).map_err(refuse)?;
        waiting.extend(nodes.into_iter().rev().map(|node| (node, depth + 1)));
    }
    graph.node = done;
    Ok(())
}

fn domain_of(domain: &str) -> String {
    if domain == "ai.onnx" { String::new() } else { domain.into() }
}

/// Checks that the function's operators have the same meaning in the model, which may import
/// another version of their operator set.
fn versions_agree(
    function: &pb::FunctionProto,
    by_model: &[pb::OperatorSetIdProto],
) -> Result<(), String> {
    for import in &function.opset_import {
        let same =
            |other: &&pb::OperatorSetIdProto| domain_of(&other.domain) == domain_of(&import.domain);
        let Some(model) =
            by_model.iter().find(same).filter(|model| model.version != import.version)
        else {
            continue;
        };
        let nodes = function
            .node
            .iter()
            .filter(|node| domain_of(&node.domain) == domain_of(&import.domain));
        let of_onnx = domain_of(&import.domain).is_empty();
        let between = import.version.min(model.version)..=import.version.max(model.version);
        if let Some(other) = nodes
            .map(|node| &node.op_type)
            .find(|operator| !of_onnx || !is_same(operator, &between))
        {
            return Err(format!(
                "function `{}` uses version {} of an operator set, the model version {}, and `{other}` may differ between them; \
                 export with one version",
                function.name.as_deref().unwrap_or_default(),
                import.version,
                model.version
            ));
        }
    }
    Ok(())
}

/// The nodes of one call of a function; `defaults` are those of the function's attributes.
fn instance(
    function: &pb::FunctionProto,
    defaults: &[pb::AttributeProto],
    call: &pb::NodeProto,
    serial: usize,
) -> Result<Vec<pb::NodeProto>, String> {
    let prefix =
        if call.name.is_empty() { format!("{}_{serial}", call.op_type) } else { call.name.clone() };
    if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
        return Err(format!(
            "node `{prefix}` has more inputs or outputs than the function `{}`",
            call.op_type
        ));
    }
    let mut names: HashMap<&str, String> = HashMap::new();
    for (at, formal) in function.input.iter().enumerate() {
        names.insert(formal, call.input.get(at).cloned().unwrap_or_default());
    }
    for (formal, actual) in
        function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty())
    {
        if names.insert(formal, actual.clone()).is_some() {
            return Err(format!(
                "function `{}` returns an input unchanged; add an Identity to the function",
                call.op_type
            ));
        }
    }
    let rename = |name: &String| match names.get(name.as_str()) {
        Some(actual) => actual.clone(),
        None if name.is_empty() => String::new(),
        None => format!("{prefix}/{name}"),
    };
    let nodes = function.node.iter().enumerate().map(|(at, node)| {
        let mut node = node.clone();
        let name = if node.name.is_empty() {
            format!("{}_{at}", node.op_type)
        } else {
            std::mem::take(&mut node.name)
        };
        node.name = format!("{prefix}/{name}");
        node.input = node.input.iter().map(rename).collect();
        node.output = node.output.iter().map(rename).collect();
        for attribute in
            node.attribute.iter_mut().filter(|attribute| !attribute.ref_attr_name.is_empty())
        {
            // An attribute that the call omits has the function's default, if there is one.
            let mut given = call.attribute.iter().chain(defaults);
            let given =
                given.find(|given| given.name == attribute.ref_attr_name).ok_or_else(|| {
                    format!(
                        "node `{prefix}` does not set attribute `{}` of its function",
                        attribute.ref_attr_name
                    )
                })?;
            *attribute =
                pb::AttributeProto { name: std::mem::take(&mut attribute.name), ..given.clone() };
        }
        Ok(node)
    });
    nodes.collect()
}
