//! A contributor that told what it serves.

use std::{path::Path, sync::Arc};

use zklora_circuit::manifest::{self, Pinned};

use super::connection::{self, Client, ContributorOptions, Network};
use crate::{
    Error, artifacts,
    files::{self, Access},
    known_manifests,
    server::causes,
    wire::{self, DescribeRequest, DescribeResponse},
};

/// Longest answer that is read, whatever the contributor says of its own limit.
const LONGEST_ANSWER: usize = 64 << 20;

/// A contributor with its public description, which was parsed and, with a pin, held to it.
pub struct Remote {
    /// How it is reached.
    pub options: ContributorOptions,
    /// The adapter.
    pub pinned: Pinned,
    /// Its limits.
    pub limits: wire::Limits,
    /// Rows of the most served module before this session.
    pub rows_served: u64,
    pub(super) client: Client,
    pub(super) network: Arc<Network>,
}

impl Remote {
    /// Connects and asks what is served.
    ///
    /// # Errors
    /// [`Error::Contributor`] if it cannot be reached or refuses; [`Error::Proof`] if its manifest breaks a rule or is not the pinned one.
    pub fn connect(options: ContributorOptions, network: &Arc<Network>) -> Result<Remote, Error> {
        let failed = |why: String| Error::Contributor { url: options.url.clone(), why };
        let (client, description) = network.wait(async {
            let client = connection::connect(&options).await?;
            let mut describing = client.clone().max_decoding_message_size(manifest::MAX_BYTES + LONGEST_ANSWER);
            let request = describing.describe(DescribeRequest { version: wire::VERSION });
            let description = tokio::time::timeout(options.call_timeout, request)
                .await
                .map_err(|_| failed(format!("it did not say what it serves within {:?}", options.call_timeout)))?
                .map_err(|status| match std::error::Error::source(&status) {
                    // In TLS 1.3 a server refuses a certificate after the client's handshake is over, and hangs up.
                    Some(cause) if options.url.starts_with("https:") => failed(format!(
                        "it ended the connection ({}): it may ask for a client certificate of an authority that it knows",
                        causes(cause)
                    )),
                    _ => Error::status(&options.url, &status),
                })?;
            Ok::<_, Error>((client, description.into_inner()))
        })?;
        let DescribeResponse { version, manifest, limits, rows_served, .. } = description;
        if version != wire::VERSION {
            return Err(failed(format!("it speaks version {version} of the protocol, this program {}", wire::VERSION)));
        }
        let pinned = known_manifests::parse(&manifest, options.pin.as_ref())?;
        let limits = limits.unwrap_or_default();
        let longest = match limits.max_message_bytes as usize {
            0 => LONGEST_ANSWER,
            own => own.min(LONGEST_ANSWER),
        };
        // Room for what surrounds the deltas.
        let client = client.max_decoding_message_size(longest + (64 << 10));
        Ok(Remote { options, pinned, limits, rows_served, client, network: Arc::clone(network) })
    }

    /// Writes the public description into `folder`, as `verify` reads it.
    pub fn write_public(&self, folder: &Path) -> Result<(), Error> {
        files::create_folder(folder, Access::Public)?;
        let write = |name: &str, bytes: &[u8]| files::write(&folder.join(name), bytes, Access::Public);
        write(artifacts::MANIFEST, &self.pinned.manifest().to_bytes()?)?;
        write(artifacts::SETTINGS, &self.pinned.settings().to_bytes()?)
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
