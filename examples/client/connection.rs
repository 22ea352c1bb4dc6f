//! One WebSocket connection, with time-outs.

use std::{
    io::ErrorKind,
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use serde_json::Value;
use tungstenite::{Error, HandshakeError, Message, WebSocket, http::Uri, protocol::CloseFrame};

use super::{Ended, Stop};

/// How long a connect, a handshake and a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long [`Connection::hear`] waits.
const TICK: Duration = Duration::from_secs(1);

/// What was heard.
pub(super) enum Heard {
    /// A message.
    Message(Value),
    /// The server's close frame.
    Close(u16),
    /// Nothing that a client would have to know.
    Nothing,
}

/// See the module's text.
pub(super) struct Connection {
    socket: WebSocket<TcpStream>,
    /// When the server was last heard, pings included.
    heard: Instant,
}

impl Connection {
    /// Connects to `url`, whose query says which channel is meant.
    pub(super) fn open(url: &str, channel: &str) -> Result<Self, Ended> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("channel", channel);
        let join = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{join}{}", query.finish());
        let no_url = || Ended::For(Stop::Url(url.clone()));
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("ws"));
        let host = host.ok_or_else(no_url)?.trim_matches(['[', ']']);
        let stream = connect(host, uri.port_u16().unwrap_or(80)).ok_or(Ended::Again(None))?;
        let (socket, _) = tungstenite::client(uri, stream).map_err(refused)?;
        // From now on a read that waits in vain is no error.
        let ticking = socket.get_ref().set_read_timeout(Some(TICK));
        ticking.map_err(|_| Ended::Again(None))?;
        Ok(Self {
            socket,
            heard: Instant::now(),
        })
    }

    /// Says something. If that fails, so does the next [`Connection::hear`].
    pub(super) fn say(&mut self, message: &Value) {
        let _ = self.socket.send(Message::text(message.to_string()));
    }

    /// How long nothing has been heard.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Listens for a second. Pings are answered on the way.
    pub(super) fn hear(&mut self) -> Result<Heard, Ended> {
        let message = match self.socket.read() {
            Ok(message) => message,
            Err(Error::Io(e))
                if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                return Ok(Heard::Nothing);
            }
            // Whatever it is, the connection is of no use any more, and the session may be.
            Err(_) => return Err(Ended::Again(None)),
        };
        self.heard = Instant::now();
        Ok(match message {
            Message::Text(text) => {
                // A message that is none would be a defect of the server; go on without it.
                serde_json::from_str(&text).map_or(Heard::Nothing, Heard::Message)
            }
            Message::Close(frame) => self.finish(frame)?,
            _ => Heard::Nothing,
        })
    }

    /// The server has closed: its close frame is answered before the socket goes.
    fn finish(&mut self, frame: Option<CloseFrame>) -> Result<Heard, Ended> {
        // The end comes as an error, and which one it is does not matter.
        while self.socket.read().is_ok() {}
        let code = frame.ok_or(Ended::Again(None))?.code;
        Ok(Heard::Close(code.into()))
    }
}

fn connect(host: &str, port: u16) -> Option<TcpStream> {
    let addresses = (host, port).to_socket_addrs().ok()?;
    let mut streams = addresses.filter_map(|addr| TcpStream::connect_timeout(&addr, PATIENCE).ok());
    let stream = streams.next()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// What to do where the handshake fails.
fn refused<R: tungstenite::handshake::HandshakeRole>(error: HandshakeError<R>) -> Ended {
    match error {
        HandshakeError::Failure(Error::Http(response)) => match response.status().as_u16() {
            // Full, or away: a server or a proxy may say so.
            500.. => Ended::Again(None),
            status => Ended::For(Stop::Http(status)),
        },
        _ => Ended::Again(None),
    }
}
