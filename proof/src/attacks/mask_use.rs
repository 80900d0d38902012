//! Every committed column of a proof carries the masks that were drawn for it. The test makes a
//! whole proof a second time from the four streams of its randomness.
//!
//! A proof that reuses a mask or leaves one out still verifies and looks random, so no other test
//! would notice.

use ff::Field;
use group::Curve;

use crate::{
    argument::{self, Columns},
    checked_manifest::PairPoints,
    field::{F, G1, G1Affine, Secret, powers},
    fold::Folding,
    layout::Layout,
    prover::{Attempt, combine_a, combine_b, commit_column, products},
    randomness::{ProofKey, Stream, Streams},
    relations::{Challenges, PublicColumns, a_weights, combine, pair_weights, relations},
    span,
    testing::{Session, Shape, lora},
};

/// Each piece of a vector with its own two masks.
fn masked(layout: &Layout, data: &[F], columns: usize, masks: &mut Stream) -> Vec<Secret> {
    let mut pieces: Vec<Vec<F>> = data.chunks(layout.data_rows()).map(<[F]>::to_vec).collect();
    pieces.resize(columns, Vec::new());
    for piece in &mut pieces {
        piece.resize(layout.data_rows(), F::ZERO);
        piece.extend([masks.scalar(), masks.scalar()]);
    }
    pieces.into_iter().map(Secret).collect()
}

#[test]
fn every_mask_is_drawn_once_and_used_where_it_belongs() {
    let mixed = Shape { d_in: 6, rank: 2, d_out: 30, bias: true, scale: true, rows: 2 };
    let session = Session::of(&[mixed, lora(30, 22, 4, 2), lora(3, 1, 2, 0)]);
    let (srs, checked, weights) = (session.srs, &session.checked, &session.weights);
    let (pairs, layout) = (checked.pairs(), checked.layout());
    assert!(
        layout.pair_columns > 1
            && layout.rounds > 1
            && layout.a_columns > 1
            && layout.b_columns > 1,
        "{layout:?}"
    );
    let streams = || ProofKey::derive(&[1; 32], &session.key, &[2; 32]).into_streams();
    super::cheat::Attack::on(&session).opened(|keys, transcript, _, projection| {
        let attempt = Attempt { srs, keys, pairs, projection: &projection };
        let proof = attempt.run(transcript.clone(), weights, &session.key, streams()).unwrap();

        let Streams { mut masks, mut fresh, mut nonces, library } = streams();
        let mut transcript = transcript;
        let projective = |points: &[G1Affine]| points.iter().map(G1::from).collect::<Vec<_>>();
        let commit =
            |columns: &[Secret]| columns.iter().map(|c| commit_column(srs, c)).collect::<Vec<_>>();

        let (t, u) = products(pairs, weights, &projection);
        let mut columns = masked(&layout, &t, layout.pair_columns, &mut masks);
        columns.extend(masked(&layout, &u, layout.pair_columns, &mut masks));
        let (c_t, c_u) = (projective(&proof.t), projective(&proof.u));
        assert_eq!([c_t.clone(), c_u.clone()].concat(), commit(&columns));
        let beta = transcript.products(&c_t, &c_u);
        let b = pair_weights(beta, pairs);
        let mut folding =
            Folding::new(combine_a(pairs, weights, &b), projection.groups.clone(), layout.rounds);
        let mut r = Vec::new();
        for s in projective(&proof.s) {
            let round = masked(&layout, &folding.round(), 1, &mut masks);
            assert_eq!(vec![s], commit(&round));
            columns.extend(round);
            r.push(transcript.round(&s));
            folding.bind(r[r.len() - 1]);
        }

        // C' − C holds the two fresh values on the mask rows, and nothing else.
        let a_weights = a_weights(pairs, &b, &r);
        let mut values = Vec::new();
        let mut differences = |points: &[G1Affine],
                               side: fn(&PairPoints) -> &Vec<G1Affine>,
                               weights: &[F]| {
            for (column, point) in points.iter().enumerate() {
                let terms = checked.points().iter().zip(weights);
                let combined: G1 =
                    terms.filter_map(|(p, w)| side(p).get(column).map(|p| G1::from(p) * w)).sum();
                let difference = masked(&layout, &[], 1, &mut fresh).remove(0);
                assert_eq!(G1::from(point) - combined, commit_column(srs, &difference));
                values.push([difference[layout.mask_rows()[0]], difference[layout.mask_rows()[1]]]);
            }
        };
        differences(&proof.a, |p| &p.a, &a_weights);
        differences(&proof.b, |p| &p.b, &b);

        let chi = transcript.columns(&projective(&proof.a), &projective(&proof.b));
        let nonces = [nonces.scalar(), nonces.scalar()];
        let nonce = span::commit_nonces(&span::mask_bases(&layout, srs.lagrange()), &nonces);
        assert_eq!(proof.r, nonce.to_affine());
        let epsilon = transcript.span(&nonce);
        let f = span::combine(&values, &powers(chi, values.len()));
        assert_eq!(proof.z, span::respond(&nonces, epsilon, &f));
        let eta = transcript.relations(&proof.z);

        // halo2 blinds with the last stream: the same columns and stream give the same bytes.
        let session_masks =
            crate::prover::combined_masks(pairs, &layout, &session.key, &a_weights, &b);
        let (a_data, _) = folding.finish();
        let mut again = |data: &[F], masks: &[[F; 2]], values: &[[F; 2]]| {
            let mut pieces: Vec<Vec<F>> =
                data.chunks(layout.data_rows()).map(<[F]>::to_vec).collect();
            pieces.resize(masks.len(), Vec::new());
            for ((mut piece, masks), fresh) in pieces.into_iter().zip(masks).zip(values) {
                piece.resize(layout.data_rows(), F::ZERO);
                piece.extend([masks[0] + fresh[0], masks[1] + fresh[1]]);
                columns.push(Secret(piece));
            }
        };
        let (values_a, values_b) = values.split_at(layout.a_columns);
        again(&combine_b(pairs, weights, &b), &session_masks.b, values_b);
        again(&a_data, &session_masks.a, values_a);
        let sum =
            combine(&relations(&layout, pairs, &projection, &Challenges { beta, r, eta }), eta);
        let laid_out = PublicColumns::lay_out(&layout, &sum);
        // The prover did not commit to its columns again, and these proofs are the same.
        let columns = Columns { values: &columns, commitments: &[] };
        let argument =
            argument::prove(srs, keys, columns, &laid_out, transcript.finish(), library).unwrap();
        assert_eq!(proof.argument, argument);
    });
}
