//! Encrypted connections, through [rustls](https://docs.rs/rustls).

use std::{fmt, path::Path, sync::Arc};

use palisade::ConfigError;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use scylla::client::session::TlsContext;

use crate::error::Error;

/// How connections are encrypted, and whom they trust.
///
/// A node is reached by its address, so its certificate has to name that IP address among its alternative names.
///
/// ```no_run
/// use tower_cassandra::{Cassandra, Tls};
///
/// # async fn example() -> Result<(), tower_cassandra::Error> {
/// let cassandra = Cassandra::builder()
///     .contact_point("10.0.0.1:9042")
///     .tls(Tls::trusting("ca.pem")?)
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts nodes whose certificate was issued by one of those in this PEM file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the file cannot be read or has no certificate.
    pub fn trusting(ca_pem: impl AsRef<Path>) -> Result<Self, Error> {
        let builder = builder()?.with_root_certificates(roots(ca_pem.as_ref())?);
        Ok(Self::from_config(Arc::new(builder.with_no_client_auth())))
    }

    /// As [`trusting`](Self::trusting), and shows nodes that ask for it this certificate, with its key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a file cannot be read, or the key does not fit.
    pub fn mutual(
        ca_pem: impl AsRef<Path>,
        certificate_pem: impl AsRef<Path>,
        key_pem: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let builder = builder()?.with_root_certificates(roots(ca_pem.as_ref())?);
        let chain = certificates(certificate_pem.as_ref())?;
        let key = PrivateKeyDer::from_pem_file(key_pem.as_ref())
            .map_err(|error| problem(key_pem.as_ref(), &error))?;
        let config =
            builder.with_client_auth_cert(chain, key).map_err(|error| problem(key_pem.as_ref(), &error))?;
        Ok(Self::from_config(Arc::new(config)))
    }

    /// Uses a configuration of rustls as it is.
    pub fn from_config(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }

    pub(crate) fn context(&self) -> TlsContext {
        Arc::clone(&self.config).into()
    }
}

/// The cryptography that the process has chosen, or else AWS-LC's, by which the driver encrypts.
fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("tls", format!("cannot be used: {error}")).into())
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| problem(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| problem(path, &error))?;
    if certificates.is_empty() {
        return Err(
            ConfigError::new("tls", format!("{} holds no certificate in PEM form", path.display())).into()
        );
    }
    Ok(certificates)
}

fn problem(path: &Path, error: &dyn std::error::Error) -> Error {
    ConfigError::new("tls", format!("cannot use {}: {error}", path.display())).into()
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
