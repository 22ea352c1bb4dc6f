//! A socket that still speaks HTTP, plain or under TLS, with a deadline by which it must have
//! upgraded.
//!
//! actix-http has a deadline of its own for a request's head, but reckons it with a clock that is
//! up to half a second old, and forgets a deadline that has passed before it was first looked at:
//! such a connection would be open for ever. And it answers all requests that it has read, also
//! behind one after which the connection is to be closed, into a buffer without end: so it is shown
//! one request's head alone.

mod head;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::head::Head;
use crate::{
    admission::Counted,
    socket::{Socket, tls::TlsSocket},
};

/// How many bytes are read before the upgrade, about: the reader's last buffer is read in full.
const BUDGET: usize = 64 * 1024;

/// See the module's text. At the deadline reads and writes fail, and the connection with them: a
/// client that sends requests and reads no response is cut as well.
pub struct HttpSocket {
    stream: HttpStream,
    /// How many more bytes are read before the upgrade: a request's head fits well.
    budget: usize,
    head: Head,
    /// What has come behind the head: a WebSocket's first frames, or nothing that is answered.
    behind_head: Vec<u8>,
    accepted: Instant,
    deadline: Pin<Box<Sleep>>,
    counted: Option<Arc<Counted>>,
}

enum HttpStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl HttpSocket {
    /// A socket that was accepted just now and has so long to upgrade, TLS's handshake included,
    /// where there is to be one. `counted` is held for as long as it lives.
    ///
    /// # Errors
    /// Where the handshake fails, or is not done in time.
    pub async fn accept(
        tcp: TcpStream,
        tls: Option<TlsAcceptor>,
        timeout: Duration,
        counted: Option<Arc<Counted>>,
    ) -> io::Result<Self> {
        let accepted = Instant::now();
        let deadline = accepted + timeout;
        let stream = match tls {
            None => HttpStream::Plain(tcp),
            Some(tls) => {
                let stream = tokio::time::timeout_at(deadline, tls.accept(tcp)).await??;
                HttpStream::Tls(Box::new(stream))
            }
        };
        Ok(Self {
            stream,
            budget: BUDGET,
            head: Head::default(),
            behind_head: Vec::new(),
            accepted,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            counted,
        })
    }

    /// That it counts as a connection, where it does.
    pub fn counted(&self) -> Option<&Arc<Counted>> {
        self.counted.as_ref()
    }

    /// An error once the deadline has passed; until then it wakes the task when it does.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// The socket, which has upgraded in time, what has come behind the request's head, and how long
    /// it took.
    pub fn into_inner(self) -> (Socket, Vec<u8>, Duration) {
        let socket = match self.stream {
            HttpStream::Plain(tcp) => Socket::Plain(tcp),
            HttpStream::Tls(stream) => {
                let (tcp, tls) = stream.into_inner();
                Socket::Tls(Box::new(TlsSocket::new(tcp, Box::new(tls))))
            }
        };
        (socket, self.behind_head, self.accepted.elapsed())
    }
}

impl AsyncRead for HttpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        if self.budget == 0 || self.head.is_over() {
            // Whatever else comes waits in the socket: for the upgrade, or for the deadline.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(match &mut self.stream {
            HttpStream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            HttpStream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        let read = buf.filled().len() - before;
        self.budget = self.budget.saturating_sub(read);
        let of_head = self.head.take(&buf.filled()[before..]);
        self.behind_head
            .extend_from_slice(&buf.filled()[before + of_head..]);
        buf.set_filled(before + of_head);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        match &mut self.stream {
            HttpStream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            HttpStream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        match &mut self.stream {
            HttpStream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            HttpStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        match &mut self.stream {
            HttpStream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            HttpStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
