//! A socket that still speaks HTTP, plain or under TLS, with a deadline by which it must have
//! upgraded.
//!
//! actix-http has a deadline of its own for a request's head, but reckons it with a clock that is
//! up to half a second old, and forgets a deadline that has passed before it was first looked at:
//! such a connection would be open for ever. And it answers all requests that it has read, also
//! behind one after which the connection is to be closed, into a buffer without end: so it is shown
//! one request's head alone.
//!
//! Behind that head the stream ends for actix-http, even if the client sends more. So it
//! never waits for a request body, and closes the connection as soon as the response is written:
//! a client that has gone would otherwise hold its descriptor until the deadline. A head that is
//! too long gets HTTP 431 from here, since actix-http would wait for the rest of it.

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

/// The answer to a request whose head does not fit into [`BUDGET`] (RFC 6585 section 5).
const HEAD_TOO_LARGE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\n\
    connection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 51\r\n\r\n\
    the request line and headers are longer than 64 KB\n";

/// How long a client that is still sending may take to read its answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of its input is discarded meanwhile, and how much before other tasks have their turn.
const DISCARD_BYTES: usize = 1024 * 1024;
const DISCARD_BYTES_A_TURN: usize = 64 * 1024;

/// See the module's text. At the deadline reads and writes fail, and the connection with them: a
/// client that sends requests and reads no response is cut as well.
pub struct HttpSocket {
    stream: HttpStream,
    /// How many more bytes are read before the upgrade: a request's head fits well.
    budget: usize,
    head: Head,
    /// What is left to write of [`HEAD_TOO_LARGE`]; `None` while the head is not too large.
    head_too_large: Option<&'static [u8]>,
    /// What has come behind the head: a WebSocket's first frames, or nothing that is answered.
    behind_head: Vec<u8>,
    accepted: Instant,
    deadline: Pin<Box<Sleep>>,
    /// How much is still discarded behind the response; `None` before it is written.
    discard_budget: Option<usize>,
    counted: Option<Arc<Counted>>,
}

enum HttpStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl HttpStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
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
            head_too_large: None,
            behind_head: Vec::new(),
            accepted,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            discard_budget: None,
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

    /// Writes the answer to a head that is too large.
    fn poll_reject_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = self.head_too_large.get_or_insert(HEAD_TOO_LARGE.as_bytes());
        while !rest.is_empty() {
            match ready!(self.stream.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *rest = &rest[written..],
            }
        }
        self.stream.poll_flush(cx)
    }

    /// Reads and drops what the client still sends, until its stream ends. A socket that is closed
    /// with unread input sends a reset, which destroys the response on its way. Where nothing has
    /// come behind the request, nothing more is expected, and the socket is closed at once.
    fn poll_discard(&mut self, cx: &mut Context<'_>, mut budget: usize) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let mut turn = DISCARD_BYTES_A_TURN;
        while budget > 0 {
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buf = ReadBuf::new(&mut bytes);
            match self.stream.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    budget = budget.saturating_sub(buf.filled().len());
                    turn = turn.saturating_sub(buf.filled().len());
                    self.discard_budget = Some(budget);
                }
                // The client has gone, in order or not.
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let still_sends = budget < DISCARD_BYTES
                        || self.head_too_large.is_some()
                        || !self.behind_head.is_empty();
                    if still_sends {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
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
        if self.head.is_over() {
            // Further input waits in the socket, which may become a WebSocket.
            return Poll::Ready(Ok(()));
        }
        if self.budget == 0 {
            // Then its stream ends, for actix-http, in the middle of the head.
            return self.poll_reject_head(cx);
        }
        let before = buf.filled().len();
        ready!(self.stream.poll_read(cx, buf))?;
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
        self.stream.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        let budget = match self.discard_budget {
            Some(budget) => budget,
            None => {
                ready!(self.stream.poll_shutdown(cx))?;
                self.discard_budget = Some(DISCARD_BYTES);
                let latest = Instant::now() + DISCARD_TIMEOUT;
                if latest < self.deadline.deadline() {
                    self.deadline.as_mut().reset(latest);
                    // A timer that was reset wakes its task only once it has been polled.
                    self.in_time(cx)?;
                }
                DISCARD_BYTES
            }
        };
        self.poll_discard(cx, budget)
    }
}
