//! A contributor and a buyer with a small Llama, in one process.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use zklora_artifacts::{folder::Artifacts, secret_files, weights_file};
use zklora_evaluation::{
    Error as Statement,
    answer::Answer,
    answering::{Answering, Known},
    archive,
    delivery::{Delivery, DeliveryKey, DeliveryTerms, encrypt},
    digest::Digest,
    envelope::{Envelope, Kind},
    evidence::SETTLEMENT,
    identity::{DEFAULT_LINEAGE, Identity},
    offer::{Bits, Limits, SignedOffer, Terms},
    proving::{KnownProof, ProofLimits},
    request::FullRequest,
    sample::ProofRequest,
    unit_scores::{Scorer, UnitScores, side},
};
use zklora_integer::{program::Program, score::score, unit::Unit};
use zklora_models::Adapter;
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};
use zklora_runtime::{
    Error,
    compile::{self, Options},
    evaluate::{
        Bought, BuyOptions, Contributor, ContributorOptions, Memory, OfferOptions, OfferedNow,
        SettleOptions, Settlement, Source, Step, TermsOptions, answering, buy, make_offer, settle,
        settle_evidence,
    },
    integer::{BaseModel, BoundModel},
};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// What all tests share: the model and adapters, made once.
pub struct World {
    folder: tempfile::TempDir,
    pub srs: Srs,
    keys: KeyStore,
    adapters: Mutex<HashMap<String, PathBuf>>,
}

/// The adapter that is offered.
pub const ADAPTER: &str = "llama_qv_r4";
/// Another adapter of the same shapes.
pub const OTHER: &str = "other";
/// An adapter that leaves the integer model's range on all tokens.
pub const WILD: &str = "wild";

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| World {
        folder: tempfile::tempdir().unwrap(),
        srs: Srs::ethereum().unwrap(),
        keys: KeyStore::default(),
        adapters: Mutex::default(),
    })
}

impl World {
    /// The buyer's own model.
    pub fn terms(&self) -> TermsOptions {
        TermsOptions {
            model: self.folder.path().join("model"),
            base: base(),
            tokenizer: None,
            policy: SrsPolicy::TrustedOnly,
        }
    }

    /// The PEFT folder of an adapter.
    pub fn peft(&self, name: &str) -> PathBuf {
        let (own, folder) = (fixture("adapters").join(ADAPTER), self.folder.path().join(name));
        let scale = match name {
            OTHER => "9",
            WILD => "80000000",
            _ => return fixture("adapters").join(name),
        };
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            let config = fs::read_to_string(own.join("adapter_config.json")).unwrap();
            let changed = config.replace("\"lora_alpha\": 8", &format!("\"lora_alpha\": {scale}"));
            assert_ne!(changed, config);
            fs::write(folder.join("adapter_config.json"), changed).unwrap();
            let file = "adapter_model.safetensors";
            let mut weights = fs::read(own.join(file)).unwrap();
            if name == OTHER {
                // The sign of the last number.
                *weights.last_mut().unwrap() ^= 0x80;
            }
            fs::write(folder.join(file), weights).unwrap();
        }
        folder
    }

    /// The folder that export writes for an adapter.
    pub fn exported(&self, name: &str) -> PathBuf {
        self.artifacts(name);
        self.folder.path().join(format!("{name}.onnx"))
    }

    /// The artifacts of an adapter. They are compiled once.
    pub fn artifacts(&self, name: &str) -> Artifacts {
        let folder = {
            let mut adapters = self.adapters.lock().unwrap();
            let folder = adapters.entry(name.into()).or_insert_with(|| self.compile(name));
            folder.clone()
        };
        Artifacts::load(&folder, &self.srs, &self.keys).unwrap()
    }

    fn compile(&self, name: &str) -> PathBuf {
        let (onnx, out) = (
            self.folder.path().join(format!("{name}.onnx")),
            self.folder.path().join(format!("{name}.artifacts")),
        );
        let adapter = Adapter::load_with_base(&self.peft(name), None).unwrap();
        fs::create_dir(&onnx).unwrap();
        zklora_models::export::export(&adapter, &[], &onnx).unwrap();
        let paths = [onnx];
        let (seed_file, calibrate) = (None, None);
        let options =
            Options { paths: &paths, out: &out, seed_file, calibrate, registered: true, k: None };
        compile::compile(&options, &self.srs, &self.keys).unwrap();
        out
    }

    /// The integer model with an adapter.
    pub fn programs(&self, name: &str) -> Programs {
        let artifacts = self.artifacts(name);
        let named = Some(("the adapter", &artifacts.manifest));
        let TermsOptions { model, base, .. } = self.terms();
        let bound = BoundModel::load_or_make(&model, &base, None, named).unwrap();
        let adapted = bound.program(&artifacts.manifest, &artifacts.weights).unwrap();
        Programs { base: bound.base_program().unwrap(), adapted }
    }
}

fn base() -> BaseModel {
    BaseModel {
        base: fixture("base/tiny-llama/dynamo.onnx"),
        base_weights: None,
        allow_other_base: false,
        maps: Vec::new(),
        digest: None,
    }
}

/// The base model, and the model with an adapter.
pub struct Programs {
    base: Program,
    adapted: Program,
}

impl Scorer for Programs {
    fn refuses(&self, _: &Unit) -> Option<String> {
        None
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Statement> {
        let of = |program| -> Result<Vec<_>, Statement> { Ok(score(program, units)?.0) };
        let (base, adapted) = (of(&self.base)?, of(&self.adapted)?);
        let one = |(base, adapted)| {
            let base = side(base);
            UnitScores { adapted: base.as_ref().and_then(|_| side(adapted)), base }
        };
        Ok(base.iter().zip(&adapted).map(one).collect())
    }
}

/// Scores that a contributor changes as it likes.
pub struct Changed<F> {
    pub programs: Programs,
    pub change: F,
}

impl<F: Fn(&mut [UnitScores]) + Send + Sync> Scorer for Changed<F> {
    fn refuses(&self, _: &Unit) -> Option<String> {
        None
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Statement> {
        let mut scores = self.programs.score(units)?;
        (self.change)(&mut scores);
        Ok(scores)
    }
}

/// A contributor that offers an adapter.
pub struct Shop {
    folder: tempfile::TempDir,
    pub adapter: &'static str,
    pub offer: SignedOffer,
}

impl Shop {
    pub fn new() -> Shop {
        Shop::of(ADAPTER)
    }

    pub fn of(adapter: &'static str) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let TermsOptions { model, base, tokenizer, .. } = world().terms();
        let options = OfferOptions {
            identity: folder.path().join("identity"),
            lineage: None,
            model,
            base,
            tokenizer,
            budget: Bits { bits: 1 << 20, bits_per_client: 1 << 20 },
            limits: Limits { tokens: 5000, unit_tokens: 0, units: 100 },
            per_unit: true,
            contact: "somebody".into(),
        };
        // In a copy: tests offer the same artifacts under many keys.
        let artifacts = world().artifacts(adapter);
        let copy = folder.path().join("artifacts");
        fs::create_dir_all(copy.join("public")).unwrap();
        let Artifacts { manifest, weights, mask_key, .. } = artifacts;
        let artifacts = Artifacts::new(&copy, manifest, weights, mask_key);
        let offer = make_offer(artifacts, &world().srs, &options).unwrap().offer;
        Shop { folder, adapter, offer }
    }

    /// The same contributor with other terms of its offer.
    pub fn with(mut self, change: impl FnOnce(&mut Terms)) -> Shop {
        let of = self.offer.offer.clone();
        let mut terms = Terms {
            adapter_id: of.adapter_id,
            base_model: of.base_model,
            budget: of.budget,
            contact: of.contact,
            integer_model: of.integer_model,
            layers: of.layers,
            limits: of.limits,
            per_unit: of.per_unit,
            rotations: of.rotations,
            rules: of.rules,
            score_bits: of.score_bits,
        };
        change(&mut terms);
        let adapter = terms.adapter_id;
        self.offer = SignedOffer::sign(&self.identity().key, terms).unwrap();
        self.identity().lineage(DEFAULT_LINEAGE, &adapter).unwrap();
        self
    }

    pub fn identity(&self) -> Identity {
        Identity::open(&self.folder.path().join("identity")).unwrap()
    }

    pub fn identity_folder(&self) -> PathBuf {
        self.folder.path().join("identity")
    }

    /// The artifacts, with this offer in their public folder.
    pub fn artifacts(&self) -> Artifacts {
        let Artifacts { manifest, weights, mask_key, .. } = world().artifacts(self.adapter);
        Artifacts::new(&self.folder.path().join("artifacts"), manifest, weights, mask_key)
    }

    pub fn manifest(&self) -> Vec<u8> {
        let folder = world().artifacts(self.adapter).folder;
        fs::read(folder.join("public/manifest.json")).unwrap()
    }

    pub fn server(&self, scorer: impl Scorer + 'static) -> Server {
        let answering = Answering::new(self.offer.clone(), self.identity(), Arc::new(scorer));
        let lie = Box::new(|_: &mut serde_json::Value| {});
        Server {
            answering: answering.unwrap(),
            manifest: self.manifest(),
            lie,
            registration: None,
            change_proof: Box::new(|proof| proof),
            identity: self.identity(),
        }
    }

    /// A server that proves samples of up to so many tokens.
    pub fn proving(&self, tokens: u64) -> Server {
        self.proving_within(ProofLimits { tokens, leaves: 1 << 27, samples: 100 })
    }

    pub fn proving_within(&self, limits: ProofLimits) -> Server {
        let registration =
            fs::read(world().artifacts(self.adapter).folder.join("public/registration.proof"));
        let registration = registration.unwrap();
        let artifacts = self.artifacts();
        fs::write(artifacts.folder.join("public/registration.proof"), &registration).unwrap();
        let TermsOptions { model, base, tokenizer, .. } = world().terms();
        let options = ContributorOptions {
            identity: self.identity_folder(),
            model,
            base,
            tokenizer,
            prove: Some(limits),
        };
        let answering = answering(artifacts, &world().srs, &options).unwrap();
        let registration = Some(registration);
        Server { answering, registration, ..self.honest() }
    }

    /// Signs whatever it is told to.
    pub fn sign_answer(&self, answer: &serde_json::Value) -> Vec<u8> {
        sign_answer(&self.identity(), answer)
    }

    pub fn honest(&self) -> Server {
        self.server(world().programs(self.adapter))
    }
}

fn sign_answer(identity: &Identity, answer: &serde_json::Value) -> Vec<u8> {
    let payload = serde_json::to_vec(answer).unwrap();
    Envelope::sign(&identity.key, Kind::Answer, &payload).to_bytes().unwrap()
}

/// A contributor in the same process. It may change what it signs.
pub struct Server {
    pub answering: Answering,
    manifest: Vec<u8>,
    pub lie: Box<dyn Fn(&mut serde_json::Value)>,
    pub registration: Option<Vec<u8>>,
    pub change_proof: Box<dyn Fn(Vec<u8>) -> Vec<u8>>,
    identity: Identity,
}

impl Contributor for Server {
    fn offered(&mut self) -> Result<OfferedNow, Error> {
        let bits_left = self.answering.left("buyer")?;
        let offer = self.answering.offer.bytes.clone();
        let proofs = self.answering.proofs_left("buyer")?;
        let manifest = self.manifest.clone();
        let registration = self.registration.clone();
        Ok(OfferedNow { offer, manifest, registration, bits_left, proofs })
    }

    fn evaluate(
        &mut self,
        request: &FullRequest,
        _: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error> {
        self.answering.check_request(&request.bytes)?;
        let digest = request.digest;
        let full = FullRequest::parse(&request.bytes, request.unit_bytes.clone())?;
        let answer = match self.answering.known(&digest, "buyer")? {
            Known::Answered(answer) => answer,
            _ => {
                self.answering.accept(&full, "buyer")?;
                self.answering.answer(&digest, &mut |_, _| true)?.unwrap()
            }
        };
        let kind = Kind::Answer;
        let payload =
            Envelope::parse(&answer, kind)?.open(kind, &self.answering.offer.offer.key)?;
        let mut changed: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        (self.lie)(&mut changed);
        Ok(sign_answer(&self.identity, &changed))
    }

    fn prove(&mut self, request: &ProofRequest, _: &mut dyn FnMut(Step)) -> Result<Vec<u8>, Error> {
        self.answering.accept_proof(request, "buyer")?;
        let proof = match self.answering.known_proof(request, "buyer")? {
            KnownProof::Proven(proof) => proof,
            _ => self.answering.prove(&request.request, &mut |_, _| true)?.unwrap(),
        };
        Ok((self.change_proof)(proof))
    }
}

/// Units of text and of questions.
pub const LINES: &str = concat!(
    r#"{"group": "text", "metrics": ["log_probability", "error", "greedy"]}"#,
    "\n",
    r#"{"group": "text", "text": "let x = 5;"}"#,
    "\n",
    r#"{"group": "text", "text": "In the beginning God created the heaven"}"#,
    "\n",
    r#"{"group": "text", "prompt": "let x =", "completion": " 5;"}"#,
    "\n",
    r#"{"group": "questions", "metrics": ["accuracy", "accuracy_normalised", "confusion"]}"#,
    "\n",
    r#"{"group": "questions", "prompt": "let ", "choices": ["x = 5;", "Q~"], "answer": 0}"#,
    "\n",
    r#"{"group": "questions", "prompt": "And God said, ", "choices": ["Let", "x1"], "answer": 0}"#,
    "\n",
);

/// A buyer's folder, and what the buyer was given.
pub struct Purchase {
    pub folder: tempfile::TempDir,
    pub offer: SignedOffer,
}

impl Purchase {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("sale").join(name)
    }

    pub fn memory(&self) -> Memory {
        Memory { sent: None, secret: Some(self.folder.path().join("state/secret")) }
    }

    pub fn options(&self, lines: &str) -> BuyOptions {
        let offer = self.folder.path().join("pinned-offer.json");
        fs::write(&offer, &self.offer.bytes).unwrap();
        BuyOptions {
            offer,
            terms: world().terms(),
            source: Source::Lines(lines.into()),
            per_unit: false,
            list_unscored: 2,
            check_base: false,
            prove: None,
            claims: Vec::new(),
            memory: self.memory(),
            out: self.path(""),
        }
    }

    pub fn start(shop: &Shop) -> Purchase {
        Purchase { folder: tempfile::tempdir().unwrap(), offer: shop.offer.clone() }
    }

    pub fn buy_with(&self, server: &mut Server, options: &BuyOptions) -> Result<Bought, Error> {
        buy(server, &world().srs, options, &mut |_| {})
    }

    /// A bought answer of this server.
    pub fn of(shop: &Shop, mut server: Server) -> Purchase {
        let purchase = Purchase::start(shop);
        purchase.buy_with(&mut server, &purchase.options(LINES)).unwrap();
        purchase
    }

    pub fn request(&self) -> FullRequest {
        let read = |name| fs::read(self.path(name)).unwrap();
        FullRequest::parse(&read("request.json"), read("units.bin")).unwrap()
    }

    pub fn answer(&self) -> Answer {
        let bytes = fs::read(self.path("answer.json")).unwrap();
        Answer::read(&bytes, &self.offer, &self.request()).unwrap()
    }

    /// Puts a delivery of these files into the folder, whatever they are.
    pub fn receive(&self, shop: &Shop, files: &[(String, Vec<u8>)]) {
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        let key = DeliveryKey::generate();
        let contents = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
        let ciphertext = encrypt(&key, contents).unwrap();
        self.receive_ciphertext(shop, &key, &ciphertext, names, |_| {});
    }

    /// The same, for any ciphertext and statement.
    pub fn receive_ciphertext(
        &self,
        shop: &Shop,
        key: &DeliveryKey,
        ciphertext: &[u8],
        names: Vec<String>,
        change: impl FnOnce(&mut serde_json::Value),
    ) {
        let terms = DeliveryTerms {
            answer: self.answer().digest().unwrap(),
            key_by: "2027-01-01".into(),
            price: "100".into(),
            verdict_by: "2027-01-08".into(),
        };
        let signing = shop.identity().key;
        let of = (ciphertext, names);
        let signed = Delivery::sign(&signing, &shop.offer, terms, key, of).unwrap();
        let kind = Kind::Delivery;
        let payload = Envelope::parse(&signed, kind).unwrap().open(kind, &signing.public());
        let mut statement = serde_json::from_slice(&payload.unwrap()).unwrap();
        change(&mut statement);
        let payload = serde_json::to_vec(&statement).unwrap();
        let signed = Envelope::sign(&signing, kind, &payload).to_bytes().unwrap();
        fs::write(self.path("delivery.json"), signed).unwrap();
        fs::write(self.path("delivery.age"), ciphertext).unwrap();
        fs::write(self.path("key"), key.expose()).unwrap();
    }

    pub fn settle_options(&self) -> SettleOptions {
        SettleOptions {
            terms: world().terms(),
            delivery: None,
            key: Some(self.path("key")),
            adapter_out: None,
            signer: Some(self.offer.offer.key),
            memory: self.memory(),
        }
    }

    pub fn settle(&self) -> Settlement {
        settle(&self.path(""), &world().srs, &self.settle_options(), &mut |_, _| {}).unwrap()
    }

    /// The files of the settlement.
    pub fn files(&self) -> [Vec<u8>; 8] {
        SETTLEMENT.map(|name| fs::read(self.path(name)).unwrap())
    }
}

/// The files of an honest delivery.
pub fn delivered(adapter: &str) -> Vec<(String, Vec<u8>)> {
    let artifacts = world().artifacts(adapter);
    let opening = secret_files::opening_bytes(&artifacts.manifest.id(), &artifacts.mask_key);
    let peft = |name: &str| {
        let bytes = fs::read(world().peft(adapter).join(name)).unwrap();
        (format!("adapter/{name}"), bytes)
    };
    vec![
        ("opening".into(), opening.unwrap().to_vec()),
        ("weights.bin".into(), weights_file::to_bytes(&artifacts.weights).to_vec()),
        peft("adapter_config.json"),
        peft("adapter_model.safetensors"),
    ]
}

/// Evidence, as a third party judges it: in an empty folder, with its own model.
pub fn judge(files: &[Vec<u8>; 8], signer: Digest) -> Settlement {
    let mut bytes = Vec::new();
    let contents = files.iter().map(Vec::as_slice);
    archive::write(SETTLEMENT.into_iter().zip(contents), &mut bytes).unwrap();
    judge_file(&bytes, signer)
}

pub fn judge_file(evidence: &[u8], signer: Digest) -> Settlement {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join("evidence.tar");
    fs::write(&path, evidence).unwrap();
    let options = SettleOptions {
        terms: world().terms(),
        delivery: None,
        key: None,
        adapter_out: None,
        signer: Some(signer),
        memory: Memory::default(),
    };
    settle_evidence(&path, &world().srs, &options, &mut |_, _| {}).unwrap()
}
