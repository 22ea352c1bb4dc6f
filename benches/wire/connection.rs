//! One WebSocket connection of a client, on tokio and without a task of its own.
//!
//! Whoever owns it reads and writes by turns. What a full socket does not take waits in the
//! connection, and goes on its way while the next message is waited for.

use std::{
    io::{self, ErrorKind},
    mem,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
    task,
};

use super::frame;

/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Messages in a row after which the other connections of the thread have their turn.
const TURN: u32 = 64;

/// The upgrade request of [`Connection::open`], and what makes an answer the right one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Where the server is.
    pub to: SocketAddr,
    /// Where from: each address of 127.0.0.0/8 has ports of its own.
    pub from: Ipv4Addr,
    /// Sockets that buffer next to nothing, as on a bad network; otherwise the loopback takes
    /// megabytes before a reader that has stopped is noticed.
    pub narrow: bool,
}

impl Route {
    /// One of a few source addresses, by turns.
    pub fn new(to: SocketAddr, nth: u32) -> Self {
        Self {
            to,
            from: Ipv4Addr::new(127, 0, 0, 1 + (nth % 8) as u8),
            narrow: false,
        }
    }

    /// A TCP connection and nothing more.
    pub async fn connect(self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.narrow {
            socket.set_recv_buffer_size(4096)?;
            socket.set_tcp_mss(536)?;
        }
        socket.bind(&SocketAddr::from((self.from, 0)).into())?;
        TcpSocket::from_std_stream(socket.into())
            .connect(self.to)
            .await
    }
}

/// What came.
#[derive(Debug)]
pub enum Received<'a> {
    /// A message.
    Text(&'a str),
    /// A ping, which has been answered.
    Ping,
    /// A close frame with this code.
    Close(u16),
    /// The end of the stream, or a reset.
    End,
    /// Something that a server of this protocol never sends.
    Nonsense(String),
}

/// What came, while it may still be moved.
enum Arrived {
    Text(std::ops::Range<usize>),
    Ping,
    Close(u16),
    Nonsense(String),
}

/// See the module's text.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of `input` has been handed out.
    used: usize,
    output: Vec<u8>,
    /// How much of `output` the socket has taken.
    written: usize,
    /// How many messages came without waiting for one.
    in_a_row: u32,
}

impl Connection {
    /// Connects and upgrades.
    pub async fn open(route: Route) -> io::Result<Self> {
        let mut connection = Self::over(route.connect().await?);
        let to = route.to;
        connection.output = format!(
            "GET /ws HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )
        .into_bytes();
        let end = loop {
            let end = connection.input.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            if connection.more().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&connection.input[..end]);
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
            return Err(io::Error::other(format!("no upgrade: {head}")));
        }
        connection.used = end;
        Ok(connection)
    }

    /// A connection that says nothing yet.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            used: 0,
            output: Vec::new(),
            written: 0,
            in_a_row: 0,
        }
    }

    /// Sends a text message, now or while the next one is waited for.
    pub fn send(&mut self, text: &str) {
        self.send_frame(frame::TEXT, text.as_bytes());
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        frame::write(opcode, payload, &mut self.output);
        self.flush();
    }

    /// Sends bytes, whatever they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends a close frame.
    pub fn close(&mut self, code: u16) {
        self.send_frame(frame::CLOSE, &code.to_be_bytes());
    }

    /// How many bytes the socket has not taken yet.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    /// Offers the socket what waits. That it is dead shows when it is read from.
    fn flush(&mut self) {
        while self.written < self.output.len() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.output.clear();
        self.output.shrink_to(READ_BYTES);
        self.written = 0;
    }

    /// The next message, waited for. May be cancelled: nothing is lost by it.
    pub async fn receive(&mut self) -> Received<'_> {
        self.in_a_row += 1;
        if self.in_a_row >= TURN {
            self.in_a_row = 0;
            task::yield_now().await;
        }
        let arrived = loop {
            if let Some(arrived) = self.arrived() {
                break arrived;
            }
            match self.more().await {
                Ok(0) | Err(_) => return Received::End,
                Ok(_) => {}
            }
        };
        match arrived {
            Arrived::Text(at) => match std::str::from_utf8(&self.input[at]) {
                Ok(text) => Received::Text(text),
                Err(e) => Received::Nonsense(format!("text that is {e}")),
            },
            Arrived::Ping => Received::Ping,
            Arrived::Close(code) => Received::Close(code),
            Arrived::Nonsense(why) => Received::Nonsense(why),
        }
    }

    /// The next frame of what was read.
    fn arrived(&mut self) -> Option<Arrived> {
        let input = &self.input[self.used..];
        let header = match frame::read(input) {
            Ok(header) => header?,
            Err(why) => return Some(Arrived::Nonsense(why)),
        };
        let payload = &input[header.payload.clone()];
        let arrived = match header.opcode {
            frame::TEXT => {
                let (start, end) = (header.payload.start, header.payload.end);
                Arrived::Text(self.used + start..self.used + end)
            }
            frame::PING => {
                frame::write(frame::PONG, payload, &mut self.output);
                Arrived::Ping
            }
            frame::CLOSE => Arrived::Close(match payload.first_chunk() {
                Some(code) => u16::from_be_bytes(*code),
                None => 1005,
            }),
            other => Arrived::Nonsense(format!("a frame of opcode {other}")),
        };
        self.used += header.payload.end;
        if matches!(arrived, Arrived::Ping) {
            self.flush();
        }
        Some(arrived)
    }

    /// Reads once, waiting for it; meanwhile what waits is sent.
    async fn more(&mut self) -> io::Result<usize> {
        loop {
            self.flush();
            match self.read(READ_BYTES) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.in_a_row = 0;
            let interest = match self.unsent() {
                0 => Interest::READABLE,
                _ => Interest::READABLE | Interest::WRITABLE,
            };
            self.stream.ready(interest).await?;
        }
    }

    /// Reads at most so many bytes, without waiting.
    fn read(&mut self, most: usize) -> io::Result<usize> {
        self.input.drain(..mem::take(&mut self.used));
        let len = self.input.len();
        self.input.resize(len + most, 0);
        let read = self.stream.try_read(&mut self.input[len..]);
        self.input.truncate(len + *read.as_ref().unwrap_or(&0));
        if self.input.is_empty() {
            self.input.shrink_to(0);
        }
        read
    }

    /// Takes a few bytes from the socket and waits, again and again for so long: a network that
    /// trickles. What has come is there for [`receive`](Self::receive). `false`: it has ended.
    pub async fn trickle(&mut self, bytes: usize, pause: Duration, times: u32) -> bool {
        for _ in 0..times {
            match self.read(bytes) {
                Ok(0) => return false,
                Err(e) if e.kind() != ErrorKind::WouldBlock => return false,
                _ => tokio::time::sleep(pause).await,
            }
        }
        true
    }

    /// Drops the connection so that the other side is told by a reset.
    pub fn reset(self) {
        // Where it fails it is an orderly end, and as good a loss.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more will come, as an app does that is killed.
    pub fn shut_down(&mut self) {
        // Where it fails the connection is dead already.
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
    }
}
