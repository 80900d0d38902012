#![allow(clippy::unwrap_used)]
use std::path::PathBuf;

use zklora_evaluation::{
    digest::Digest,
    metric::Metric,
    values::{Confusion, Means, Values},
};

use super::*;
use crate::evaluate::{
    EarlierSamples, GroupReport, Interval, Loss, Proven, Right, Settlement, Verdict, lines,
};

const HOSTILE: &str = "</p><script src=\"https://x.example\">alert('1')</script>\u{202e}&";

fn group(name: &str) -> GroupReport {
    GroupReport {
        name: name.into(),
        units: 20,
        tokens: 1240,
        loss: None,
        greedy: None,
        accuracy: None,
        accuracy_normalised: None,
        confusion: None,
        signed: Some(Values::default()),
    }
}

fn loss(base: f64, adapted: f64, plus_minus: Option<f64>) -> Option<Loss> {
    Some(Loss { base, adapted, gain: Interval { value: base - adapted, plus_minus } })
}

fn right(base: f64, gained: u64, lost: u64, units: u64) -> Option<Right> {
    let n = units as f64;
    let value = (gained as f64 - lost as f64) / n;
    let both = (gained + lost) as f64;
    let plus_minus = Some(1.96 * (both - value * value * n).sqrt() / n);
    let gain = Interval { value, plus_minus };
    Some(Right { base, adapted: base + value, gain, gained, lost })
}

fn report(groups: Vec<GroupReport>) -> Report {
    let units = groups.iter().map(|group| group.units).sum();
    Report {
        grade: "claimed",
        grade_text: "These numbers are the contributor's word, signed with its key. After payment \
                     and delivery you can compute every one of them again (zklora settle).",
        adapter_id: Digest::of(b"adapter"),
        key: Digest::of(b"key"),
        contact: "Ada Lovelace <ada@lora.example>".into(),
        base_model: "HuggingFaceTB/SmolLM2-135M".into(),
        integer_model: Digest::of(b"integer model"),
        offer: Digest::of(b"offer"),
        request: Digest::of(b"request"),
        answer: Digest::of(b"answer"),
        groups,
        units,
        base_unscored: 0,
        unscored: Vec::new(),
        more_unscored: false,
        per_unit: false,
        rows_revealed: 0,
        score_bits: 10,
        bits: 214,
        price: None,
        proven: None,
        settlement: None,
    }
}

fn settlement(verdict: Verdict, reasons: &[&str]) -> Option<Settlement> {
    Some(Settlement {
        verdict,
        reasons: reasons.iter().map(ToString::to_string).collect(),
        key: Some(Digest::of(b"key")),
        adapter_id: Some(Digest::of(b"adapter")),
        answer: Some(Digest::of(b"answer")),
        price: Some("400 EUR".into()),
        key_by: Some("2026-12-01".into()),
        verdict_by: Some("2026-12-15".into()),
        key_digest: Some(Digest::of(b"age key")),
        units: 390,
        evidence: None,
        adapter: None,
        registered: None,
    })
}

/// Three groups, one of each kind.
fn three() -> Report {
    let mut contracts = group("contracts.held-out");
    contracts.loss = loss(3.214, 3.012, Some(0.013));
    contracts.greedy = right(0.1, 2, 1, 20);
    let mut letters = group("letters");
    letters.loss = loss(2.871, 2.889, Some(0.027));
    let mut clauses = group("clause-kinds");
    (clauses.units, clauses.tokens) = (350, 48_210);
    clauses.accuracy = right(0.5943, 61, 18, 350);
    clauses.accuracy_normalised = right(0.6143, 20, 31, 350);
    clauses.confusion = Some(Confusion {
        base: vec![vec![70, 21, 9, 0], vec![35, 80, 15, 0], vec![30, 32, 58, 0]],
        adapted: vec![vec![88, 7, 4, 1], vec![14, 99, 17, 0], vec![20, 36, 64, 0]],
    });
    report(vec![contracts, letters, clauses])
}

fn contradicted(reasons: &[&str]) -> Report {
    let mut report = three();
    report.grade = "contradicted";
    report.grade_text = "The contributor's signatures contradict each other. The evidence file \
                         shows it to anybody.";
    report.price = Some("400 EUR".into());
    report.settlement = settlement(Verdict::Contradicted, reasons).map(|found| Settlement {
        evidence: Some(PathBuf::from("/home/buyer/evaluations/contracts/evidence.tar")),
        ..found
    });
    report
}

fn settled() -> Report {
    let mut report = three();
    report.grade = "settled";
    report.grade_text = "These numbers are true: the delivered adapter is the pinned one, and you \
                         computed every number again with it.";
    report.price = Some("400 EUR".into());
    let why = "the delivered adapter is the pinned one, and every number of the answer is its own";
    report.settlement = settlement(Verdict::Settled, &[why]);
    report
}

fn with_unscored() -> Report {
    let mut report = three();
    (report.base_unscored, report.unscored, report.more_unscored) = (3, vec![17, 204], true);
    report.per_unit = true;
    report.price = Some("400 EUR".into());
    report.settlement = settlement(Verdict::Payable, &["the contributor signed this ciphertext"]);
    report
}

/// All texts of a report that are not ours are hostile.
fn hostile() -> Report {
    let mut report = contradicted(&[HOSTILE, HOSTILE]);
    (report.contact, report.base_model) = (HOSTILE.into(), HOSTILE.into());
    report.price = Some(HOSTILE.into());
    for group in &mut report.groups {
        group.name = HOSTILE.into();
    }
    let mut none = group(HOSTILE);
    none.signed = None;
    report.groups.push(none);
    if let Some(found) = &mut report.settlement {
        found.price = Some(HOSTILE.into());
        (found.key_by, found.verdict_by) = (Some(HOSTILE.into()), Some(HOSTILE.into()));
        (found.evidence, found.adapter) = (Some(HOSTILE.into()), Some(HOSTILE.into()));
    }
    report
}

#[test]
fn text_is_escaped_and_nothing_is_loaded() {
    let mut report = hostile();
    let verdicts =
        [Verdict::Contradicted, Verdict::Payable, Verdict::Settled, Verdict::Undecidable];
    for verdict in verdicts {
        if let Some(found) = &mut report.settlement {
            found.verdict = verdict;
        }
        let html = page(&report);
        for raw in ["<script", "</p><sc", "alert('", "\u{202e}", "src=\"", "<link", "url("] {
            assert!(!html.contains(raw), "{raw}");
        }
        // Names, contact, model, reasons, price, dates and paths.
        assert!(html.matches("&lt;script src=&quot;").count() >= 15);
        assert!(html.contains("Content-Security-Policy") && html.ends_with("</html>\n"));
    }
    report.settlement = None;
    assert!(!page(&report).contains("<script"));
}

#[test]
fn the_grade_says_what_to_do() {
    let graded = |grade| Report { grade, ..three() };
    for (report, expected) in [
        (three(), ["! CLAIMED<", "Do not pay yet", "none yet"]),
        (graded("proven"), ["! CLAIMED, A SAMPLE PROVEN<", "Do not pay yet", "none yet"]),
        (graded("not proven"), ["! CLAIMED, NOT PROVEN<", "Do not pay yet", "none yet"]),
        (settled(), ["✓ SETTLED", "release it", "390 units"]),
        (contradicted(&["other numbers"]), ["✕ CONTRADICTED", "show the evidence", "Do not rely"]),
        (with_unscored(), ["READY TO PAY", "You can pay 400 EUR", "by 2026-12-15 at"]),
    ] {
        let html = page(&report);
        for words in expected {
            assert!(html.contains(words), "{words}");
        }
    }
}

/// A contributor may sign any numbers: a sample that says something else is pointed out.
#[test]
fn numbers_far_from_the_proven_sample_are_pointed_out() {
    let with_gain = |milli: i64| {
        let means = Means { adapted: milli - 2000, base: -2000 };
        let values = Values { log_probability: Some(means), error: Some(10), ..Values::default() };
        let proven = Proven {
            values: Some(values),
            answer: Digest::of(b"answer"),
            metric: Metric::LogProbability,
            units: vec![1, 2, 3],
            tokens: 60,
            bits: 33,
            earlier_samples: EarlierSamples::default(),
        };
        let group = GroupReport { loss: loss(2.0, 1.0, None), ..group("texts") };
        Report { proven: Some(proven), ..report(vec![group]) }
    };
    // 4.303 errors and the rounding: ± 0.044.
    for (gain, is_far) in [(100, true), (950, true), (960, false), (1000, false), (1050, true)] {
        let report = with_gain(gain);
        assert_eq!(report.is_far_from_sample(), is_far, "{gain}");
        let words = "outside of the sample";
        assert_eq!(page(&report).contains(words), is_far);
        assert_eq!(lines(&report).iter().any(|(_, value)| value.contains(words)), is_far);
    }
}

#[test]
fn units_without_a_score_are_explained() {
    let html = page(&with_unscored());
    for words in ["3 of 390 units", "units 17, 204 and others", "is 64 nats", "0.6 nats", "SINGLE"]
    {
        assert!(html.contains(words), "{words}");
    }
    assert!(!page(&three()).contains("without a score"));
}

#[test]
fn the_column_for_no_score_is_shown_if_it_is_used() {
    let mut report = three();
    assert_eq!(page(&report).matches(">no score<").count(), 2);
    if let Some(confusion) = &mut report.groups[2].confusion {
        confusion.adapted[0][3] = 0;
        // Rows of any form.
        confusion.base[1].clear();
    }
    assert!(!page(&report).contains(">no score<"));
}

#[test]
fn numbers_that_are_none_and_many_groups_are_shown() {
    let mut odd = group("odd");
    odd.loss = loss(f64::NAN, f64::INFINITY, Some(f64::NAN));
    odd.accuracy = right(f64::NAN, 0, 0, 0);
    odd.units = 0;
    let mut large = group("large");
    large.loss = loss(128.0, 0.0, None);
    let mut none = group("none");
    none.signed = None;
    let odd = report(vec![odd, large, none]);
    for html in [page(&odd), page(&report(Vec::new())), format!("{:?}", lines(&odd))] {
        for raw in ["NaN", "inf", "-0"] {
            let start = html.find("<header>").unwrap_or(0);
            assert!(!html[start..].contains(raw), "{raw}");
        }
    }
    assert!(page(&odd).contains("Groups without values"));
    let many = (0..5000).map(|at| GroupReport {
        loss: loss(2.0, 1.0, Some(0.1)),
        accuracy: right(0.5, 2, 1, 20),
        ..group(&format!("group-{at}"))
    });
    let many = report(many.collect());
    let html = page(&many);
    assert!(html.contains("4,900 groups more") && html.contains("group-99<"));
    assert!(!html.contains("group-100<") && html.len() < 200_000, "{}", html.len());
    assert!(lines(&many).len() < 400);
}

#[test]
fn lines_have_one_line_for_each_group_and_metric() {
    let all = lines(&three());
    let value =
        |label: &str| all.iter().find(|(name, _)| name == label).map(|(_, value)| value.as_str());
    assert_eq!(
        value("  Loss"),
        Some("base 3.214, adapted 3.012, gain +0.202 ± 0.013 nats a token")
    );
    assert_eq!(value("Group"), Some("contracts.held-out, 1,240 tokens in 20 units"));
    assert_eq!(
        value("  Right"),
        Some("base 59.4 %, adapted 71.7 %, gain +12.3 ± 4.8 points (61 gained, 18 lost)")
    );
    assert_eq!(value("Bits revealed"), Some("214 at most"));
    assert!(value("Contact").is_some_and(|contact| contact.ends_with("not checked)")));
}

/// Writes pages to look at into the folder `PAGES`.
#[test]
#[ignore = "writes files"]
fn pages_to_look_at() {
    let folder = PathBuf::from(std::env::var("PAGES").unwrap());
    let long = "the delivered adapter gives other numbers than the contributor signed, in 3 of 3 \
                groups: contracts.held-out, letters, clause-kinds";
    let digits = "0123456789abcdef".repeat(9);
    let longer = format!("module model.layers.17.self_attn.q_proj: {digits}");
    let many = (0..300).map(|at| GroupReport {
        loss: loss(2.0, 1.9 + f64::from(at % 13) / 60.0, Some(0.05)),
        ..group(&format!("a-group-with-a-rather-long-name.part-{at}"))
    });
    for (name, report) in [
        ("claimed", three()),
        ("settled", settled()),
        ("contradicted", contradicted(&[long, &longer])),
        ("payable", with_unscored()),
        ("hostile", hostile()),
        ("many", report(many.collect())),
    ] {
        std::fs::write(folder.join(format!("{name}.html")), page(&report)).unwrap();
    }
}
