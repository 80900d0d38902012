//! Groups injection points for comparison: the same kind of module over the layers.

use crate::effect_report::PointReport;

/// Points of one plot.
pub struct Group<'a> {
    /// `q_proj`, or a longer name if two groups would have this one.
    pub title: String,
    /// Each point with the label of its bar: the layer, or its position in the report.
    pub points: Vec<(String, &'a PointReport)>,
    /// Whether the labels are layers.
    pub by_layer: bool,
}

/// Splits a path at its first number: `model.layers`, 3, `self_attn.q_proj`.
fn split_at_layer(module: &str) -> Option<(&str, u32, &str)> {
    let mut start = 0;
    for part in module.split('.') {
        let end = start + part.len();
        if start > 0
            && let Ok(layer) = part.parse::<u32>()
        {
            return Some((
                &module[..start - 1],
                layer,
                module.get(end + 1..).filter(|rest| !rest.is_empty())?,
            ));
        }
        start = end + 1;
    }
    None
}

/// The groups in the order of their first points. Points that are the only one of their kind come
/// last, in one group.
pub fn groups(points: &[PointReport]) -> Vec<Group<'_>> {
    type Key<'a> = (&'a str, &'a str);
    let mut order: Vec<Key> = Vec::new();
    let mut by_key: std::collections::HashMap<Key, Vec<(u32, &PointReport)>> =
        std::collections::HashMap::new();
    let mut alone = Vec::new();
    for (position, point) in points.iter().enumerate() {
        let Some((before, layer, kind)) = split_at_layer(&point.module) else {
            alone.push((position, point));
            continue;
        };
        by_key
            .entry((before, kind))
            .or_insert_with(|| {
                order.push((before, kind));
                Vec::new()
            })
            .push((layer, point));
    }
    order.retain(|key| by_key.get(key).is_some_and(|members| members.len() > 1));
    for (position, point) in points.iter().enumerate() {
        if split_at_layer(&point.module).is_some_and(|(before, _, kind)| {
            by_key.get(&(before, kind)).is_some_and(|m| m.len() == 1)
        }) {
            alone.push((position, point));
        }
    }
    alone.sort_by_key(|(position, _)| *position);
    let last = |kind: &str| kind.rsplit('.').next().unwrap_or(kind).to_string();
    let mut uses: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (_, kind) in &order {
        *uses.entry(last(kind)).or_default() += 1;
    }
    let mut out: Vec<Group> = order
        .iter()
        .map(|key| {
            let mut members = by_key.remove(key).unwrap_or_default();
            members.sort_by_key(|(layer, _)| *layer);
            let short = last(key.1);
            let title =
                if uses.get(&short) == Some(&1) { short } else { format!("{}.*.{}", key.0, key.1) };
            let points =
                members.into_iter().map(|(layer, point)| (layer.to_string(), point)).collect();
            Group { title, points, by_layer: true }
        })
        .collect();
    if !alone.is_empty() {
        let points = alone
            .into_iter()
            .map(|(position, point)| ((position + 1).to_string(), point))
            .collect();
        out.push(Group { title: "other modules".into(), points, by_layer: false });
    }
    out
}
