//! An identity operator that follows every layer, so that layers can be told apart in tract's
//! graph, where names of ONNX nodes are lost.
//!
//! Must not know what the layers are for.

use tract_onnx::{
    model::ParsingContext,
    pb::{AttributeProto, GraphProto, NodeProto, attribute_proto::AttributeType},
    tract_core::plan::EvalContext,
    tract_hir::internal::*,
};

use super::{
    insert_nodes::{DOMAIN, Names},
    layers::Layer,
};

/// The operator.
pub(super) const OPERATOR: &str = "ZkloraLayer";
/// Its attribute: the index of the layer.
const LAYER: &str = "layer";

/// Puts a mark behind the node of every layer. The mark's output has the name of the node's, so
/// that readers and outputs of the graph see the mark.
pub(super) fn mark_layers(graph: &mut GraphProto, layers: &[Layer]) {
    let mut names = Names::of(graph);
    let mut marks: Vec<Option<NodeProto>> = vec![None; graph.node.len()];
    for (index, layer) in layers.iter().enumerate() {
        let Some(output) = graph.node[layer.node].output.first_mut() else { continue };
        let inner = names.fresh();
        let output = std::mem::replace(output, inner.clone());
        let attribute = AttributeProto {
            name: LAYER.into(),
            r#type: AttributeType::Int as i32,
            i: index as i64,
            ..AttributeProto::default()
        };
        marks[layer.node] = Some(NodeProto {
            op_type: OPERATOR.into(),
            domain: DOMAIN.into(),
            name: names.fresh(),
            input: vec![inner],
            output: vec![output],
            attribute: vec![attribute],
            ..NodeProto::default()
        });
    }
    let nodes = std::mem::take(&mut graph.node).into_iter().zip(marks);
    graph.node = nodes.flat_map(|(node, mark)| std::iter::once(node).chain(mark)).collect();
}

/// tract's operator for such a node.
pub(super) fn build(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let layer: i64 = node.get_attr(LAYER)?;
    Ok((expand(Mark { layer: usize::try_from(layer)? }), vec![]))
}

/// The output of the layer with this index among [`super::LayerGraph::layers`].
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub struct Mark {
    /// The index.
    pub layer: usize,
}

impl Expansion for Mark {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Mark {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Mark {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(inputs.iter().map(|input| input.datum_type.fact(input.shape.clone())).collect())
    }

    as_op!();
}

impl EvalOp for Mark {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }

    op_out_of_plan!();
}
