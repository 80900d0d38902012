//! Authentication of clients and servers, and attackers on the network path.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use zklora_proof::keys::KeyStore;
use zklora_session::{
    Error,
    client::{ClientTls, ContributorOptions, Remote, UserSession},
    ledger::Ledger,
    row_totals::RowTotals,
    server::{self, Limits, ServerOptions, ServerTls, Tokens},
};

use crate::{
    party::{Server, artifacts, calls, finish, limits, load, network, options, srs},
    raw::{self, wait},
    tap::Tap,
};

const ALICE: &str = "Kq3vT0alice00000000000x";
const BOB: &str = "9mZr7Ybob0000000000000x";

fn secret(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn with_tokens(folder: &Path) -> ServerOptions {
    let path = secret(folder, "tokens", &format!("alice {ALICE}\nbob {BOB}\n"));
    ServerOptions { tokens: Some(Tokens::read(&path).unwrap()), ..Server::options(folder) }
}

fn with_token(url: &str, folder: &Path, token: &str) -> ContributorOptions {
    ContributorOptions { token_file: Some(secret(folder, "token", token)), ..options(url, None) }
}

/// A wrong certificate or token is refused at once, without retries.
fn refused(options: ContributorOptions, why: &str) {
    let start = std::time::Instant::now();
    let patient = ContributorOptions { patience: Duration::from_secs(600), ..options };
    let error = Remote::connect(patient, &network()).err().expect("it is let in").to_string();
    assert!(error.contains(why), "expected {why}: {error}");
    assert!(start.elapsed() < Duration::from_secs(60) && !error.contains("tried again"), "{error}");
}

fn clients(folder: &Path) -> Vec<(String, Vec<u64>)> {
    let artifacts = load(folder);
    let ledger = Ledger::lock(&artifacts.ledger()).unwrap();
    RowTotals::count(ledger.index(), &artifacts.manifest).unwrap().clients.into_iter().collect()
}

#[test]
fn only_the_owner_of_a_token_is_served_under_its_name() {
    let contributor = artifacts();
    let server = Server::with(contributor.path(), &with_tokens(contributor.path()));
    let (url, user) = (server.url(), tempfile::tempdir().unwrap());
    refused(options(&url, None), "this server requires a token");
    let unknown = "this server does not know this token";
    for wrong in [
        "Kq3vT0alice00000000000y",
        &ALICE.to_lowercase(),
        &ALICE[..22],
        &format!("{ALICE}x"),
        "alice",
        "Bearer",
    ] {
        refused(with_token(&url, user.path(), wrong), unknown);
    }
    refused(with_token(&url, user.path(), ""), "it holds no token");
    refused(with_token(&url, user.path(), "not a token"), "expected one token");
    let error = Remote::connect(with_token(&url, user.path(), &ALICE.to_lowercase()), &network())
        .err()
        .unwrap();
    assert!(!error.to_string().contains(&ALICE.to_lowercase()[3..]), "a token is shown: {error}");
    // A line of the contributor's own file will do.
    let alice =
        Remote::connect(with_token(&url, user.path(), &format!("alice {ALICE}\n")), &network())
            .unwrap();
    let mut session = UserSession::open(alice, &user.path().join("alice")).unwrap();
    session.deltas(&calls(&session, 2, 0)).unwrap();
    let mut of_bob = {
        let bob = Remote::connect(with_token(&url, user.path(), BOB), &network()).unwrap();
        UserSession::open(bob, &user.path().join("bob")).unwrap()
    };
    of_bob.deltas(&calls(&of_bob, 3, 0)).unwrap();
    finish(&mut session).unwrap();
    drop(of_bob);
    // The id and key of a session are not enough for another client.
    let mallory = Remote::connect(with_token(&url, user.path(), ALICE), &network()).unwrap();
    let mut stolen = UserSession::open(mallory, &user.path().join("bob")).unwrap();
    let error = stolen.deltas(&calls(&stolen, 1, 7)).unwrap_err().to_string();
    assert!(error.contains("no session of yours has this id and key"), "{error}");
    server.stop();
    let expected = [("alice".to_string(), vec![2; 4]), ("bob".to_string(), vec![3; 4])];
    assert_eq!(clients(contributor.path()), expected);
}

#[test]
fn one_client_does_not_take_the_permits_of_another() {
    let contributor = artifacts();
    let mut server = with_tokens(contributor.path());
    server.limits = Limits { max_sessions_per_client: 1, ..limits() };
    let server = Server::with(contributor.path(), &server);
    let user = tempfile::tempdir().unwrap();
    let open = |token: &str, name: &str| {
        let options = ContributorOptions {
            patience: Duration::ZERO,
            ..with_token(&server.url(), user.path(), token)
        };
        UserSession::open(Remote::connect(options, &network()).unwrap(), &user.path().join(name))
            .unwrap()
    };
    let (mut first, mut second, mut third) =
        (open(ALICE, "first"), open(ALICE, "second"), open(BOB, "third"));
    first.deltas(&calls(&first, 1, 0)).unwrap();
    let error = second.deltas(&calls(&second, 1, 0)).unwrap_err().to_string();
    assert!(error.contains("your client already has 1 active sessions"), "{error}");
    third.deltas(&calls(&third, 1, 0)).unwrap();
    // A place is given back.
    finish(&mut first).unwrap();
    drop(first);
    second.deltas(&calls(&second, 1, 0)).unwrap();
}

#[test]
fn callers_without_a_token_can_ask_for_health_and_are_closed_in_time() {
    let contributor = artifacts();
    let mut options = with_tokens(contributor.path());
    options.limits = Limits { handshake: Duration::from_millis(400), ..limits() };
    let server = Server::with(contributor.path(), &options);
    let tap = Tap::start(server.address);
    wait(async {
        let channel =
            tonic::transport::Endpoint::from_shared(tap.url()).unwrap().connect().await.unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        let request =
            |service: &str| tonic_health::pb::HealthCheckRequest { service: service.into() };
        let serving = health.check(request("zklora.v1.Contributor")).await.unwrap().into_inner();
        assert_eq!(
            serving.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );
        // A stream without an end, and requests with a wrong token, do not keep the connection
        // open.
        let mut watched = health.watch(request("")).await.unwrap().into_inner();
        assert!(raw::open(&mut raw::RawClient::new(channel), &raw::fresh(), &[]).await.is_err());
        while let Ok(Some(_)) = watched.message().await {}
        while tap.ended_by_server() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(tap.connections(), 1);
}

#[test]
fn plaintext_to_other_machines_needs_insecure() {
    let contributor = artifacts();
    let mut everywhere = Server::options(contributor.path());
    everywhere.listen = "0.0.0.0:0".parse().unwrap();
    let start = |options: &ServerOptions| {
        server::start(load(contributor.path()), srs().clone(), KeyStore::default(), options)
    };
    let error = start(&everywhere).err().expect("it listens").to_string();
    assert!(error.contains("--insecure"), "{error}");
    everywhere.insecure = true;
    drop(start(&everywhere).unwrap());
    for url in [
        "http://192.0.2.1:1",
        "http://localhost@192.0.2.1:1",
        "http://127.0.0.1.example.org:1",
        "http://[2001:db8::1]:1",
        "http://0.0.0.0:1",
    ] {
        refused(options(url, None), "plaintext to another machine");
    }
    for url in ["ftp://127.0.0.1:1", "127.0.0.1:1"] {
        refused(options(url, None), "the URL begins with neither http:// nor https://");
    }
    refused(options("not a url", None), "not a URL");
    // Loopback, by any name, is asked.
    for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "http://127.9.9.9:1"]
    {
        let asked = ContributorOptions { patience: Duration::ZERO, ..options(url, None) };
        let error = Remote::connect(asked, &network()).err().expect("a server answers").to_string();
        assert!(error.contains("cannot connect"), "{error}");
    }
}

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = folder.join(format!("{name}.pem"));
        fs::write(&pem, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, for these names.
    fn sign(
        &self,
        folder: &Path,
        file: &str,
        names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
        end: i32,
    ) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![purpose];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = folder.join(format!("{file}.pem"));
        fs::write(&certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        (certificate, secret(folder, &format!("{file}.key"), &key.serialize_pem()))
    }
}

const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
const USER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

fn with_tls(
    folder: &Path,
    (certificate, key): (PathBuf, PathBuf),
    client_ca: Option<PathBuf>,
) -> ServerOptions {
    ServerOptions {
        tls: Some(ServerTls { certificate, key, client_ca }),
        ..Server::options(folder)
    }
}

fn over_tls(
    server: &Server,
    ca: &Authority,
    identity: Option<(PathBuf, PathBuf)>,
) -> ContributorOptions {
    let tls = ClientTls { ca: Some(ca.pem.clone()), identity };
    ContributorOptions {
        tls,
        ..options(&format!("https://localhost:{}", server.address.port()), None)
    }
}

#[test]
fn the_authority_name_and_time_of_a_contributors_certificate_are_checked() {
    let (contributor, folder) = (artifacts(), tempfile::tempdir().unwrap());
    let (ca, other) = (Authority::new(folder.path(), "ca"), Authority::new(folder.path(), "other"));
    let names = ["localhost", "127.0.0.1"];
    let good = ca.sign(folder.path(), "good", &names, SERVER, 2100);
    let server = Server::with(contributor.path(), &with_tls(contributor.path(), good, None));
    let user = tempfile::tempdir().unwrap();
    let mut session = UserSession::open(
        Remote::connect(over_tls(&server, &ca, None), &network()).unwrap(),
        user.path(),
    )
    .unwrap();
    session.deltas(&calls(&session, 2, 0)).unwrap();
    finish(&mut session).unwrap();
    refused(over_tls(&server, &other, None), "UnknownIssuer");
    // An authority of this machine's has not signed it either.
    let mut of_machine = over_tls(&server, &ca, None);
    of_machine.tls.ca = None;
    assert!(matches!(Remote::connect(of_machine, &network()), Err(Error::Contributor { .. })));
    // Plaintext to a server with TLS is an error, not a downgrade.
    refused(options(&server.url(), None), "contributor http://");
    server.stop();
    let cases = [
        (ca.sign(folder.path(), "expired", &names, SERVER, 2021), "xpired"),
        (
            ca.sign(folder.path(), "elsewhere", &["example.org", "127.0.0.1"], SERVER, 2100),
            "not valid for name",
        ),
        (
            ca.sign(folder.path(), "user", &names, USER, 2100),
            "extended key usage for server authentication",
        ),
        (other.sign(folder.path(), "foreign", &names, SERVER, 2100), "UnknownIssuer"),
    ];
    for (certificate, why) in cases {
        let server =
            Server::with(contributor.path(), &with_tls(contributor.path(), certificate, None));
        refused(over_tls(&server, &ca, None), why);
    }
    // TLS to a server without it.
    let server = Server::start(contributor.path());
    refused(over_tls(&server, &ca, None), "cannot connect");
    let mut keyless =
        with_tls(contributor.path(), ca.sign(folder.path(), "keyless", &names, SERVER, 2100), None);
    if let Some(tls) = &mut keyless.tls {
        tls.key = tls.certificate.clone();
    }
    server.stop();
    let error =
        server::start(load(contributor.path()), srs().clone(), KeyStore::default(), &keyless)
            .err()
            .unwrap();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[test]
fn a_client_certificate_is_demanded_and_is_the_identity_that_the_ledger_names() {
    let (contributor, folder) = (artifacts(), tempfile::tempdir().unwrap());
    let (ca, other) = (Authority::new(folder.path(), "ca"), Authority::new(folder.path(), "other"));
    let certificate = ca.sign(folder.path(), "server", &["localhost"], SERVER, 2100);
    let alice = ca.sign(folder.path(), "alice", &["alice"], USER, 2100);
    let bob = ca.sign(folder.path(), "bob", &["bob"], USER, 2100);
    let expired = ca.sign(folder.path(), "expired", &["alice"], USER, 2021);
    let stranger = other.sign(folder.path(), "stranger", &["alice"], USER, 2100);
    let server = Server::with(
        contributor.path(),
        &with_tls(contributor.path(), certificate, Some(ca.pem.clone())),
    );
    for refused_identity in [None, Some(stranger), Some(expired)] {
        refused(
            over_tls(&server, &ca, refused_identity),
            "it may require a client certificate of its authority",
        );
    }
    let user = tempfile::tempdir().unwrap();
    let remote = Remote::connect(over_tls(&server, &ca, Some(alice.clone())), &network()).unwrap();
    let mut session = UserSession::open(remote, user.path()).unwrap();
    session.deltas(&calls(&session, 2, 0)).unwrap();
    drop(session);
    // Another certificate of the same authority is another client.
    let remote = Remote::connect(over_tls(&server, &ca, Some(bob)), &network()).unwrap();
    let mut stolen = UserSession::open(remote, user.path()).unwrap();
    let error = stolen.deltas(&calls(&stolen, 1, 7)).unwrap_err().to_string();
    assert!(error.contains("no session of yours"), "{error}");
    drop(stolen);
    let remote = Remote::connect(over_tls(&server, &ca, Some(alice)), &network()).unwrap();
    finish(&mut UserSession::open(remote, user.path()).unwrap()).unwrap();
    server.stop();
    let clients = clients(contributor.path());
    assert_eq!(clients.len(), 1);
    assert!(clients[0].0.starts_with("cert:") && clients[0].0.len() == 37, "{clients:?}");
    // The row that bob asked for in vain was in the user's log, and was answered to alice.
    assert_eq!(clients[0].1, [3; 4]);
}

/// The test below, in a process of its own: what it traces is written to a file.
const TRACED: &str = "ZKLORA_TEST_TRACE";

#[test]
fn log_lines_show_no_token_key_or_row() {
    let Some(path) = std::env::var_os(TRACED) else {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "identity::log_lines_show_no_token_key_or_row"])
            .env(TRACED, &path)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    let file = fs::File::create(&path).unwrap();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::sync::Mutex::new(file))
        .with_ansi(false)
        .init();
    let contributor = artifacts();
    let server = Server::with(contributor.path(), &with_tokens(contributor.path()));
    let user = tempfile::tempdir().unwrap();
    let remote =
        Remote::connect(with_token(&server.url(), user.path(), ALICE), &network()).unwrap();
    let mut session = UserSession::open(remote, &user.path().join("session")).unwrap();
    let calls = calls(&session, 2, 0);
    let deltas = session.deltas(&calls).unwrap();
    let header =
        zklora_session::session_log::header(&user.path().join("session/rows.log")).unwrap();
    let key = header.key;
    refused(with_token(&server.url(), user.path(), "wrong-token-0123456789"), "does not know");
    finish(&mut session).unwrap();
    server.stop();
    let traced = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&traced);
    assert!(text.contains("proof fetched") && text.contains("alice"), "nothing was traced");
    let shows = |bytes: &[u8]| traced.windows(bytes.len()).any(|window| window == bytes);
    // As `Bytes` and as slices are printed.
    let escaped = |bytes: &[u8]| {
        let of_bytes = format!("{:?}", bytes::Bytes::copy_from_slice(bytes));
        let (list, hex) = (format!("{bytes:?}"), hex::encode(bytes));
        [
            of_bytes.trim_start_matches("b\"").trim_end_matches('"').to_string(),
            list.trim_matches(['[', ']']).to_string(),
            hex,
        ]
    };
    let input = &calls[0].1.inputs[0];
    let (x, delta) = (&input[..8], &deltas[0][..8]);
    let bytes = |words: Vec<Vec<u8>>| words.concat();
    let x_bytes = bytes(x.iter().map(|v| v.to_le_bytes().to_vec()).collect());
    let delta_bytes = bytes(delta.iter().map(|v| v.to_le_bytes().to_vec()).collect());
    for (what, secret) in [
        ("token", ALICE.as_bytes()),
        ("wrong token", b"wrong-token-0123456789"),
        ("key", &key),
        ("row", &x_bytes),
        ("delta", &delta_bytes),
    ] {
        assert!(!shows(secret), "{what} is shown");
        for form in escaped(secret) {
            assert!(!shows(form.as_bytes()), "{what} is shown as {form}");
        }
    }
    for numbers in [format!("{x:?}"), format!("{delta:?}")] {
        assert!(!text.contains(numbers.trim_matches(['[', ']'])), "numbers are shown");
    }
}
