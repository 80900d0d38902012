//! `compile`, `trace record`, `prove` and `verify` with the EZKL backend

use std::{collections::BTreeSet, path::Path, process::ExitCode, time::Duration};

use serde_json::json;
use zklora_artifacts::activations::Activations;
pub use zklora_ezkl::folder::is_ezkl;
use zklora_ezkl::{
    self as ezkl, Cancel, Python,
    circuit_options::{self as circuit, CircuitOptions},
    compile::{self, Compiled},
    folder::{Artifacts, Public, Srs},
};
use zklora_runtime::Error;

use super::outcome::Outcome;
use crate::{
    args::{
        self,
        ezkl::{Backend, Interpreter},
    },
    output::{Output, bytes, count, path, seconds},
};

/// How to run EZKL. Ctrl-C and SIGTERM stop it, and its unfinished files are not written.
pub(super) fn python(args: &Interpreter) -> Python {
    let cancel = Cancel::default();
    let set = cancel.clone();
    std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(crate::stop_signal::signal());
            set.cancel();
        }
    });
    Python {
        interpreter: Python::interpreter(args.ezkl_python.as_deref()),
        timeout: Duration::from_secs(args.ezkl_timeout),
        memory: args.ezkl_memory.unwrap_or_else(Python::default_memory),
        cancel,
    }
}

/// Refuses folders of the EZKL backend, in commands for the native backend only.
pub fn refuse(folder: &Path, what: &str) -> anyhow::Result<()> {
    // The code that reads the folder reports what is wrong with it.
    if is_ezkl(folder).unwrap_or(false) {
        return Err(Error::input(format!(
            "{}: adapters of the EZKL backend are not {what}",
            folder.display()
        ))
        .into());
    }
    Ok(())
}

/// Whether to verify EZKL proofs.
pub fn chosen(args: &args::Verify) -> anyhow::Result<bool> {
    let found = is_ezkl(&args.public)?;
    if args.backend.is_some_and(|backend| (backend == Backend::Ezkl) != found) {
        let what = if found { "EZKL" } else { "the native proof" };
        return Err(Error::input(format!(
            "{} is for {what}, but --backend says otherwise",
            args.public.display()
        ))
        .into());
    }
    Ok(found)
}

pub fn compile(args: &args::Compile, output: &Output) -> Outcome {
    for (given, name) in [
        (args.explain, "--explain"),
        (args.plan, "--plan"),
        (args.locked, "--locked"),
        (args.seed_file.is_some(), "--seed-file"),
        (args.registered, "--registered"),
    ] {
        if given {
            return Err(Error::input(format!(
                "{name} works only with the native backend, not with --backend ezkl"
            ))
            .into());
        }
    }
    let options = compile::Options {
        paths: &args.paths,
        out: &args.out,
        calibrate: args.calibrate.as_deref(),
        circuit: circuit_options(&args.circuit),
        srs: srs(&args.srs, &args.insecure),
        run: args.ezkl_run.as_deref(),
    };
    let spinner = output.spinner();
    let compiled = compile::compile(&options, &python(&args.python), &mut |step| {
        spinner.set_message(format!("EZKL: {step}"))
    });
    spinner.finish_and_clear();
    print_compiled(&compiled?, args, output);
    Ok(ExitCode::SUCCESS)
}

fn print_compiled(compiled: &Compiled, args: &args::Compile, output: &Output) {
    let header =
        ["module", "shape", "rows", "scales in/out", "proving key", "verifying key", "EZKL took"];
    let mut table = vec![header.map(String::from).to_vec()];
    table.extend(compiled.modules.iter().map(|m| {
        vec![
            m.name.clone(),
            format!("{}→{}", m.d_in, m.d_out),
            format!("2^{}", m.logrows),
            format!("{}/{}", m.scales.0, m.scales.1),
            bytes(m.pk_bytes),
            bytes(m.vk_bytes),
            seconds(Duration::from_secs_f64(m.seconds)),
        ]
    }));
    output.table(&table);
    let pinned = &compiled.manifest;
    let unbound = pinned.modules().iter().any(|module| !module.param_visibility.binds());
    if unbound {
        output.warn(
            "private parameters are not bound to anything: a proof shows that some weights give a \
             row. --param-visibility hashed binds them",
        );
    }
    if args.insecure.insecure_dev_srs {
        output.warn(
            "INSECURE SRS: the party that ran gen_srs can forge proofs for these keys; verify \
             refuses them without --insecure-dev-srs",
        );
    }
    let weights = pinned.modules().first().map_or("", |module| module.param_visibility.binding());
    output.result(
        &json!({
            "adapter_id": pinned.id().to_string(),
            "backend": format!("ezkl {}", ezkl::VERSION),
            "modules": compiled.modules,
            "srs_insecure": args.insecure.insecure_dev_srs,
            "weights_bound": !unbound,
        }),
        &[
            ("Backend", format!("EZKL {}, one proof a row", ezkl::VERSION)),
            ("Weights", weights.into()),
            ("Public", format!("{} (give it to users)", args.out.join("public").display())),
            (
                "Private",
                format!(
                    "{} (keep it private: it contains the weights)",
                    args.out.join("private").display()
                ),
            ),
            ("Adapter id", format!("{} (what users pin before a session)", pinned.id())),
        ],
    );
}

fn srs<'a>(file: &'a args::SrsFile, insecure: &args::ezkl::InsecureDevSrs) -> Srs<'a> {
    Srs { file: file.srs.as_deref(), insecure_dev: insecure.insecure_dev_srs }
}

pub fn record(args: &args::Record, output: &Output) -> Outcome {
    let artifacts = Artifacts::load(&args.artifacts)?;
    // Rows are counted before they are written, so check first that the trace can be written.
    zklora_files::require_folder_of(&args.out)?;
    let pinned = &artifacts.public.manifest;
    let activations = Activations::read(&args.inputs, &pinned.shapes(), args.module.as_deref())?;
    let session = args.session_id.map(|args::SessionId(id)| id);
    let spinner = output.spinner();
    let recorded = ezkl::record::record(
        &artifacts,
        &activations,
        session,
        args.max_rows,
        &python(&args.python),
        &mut |step| spinner.set_message(format!("EZKL: {step}")),
    );
    spinner.finish_and_clear();
    let (trace, served) = recorded?;
    artifacts.public.write_trace(&trace, &args.out)?;
    let most = served.values().copied().max().unwrap_or(0);
    output.result(
        &json!({
            "rows": trace.rows(),
            "session_id": hex::encode(trace.session),
            "ignored": activations.ignored,
            "out": path(&args.out),
            "rows_served_in_all": served,
            "max_rows": args.max_rows,
        }),
        &[
            (
                "Recorded",
                format!(
                    "{} rows in {} of {} modules",
                    count(trace.rows()),
                    activations.modules.len(),
                    trace.modules.len()
                ),
            ),
            (
                "Ignored",
                format!("{} tensors that are not inputs of the adapter", activations.ignored.len()),
            ),
            ("Session id", hex::encode(trace.session)),
            ("Served in all", format!("up to {} rows a module", count(most as usize))),
            (
                "What rows give away",
                "most of what an adapter does, after a few: docs/security.md".into(),
            ),
            ("", super::leak::FOR_WHOM.into()),
            ("Trace", args.out.display().to_string()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub fn prove(args: &args::Prove, output: &Output) -> Outcome {
    let artifacts = Artifacts::load(&args.artifacts)?;
    let trace = artifacts.public.trace(&args.trace)?;
    let spinner = output.spinner();
    let proven = ezkl::prove::prove(
        &artifacts,
        &trace,
        &srs(&args.srs, &args.insecure),
        &args.out,
        &python(&args.python),
        &mut |step| spinner.set_message(format!("EZKL: {step}")),
    );
    spinner.finish_and_clear();
    let size = proven?;
    let id = artifacts.public.manifest.id();
    output.result(
        &json!({
            "adapter_id": id.to_string(),
            "bytes": size,
            "out": path(&args.out),
            "rows": trace.rows(),
        }),
        &[
            ("Proven", format!("{} rows of adapter {id}, one proof per row", count(trace.rows()))),
            ("Proofs", format!("{}, {}", args.out.display(), bytes(size))),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub fn verify(args: &args::Verify, output: &Output) -> Outcome {
    let public = Public::load(&args.public, args.adapter_id.as_ref())?;
    let trace = public.trace(&args.trace)?;
    // A session of another id is refused before the inputs are read.
    super::session::own_session(args, None).check_id(&trace.session)?;
    let shapes = public.manifest.shapes();
    let activations = super::session::own_inputs(args, &shapes)?;
    let own = super::session::own_session(args, activations.as_ref());
    let spinner = output.spinner();
    let verdict = ezkl::verify::verify(
        &public,
        &trace,
        &own,
        &args.proof,
        &srs(&args.srs.file, &args.insecure),
        &python(&args.python),
        &mut |step| spinner.set_message(format!("EZKL: {step}")),
    );
    spinner.finish_and_clear();
    let verdict = verdict?;
    let pinned = args.adapter_id.is_some();
    if !pinned {
        output.warn(
            "THE ADAPTER WAS NOT PINNED. Keys, settings and SRS are those of a manifest that may \
             be younger than your rows. Pass --adapter-id with the id that you had before the \
             session.",
        );
    }
    if !verdict.unbound.is_empty() {
        output.warn(
            "THE WEIGHTS ARE NOT BOUND. Parameters are private in these circuits: each row is \
             proven for some weights, and any delta is what some weights give. See docs/ezkl.md.",
        );
    }
    if verdict.srs_insecure {
        output.warn("INSECURE SRS: the party that ran gen_srs can forge these proofs");
    }
    let source = |given: bool, own: &'static str| if given { own } else { " (as the trace says)" };
    let rows: Vec<&(String, usize)> = verdict.rows.iter().filter(|(_, rows)| *rows > 0).collect();
    let empty: Vec<&str> =
        verdict.rows.iter().filter(|(_, rows)| *rows == 0).map(|(name, _)| name.as_str()).collect();
    let called = || {
        public
            .manifest
            .modules()
            .iter()
            .filter(|module| rows.iter().any(|(name, _)| *name == module.name))
    };
    let weights: BTreeSet<&str> =
        called().map(|module| module.param_visibility.binding()).collect();
    let weights: Vec<&str> = weights.into_iter().collect();
    let scales: BTreeSet<String> = called()
        .map(|module| {
            format!("inputs by 2^-{}, deltas by 2^-{}", module.input_scale, module.output_scale)
        })
        .collect();
    let scales: Vec<String> = scales.into_iter().collect();
    let mut table = vec![
        ("Backend", format!("EZKL {}, one proof a row", ezkl::VERSION)),
        (
            "Adapter id",
            format!(
                "{}{}",
                public.manifest.id(),
                if pinned { " (your pin)" } else { " (NOT PINNED)" }
            ),
        ),
        (
            "Session id",
            format!(
                "{}{}",
                hex::encode(trace.session),
                source(args.session_id.is_some(), " (yours)")
            ),
        ),
        ("Activations", source(args.inputs.is_some(), "yours").trim_start().to_string()),
        ("Rows", format!("{} in {} modules", count(trace.rows()), rows.len())),
    ];
    table.extend(rows.iter().map(|(name, rows)| ("", format!("{name}: {}", count(*rows)))));
    if !empty.is_empty() {
        table.push((
            "Not called",
            format!("{} modules: nothing is claimed about them: {}", empty.len(), empty.join(", ")),
        ));
    }
    table.push(("Rounded", scales.join("; ")));
    table.push(("Weights", weights.join("; ")));
    table.push((
        "Circuit",
        "the pinned keys; EZKL does not show which graph they were made from".into(),
    ));
    let srs: Vec<&str> = verdict.srs.iter().map(String::as_str).collect();
    table.push((
        "SRS",
        format!(
            "{}{}",
            srs.join(", "),
            if verdict.srs_insecure { " INSECURE" } else { " (your file)" }
        ),
    ));
    table.push(("Proofs", bytes(verdict.proof_bytes)));
    table.push((
        "Verdict",
        if verdict.unbound.is_empty() {
            "ACCEPTED: every row of your trace is proven for the manifest's keys and weights".into()
        } else {
            "ACCEPTED, WEIGHTS NOT BOUND: every row of your trace is proven for some weights".into()
        },
    ));
    output.result(
        &json!({
            "accepted": true,
            "activations_compared": args.inputs.is_some(),
            "adapter_id": public.manifest.id().to_string(),
            "backend": format!("ezkl {}", ezkl::VERSION),
            "pinned": pinned,
            "proof_bytes": verdict.proof_bytes,
            "rounded": scales,
            "rows": verdict.rows.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "session_compared": args.session_id.is_some(),
            "session_id": hex::encode(trace.session),
            "srs": verdict.srs,
            "srs_insecure": verdict.srs_insecure,
            "weights_bound": verdict.unbound.is_empty(),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}

/// The options of a circuit in the library's types.
pub(super) fn circuit_options(args: &args::ezkl::Circuit) -> CircuitOptions {
    use args::ezkl::{ParamVisibility, Preset, Target};
    CircuitOptions {
        preset: match args.preset {
            Preset::Auto => circuit::Preset::Auto,
            Preset::ZkloraPaper => circuit::Preset::ZkloraPaper,
        },
        logrows: args.logrows,
        scales: args.scales,
        target: args.calibration_target.map(|target| match target {
            Target::Resources => circuit::Target::Resources,
            Target::Accuracy => circuit::Target::Accuracy,
        }),
        decomposition: args.decomposition,
        visibility: match args.param_visibility {
            ParamVisibility::Private => circuit::Visibility::Private,
            ParamVisibility::Hashed => circuit::Visibility::Hashed,
            ParamVisibility::Polycommit => circuit::Visibility::Polycommit,
            ParamVisibility::Fixed => circuit::Visibility::Fixed,
        },
    }
}
