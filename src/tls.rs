//! Who we are under TLS: the certificate and the key, and what rustls is told of them. The
//! sockets are the business of [`crate::http_socket`] and [`crate::socket`].

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{self, Ticketer},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::NoServerSessionStorage,
};
use tokio_rustls::TlsAcceptor;
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::Decode,
};

use crate::settings::{SettingsError, Tls};

/// What connections are taken in with, from now on. It can be changed while the server runs: a
/// certificate is renewed every few weeks, and nobody is to be dropped for it.
pub struct Identity(RwLock<Present>);

/// What an [`Identity`] is at present.
#[derive(Clone)]
struct Present {
    config: Arc<ServerConfig>,
    /// When the server's own certificate expires, in seconds since 1970, where that can be read.
    not_after: Option<u64>,
}

impl fmt::Debug for Identity {
    // Keys have no place in any print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// The identity of the settings; `None` where they name none.
    ///
    /// # Errors
    /// [`SettingsError`] where a file cannot be used.
    pub fn load(settings: &Tls) -> Result<Option<Self>, SettingsError> {
        if settings.cert_file.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self(RwLock::new(present(settings)?))))
    }

    /// From now on connections are taken in as `other`.
    pub fn replace(&self, other: Self) {
        let other = other.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// What the next connection is taken in with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let present = self.0.read().unwrap_or_else(PoisonError::into_inner);
        present.config.clone().into()
    }

    /// When the server's own certificate expires, in seconds since 1970, where that can be read.
    pub fn not_after(&self) -> Option<u64> {
        let present = self.0.read().unwrap_or_else(PoisonError::into_inner);
        present.not_after
    }
}

/// The end of a certificate's validity, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    // Not checked against RFC 5280: rustls has taken it, and only one date is read.
    let certificate = CertificateInner::<Raw>::from_der(certificate)
        .inspect_err(|error| {
            log::warn!(error:% = error; "the certificate's end cannot be read for the metrics");
        })
        .ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some(validity.not_after.to_unix_duration().as_secs())
}

fn present(settings: &Tls) -> Result<Present, SettingsError> {
    let Tls {
        cert_file,
        key_file,
    } = settings;
    let chain = certificates(cert_file).map_err(|e| {
        let remedy = format!("must be a certificate chain in PEM, the server's own first: {e}");
        unusable("tls.cert_file", cert_file, remedy)
    })?;
    let not_after = chain.first().and_then(not_after);
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| {
        let remedy = format!("must be a private key in PEM: {}", said(&e));
        unusable("tls.key_file", key_file, remedy)
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable("tls.cert_file", cert_file, format!("cannot be used: {e}")))?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| {
            let remedy = format!("must be the key of the certificate in tls.cert_file: {e}");
            unusable("tls.key_file", key_file, remedy)
        })?;
    // A WebSocket begins with HTTP/1.1; a browser that is told so does not try HTTP/2 first.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Who comes back after a network change has a ticket, which any thread can read.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()
        .map_err(|e| unusable("tls.key_file", key_file, format!("cannot be used: {e}")))?;
    Ok(Present {
        config: Arc::new(config),
        not_after,
    })
}

/// All certificates of a file; at least one.
fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|e| said(&e));
    match certificates {
        Ok(chain) if chain.is_empty() => Err("there is none in it".into()),
        certificates => certificates,
    }
}

/// What is wrong with a file. Never a word of what is in it.
fn said(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(e) if e.kind() == io::ErrorKind::NotFound => "there is no such file".into(),
        pem::Error::Io(e) => e.to_string(),
        pem::Error::NoItemsFound => "there is none in it".into(),
        _ => "it is no PEM".into(),
    }
}

fn unusable(key: &str, file: &str, remedy: String) -> SettingsError {
    SettingsError::Invalid {
        key: key.into(),
        value: format!("{file:?}"),
        remedy,
    }
}
