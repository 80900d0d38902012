//! A contributor that told what it serves.

use std::{path::Path, sync::Arc};

use tonic::Status;
use zklora_artifacts::{folder as artifacts, manifest_cache};
use zklora_files::{Access, text::printable};
use zklora_proof::{checked_manifest::CheckedManifest, manifest};

use super::{
    connection::{Client, Connector, ContributorOptions, Network},
    patience::{Patience, Trouble, may_pass, seconds},
};
use crate::{
    Error,
    error::causes,
    wire::{self, DescribeRequest, DescribeResponse},
};

/// Longest answer that is read, whatever the contributor says of its own limit.
const LONGEST_ANSWER: usize = 64 << 20;

/// A contributor with its public description, which was parsed and, with a pin, held to it.
pub struct Remote {
    /// How it is reached.
    pub options: ContributorOptions,
    /// The adapter.
    pub manifest: CheckedManifest,
    /// Its limits.
    pub limits: wire::Limits,
    /// Rows of the most served module before this session.
    pub rows_served: u64,
    connector: Connector,
    /// None after a connection has failed.
    client: Option<Client>,
    pub(super) patience: Patience,
    pub(super) network: Arc<Network>,
}

impl Remote {
    /// Connects and asks what is served. A contributor that is not there, or goes away before it
    /// answers, is waited for.
    ///
    /// # Errors
    /// [`Error::Contributor`] if it cannot be reached or refuses; [`Error::Proof`] if its manifest
    /// breaks a rule or is not the pinned one.
    pub fn connect(options: ContributorOptions, network: &Arc<Network>) -> Result<Remote, Error> {
        let failed = |why: String| Error::Contributor { url: options.url.clone(), why };
        let connector = Connector::new(&options)?;
        let mut patience = Patience::new(options.patience);
        let (client, description) = loop {
            let trouble = match network.wait(describe(&connector, &options)) {
                Ok(described) => break described,
                Err(trouble) => trouble,
            };
            let why = trouble.in_passing(&options.url)?;
            match patience.failed() {
                Some(wait) => std::thread::sleep(wait),
                None if options.patience.is_zero() => return Err(failed(why)),
                None => {
                    return Err(failed(format!(
                        "{why}; tried again for {}",
                        seconds(patience.waited())
                    )));
                }
            }
        };
        patience.heard();
        let DescribeResponse { version, manifest, limits, rows_served, .. } = description;
        if version != wire::VERSION {
            return Err(failed(format!(
                "it speaks version {version} of the protocol, this program {}",
                wire::VERSION
            )));
        }
        let manifest = manifest_cache::parse(&manifest, options.pin.as_ref())?;
        let limits = limits.unwrap_or_default();
        let mut remote = Remote {
            options,
            manifest,
            limits,
            rows_served,
            connector,
            client: None,
            patience,
            network: Arc::clone(network),
        };
        remote.client = Some(remote.sized(client));
        Ok(remote)
    }

    /// A client on the present connection, or on a new one if there is none.
    pub(super) fn client(&mut self) -> Result<Client, Trouble> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.sized(self.network.wait(self.connector.connect())?),
        };
        Ok(self.client.insert(client).clone())
    }

    fn sized(&self, client: Client) -> Client {
        // Room for what surrounds the deltas.
        client.max_decoding_message_size(self.message_bytes() + (64 << 10))
    }

    /// Leaves the present connection: the next call makes a new one.
    pub(super) fn hang_up(&mut self) {
        self.client = None;
    }

    /// From now on it is not waited for.
    pub(super) fn lose_patience(&mut self) {
        self.patience.end();
    }

    /// Writes the public description into `folder`, as `verify` reads it.
    pub fn write_public(&self, folder: &Path) -> Result<(), Error> {
        zklora_files::create_folder(folder, Access::Public)?;
        let write = |name: &str, bytes: &[u8]| {
            zklora_files::write(&folder.join(name), bytes, Access::Public)
        };
        write(artifacts::MANIFEST, &self.manifest.contents().to_bytes()?)?;
        Ok(write(artifacts::SETTINGS, &self.manifest.settings().to_bytes()?)?)
    }

    /// Bytes that one message may have, in either direction.
    pub(super) fn message_bytes(&self) -> usize {
        match self.limits.max_message_bytes as usize {
            0 => LONGEST_ANSWER,
            own => own.min(LONGEST_ANSWER),
        }
    }

    /// Rows of a module that one batch may have.
    pub(super) fn batch_rows(&self) -> usize {
        match self.limits.max_batch_rows as usize {
            0 => usize::MAX,
            own => own,
        }
    }
}

/// Connects, and asks what is served.
async fn describe(
    connector: &Connector,
    options: &ContributorOptions,
) -> Result<(Client, DescribeResponse), Trouble> {
    let client = connector.connect().await?;
    let mut describing =
        client.clone().max_decoding_message_size(manifest::MAX_BYTES + LONGEST_ANSWER);
    let request = describing.describe(DescribeRequest { version: wire::VERSION });
    let Ok(description) = tokio::time::timeout(options.call_timeout, request).await else {
        let why = format!("it did not say what it serves within {:?}", options.call_timeout);
        return Err(Trouble::Away(why));
    };
    match description {
        Ok(description) => Ok((client, description.into_inner())),
        Err(status) => Err(undescribed(status, &options.url)),
    }
}

/// Why it did not say what it serves.
fn undescribed(status: Status, url: &str) -> Trouble {
    let Some(cause) = std::error::Error::source(&status) else { return Trouble::Status(status) };
    let passes = may_pass(cause);
    let error = match url.starts_with("https:") {
        // In TLS 1.3 a server refuses a certificate after the client's handshake is over, and hangs
        // up.
        true => Error::Contributor {
            url: url.to_string(),
            why: format!(
                "it ended the connection ({}): it may ask for a client certificate of an authority that it knows",
                printable(&causes(cause))
            ),
        },
        false => Error::status(url, &status),
    };
    if passes { Trouble::Away(error.why_of(url)) } else { Trouble::Final(error) }
}
