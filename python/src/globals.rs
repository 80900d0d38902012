//! What all calls of this process share: the SRS, the derived keys, and the threads of the network.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use zklora_artifacts::srs_file;
use zklora_proof::{keys::KeyStore, srs::Srs};
use zklora_runtime::Error;
use zklora_session::client::Network;

static SRS: Mutex<Option<Arc<Srs>>> = Mutex::new(None);
static NETWORK: Mutex<Option<Arc<Network>>> = Mutex::new(None);
static KEYS: LazyLock<KeyStore> = LazyLock::new(KeyStore::default);

/// The value in `cache`, which the first call makes.
fn cached<T>(
    cache: &Mutex<Option<Arc<T>>>,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<Arc<T>, Error> {
    let mut cached = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = &*cached {
        return Ok(Arc::clone(value));
    }
    let value = Arc::new(make()?);
    *cached = Some(Arc::clone(&value));
    Ok(value)
}

/// The Ethereum ceremony.
pub fn srs() -> Result<Arc<Srs>, Error> {
    cached(&SRS, || Ok(srs_file::load(None)?))
}

/// Keys by layout.
pub fn keys() -> &'static KeyStore {
    &KEYS
}

/// The threads that wait for contributors.
pub fn network() -> Result<Arc<Network>, Error> {
    cached(&NETWORK, || Ok(Network::start()?))
}
