//! `zklora bench` on adapters of given shapes: checks that it works, not its speed.

use crate::zk;

#[test]
fn bench_measures_a_profile_in_processes_of_their_own_and_writes_its_section() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let (begin, end) = (zklora_bench::proof_bench::BEGIN, zklora_bench::proof_bench::END);
    std::fs::write(&page, format!("before\n{begin}\nold\n{end}\nafter\n")).unwrap();
    let run = zk!["--json", "bench", "--profile", "module", "--rows", "2", "--markdown", &page]
        .ok()
        .json();
    let measured = &run["profiles"][0];
    assert_eq!((&measured["profile"], &measured["rows"]), (&"module".into(), &2.into()));
    let items: Vec<&str> = measured["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["item"].as_str().unwrap())
        .collect();
    for item in [
        "commit",
        "known_manifest",
        "prove_one_row",
        "verify",
        "process",
        "process_one_row",
        "memcpy_one_core",
    ] {
        assert!(items.contains(&item), "{item}: {items:?}");
    }
    for stage in ["commit", "prove", "process"] {
        assert!(measured["peak_memory"][stage].as_u64().unwrap() > 1 << 20, "{measured}");
    }
    // Met or not, every target of the profile has a figure, and the exit code is 0.
    let targets = run["targets"].as_array().unwrap();
    assert!(
        targets.len() >= 5 && targets.iter().all(|target| target["met"].is_boolean()),
        "{targets:?}"
    );
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.starts_with("before\n") && page.ends_with("after\n") && !page.contains("old"));
    assert!(page.contains("| module | 1 × 768×4×2304 | 12,288 | 2 |"), "{page}");
}

#[test]
fn bench_refuses_pages_without_a_place_and_profiles_that_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    std::fs::write(&page, "no place").unwrap();
    zk!["bench", "--profile", "module", "--markdown", &page].refused(2, "the first one once");
    zk!["bench", "--profile", "gpt-5"].refused(2, "llama-3.3-70b");
    zk!["bench"].refused(2, "--adapter");
}

#[test]
fn bench_measures_every_side_of_a_long_session() {
    let run = zk!["--json", "bench", "--long", "--rows", "100,9000"].ok().json();
    let runs = run["runs"].as_array().unwrap();
    assert_eq!(
        runs.iter().map(|run| run["rows"].as_u64().unwrap()).collect::<Vec<_>>(),
        [100, 9000]
    );
    for run in runs {
        for part in ["record", "prove", "verify", "server", "user"] {
            let peak = run["parts"][part]["peak_memory"].as_u64().unwrap();
            assert!((1 << 20..300_000_000).contains(&peak), "{part}: {run}");
        }
    }
}
