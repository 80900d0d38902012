//! Interoperability with EZKL's own Python API, in both directions.

use super::{
    python::{python, script},
    sessions::{MODULE, export, hashed, inputs, record},
};
use crate::{args, zklora::zklora};

/// A typical run with EZKL's API, on the exported file.
const RUN: &str = r#"
import asyncio, inspect, ezkl
async def done(made):
    return await made if inspect.isawaitable(made) else made
async def run():
    args = ezkl.PyRunArgs()
    args.param_visibility = "fixed"
    args.variables = [("rows", 1)]
    args.logrows, args.input_scale, args.param_scale = 11, 10, 10
    args.decomp_base, args.decomp_legs = 256, 4
    await done(ezkl.gen_settings("model.onnx", "settings.json", py_run_args=args))
    await done(ezkl.compile_circuit("model.onnx", "model.compiled", "settings.json"))
    await done(ezkl.gen_srs("kzg.srs", 11))
    await done(ezkl.setup("model.compiled", "vk.key", "pk.key", srs_path="kzg.srs"))
    await done(ezkl.gen_witness("input.json", "model.compiled", "witness.json"))
    proof = ezkl.prove("witness.json", "model.compiled", "pk.key", "proof.json", srs_path="kzg.srs")
    await done(proof)
asyncio.run(run())
"#;

#[test]
fn a_run_of_ezkls_own_api_on_an_exported_file_verifies() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let onnx = export("16x2x16", folder.path(), false).join(format!("{MODULE}.onnx"));
    std::fs::copy(&onnx, path("model.onnx")).unwrap();
    inputs(16, 1, &path("input.json"));
    script(python, folder.path(), RUN);
    let srs = args!["--srs", path("kzg.srs"), "--insecure-dev-srs", "--ezkl-python", python];
    let compile = args![
        "--json",
        "compile",
        onnx,
        "--out",
        path("artifacts"),
        "--backend",
        "ezkl",
        "--ezkl-run",
        folder.path()
    ];
    let compiled = zklora([&compile[..], &srs].concat()).ok().json();
    let (artifacts, trace) = (path("artifacts"), path("trace.safetensors"));
    record(python, &artifacts, &path("input.json"), &trace).ok();
    let proofs = path("proofs");
    std::fs::create_dir(&proofs).unwrap();
    std::fs::copy(path("proof.json"), proofs.join(format!("{MODULE}.000000.json"))).unwrap();
    let id = compiled["adapter_id"].as_str().unwrap();
    let verify = args![
        "--json",
        "verify",
        "--backend",
        "ezkl",
        "--public",
        artifacts.join("public"),
        "--trace",
        trace,
        "--proof",
        proofs,
        "--adapter-id",
        id,
        "--inputs",
        path("input.json")
    ];
    let verdict = zklora([&verify[..], &srs].concat()).ok().json();
    assert_eq!((&verdict["accepted"], &verdict["weights_bound"]), (&true.into(), &true.into()));
    // A user without circuit and proving key can compute the same pin.
    for file in ["model.compiled", "pk.key"] {
        std::fs::remove_file(path(file)).unwrap();
    }
    let compile = args![
        "--json",
        "compile",
        onnx,
        "--out",
        path("user"),
        "--backend",
        "ezkl",
        "--ezkl-run",
        folder.path()
    ];
    assert_eq!(zklora([&compile[..], &srs].concat()).ok().json()["adapter_id"], id);
    let record = record(python, &path("user"), &path("input.json"), &path("t"));
    record.refused(2, "can verify, but neither record nor prove");
    std::fs::remove_file(path("vk.key")).unwrap();
    let again = args![
        "compile",
        onnx,
        "--out",
        path("b"),
        "--backend",
        "ezkl",
        "--ezkl-run",
        folder.path()
    ];
    zklora([&again[..], &srs].concat()).refused(2, "settings.json and vk.key under these names");
}

#[test]
fn files_that_zklora_writes_verify_with_ezkl_itself() {
    let Some(session) = hashed() else { return };
    let public = session.path("artifacts/public");
    let code = format!(
        "import ezkl\n\
         for row in (0, 1):\n  assert ezkl.verify(f'{proofs}/{MODULE}.{{row:06}}.json', \
         '{public}/{MODULE}/settings.json', '{public}/{MODULE}/vk.key', \
         srs_path='{public}/insecure-dev-12.srs')",
        proofs = session.path("session.pf").display(),
        public = public.display(),
    );
    script(session.python, &session.path("artifacts"), &code);
}
