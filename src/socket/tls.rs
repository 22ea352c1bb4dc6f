//! A client's socket under TLS. The handshake is over when it gets here.
//!
//! rustls keeps what it has encrypted until the socket takes it. Only one write's worth may wait
//! there: then the socket counts as full, and what waits stays in the outbox, where it is bounded
//! and can be dropped.

use std::{
    cell::RefCell,
    io::{self, BufRead, ErrorKind, Write},
    task::{Context, Poll, ready},
};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use super::Wire;

/// See the module's text.
pub struct TlsSocket {
    tcp: TcpStream,
    tls: RefCell<Box<ServerConnection>>,
}

impl TlsSocket {
    /// A socket whose handshake is over.
    pub fn new(tcp: TcpStream, tls: Box<ServerConnection>) -> Self {
        let tls = RefCell::new(tls);
        Self { tcp, tls }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn into_parts(self) -> (TcpStream, Box<ServerConnection>) {
        (self.tcp, self.tls.into_inner())
    }

    /// As [`super::Socket::poll_read`]. rustls holds no more than a record or two at a time.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut tls = self.tls.borrow_mut();
        loop {
            match take_plaintext(&mut tls, into) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
            // What was wrong with the last records is said once those before them are taken.
            self.decrypt(&mut tls)?;
            ready!(self.tcp.poll_read_ready(cx))?;
            match tls.read_tls(&mut Wire(&self.tcp)) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => return Poll::Ready(Err(e)),
            }
            // An error is told again when it is asked for again, above.
            let _ = self.decrypt(&mut tls);
        }
    }

    fn decrypt(&self, tls: &mut ServerConnection) -> io::Result<()> {
        let had_unsent = tls.wants_write();
        let decrypted = tls.process_new_packets();
        // What came may want an answer of TLS itself: a new key, or an alert that says what was
        // wrong. Behind something else it waits: that the socket takes what waited is for `send`
        // to find out, or its client would be thought to take nothing.
        if !had_unsent {
            // Where the socket is full it goes with whatever is sent next.
            let _ = self.write_out(tls);
        }
        match decrypted {
            Ok(_) => Ok(()),
            Err(e) => Err(io::Error::new(ErrorKind::InvalidData, e)),
        }
    }

    /// As [`super::Socket::send`].
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        if tls.wants_write() {
            tls.write_tls(&mut Wire(&self.tcp))?;
            return Ok(0);
        }
        let taken = tls.writer().write(bytes)?;
        match self.write_out(&mut tls) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(taken),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.tls.borrow().wants_write()
    }

    /// Says goodbye in TLS's own way, as far as the socket takes it.
    pub(super) fn send_close_notify(&self) {
        let mut tls = self.tls.borrow_mut();
        tls.send_close_notify();
        // The close frame was the goodbye that counts.
        let _ = self.write_out(&mut tls);
    }

    fn write_out(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut Wire(&self.tcp))?;
        }
        Ok(())
    }
}

/// Appends what has been decrypted; nothing is the end of the stream, whether TLS was told of it
/// or not: what an end means is decided by the close frame, which is under TLS already.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] where there is nothing yet.
fn take_plaintext(tls: &mut ServerConnection, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut reader = tls.reader();
    loop {
        let taken = match reader.fill_buf() {
            Ok(chunk) => {
                into.extend_from_slice(chunk);
                chunk.len()
            }
            Err(_) if !into.is_empty() => 0,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => 0,
            Err(e) => return Err(e),
        };
        if taken == 0 {
            return Ok(into.len());
        }
        reader.consume(taken);
    }
}
