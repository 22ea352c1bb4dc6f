//! The socket of a client that has upgraded, plain or under TLS, as its connection needs it: a
//! read that waits, a write that does not, and a way to another thread. What is read and written
//! is the client's frames; what TLS makes of them is the business of [`tls`] alone.

pub mod tls;

use std::{
    io::{self, ErrorKind, Write},
    net::Shutdown,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BufMut;
use rustix::net::SendFlags;
use rustls::ServerConnection;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use self::tls::TlsSocket;

/// The most that is read from a socket at a time. Together with one frame it is the most of a
/// client's input that waits for anything.
const READ_BYTES: usize = 64 * 1024;

/// See the module's text.
pub enum Socket {
    /// Nothing between the client and us but TCP.
    Plain(TcpStream),
    /// TLS on top. Boxed, since most servers have none or all of these.
    Tls(Box<TlsSocket>),
}

/// A socket on its way to another thread.
pub struct Detached {
    tcp: std::net::TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Reads once, into an emptied `into`. Nothing read is the end of the stream.
    ///
    /// # Errors
    /// What the system says, or that what came is not TLS.
    pub fn poll_read(&self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        into.clear();
        match self {
            Self::Plain(tcp) => poll_read_plain(tcp, cx, into),
            Self::Tls(tls) => tls.poll_read(cx, into),
        }
    }

    /// Ready when a socket that was full takes something again.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// Writes what it takes at once; how many of `bytes` that were. None of them, and no error,
    /// means that it took something else that waited ([`Socket::has_unsent`]).
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where it takes nothing at present; what else the system says.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => Wire(tcp).write(bytes),
            Self::Tls(tls) => tls.send(bytes),
        }
    }

    /// Whether something of what it has taken waits here and not in the system.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// What the system says.
    pub fn shut_down(&self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.send_close_notify();
        }
        SockRef::from(self.tcp()).shutdown(Shutdown::Write)
    }

    /// Has its end be a reset, with which goes what the system still holds for the client. Otherwise
    /// somebody who reads nothing would be offered that for minutes, megabytes of it, by a socket
    /// that nobody counts any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn reset_at_its_end(&self) -> io::Result<()> {
        SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO))
    }

    /// Takes it off this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(self) -> io::Result<Detached> {
        let (tcp, tls) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(tls) => {
                let (tcp, tls) = tls.into_parts();
                (tcp, Some(tls))
            }
        };
        let tcp = tcp.into_std()?;
        Ok(Detached { tcp, tls })
    }
}

impl Detached {
    /// Puts it on this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn attach(self) -> io::Result<Socket> {
        let tcp = TcpStream::from_std(self.tcp)?;
        Ok(match self.tls {
            None => Socket::Plain(tcp),
            Some(tls) => Socket::Tls(Box::new(TlsSocket::new(tcp, tls))),
        })
    }
}

fn poll_read_plain(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    into: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        match tcp.try_read_buf(&mut into.limit(READ_BYTES)) {
            Ok(read) => {
                if (1..READ_BYTES).contains(&read) {
                    // It has emptied the socket; whatever comes from now on is announced anew.
                    // Saying so saves the read that would only find that out.
                    note_blocked(tcp, Interest::READABLE);
                }
                return Poll::Ready(Ok(read));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
}

/// Tokio has to know that a socket is empty or full, or it would not wait for it to be otherwise.
fn note_blocked(tcp: &TcpStream, interest: Interest) {
    let nothing = || Err::<(), _>(ErrorKind::WouldBlock.into());
    let _would_block = tcp.try_io(interest, nothing);
}

/// Bytes straight to and from the system.
///
/// Tokio's own write believes a socket that is new to its thread to be full until the event loop
/// has turned, and a client that has just moved would be taken for a slow one.
struct Wire<'a>(&'a TcpStream);

impl Wire<'_> {
    fn noted<T>(&self, sent: io::Result<T>) -> io::Result<T> {
        let is_full = |e: &io::Error| e.kind() == ErrorKind::WouldBlock;
        if sent.as_ref().is_err_and(is_full) {
            note_blocked(self.0, Interest::WRITABLE);
        }
        sent
    }
}

impl io::Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not through libc, whose send looks first whether its thread is to be cancelled.
        self.noted(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL).map_err(io::Error::from))
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.noted(SockRef::from(self.0).send_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
