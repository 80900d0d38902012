//! Provers that use what a rule forbids: accepted without the rule, refused with it.

use super::{
    adapters::stolen,
    rules::{Broken, forging, without},
    session::{Session, is_refused, llama},
};
use crate::{relations::Rule, witness::Witness};

/// One entry is counted once too often; nothing else is wrong.
fn miscounted(session: &Session) -> Witness {
    let mut witness = session.witness();
    witness.tensors[session.plan.tables[0].multiplicities].add(0, 1, 1.into());
    witness
}

#[test]
fn products_that_are_not_pinned_forge_and_pinned_ones_do_not() {
    let session = llama();
    let witness = miscounted(session);
    let forge = || forging(Broken::Pinned, || session.attempt(&witness));
    let (bytes, violated) = forge();
    assert_eq!(violated, [Rule::LookupSum]);
    assert!(is_refused(&session.verify(&bytes)));
    without(Broken::Pinned, || session.verify(&forge().0)).unwrap();
}

#[test]
fn rows_of_another_message_forge_unless_powers_of_chi_tell_them_apart() {
    let session = llama();
    let witness = miscounted(session);
    let forge = || forging(Broken::Apart, || session.attempt(&witness));
    let (bytes, violated) = forge();
    assert_eq!(violated, [Rule::LookupSum]);
    assert!(is_refused(&session.verify(&bytes)));
    without(Broken::Apart, || session.verify(&forge().0)).unwrap();
}

#[test]
fn a_blinder_of_x_with_data_forges_unless_it_enters_with_chi() {
    let session = stolen();
    let (said, committed) = session.witnesses();
    let forge =
        || forging(Broken::Blinder, || session.session.attempt_of(&committed, &said, &|_| {}));
    let (bytes, violated) = forge();
    assert_eq!(violated, [Rule::Opening]);
    assert!(is_refused(&session.session.verify(&bytes)));
    without(Broken::Blinder, || session.session.verify(&forge().0)).unwrap();
}
