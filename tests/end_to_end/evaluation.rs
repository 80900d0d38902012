//! Results instead of rows, between two processes: offer, evaluate, deliver, pay, settle.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use zklora_evaluation::{answer::Answer, identity::Identity};
use zklora_runtime::evaluate::{Folder, Memory};

use crate::{
    args,
    inference::{Server, end},
    operator::scrape,
    zk,
    zklora::{Run, copy_folder, fixture, zklora, zklora_command},
};

const BASE: &str = "base/tiny-llama";

/// The integer model and the artifacts of an adapter, made once.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        zk!["export", "--adapter", adapter(), "--out", at("onnx"), "--base", fixture(BASE)].ok();
        zk!["compile", at("onnx"), "--out", at("artifacts")].ok();
        zk!["integer", "compile", "--base", onnx(), "--out", at("integer")].ok();
        folder
    };
    MADE.get_or_init(make).path()
}

fn adapter() -> PathBuf {
    fixture("adapters/llama_qv_r4")
}

fn onnx() -> PathBuf {
    fixture(BASE).join("dynamo.onnx")
}

/// A contributor with its own identity, and a buyer, in one folder.
struct Sale {
    folder: tempfile::TempDir,
}

/// Copies a folder with its folders.
impl Sale {
    fn new(offer: &[&str]) -> Sale {
        let sale = Sale { folder: tempfile::tempdir().unwrap() };
        copy_folder(&made().join("artifacts"), &sale.at("artifacts"));
        sale.offer(offer).ok();
        sale
    }

    /// Makes the offer of the artifacts.
    fn offer(&self, offer: &[&str]) -> Run {
        let sale = self;
        let mut all = args!["offer", "make", "--artifacts", sale.at("artifacts")].to_vec();
        all.extend(args!["--identity", sale.at("identity")]);
        all.extend(sale.model("integer"));
        all.extend(offer.iter().map(OsString::from));
        let run = zklora(all).ok();
        fs::copy(sale.at("artifacts/public/offer.json"), sale.at("offer.json")).unwrap();
        run
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The base model of either party, with an integer model of its own.
    fn model(&self, name: &str) -> Vec<OsString> {
        let own = self.at(name);
        if !own.exists() {
            copy_folder(&made().join("integer"), &own);
        }
        args!["--base", onnx(), "--base-weights", fixture(BASE), "--model", own].to_vec()
    }

    fn serve(&self, listen: &str, more: &[&str]) -> Server {
        let mut command = zklora_command();
        command.args(["--json", "serve", "--listen", listen, "--artifacts"]);
        command.arg(self.at("artifacts")).arg("--identity").arg(self.at("identity"));
        command.args(self.model("integer")).args(more);
        Server::of(command)
    }

    /// Starts `zklora evaluate`.
    fn evaluate(&self, url: &str, units: &str, out: &str, more: &[&str]) -> Child {
        let file = self.at("units.jsonl");
        fs::write(&file, units).unwrap();
        let mut command = zklora_command();
        command.args(["--json", "evaluate", "--contributor", url, "--offer"]);
        command.arg(self.at("offer.json")).arg("--units").arg(file);
        command.arg("--out").arg(self.at(out)).arg("--sent").arg(self.at("sent.jsonl"));
        command.args(self.model("buyer-integer")).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn deliver(&self, request: &str) -> Run {
        zk![
            "--json",
            "deliver",
            "--artifacts",
            self.at("artifacts"),
            "--identity",
            self.at("identity"),
            "--adapter",
            adapter(),
            "--request",
            request,
            "--price",
            "900 EUR",
            "--key-by",
            "2027-01-31",
            "--out",
            self.at("delivery")
        ]
    }

    fn settle(&self, what: &[OsString], model: &str) -> Run {
        let mut all = args!["--json", "settle"].to_vec();
        all.extend(what.iter().cloned());
        all.extend(self.model(model));
        zklora(all)
    }

    /// Bits that were spent, and the number of answers.
    fn spent(&self) -> (u64, usize) {
        let run = zk![
            "--json",
            "offer",
            "show",
            self.at("offer.json"),
            "--identity",
            self.at("identity")
        ];
        let said = run.ok().json();
        (said["bits_spent"].as_u64().unwrap(), said["requests"].as_array().unwrap().len())
    }
}

/// Texts and questions.
fn units(texts: usize) -> String {
    let text = fs::read_to_string(fixture("text").join("kjv_held_out.txt")).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut lines: Vec<String> = (0..texts)
        .map(|at| {
            let start = at * 7 % (words.len() - 30);
            let text = words[start..start + 20 + at % 9].join(" ");
            serde_json::json!({ "group": "texts", "text": text }).to_string()
        })
        .collect();
    lines.push(r#"{"group": "asked", "metrics": ["accuracy", "confusion"]}"#.into());
    for (at, word) in ["light", "earth", "water", "night"].iter().enumerate() {
        let choices = [" was good", " was without form"];
        let prompt = format!("And God saw the {word}, that it");
        let unit = serde_json::json!({
            "group": "asked", "prompt": prompt, "choices": choices, "answer": at % 2,
        });
        lines.push(unit.to_string());
    }
    lines.join("\n")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// What settling would write, without the buyer's secret.
fn payable_forgery(sale: &Sale) -> Vec<u8> {
    let bought = Folder::new(&sale.at("evaluation"), &Memory::default());
    let (offer, request) = (bought.offer().unwrap(), bought.request().unwrap());
    let answer = bought.answer(&offer, &request).unwrap().digest().unwrap();
    let found = serde_json::json!({
        "verdict": "SETTLED", "reasons": [], "key": offer.offer.key, "adapter_id": null,
        "answer": answer, "price": null, "key_by": null, "verdict_by": null, "key_digest": null,
        "units": 1, "evidence": null, "adapter": null,
    });
    format!("{found}\n{}\n", "0".repeat(64)).into_bytes()
}

#[test]
fn an_evaluation_is_offered_delivered_paid_and_settled() {
    let sale = Sale::new(&["--contact", "Example Ltd"]);
    let server = sale.serve("127.0.0.1:0", &["--metrics", "127.0.0.1:0"]);
    let fetched = sale.at("fetched.json");
    zk!["offer", "fetch", "--contributor", server.url.clone(), "--out", fetched.clone()].ok();
    assert_eq!(fs::read(fetched).unwrap(), fs::read(sale.at("offer.json")).unwrap());

    // A public claim over some of the same units.
    let claimed: String =
        units(6).lines().filter(|l| l.contains("texts")).collect::<Vec<_>>().join("\n");
    fs::write(sale.at("claimed.jsonl"), claimed).unwrap();
    let mut claim = args!["claim", "--artifacts", sale.at("artifacts")].to_vec();
    claim.extend(args!["--identity", sale.at("identity"), "--out", sale.at("claim.json")]);
    claim.extend(args!["--units", sale.at("claimed.jsonl")]);
    claim.extend(sale.model("integer"));
    zklora(claim).ok();

    let more = ["--check-base", "--claim"].map(String::from).to_vec();
    let more: Vec<String> = [more, vec![sale.at("claim.json").display().to_string()]].concat();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let evaluated = end(sale.evaluate(&server.url, &units(6), "evaluation", &more)).ok().json();
    let report = &evaluated["report"];
    assert_eq!((text(report, "grade"), report["rows_revealed"].as_u64()), ("claimed", Some(0)));
    assert_eq!(report["groups"].as_array().unwrap().len(), 2);
    assert_eq!(evaluated["base_checked"].as_bool(), Some(true));
    let bits = report["bits"].as_u64().unwrap();

    // Nothing but the signed answer and what the buyer sent.
    let (spent, answers) = sale.spent();
    assert_eq!(answers, 2);
    let metrics = server.said["metrics"].as_str().unwrap();
    let page = scrape(metrics);
    assert_eq!(page["zklora_bits_spent"], spent as f64);
    assert_eq!(page[r#"zklora_client_bits{client="anonymous"}"#], bits as f64);
    let listed = zk![
        "--json",
        "sessions",
        "--artifacts",
        sale.at("artifacts"),
        "--identity",
        sale.at("identity")
    ];
    assert_eq!(listed.ok().json()["bits_told"].as_u64(), Some(spent));

    let delivered = sale.deliver(text(report, "request")).ok().json();
    // A delivery may come with more than it should.
    let forged = payable_forgery(&sale);
    fs::write(sale.at("delivery/settlement.json"), &forged).unwrap();
    let folder = args![sale.at("evaluation")].to_vec();
    let delivery = args!["--delivery", sale.at("delivery")].to_vec();
    let payable = sale.settle(&[folder.clone(), delivery].concat(), "buyer-integer").ok().json();
    assert_ne!(fs::read(sale.at("evaluation/settlement.json")).unwrap(), forged);
    fs::write(sale.at("evaluation/settlement.json"), forged).unwrap();
    let shown = zk!["--json", "report", sale.at("evaluation")].ok().json();
    assert_eq!(text(&shown, "grade"), "claimed", "only the buyer's own tool says settled");
    assert_eq!((text(&payable, "verdict"), text(&payable, "price")), ("PAYABLE", "900 EUR"));

    // Payment is outside. The key arrives as text.
    let mut paid = folder.clone();
    paid.extend(args!["--key", delivered["key_file"].as_str().unwrap()]);
    paid.extend(args!["--adapter-out", sale.at("bought")]);
    let settled = sale.settle(&paid, "buyer-integer").ok().json();
    assert_eq!(text(&settled, "verdict"), "SETTLED", "{settled}");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        assert_eq!(
            fs::read(sale.at("bought").join(file)).unwrap(),
            fs::read(adapter().join(file)).unwrap()
        );
    }
    let page = sale.at("evaluation.html");
    let shown = zk!["--json", "report", sale.at("evaluation"), "--html", page.clone()].ok().json();
    assert_eq!(text(&shown, "grade"), "settled");
    assert!(fs::read_to_string(page).unwrap().contains("</html>"));
}

#[test]
fn a_registered_adapter_is_registered_in_offers_evaluations_and_settlements() {
    const YES: &str = "registered: every weight is an integer of 16 bits";
    let sale = Sale { folder: tempfile::tempdir().unwrap() };
    let onnx = made().join("onnx");
    zk!["compile", onnx, "--out", sale.at("artifacts"), "--registered"].ok();
    assert!(sale.offer(&[]).stdout.contains(YES));
    let show = |file: PathBuf| zk!["--json", "offer", "show", file].ok().json();
    assert_eq!(show(sale.at("artifacts/public/offer.json"))["registered"], true);
    assert!(show(sale.at("offer.json"))["registered"].is_null());
    let server = sale.serve("127.0.0.1:0", &[]);
    assert_eq!(server.said["registered"], true);
    let evaluated = end(sale.evaluate(&server.url, &units(2), "evaluation", &[])).ok().json();
    assert_eq!(evaluated["registered"], true);
    let (own, theirs) = ("evaluation/registration.proof", "artifacts/public/registration.proof");
    assert_eq!(fs::read(sale.at(own)).unwrap(), fs::read(sale.at(theirs)).unwrap());
    drop(server);

    let delivered = sale.deliver(text(&evaluated["report"], "request")).ok().json();
    let mut paid = args![sale.at("evaluation"), "--delivery", sale.at("delivery")].to_vec();
    paid.extend(args!["--key", delivered["key_file"].as_str().unwrap()]);
    let settle = || sale.settle(&paid, "buyer-integer");
    let settled = settle().ok().json();
    assert_eq!(
        (text(&settled, "verdict"), settled["registered"].as_bool()),
        ("SETTLED", Some(true))
    );
    let page = sale.at("evaluation.html");
    zk!["report", sale.at("evaluation"), "--html", &page].ok();
    assert!(fs::read_to_string(page).unwrap().contains(YES));

    // A damaged one contradicts nobody, and is no registration.
    let mut bytes = fs::read(sale.at(own)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(sale.at(own), &bytes).unwrap();
    let found = settle().refused(2, "UNDECIDABLE").json();
    assert!(found["reasons"][0].as_str().unwrap().contains("registration.proof"), "{found}");
    fs::remove_file(sale.at(own)).unwrap();
    assert_eq!(settle().ok().json()["registered"], false);

    // Nor does a contributor offer one.
    fs::write(sale.at(theirs), &bytes).unwrap();
    let mut all = args!["offer", "make", "--artifacts", sale.at("artifacts")].to_vec();
    all.extend(args!["--identity", sale.at("identity")]);
    all.extend(sale.model("integer"));
    zklora(all).refused(1, "registration.proof");
}

/// The proof of a sample, over a network, with a server that is killed after its first part.
#[test]
fn a_sample_is_proven_before_payment_and_its_proof_survives_a_kill() {
    let sale = Sale { folder: tempfile::tempdir().unwrap() };
    zk!["compile", made().join("onnx"), "--out", sale.at("artifacts"), "--registered"].ok();
    sale.offer(&[]);
    let server = sale.serve("127.0.0.1:0", &["--prove", "500"]);
    let prove = ["--prove", "3", "--patience", "300"];
    let mut buyer = sale.evaluate(&server.url, &units(8), "evaluation", &prove);
    let requests = sale.at("identity/lineages/adapter/requests");
    let first_part = || {
        let entries = fs::read_dir(&requests).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join("proof-parts/0.part")).find(|part| part.exists())
    };
    wait_for("a part is proven", || first_part().is_some());
    let address = server.kill();
    buyer.kill().unwrap();
    buyer.wait().unwrap();
    let part = first_part().unwrap();
    let kept = fs::read(&part).unwrap();
    let shown = zk!["--json", "report", sale.at("evaluation")].ok().json();
    assert_eq!(text(&shown, "grade"), "not proven");
    let spent = sale.spent();

    let server = sale.serve(&address, &["--prove", "500"]);
    let proven = end(sale.evaluate(&server.url, &units(8), "evaluation", &prove)).ok().json();
    assert_eq!(text(&proven["report"], "grade"), "proven", "{proven}");
    assert_eq!(proven["report"]["proven"]["units"].as_array().unwrap().len(), 3);
    assert_eq!(sale.spent(), spent, "charged once");
    // The first part was not made again, and nothing secret is left.
    let proof = fs::read(sale.at("evaluation/proof.tar")).unwrap();
    let of_part = &kept[32 + 40 + 8..];
    assert!(proof.windows(of_part.len()).any(|bytes| bytes == of_part));
    assert!(!part.exists() && !part.parent().unwrap().exists());
    // The same sample again is the same proof; another one is refused.
    fs::remove_file(sale.at("evaluation/proof.tar")).unwrap();
    let again = end(sale.evaluate(&server.url, &units(8), "evaluation", &prove)).ok().json();
    assert_eq!(again["report"]["proven"], proven["report"]["proven"]);
    assert_eq!(fs::read(sale.at("evaluation/proof.tar")).unwrap(), proof);
    let other = sale.evaluate(&server.url, &units(8), "evaluation", &["--prove", "4"]);
    end(other).refused(2, "one draw an answer");
    let request = text(&proven["report"], "request");
    let give_up = args!["sessions", "give-up", request, "--artifacts", sale.at("artifacts")];
    zklora([&give_up[..], &args!["--identity", sale.at("identity")]].concat())
        .refused(1, "the proof is finished");

    // Whoever gets the folder verifies the proof again, without the contributor.
    let key = text(&proven["report"], "key").to_string();
    let verify = |signer: &str| {
        let named = args!["--json", "verify-sample", sale.at("evaluation"), "--signer", signer];
        zklora([&named[..], &sale.model("buyer-integer")[..]].concat())
    };
    assert_eq!(verify(&key).ok().json()["proven"], proven["report"]["proven"]);
    verify(&"0".repeat(64)).refused(1, "is signed by");
    let mut changed = proof;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(sale.at("evaluation/proof.tar"), changed).unwrap();
    verify(&key).refused(1, "");

    // Counts of right answers.
    let asked = ["--prove", "1", "--prove-metric", "accuracy"];
    let counted = end(sale.evaluate(&server.url, &units(1), "counted", &asked)).ok().json();
    let values = &counted["report"]["proven"]["values"];
    assert!(values["accuracy"]["gained"].is_u64() && values["error"].is_null(), "{values}");
    drop(server);
    // A server that proves nothing says so before anything is sent.
    let server = sale.serve(&address, &[]);
    let refused = sale.evaluate(&server.url, &units(8), "elsewhere", &["--prove", "3"]);
    end(refused).refused(1, "proves no samples");
}

#[test]
fn another_adapter_is_caught_with_evidence_that_a_third_party_verifies() {
    let sale = Sale::new(&[]);
    let server = sale.serve("127.0.0.1:0", &[]);
    let evaluated = end(sale.evaluate(&server.url, &units(6), "evaluation", &[])).ok().json();
    let request = text(&evaluated["report"], "request").to_string();
    drop(server);
    // The contributor signs numbers of a better adapter.
    let identity = Identity::open(&sale.at("identity")).unwrap();
    let bought = Folder::new(&sale.at("evaluation"), &Memory::default());
    let (offer, full) = (bought.offer().unwrap(), bought.request().unwrap());
    let mut answer: Answer = bought.answer(&offer, &full).unwrap();
    let values = answer.groups[0].metrics.as_mut().unwrap();
    values.log_probability.as_mut().unwrap().adapted += 1;
    let signed = answer.sign(&identity.key).unwrap();
    let own = sale.at("identity/lineages/adapter/requests").join(&request).join("answer.json");
    fs::write(own, &signed).unwrap();
    fs::write(sale.at("evaluation/answer.json"), &signed).unwrap();

    let delivered = sale.deliver(&request).ok().json();
    let mut paid = args![sale.at("evaluation"), "--delivery", sale.at("delivery")].to_vec();
    paid.extend(args!["--key", delivered["key_file"].as_str().unwrap()]);
    let found = sale.settle(&paid, "buyer-integer").refused(1, "CONTRADICTED").json();
    assert!(found["reasons"][0].as_str().unwrap().contains("in 1 of 2 groups: texts"), "{found}");
    // A third party has the evidence, the base model and the contributor's key.
    let evidence = args!["--evidence", found["evidence"].as_str().unwrap()].to_vec();
    let key = identity.key.public().to_string();
    let known = [evidence.clone(), args!["--signer", &key].to_vec()].concat();
    let judged = sale.settle(&known, "third-integer").refused(1, "CONTRADICTED").json();
    assert_eq!(judged["reasons"], found["reasons"]);
    // Another contributor is not contradicted by it.
    let other = [evidence, args!["--signer", "ab".repeat(32)].to_vec()].concat();
    sale.settle(&other, "third-integer").refused(2, "UNDECIDABLE");
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn both_sides_survive_being_killed_and_the_answer_is_the_same() {
    let sale = Sale::new(&[]);
    let many = units(400);
    let server = sale.serve("127.0.0.1:0", &[]);
    let mut buyer = sale.evaluate(&server.url, &many, "evaluation", &["--patience", "300"]);
    // The first scores are on the disk.
    let requests = sale.at("identity/lineages/adapter/requests");
    let scores = || {
        let entries = fs::read_dir(&requests).into_iter().flatten().flatten();
        let sizes = entries.filter_map(|entry| fs::metadata(entry.path().join("scores")).ok());
        sizes.map(|file| file.len()).max().unwrap_or(0)
    };
    wait_for("there are scores", || scores() > 100);
    let address = server.kill();
    let kept = scores();
    assert!(kept > 100);
    // The buyer waits for the server. It is killed, too.
    buyer.kill().unwrap();
    buyer.wait().unwrap();
    // A copy of the contributor, as it was: it answers without the scores that the other has.
    copy_folder(&sale.at("identity"), &sale.at("restored"));
    let charged = sale.spent();
    let server = sale.serve(&address, &[]);
    let first = end(sale.evaluate(&server.url, &many, "evaluation", &[])).ok().json();
    assert_eq!(sale.spent(), charged, "charged once");
    assert_eq!(sale.spent().1, 1);
    drop(server);
    let answer = fs::read(sale.at("evaluation/answer.json")).unwrap();
    // The restored backup gives the same bytes to the same request.
    fs::remove_dir_all(sale.at("identity")).unwrap();
    fs::rename(sale.at("restored"), sale.at("identity")).unwrap();
    fs::remove_file(sale.at("evaluation/answer.json")).unwrap();
    let server = sale.serve(&address, &[]);
    let second = end(sale.evaluate(&server.url, &many, "evaluation", &[])).ok().json();
    assert_eq!(second["report"]["answer"], first["report"]["answer"]);
    assert_eq!(fs::read(sale.at("evaluation/answer.json")).unwrap(), answer);
}

#[test]
fn what_is_refused_is_refused_before_units_are_sent_or_bits_are_spent() {
    let sale = Sale::new(&["--bits", "100", "--bits-per-client", "60"]);
    let server = sale.serve("127.0.0.1:0", &[]);
    let evaluate = |out: &str, more: &[&str]| end(sale.evaluate(&server.url, &units(3), out, more));
    evaluate("single", &["--per-unit"]).refused(1, "per_unit");
    // 60 bits: 17 and 16 for the texts, more for questions and the list.
    evaluate("dear", &["--list-unscored", "16"]).refused(1, "60 are left");
    // The offer was seen, and nothing was sent.
    let memory = fs::read_to_string(sale.at("sent.jsonl")).unwrap();
    assert!(!memory.contains("request"), "{memory}");
    assert_eq!(sale.spent(), (0, 0));
    // Another offer than the pinned one.
    let other = Sale::new(&[]);
    fs::copy(other.at("offer.json"), sale.at("offer.json")).unwrap();
    evaluate("other", &[]).refused(1, "offers something else");
    // Rows are not served.
    let infer = zk![
        "infer",
        "--base",
        onnx(),
        "--base-weights",
        fixture(BASE),
        "--contributor",
        server.pinned(),
        "--text",
        "And God said",
        "--context",
        "8",
        "--out",
        sale.at("rows"),
        "--patience",
        "0"
    ];
    infer.refused(2, "serves no rows");
}
