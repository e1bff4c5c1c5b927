//! A TLS certificate that is read again when its files change, so that a renewal needs no restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

use super::tls::TlsStream;
use crate::limits::TLS_LOOK_INTERVAL;

/// A certificate and its key, read from their files: a renewed one is used from the next connection on.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The files that were last read, whether or not they were usable.
    seen: [Stamp; 2],
    looked_at: Instant,
}

/// Distinguishes a file from a newer one in its place. `None`: its metadata cannot be read.
type Stamp = Option<(SystemTime, u64)>;

impl Certificate {
    /// Reads a certificate chain and its key, both in PEM.
    pub(crate) fn load(chain: &Path, key: &Path) -> Result<Self, String> {
        let seen = [stamp(chain), stamp(key)];
        let loaded = Loaded { config: read(chain, key)?, seen, looked_at: Instant::now() };
        Ok(Self { chain: chain.into(), key: key.into(), loaded: Mutex::new(loaded) })
    }

    /// Starts TLS on a connection.
    pub(crate) fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        TlsStream::new(tcp, self.current())
    }

    /// The newest usable pair. The two files cannot be replaced at the same instant: a pair that does not match is not
    /// used, and read again when one of them changes.
    fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked_at.elapsed() >= TLS_LOOK_INTERVAL {
            loaded.looked_at = Instant::now();
            let found = [stamp(&self.chain), stamp(&self.key)];
            if found != loaded.seen {
                loaded.seen = found;
                match read(&self.chain, &self.key) {
                    Ok(config) => {
                        loaded.config = config;
                        tracing::info!(path = %self.chain.display(), "the certificate has changed: using the new one");
                    }
                    Err(error) => {
                        tracing::error!(error, "the new certificate cannot be used: keeping the old one");
                    }
                }
            }
        }
        Arc::clone(&loaded.config)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let unusable = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| unusable(chain, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key_der)
        .map_err(|error| unusable(chain, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config.into())
}
