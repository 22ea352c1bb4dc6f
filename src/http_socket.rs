//! A socket that still speaks HTTP, with a deadline by which it must have upgraded.
//!
//! actix-http has a deadline of its own for a request's head, but reckons it with a clock that is
//! up to half a second old, and forgets a deadline that has passed before it was first looked at:
//! such a connection would be open for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// How many bytes are read before the upgrade, about: the reader's last buffer is read in full.
const BUDGET: usize = 64 * 1024;

/// See the module's text. At the deadline reads and writes fail, and the connection with them: a
/// client that sends requests and reads no response is cut as well.
pub struct HttpSocket {
    socket: TcpStream,
    /// How many more bytes are read before the upgrade. A request's head fits well; requests
    /// without end, sent by somebody who reads no response, do not.
    budget: usize,
    accepted: Instant,
    deadline: Pin<Box<Sleep>>,
}

impl HttpSocket {
    /// A socket that has so long to upgrade.
    pub fn new(socket: TcpStream, timeout: Duration) -> Self {
        Self {
            socket,
            budget: BUDGET,
            accepted: Instant::now(),
            deadline: Box::pin(tokio::time::sleep(timeout)),
        }
    }

    /// The socket.
    pub fn get_ref(&self) -> &TcpStream {
        &self.socket
    }

    /// An error once the deadline has passed; until then it wakes the task when it does.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// The socket, which has upgraded in time, and how long it took.
    pub fn into_inner(self) -> (TcpStream, Duration) {
        (self.socket, self.accepted.elapsed())
    }
}

impl AsyncRead for HttpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        if self.budget == 0 {
            // Whatever else comes waits in the socket: for the upgrade, or for the deadline.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.budget = self.budget.saturating_sub(read);
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
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
