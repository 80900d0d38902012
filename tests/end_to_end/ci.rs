//! Regenerating artifacts: `compile --locked`, and the pipelines of docs/ci.md, whose shell steps
//! are run unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    zk,
    zklora::{ADAPTER, fixture, session},
};

fn locked(out: &Path) -> crate::zklora::Run {
    zk!["compile", session().path("onnx"), "--out", out, "--locked"]
}

#[test]
fn locked_accepts_what_the_inputs_give_whatever_the_number_of_threads() {
    let copy = session().copy_of_artifacts();
    assert!(locked(copy.path()).ok().stdout.contains("the folder is what its inputs give"));
    let one_thread = Command::new(env!("CARGO_BIN_EXE_zklora"))
        .args([
            "compile".as_ref(),
            session().path("onnx").as_os_str(),
            "--out".as_ref(),
            copy.path().as_os_str(),
            "--locked".as_ref(),
        ])
        .env("RAYON_NUM_THREADS", "1")
        .status()
        .unwrap();
    assert!(one_thread.success());
}

#[test]
fn locked_names_every_file_that_differs_or_is_missing_and_writes_nothing() {
    let copy = session().copy_of_artifacts();
    let manifest = copy.path().join("public/manifest.json");
    fs::write(&manifest, "{}").unwrap();
    fs::remove_file(copy.path().join("public/circuit.vk")).unwrap();
    let run = locked(copy.path()).refused(1, "REFUSED");
    for (file, state) in [
        ("public/manifest.json", "DIFFERENT"),
        ("public/circuit.vk", "MISSING"),
        ("public/settings.json", "same"),
    ] {
        assert!(
            run.stdout.lines().any(|line| line.starts_with(file) && line.ends_with(state)),
            "{file}: {}",
            run.stdout
        );
    }
    assert_eq!(fs::read(&manifest).unwrap(), b"{}");
    assert!(!copy.path().join("public/circuit.vk").exists());
}

#[test]
fn a_damaged_lock_is_a_difference() {
    let copy = session().copy_of_artifacts();
    fs::write(copy.path().join("public/zklora.lock"), "{").unwrap();
    let run = locked(copy.path()).refused(1, "REFUSED");
    assert!(
        run.stdout
            .lines()
            .any(|line| line.starts_with("public/zklora.lock") && line.ends_with("DIFFERENT"))
    );
}

#[test]
fn locked_names_the_module_whose_onnx_file_changed() {
    let copy = session().copy_of_artifacts();
    let onnx = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(session().path("onnx")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), onnx.path().join(entry.file_name())).unwrap();
    }
    let module = "model.layers.0.self_attn.v_proj";
    fs::copy(
        onnx.path().join("model.layers.1.self_attn.v_proj.onnx"),
        onnx.path().join(format!("{module}.onnx")),
    )
    .unwrap();
    let run = zk!["compile", onnx.path(), "--out", copy.path(), "--locked"].refused(1, "REFUSED");
    assert!(run.stdout.contains(&format!("input {module}")), "{}", run.stdout);
}

#[test]
fn locked_sees_a_change_of_external_data_that_no_output_shows() {
    let folder = tempfile::tempdir().unwrap();
    let case = fixture("onnx/external_data_dynamo");
    for entry in fs::read_dir(&case).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let data = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "data"))
        .unwrap();
    let (onnx, out) = (folder.path().join("model.onnx"), folder.path().join("out"));
    zk!["compile", onnx, "--out", out].ok();
    zk!["compile", onnx, "--out", out, "--locked"].ok();
    let mut bytes = fs::read(&data).unwrap();
    // The lowest bit of a float's fraction: far below a quantisation step.
    bytes[400] ^= 1;
    fs::write(&data, bytes).unwrap();
    let run = zk!["compile", onnx, "--out", out, "--locked"].refused(1, "REFUSED");
    assert!(
        run.stdout
            .lines()
            .any(|line| line.starts_with("input model") && line.ends_with("DIFFERENT")),
        "{}",
        run.stdout
    );
}

#[test]
fn an_adapter_that_has_served_rows_is_not_overwritten_and_another_only_with_a_word() {
    let copy = session().copy_of_artifacts();
    let onnx = fixture("onnx/peft_delta_2d_op11/model.onnx");
    zk!["compile", onnx, "--out", copy.path()].refused(2, "has served rows");
    fs::remove_file(copy.path().join("private/served.jsonl")).unwrap();
    let run = zk!["compile", onnx, "--out", copy.path()].ok();
    assert!(run.stderr.contains(&format!("replaces adapter {}", session().id)), "{}", run.stderr);
}

#[test]
fn a_seed_is_never_overwritten_by_another() {
    let copy = session().copy_of_artifacts();
    let other = copy.path().join("other-seed");
    fs::write(&other, "0123456789abcdef".repeat(4)).unwrap();
    zk!["compile", session().path("onnx"), "--out", copy.path(), "--seed-file", other]
        .refused(2, "another seed");
    let seed = "private/seed";
    assert_eq!(
        fs::read(copy.path().join(seed)).unwrap(),
        fs::read(session().path("artifacts").join(seed)).unwrap()
    );
}

/// A repository as docs/ci.md describes it: `adapter/` and `artifacts/public/`.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("adapter")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixture(ADAPTER).join(name), folder.path().join("adapter").join(name)).unwrap();
    }
    let artifacts = session().copy_of_artifacts();
    fs::create_dir(folder.path().join("artifacts")).unwrap();
    fs::rename(artifacts.path().join("public"), folder.path().join("artifacts/public")).unwrap();
    folder
}

fn shell(script: &str, folder: &Path) -> (bool, String) {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_zklora"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let scratch = folder.join("runner-temp");
    fs::create_dir_all(&scratch).unwrap();
    let output = Command::new("bash")
        .args(["-e", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("RUNNER_TEMP", &scratch)
        .env(
            "ZKLORA_SEED",
            fs::read_to_string(session().path("artifacts/private/seed")).unwrap().trim(),
        )
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci.md")).unwrap()
}

/// The `run: |` steps of the page's workflow.
fn workflow_steps() -> Vec<String> {
    let page = page();
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut steps: Vec<String> = Vec::new();
    let mut inside = false;
    for line in yaml.lines() {
        match line.strip_prefix("          ") {
            Some(script) if inside => {
                let step = steps.last_mut().unwrap();
                step.push_str(script);
                step.push('\n');
            }
            _ => inside = false,
        }
        if line.trim() == "run: |" {
            steps.push(String::new());
            inside = true;
        }
    }
    steps
}

fn generic_script() -> String {
    page().split("```sh\n").nth(1).unwrap().split("```").next().unwrap().to_string()
}

#[test]
fn the_install_step_of_the_ci_page_names_a_crate_that_is_there() {
    let page = page();
    let path = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("run: cargo install --locked --path zklora/"))
        .unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    assert!(root.join(path).join("Cargo.toml").is_file() && root.join("Cargo.lock").is_file());
}

/// A tag can be moved to other code, and the job has the seed.
#[test]
fn the_workflow_of_the_ci_page_runs_no_action_that_can_change() {
    let page = page();
    let actions: Vec<&str> = page
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: "))
        .collect();
    assert!(!actions.is_empty());
    for action in actions {
        let (commit, tag) = action.split_once('@').unwrap().1.split_once(" # ").unwrap();
        assert!(
            commit.len() == 40
                && commit.bytes().all(|b| b.is_ascii_hexdigit())
                && tag.starts_with('v'),
            "{action}"
        );
    }
}

#[test]
fn the_pipelines_of_the_ci_page_pass_on_fresh_artifacts_and_fail_on_stale_ones() {
    let fresh = repository();
    let steps = workflow_steps();
    assert_eq!(steps.len(), 3);
    for step in &steps {
        let (ok, text) = shell(step, fresh.path());
        assert!(ok, "{step}\n{text}");
    }
    assert!(!fresh.path().join("runner-temp/seed").exists());
    let (ok, text) = shell(&generic_script(), fresh.path());
    assert!(ok && text.contains("up to date"), "{text}");

    let changed = repository();
    crate::audit::change_one_weight(
        &changed.path().join("adapter"),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    );
    assert!(!shell(&steps[0], changed.path()).0);
    let (ok, text) = shell(&generic_script(), changed.path());
    assert!(
        !ok && text.contains("artifacts are stale")
            && text.contains("input model.layers.0.self_attn.q_proj"),
        "{text}"
    );

    let stale = repository();
    fs::write(stale.path().join("artifacts/public/settings.json"), "{}").unwrap();
    assert!(!shell(&steps[0], stale.path()).0);
    let (ok, text) = shell(&generic_script(), stale.path());
    assert!(!ok && text.contains("artifacts are stale"), "{text}");
}
