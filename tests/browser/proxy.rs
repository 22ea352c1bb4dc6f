//! A network between a client and its server, which a test can cut and mend.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

/// What becomes of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    Fair,
    /// They wait, and new connections with them, as on a link that is down for a while.
    Silent,
    /// Every connection is reset, and each new one.
    Severed,
    /// The proxy ends.
    Over,
}

struct Shared {
    weather: Mutex<Weather>,
    changed: Condvar,
    upstream: Mutex<SocketAddr>,
    sockets: Mutex<Vec<TcpStream>>,
    /// What stands in front of every path here and is taken away on its way, like "/meet".
    prefix: &'static str,
}

impl Shared {
    /// Waits while it is silent; whether bytes may pass then.
    fn passes(&self) -> bool {
        let weather = self.weather.lock().unwrap();
        let silent = |weather: &mut Weather| *weather == Weather::Silent;
        *self.changed.wait_while(weather, silent).unwrap() == Weather::Fair
    }

    fn turn(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
        self.changed.notify_all();
    }
}

/// A TCP proxy on a port of its own.
pub struct Proxy {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn to(upstream: SocketAddr) -> Self {
        Self::below("", upstream)
    }

    /// The same for those who ask for paths below `prefix`.
    pub fn below(prefix: &'static str, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            weather: Mutex::new(Weather::Fair),
            changed: Condvar::new(),
            upstream: Mutex::new(upstream),
            sockets: Mutex::new(Vec::new()),
            prefix,
        });
        let acceptor = {
            let shared = shared.clone();
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// New connections go there from now on.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = upstream;
    }

    /// Nothing passes any more, and nobody is told.
    pub fn silence(&self) {
        self.shared.turn(Weather::Silent);
    }

    /// Every connection breaks off, and so does each new one.
    pub fn sever(&self) {
        self.shared.turn(Weather::Severed);
        self.reset();
    }

    /// All is well again. What has waited goes on its way.
    pub fn mend(&self) {
        self.shared.turn(Weather::Fair);
    }

    fn reset(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.turn(Weather::Over);
        self.reset();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if *shared.weather.lock().unwrap() == Weather::Over {
            return;
        }
        let Ok(client) = client else { continue };
        let shared = shared.clone();
        std::thread::spawn(move || serve(client, &shared));
    }
}

fn serve(mut client: TcpStream, shared: &Arc<Shared>) {
    let upstream = *shared.upstream.lock().unwrap();
    if !shared.passes() {
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    }
    // A server that is down: the client's connection ends as well.
    let Ok(mut server) = TcpStream::connect(upstream) else {
        return;
    };
    let nodelay = [&client, &server].map(|socket| socket.set_nodelay(true));
    if nodelay.iter().any(Result::is_err) {
        return;
    }
    let copies = [&client, &server].map(|socket| socket.try_clone().unwrap());
    shared.sockets.lock().unwrap().extend(copies);
    if !shared.prefix.is_empty() && strip(&mut client, &mut server, shared.prefix).is_err() {
        return;
    }
    let back = {
        let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let shared = shared.clone();
        std::thread::spawn(move || pump(from, to, &shared))
    };
    pump(client, server, shared);
    let _ = back.join();
}

/// Passes the first line of a request on, without the prefix of its path. Each connection carries
/// one request: the server keeps none alive.
fn strip(client: &mut TcpStream, server: &mut TcpStream, prefix: &str) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        client.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line).replacen(&format!(" {prefix}/"), " /", 1);
    server.write_all(line.as_bytes())
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut chunk = [0; 16_384];
    loop {
        let read = from.read(&mut chunk);
        // What comes in a silence waits for its end; the end of a stream does as well.
        if !shared.passes() {
            break;
        }
        match read {
            Ok(n @ 1..) if to.write_all(&chunk[..n]).is_ok() => {}
            Ok(_) => {
                let _ = to.shutdown(Shutdown::Write);
                break;
            }
            Err(_) => {
                let _ = socket2::SockRef::from(&to).set_linger(Some(Duration::ZERO));
                let _ = to.shutdown(Shutdown::Both);
                break;
            }
        }
    }
}
