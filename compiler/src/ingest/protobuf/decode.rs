//! Decodes the bytes of a file, in memory proportional to the file.
//!
//! A message of two bytes can decode to a struct of hundreds, so the fields are counted in the wire
//! format before anything is decoded. Knows the wire format and the nesting of ONNX messages, not
//! their meaning.

use tract_onnx::{pb, prelude::Framework};
use zklora_files::text::condensed;

use crate::ingest::error::IngestError;

/// Largest ONNX file, in bytes. Protobuf messages have at most 2 GiB.
pub const MAX_FILE_BYTES: usize = 1 << 30;

/// Most fields of a model, without weights (packed weights are one field).
const MAX_FIELDS: usize = 1 << 20;

/// Deepest nesting that is counted: more than in any model without subgraphs.
const MAX_DEPTH: usize = 16;

/// Decodes a model after counting its fields.
pub(in crate::ingest) fn decode(
    mut bytes: &[u8],
    name: &str,
) -> Result<pb::ModelProto, IngestError> {
    if bytes.len() > MAX_FILE_BYTES {
        let what = format!("a file of {} bytes", bytes.len());
        return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_FILE_BYTES });
    }
    let mut left = MAX_FIELDS;
    if count(bytes, Message::Model, 0, &mut left).is_none() && left == 0 {
        let what = "the number of parts that the model consists of".into();
        return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_FIELDS });
    }
    tract_onnx::onnx().proto_model_for_read(&mut bytes).map_err(|error| IngestError::Malformed {
        name: name.into(),
        what: condensed(format_args!("{error:#}")),
    })
}

/// Messages that contain any number of other messages.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Tensor,
    /// Types, shapes and entries, of which every field is counted.
    Other,
}

impl Message {
    /// The type of message in a field, or none if the field is a string, bytes or packed numbers.
    fn inside(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Model, 8 | 14 | 20) | (Self::Function, 9) | (Self::Tensor, 3 | 13) => {
                Self::Other
            }
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Graph, 11..=15) | (Self::Attribute, 14 | 15 | 22 | 23) => Self::Other,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Attribute, 6 | 11) => Self::Graph,
            // Field numbers of TypeProto, Tensor and Shape in a ValueInfo.
            (Self::Other, 1 | 2) => Self::Other,
            _ => return None,
        })
    }
}

/// Decrements `left` for every field. None if it reaches 0 or the bytes are not such a message,
/// which the decoder reports in more detail.
fn count(mut bytes: &[u8], message: Message, depth: usize, left: &mut usize) -> Option<()> {
    while !bytes.is_empty() {
        *left = left.checked_sub(1)?;
        if *left == 0 {
            return None;
        }
        let key = varint(&mut bytes)?;
        let skip = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = bytes.split_at_checked(skip)?;
        bytes = rest;
        if key & 7 == 2
            && depth < MAX_DEPTH
            && let Some(inside) = message.inside(key >> 3)
        {
            // If the field is a string instead of the assumed message, counting ends early.
            let _ = count(field, inside, depth + 1, left);
            if *left == 0 {
                return None;
            }
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
