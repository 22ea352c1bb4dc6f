//! The question whether a running server is ready, for container checks and scripts.

mod any_certificate;

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConnection, StreamOwned};
use thiserror::Error;

use crate::settings::Settings;

/// How long the whole question may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest status line that is looked at.
const MAX_STATUS_LINE: usize = 256;

/// Why a server is not ready.
#[derive(Debug, Error)]
pub enum HealthError {
    /// Nothing answers, or not in time.
    #[error("not ready: {addr} does not answer: {source}")]
    Silent {
        /// Who was asked.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// It says no, or something that is no answer.
    #[error("not ready: {addr} answers {status:?}")]
    Refused {
        /// Who was asked.
        addr: SocketAddr,
        /// The line that came.
        status: String,
    },
}

/// Where a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// The address.
    pub addr: SocketAddr,
    /// Whether it speaks under TLS there.
    pub tls: bool,
}

/// Where a server with these settings is asked: at its operator's address, which has no TLS, or
/// else at the one for everybody.
pub fn door(settings: &Settings) -> Door {
    let server = &settings.server;
    let addr = reachable(server.ops_bind.unwrap_or(server.bind));
    let tls = server.ops_bind.is_none() && !settings.tls.cert_file.is_empty();
    Door { addr, tls }
}

/// Where something that listens at `addr` is reached from this machine: loopback, where it listens
/// on all addresses.
pub fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

/// Asks the server behind `door` for its `/readyz`.
///
/// # Errors
/// [`HealthError`], where the answer within `timeout` is anything but 200.
pub fn ask(door: Door, timeout: Duration) -> Result<(), HealthError> {
    let addr = door.addr;
    let line = status_line(door, timeout).map_err(|source| HealthError::Silent { addr, source })?;
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["HTTP/1.1" | "HTTP/1.0", "200", ..] => Ok(()),
        _ => Err(HealthError::Refused { addr, status: line }),
    }
}

/// A connection that is over at the deadline, also for a server that sends a byte now and then.
struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn in_time<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| match error.kind() {
            // What a timeout is called on Unix; "resource unavailable" would tell nobody.
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        let read = self.tcp.read(into);
        self.in_time(read)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        let written = self.tcp.write(bytes);
        self.in_time(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// The first line of the answer, or as much of it as came before the end.
fn status_line(Door { addr, tls }: Door, timeout: Duration) -> io::Result<String> {
    let deadline = Instant::now() + timeout;
    let tcp = TcpStream::connect_timeout(&addr, timeout)?;
    let tcp = Timed { tcp, deadline };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let mut stream: Box<dyn Stream> = if tls {
        let config = any_certificate::client_config().map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::new(config), addr.ip().into());
        Box::new(StreamOwned::new(tls.map_err(io::Error::other)?, tcp))
    } else {
        Box::new(tcp)
    };
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    let mut chunk = [0; MAX_STATUS_LINE];
    loop {
        let read = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Who closes without TLS's own goodbye has closed all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read?,
        };
        line.extend_from_slice(&chunk[..read]);
        let end = line.windows(2).position(|two| two == b"\r\n");
        if read == 0 || end.is_some() || line.len() >= MAX_STATUS_LINE {
            line.truncate(end.unwrap_or(line.len()));
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::mpsc, thread};

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_operators_address_is_asked_first_and_everywhere_means_here() {
        for (bind, ops_bind, asked) in [
            ("192.0.2.1:80", None, "192.0.2.1:80"),
            ("192.0.2.1:80", Some("192.0.2.2:90"), "192.0.2.2:90"),
            ("0.0.0.0:80", None, "127.0.0.1:80"),
            ("[::]:80", None, "[::1]:80"),
            ("127.0.0.1:80", Some("0.0.0.0:90"), "127.0.0.1:90"),
        ] {
            let mut settings = Settings::defaults();
            settings.server.bind = bind.parse().unwrap();
            settings.server.ops_bind = ops_bind.map(|addr| addr.parse().unwrap());
            let addr = asked.parse().unwrap();
            assert_eq!(door(&settings), Door { addr, tls: false });
            settings.tls.cert_file = "cert.pem".into();
            let tls = ops_bind.is_none();
            assert_eq!(door(&settings), Door { addr, tls });
        }
    }

    /// What a server is taken for that answers so, and then closes or (`open`) says no more.
    fn asked(answer: &'static str, open: bool, timeout: Duration) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (done, is_done) = mpsc::channel::<()>();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
            if open {
                let _ = is_done.recv();
            }
        });
        let result = ask(Door { addr, tls: false }, timeout).map_err(|error| error.to_string());
        drop(done);
        server.join().unwrap();
        result
    }

    #[test]
    fn only_200_is_ready() {
        let patience = Duration::from_secs(20);
        assert_eq!(asked("HTTP/1.1 200 OK\r\n\r\nok", true, patience), Ok(()));
        for (answer, said) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\n",
                "\"HTTP/1.1 503 Service Unavailable\"",
            ),
            ("HTTP/1.1 2000\r\n", "\"HTTP/1.1 2000\""),
            ("SSH-2.0-OpenSSH 200\r\n", "\"SSH-2.0-OpenSSH 200\""),
            ("\n\u{202e}", "\"\\n\\u{202e}\""),
            ("", "\"\""),
        ] {
            let error = asked(answer, false, patience).unwrap_err();
            assert!(error.ends_with(&format!("answers {said}")), "{error}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for() {
        let error = asked("HTTP/1.1 2", true, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("does not answer: timed out"), "{error}");
    }
}
