//! A test client's end of a connection, plain or under TLS. Servers under TLS are known by their
//! address, so that whatever speaks to a server speaks to one under TLS too.

use std::{
    collections::HashSet,
    env,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
};

use meeting_server::settings::Tls;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::keys::temporary;

/// A certificate for localhost, and its key.
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Certificate {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// One that expires at the beginning of this day.
    pub fn until(year: i32, month: u8, day: u8) -> Self {
        Self::with(|params| params.not_after = rcgen::date_time_ymd(year, month, day))
    }

    fn with(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        Self {
            cert_file: temporary(&pem),
            key_file: temporary(&key_pem),
            pem,
            key_pem,
        }
    }

    /// What the settings say of it.
    pub fn settings(&self) -> Tls {
        Tls {
            cert_file: self.cert_file.to_str().unwrap().to_owned(),
            key_file: self.key_file.to_str().unwrap().to_owned(),
        }
    }

    /// A client that trusts this one alone.
    pub fn trusted(&self) -> Arc<ClientConfig> {
        self.trusted_under(rustls::DEFAULT_VERSIONS)
    }

    /// The same, and it knows these versions of TLS.
    pub fn trusted_under(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// The certificate of all servers of this process that say no other.
pub static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(Certificate::new);

static TRUST: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| CERTIFICATE.trusted());

static UNDER_TLS: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);

/// Whether every server of this run is to be under TLS: `MEETING_SERVER_TESTS_TLS=1`.
pub fn everything_under_tls() -> bool {
    env::var_os("MEETING_SERVER_TESTS_TLS").is_some()
}

/// From now on this server is spoken to under TLS.
pub fn is_under_tls(addr: SocketAddr) {
    UNDER_TLS.lock().unwrap().insert(addr);
}

/// The client's end.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// On a socket that is connected to the server at `addr`.
    pub fn new(tcp: TcpStream, addr: SocketAddr) -> Self {
        if UNDER_TLS.lock().unwrap().contains(&addr) {
            Self::tls(tcp, TRUST.clone())
        } else {
            Self::Plain(tcp)
        }
    }

    pub fn tls(tcp: TcpStream, config: Arc<ClientConfig>) -> Self {
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(config, name).unwrap();
        Self::Tls(Box::new(StreamOwned::new(tls, tcp)))
    }
}

impl Deref for Wire {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl From<socket2::Socket> for Wire {
    fn from(socket: socket2::Socket) -> Self {
        Self::Plain(socket.into())
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(tls) => match tls.read(into) {
                // A socket that was cut has no goodbye of TLS's own.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
