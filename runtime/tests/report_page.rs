//! The page of a report: it says what the report says, no text of the report becomes markup, and no
//! coordinate is not a number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use zklora_runtime::{
    effect_report::{
        ContributorReport, EffectReport, FORMAT, Generated, Latency, Losses, PointReport, VERSION,
        Verdict, WindowLoss,
    },
    report_page::page,
};

fn contributor(verdict: Verdict, pinned: bool) -> ContributorReport {
    ContributorReport {
        url: "https://lora.example.org:7443".into(),
        adapter_id: "ab".repeat(32),
        pinned,
        session_id: "cd".repeat(32),
        modules: 60,
        modules_called: 58,
        rows: 481_320,
        rows_reused: 12,
        calls: 1920,
        reconnections: 3,
        bytes_sent: 5 << 20,
        bytes_received: 7 << 30,
        latency: Some(Latency { p50: 11.8, p90: 18.2, p99: 41.7, max: 2103.0 }),
        proof_seconds: Some(1.92),
        verify_seconds: Some(0.41),
        proof_bytes: Some(1424),
        verdict,
        why: (verdict != Verdict::Accepted).then(|| "the rows are others".into()),
        left_out: Vec::new(),
    }
}

/// Thirty layers, two kinds of modules, one module beside them.
fn report() -> EffectReport {
    let module = |name: String, relative: Option<f64>| PointReport {
        module: name,
        rows: 64,
        base_rms: 1.25,
        delta_rms: 0.05,
        relative,
        contributors: vec![0, 1],
    };
    let mut points: Vec<PointReport> = (0..60)
        .map(|i| {
            let kind = ["q_proj", "v_proj"][i % 2];
            module(
                format!("model.layers.{}.self_attn.{kind}", i / 2),
                Some(0.01 + 0.001 * i as f64),
            )
        })
        .collect();
    points.push(module("lm_head".into(), None));
    let windows = (0..20)
        .map(|i| WindowLoss { tokens: 255, base: 3.0 + 0.1 * f64::from(i % 3), adapted: 2.9 })
        .collect();
    EffectReport {
        format: FORMAT.into(),
        version: VERSION,
        base_model: "smollm2.onnx".into(),
        mode: "add-delta".into(),
        loss: Some(Losses {
            base: 3.1,
            adapted: 2.9,
            base_perplexity: 3.1f64.exp(),
            adapted_perplexity: 2.9f64.exp(),
            tokens: 5100,
            windows,
        }),
        generated: Some(Generated {
            prompt: "Once".into(),
            adapted: "upon a time".into(),
            base: Some("more".into()),
            tokens: 3,
        }),
        contributors: vec![
            contributor(Verdict::Accepted, true),
            contributor(Verdict::Rejected, true),
        ],
        points,
        forward_seconds: 12.5,
        forward_passes: 20,
    }
}

/// Every number of every attribute that places something, and of the points of every line.
fn coordinates(page: &str) -> Vec<f64> {
    let names = [
        " x=", " y=", " x1=", " x2=", " y1=", " y2=", " cx=", " cy=", " width=", " height=",
        " rx=", " points=",
    ];
    let body = page.split_once("<body>").unwrap().1;
    let mut numbers = Vec::new();
    for name in names {
        for rest in body.split(&format!("{name}\"")).skip(1) {
            let value = rest.split_once('"').unwrap().0;
            numbers.extend(value.split([' ', ',']).map(|number| number.parse::<f64>().unwrap()));
        }
    }
    numbers
}

/// The elements of the page, by the beginning of their tags, with attributes.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()).collect()
}

#[test]
fn the_page_says_what_the_report_says() {
    let page = page(&report());
    for expected in [
        "<title>zklora report: smollm2.onnx</title>",
        "1 of 2 sessions is proven",
        "✓ ACCEPTED",
        "✕ REJECTED",
        "the rows are others",
        "22.20",   // perplexity of the base model
        "−18.1 %", // its change
        "better in 20 of 20",
        "<bdi>q_proj</bdi>",
        "<bdi>v_proj</bdi>",
        "other modules",
        "model.layers.29.self_attn.v_proj: 6.90 %",
        "All 61 modules as a table",
        "481,320",
        "5.0 MiB",
        "7.0 GiB",
        "12 ms",
        "2.1 s",
        "upon a time",
        "aria-label=\"Loss of each of 20 windows",
        "lang=\"en\"",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert_eq!(page.matches("class=\"bar\"").count(), 60);
    let verdict = page.find("id=\"verdict\"").unwrap();
    assert!(
        ["id=\"loss\"", "id=\"modules\"", "id=\"cost\"", "id=\"text\""]
            .iter()
            .all(|id| page.find(id).unwrap() > verdict)
    );
    assert!(coordinates(&page).iter().all(|number| number.is_finite()));
}

#[test]
fn an_accepted_session_without_a_pin_is_not_called_proven() {
    let mut report = report();
    report.contributors = vec![contributor(Verdict::Accepted, false)];
    let page = page(&report);
    assert!(page.contains("! ACCEPTED, NOT PINNED") && page.contains("The session is not proven"));
    assert!(!page.contains("✓ ACCEPTED"));
}

#[test]
fn text_of_the_report_never_becomes_markup() {
    let hostile = "</title></style><script>alert('1')</script><img src=x onerror=\"a\">&lt;\u{202e}\u{200f}\u{2066}\u{1b}[2K\u{0}";
    let mut changed = report();
    changed.base_model = hostile.into();
    changed.mode = hostile.into();
    changed.contributors[0].url = hostile.into();
    changed.contributors[0].adapter_id = hostile.into();
    changed.contributors[1].session_id = hostile.into();
    changed.points[0].module = hostile.into();
    changed.points[1].module = hostile.into();
    changed.points[2].module = format!("{hostile}.1.{hostile}");
    changed.points[3].module = format!("{hostile}.2.{hostile}");
    changed.contributors[1].why = Some(hostile.into());
    changed.generated = Some(Generated {
        prompt: hostile.into(),
        adapted: hostile.into(),
        base: Some(hostile.into()),
        tokens: 1,
    });
    let page = page(&changed);
    assert!(
        page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;")
            && page.contains("&amp;lt;")
    );
    assert!(page.contains("\\u{202e}\\u{200f}\\u{2066}\\u{1b}[2K\\u{0}"));
    assert!(!page.contains(['\u{202e}', '\u{200f}', '\u{2066}', '\u{1b}', '\u{0}']));
    let lower = page.to_lowercase();
    assert!(!lower.contains("<script") && !lower.contains("<img"));
    for tag in tags(&page) {
        let tag = tag.to_lowercase();
        // Attributes that come from the report are labels of pictures: their quotes are escaped, so
        // every tag has an even number.
        assert!(tag.matches('"').count() % 2 == 0, "{tag}");
        assert!(!tag.split('"').step_by(2).any(|outside| outside.contains(" on")), "{tag}");
    }
}

#[test]
fn the_page_loads_nothing() {
    let mut report = report();
    report.contributors[0].url = "http://tracker.example/x.js".into();
    report.base_model = "https://tracker.example/model".into();
    let page = page(&report);
    assert!(page.contains("default-src 'none'"));
    let lower = page.to_lowercase();
    for loading in
        ["src=", "href", "url(", "@import", "<link", "<iframe", "<object", "<a ", "xmlns"]
    {
        assert!(!lower.contains(loading), "{loading}");
    }
    assert!(tags(&page).iter().all(|tag| !tag.contains("://")), "a URL stands in an attribute");
}

#[test]
fn files_of_another_format_or_version_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    report().write(&path).unwrap();
    assert_eq!(EffectReport::read(&path).unwrap(), report());
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, why) in [
        ("\"version\": 1", "\"version\": 2", "version 2: this build reads"),
        ("zklora-report", "other-report", "`other-report`"),
        ("\"base_model\"", "\"model\"", "unknown field"),
        ("12.5", "1e999", "out of range"),
    ] {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = EffectReport::read(&path).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn an_empty_report_has_a_page() {
    let empty = EffectReport {
        loss: None,
        generated: None,
        contributors: vec![],
        points: vec![],
        ..report()
    };
    let page = page(&empty);
    assert!(page.contains("nothing to prove") && page.contains("No module was called"));
}

/// Numbers as hostile as a report can hold, and beyond.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        0.0..1.0f64,
        Just(0.0),
        Just(-0.0),
        Just(f64::MAX),
        Just(f64::MIN),
        Just(5e-324),
        Just(f64::NAN),
        Just(f64::INFINITY),
    ]
}

proptest! {
    #[test]
    fn no_coordinate_is_not_a_number(
        numbers in proptest::collection::vec((any_number(), any_number()), 1..400), same in any::<bool>(),
    ) {
        let mut report = report();
        let first = numbers[0];
        let numbers: Vec<(f64, f64)> = numbers.into_iter().map(|n| if same { first } else { n }).collect();
        let windows = numbers.iter().map(|(base, adapted)| WindowLoss { tokens: usize::MAX, base: *base, adapted: *adapted });
        let loss = report.loss.as_mut().unwrap();
        loss.windows = windows.collect();
        (loss.base_perplexity, loss.adapted_perplexity, loss.base) = (first.0, first.1, first.1);
        for (point, (a, b)) in report.points.iter_mut().zip(&numbers) {
            (point.base_rms, point.delta_rms, point.relative) = (*a, *b, Some(*a));
            point.contributors = vec![usize::MAX];
        }
        report.forward_seconds = first.0;
        report.contributors[0].latency = Some(Latency { p50: first.0, p90: first.1, p99: 0.0, max: -1.0 });
        let page = page(&report);
        prop_assert!(coordinates(&page).iter().all(|number| number.is_finite() && number.abs() < 2000.0));
        prop_assert!(!page.contains("NaN") && !page.contains("inf "));
    }
}
