//! The messages that hold lists, with a bound on how many parts a list may have.
//!
//! A part of no bytes takes two on the wire and a hundred in memory: a message within every limit
//! of size would take fifty times its size. So these are not generated: a part beyond the bound
//! ends the decoding. Field numbers are those of `proto/contributor.proto`.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{
        DecodeContext, WireType, bytes as bytes_field, message, skip_field, uint32, uint64,
    },
};
use zklora_proof::manifest::MAX_MODULES;

use super::wire::Call;

/// Inputs that a module may have, by the rules of the manifest.
const MAX_INPUTS: usize = 16;

/// Rows for some modules. A batch that was sent before, byte for byte, is answered again and not
/// counted again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Number of the batch within its session.
    pub sequence: u64,
    /// Integer rows, each sent once however many modules read them.
    pub rows: Vec<Rows>,
    /// Which module reads which rows.
    pub calls: Vec<Call>,
}

/// Rows of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// How many.
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
    /// Which batch.
    pub sequence: u64,
    /// One per call: count × d_out integers, i64 little-endian, row-major.
    pub deltas: Vec<Bytes>,
}

impl InferResponse {
    /// Where the deltas of each call begin in the encoded message.
    pub(crate) fn delta_offsets(&self) -> impl Iterator<Item = usize> {
        let first = if self.sequence == 0 { 0 } else { uint64::encoded_len(1, &self.sequence) };
        self.deltas.iter().scan(first, |end, delta| {
            *end += bytes_field::encoded_len(2, delta);
            Some(*end - delta.len())
        })
    }
}

fn room<T>(list: &[T], most: usize) -> Result<(), DecodeError> {
    if list.len() < most {
        return Ok(());
    }
    // There is no other way for a message to say why it is none.
    #[allow(deprecated)]
    Err(DecodeError::new(format!("a list has more parts than {most}")))
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
                room(&self.rows, MAX_MODULES)?;
                message::merge_repeated(wire_type, &mut self.rows, buf, ctx)
            }
            3 => {
                room(&self.calls, MAX_MODULES)?;
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
                room(&self.inputs, MAX_INPUTS)?;
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
                room(&self.deltas, MAX_MODULES)?;
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
    fn messages_are_what_they_were_before_they_were_encoded() {
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
        // Byte for byte as any implementation of proto3 writes them.
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
        // Fields that are not known are passed over.
        assert_eq!(Batch::decode(&[&expected[..], &[0x7a, 1, 9]].concat()[..]).unwrap(), small);
    }

    #[test]
    fn deltas_are_where_they_are_said_to_be() {
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
        let too_many =
            |error: DecodeError| assert!(error.to_string().contains("more parts than"), "{error}");
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
