//! A contributor whose description was received and checked.

use std::{path::Path, sync::Arc};

use tonic::Status;
use zklora_artifacts::{folder as artifacts, manifest_cache};
use zklora_files::{Access, text::printable};
use zklora_proof::{checked_manifest::CheckedManifest, manifest};

use super::{
    connection::{Client, Connector, ContributorOptions, Network},
    retry::{Backoff, CallError, is_transient, seconds},
};
use crate::{
    Error,
    error::causes,
    packing,
    wire::{self, DescribeRequest, DescribeResponse},
};

/// Longest answer that is read, whatever limit the contributor states.
const MAX_ANSWER: usize = 64 << 20;

/// A contributor with its public description, which was checked, against the pin if there is one.
pub struct Remote {
    /// How to reach it.
    pub options: ContributorOptions,
    /// The adapter.
    pub manifest: CheckedManifest,
    /// The limits that it states.
    pub limits: wire::Limits,
    /// Rows of the most served module before this session.
    pub rows_served: u64,
    /// Whether it reads packed batches.
    pub(super) packs: bool,
    connector: Connector,
    /// None after a connection failed.
    client: Option<Client>,
    pub(super) backoff: Backoff,
    pub(super) network: Arc<Network>,
}

impl Remote {
    /// Connects and asks for the description. Retries while the contributor is unreachable.
    ///
    /// # Errors
    /// [`Error::Contributor`]: it cannot be reached, or refuses. [`Error::Artifact`]: its manifest
    /// breaks a rule or is not the pinned one.
    pub fn connect(options: ContributorOptions, network: &Arc<Network>) -> Result<Remote, Error> {
        let failed = |why: String| Error::Contributor { url: options.url.clone(), why };
        let connector = Connector::new(&options)?;
        let mut backoff = Backoff::new(options.patience);
        let (client, description) = loop {
            let error = match network.wait(describe(&connector, &options)) {
                Ok(described) => break described,
                Err(error) => error,
            };
            let why = error.transient_reason(&options.url)?;
            match backoff.next_delay() {
                Some(delay) => std::thread::sleep(delay),
                None if options.patience.is_zero() => return Err(failed(why)),
                None => {
                    return Err(failed(format!(
                        "{why}; tried again for {}",
                        seconds(backoff.elapsed())
                    )));
                }
            }
        };
        backoff.succeeded();
        let DescribeResponse { version, manifest, limits, rows_served, packing, .. } = description;
        if version != wire::VERSION {
            return Err(failed(format!(
                "it speaks version {version} of the protocol, this program version {}: use the \
                 same version of zklora on both sides",
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
            packs: packing >= packing::VERSION,
            connector,
            client: None,
            backoff,
            network: Arc::clone(network),
        };
        remote.client = Some(remote.sized(client));
        Ok(remote)
    }

    /// A client on the current connection, or on a new one if there is none.
    pub(super) fn client(&mut self) -> Result<Client, CallError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.sized(self.network.wait(self.connector.connect())?),
        };
        Ok(self.client.insert(client).clone())
    }

    fn sized(&self, client: Client) -> Client {
        // 64 KiB for the encoding around the deltas.
        client.max_decoding_message_size(self.message_bytes() + (64 << 10))
    }

    /// Drops the current connection. The next call makes a new one.
    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    /// From now on, calls are not retried.
    pub(super) fn stop_retrying(&mut self) {
        self.backoff.stop();
    }

    /// Writes the public description into `folder`, for `verify`.
    pub fn write_public(&self, folder: &Path) -> Result<(), Error> {
        zklora_files::create_folder(folder, Access::Public)?;
        let write = |name: &str, bytes: &[u8]| {
            zklora_files::write(&folder.join(name), bytes, Access::Public)
        };
        write(artifacts::MANIFEST, &self.manifest.contents().to_bytes()?)?;
        Ok(write(artifacts::SETTINGS, &self.manifest.settings().to_bytes()?)?)
    }

    /// Most bytes of the rows of a batch, and of its deltas, in their full width. A tenth is left
    /// for the encoding. A packed batch and its rows are within the limit together.
    pub(super) fn batch_bytes(&self) -> usize {
        self.message_bytes() / 10 * 9 / if self.packs { 2 } else { 1 }
    }

    /// Longest message in either direction, in bytes.
    pub(super) fn message_bytes(&self) -> usize {
        match self.limits.max_message_bytes as usize {
            0 => MAX_ANSWER,
            limit => limit.min(MAX_ANSWER),
        }
    }

    /// Most rows of a module in one batch.
    pub(super) fn batch_rows(&self) -> usize {
        match self.limits.max_batch_rows as usize {
            0 => usize::MAX,
            limit => limit,
        }
    }
}

/// Connects, and asks for the description.
async fn describe(
    connector: &Connector,
    options: &ContributorOptions,
) -> Result<(Client, DescribeResponse), CallError> {
    let client = connector.connect().await?;
    let mut describing = client.clone().max_decoding_message_size(manifest::MAX_BYTES + MAX_ANSWER);
    let request = describing.describe(DescribeRequest { version: wire::VERSION });
    let Ok(description) = tokio::time::timeout(options.call_timeout, request).await else {
        let why = format!("it did not answer Describe within {:?}", options.call_timeout);
        return Err(CallError::Unreachable(why));
    };
    match description {
        Ok(description) => Ok((client, description.into_inner())),
        Err(status) => Err(describe_failed(status, &options.url)),
    }
}

/// Why Describe failed.
fn describe_failed(status: Status, url: &str) -> CallError {
    let Some(cause) = std::error::Error::source(&status) else { return CallError::Status(status) };
    let transient = is_transient(cause);
    let error = match url.starts_with("https:") {
        // In TLS 1.3 a server refuses a certificate by closing the connection after the client has
        // finished its handshake.
        true => Error::Contributor {
            url: url.to_string(),
            why: format!(
                "it ended the connection ({}): it may require a client certificate of its \
                 authority (--tls-cert)",
                printable(&causes(cause))
            ),
        },
        false => Error::status(url, &status),
    };
    if transient { CallError::Unreachable(error.why_of(url)) } else { CallError::Permanent(error) }
}
