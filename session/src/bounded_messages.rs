//! The messages with lists, and a bound on the number of elements of a list.
//!
//! An empty element takes two bytes on the wire and a hundred in memory, so a message within the
//! size limit could take fifty times its size. These messages are therefore not generated, and an
//! element beyond the bound ends the decoding. Field numbers are those of
//! `proto/contributor.proto`.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{
        DecodeContext, WireType, bytes as bytes_field, message, skip_field, uint32, uint64,
    },
};
use zklora_proof::manifest::MAX_MODULES;

/// Most inputs of a module, by the rules of the manifest.
const MAX_INPUTS: usize = 16;

/// Rows for some modules. A batch that repeats an earlier one byte for byte is answered again and
/// not counted again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Number of the batch within its session.
    pub sequence: u64,
    /// Sets of integer rows. A set is sent once for all modules that read it.
    pub rows: Vec<Rows>,
    /// Which module reads which rows.
    pub calls: Vec<Call>,
}

/// A set of rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Number of rows.
    pub count: u32,
    /// Per input of the module: count × dim integers, i32 little-endian, row-major.
    pub inputs: Vec<Bytes>,
    /// Modules with a bias: count integers, i32 little-endian.
    pub ones: Bytes,
    /// Count scales, f32 little-endian.
    pub scales: Bytes,
}

/// The deltas of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InferResponse {
    /// The sequence number of the batch.
    pub sequence: u64,
    /// One per call: count × d_out integers, i64 little-endian, row-major.
    pub deltas: Vec<Bytes>,
}

impl InferResponse {
    /// Offsets of the deltas of each call in the encoded message.
    pub(crate) fn delta_offsets(&self) -> impl Iterator<Item = usize> {
        let first = if self.sequence == 0 { 0 } else { uint64::encoded_len(1, &self.sequence) };
        self.deltas.iter().scan(first, |end, delta| {
            *end += bytes_field::encoded_len(2, delta);
            Some(*end - delta.len())
        })
    }
}

/// Which module reads which rows of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Call {
    /// Index in the manifest.
    #[prost(uint32, tag = "1")]
    pub module: u32,
    /// Index in [`Batch::rows`].
    #[prost(uint32, tag = "2")]
    pub rows: u32,
}

impl Batch {
    /// Module and number of rows of every call.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.calls.iter().map(|call| {
            let rows = self.rows.get(call.rows as usize).map_or(0, |rows| u64::from(rows.count));
            (call.module as usize, rows)
        })
    }
}

fn check_room<T>(list: &[T], most: usize) -> Result<(), DecodeError> {
    if list.len() < most {
        return Ok(());
    }
    // The only way for a message to give a reason.
    #[allow(deprecated)]
    Err(DecodeError::new(format!("a list has more than {most} elements")))
}

impl Message for Batch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.sequence != 0 {
            uint64::encode(1, &self.sequence, buf);
        }
        message::encode_repeated(2, &self.rows, buf);
        message::encode_repeated(3, &self.calls, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => uint64::merge(wire_type, &mut self.sequence, buf, ctx),
            2 => {
                check_room(&self.rows, MAX_MODULES)?;
                message::merge_repeated(wire_type, &mut self.rows, buf, ctx)
            }
            3 => {
                check_room(&self.calls, MAX_MODULES)?;
                message::merge_repeated(wire_type, &mut self.calls, buf, ctx)
            }
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let sequence = if self.sequence == 0 { 0 } else { uint64::encoded_len(1, &self.sequence) };
        sequence
            + message::encoded_len_repeated(2, &self.rows)
            + message::encoded_len_repeated(3, &self.calls)
    }

    fn clear(&mut self) {
        *self = Batch::default();
    }
}

impl Message for Rows {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.count != 0 {
            uint32::encode(1, &self.count, buf);
        }
        bytes_field::encode_repeated(2, &self.inputs, buf);
        for (tag, field) in [(3, &self.ones), (4, &self.scales)] {
            if !field.is_empty() {
                bytes_field::encode(tag, field, buf);
            }
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => uint32::merge(wire_type, &mut self.count, buf, ctx),
            2 => {
                check_room(&self.inputs, MAX_INPUTS)?;
                bytes_field::merge_repeated(wire_type, &mut self.inputs, buf, ctx)
            }
            3 => bytes_field::merge(wire_type, &mut self.ones, buf, ctx),
            4 => bytes_field::merge(wire_type, &mut self.scales, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let count = if self.count == 0 { 0 } else { uint32::encoded_len(1, &self.count) };
        let fields =
            [(3, &self.ones), (4, &self.scales)].into_iter().filter(|(_, field)| !field.is_empty());
        count
            + bytes_field::encoded_len_repeated(2, &self.inputs)
            + fields.map(|(tag, field)| bytes_field::encoded_len(tag, field)).sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Rows::default();
    }
}

impl Message for InferResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.sequence != 0 {
            uint64::encode(1, &self.sequence, buf);
        }
        bytes_field::encode_repeated(2, &self.deltas, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => uint64::merge(wire_type, &mut self.sequence, buf, ctx),
            2 => {
                check_room(&self.deltas, MAX_MODULES)?;
                bytes_field::merge_repeated(wire_type, &mut self.deltas, buf, ctx)
            }
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let sequence = if self.sequence == 0 { 0 } else { uint64::encoded_len(1, &self.sequence) };
        sequence + bytes_field::encoded_len_repeated(2, &self.deltas)
    }

    fn clear(&mut self) {
        *self = InferResponse::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_survive_encoding() {
        let bytes = |n: u8| Bytes::from(vec![n; n as usize]);
        let rows = Rows {
            count: 3,
            inputs: vec![bytes(5), Bytes::new(), bytes(1)],
            ones: bytes(2),
            scales: bytes(12),
        };
        let calls = vec![Call { module: 7, rows: 0 }, Call { module: 0, rows: 1 }];
        let batch = Batch { sequence: 300, rows: vec![rows, Rows::default()], calls };
        let answer = InferResponse { sequence: u64::MAX, deltas: vec![Bytes::new(), bytes(9)] };
        assert_eq!(Batch::decode(&batch.encode_to_vec()[..]).unwrap(), batch);
        assert_eq!(batch.encode_to_vec().len(), batch.encoded_len());
        assert_eq!(InferResponse::decode(&answer.encode_to_vec()[..]).unwrap(), answer);
        // The bytes that any implementation of proto3 writes.
        let small = Batch {
            sequence: 1,
            rows: vec![Rows {
                count: 2,
                inputs: vec![bytes(1)],
                ones: Bytes::new(),
                scales: bytes(2),
            }],
            calls: vec![Call { module: 3, rows: 0 }],
        };
        let expected = [8, 1, 18, 9, 8, 2, 18, 1, 1, 34, 2, 2, 2, 26, 2, 8, 3];
        assert_eq!(small.encode_to_vec(), expected);
        assert_eq!(
            InferResponse { sequence: 1, deltas: vec![bytes(1)] }.encode_to_vec(),
            [8, 1, 18, 1, 1]
        );
        // Unknown fields are skipped.
        assert_eq!(Batch::decode(&[&expected[..], &[0x7a, 1, 9]].concat()[..]).unwrap(), small);
    }

    #[test]
    fn deltas_are_at_their_offsets() {
        for sequence in [0, 1, 127, 128, u64::MAX] {
            let deltas: Vec<Bytes> = [0usize, 1, 127, 128, 20_000, 3]
                .iter()
                .map(|n| Bytes::from((0..*n).map(|at| (at * 7 + n) as u8).collect::<Vec<_>>()))
                .collect();
            let answer = InferResponse { sequence, deltas };
            let encoded = answer.encode_to_vec();
            for (offset, delta) in answer.delta_offsets().zip(&answer.deltas) {
                assert_eq!(encoded[offset..offset + delta.len()], delta[..]);
            }
            assert_eq!(answer.delta_offsets().count(), answer.deltas.len());
        }
    }

    #[test]
    fn lists_end_at_their_bound() {
        let of = |field: u8, count: usize| [field, 0].repeat(count);
        let too_many = |error: DecodeError| {
            assert!(error.to_string().contains("a list has more than"), "{error}")
        };
        for field in [18, 26] {
            assert!(Batch::decode(&of(field, MAX_MODULES)[..]).is_ok());
            too_many(Batch::decode(&of(field, MAX_MODULES + 1)[..]).unwrap_err());
        }
        assert!(InferResponse::decode(&of(18, MAX_MODULES)[..]).is_ok());
        too_many(InferResponse::decode(&of(18, MAX_MODULES + 1)[..]).unwrap_err());
        assert!(Rows::decode(&of(18, MAX_INPUTS)[..]).is_ok());
        too_many(Rows::decode(&of(18, MAX_INPUTS + 1)[..]).unwrap_err());
    }
}
