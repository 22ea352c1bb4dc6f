//! The process around the rooms: worker threads, the listener, signals, and the end.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_http::{HttpService, KeepAlive, Protocol, error::DispatchError};
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{App, dev::AppConfig};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    auth::keyring::Keyring,
    clients,
    crew::Crew,
    handshake::ShownAddress,
    health::reachable,
    http_socket::HttpSocket,
    pages,
    reload::{Hangups, begin_checks, log_openness, reload_for_ever},
    report::report_for_ever,
    settings::{Settings, SettingsError, Source},
    tls::Identity,
    upgrade::{count_refused_connect, upgrade},
    worker::Worker,
};

/// Why a server does not start or go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A key or certificate that the settings name cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A server that listens and does not serve yet.
pub struct Server {
    listener: TcpListener,
    ops_listener: Option<TcpListener>,
    crew: Arc<Crew>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ServerError::Bind`] where an address cannot be had, [`ServerError::Settings`] where a key
    /// or certificate cannot.
    pub fn bind(settings: Settings) -> Result<Self, ServerError> {
        let keyring = Keyring::load(&settings.auth)?;
        let identity = Identity::load(&settings.tls)?;
        let backlog = settings.server.max_pending;
        let send_buffer = settings.session.socket_send_buffer;
        let listener = listen(settings.server.bind, backlog, send_buffer)?;
        let ops_bind = settings.server.ops_bind;
        let ops_listener = ops_bind.map(|addr| listen(addr, backlog, 0)).transpose()?;
        Ok(Self {
            listener,
            ops_listener,
            crew: Arc::new(Crew::new(Arc::new(settings), keyring, identity)),
        })
    }

    /// Where it listens; the port is the real one where the settings say 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the operator's pages are, if that is elsewhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn ops_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.ops_listener
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Serves until `stop` is done, then says goodbye to everybody, or until `abort` is, and
    /// returns. At each of the `hangups` it reads the settings of the source again; where there are
    /// none, it never does. To be called outside of any event loop: it brings its own.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub fn run(
        self,
        stop: impl Future<Output = ()>,
        abort: impl Future<Output = ()>,
        hangups: Option<(Hangups, Source)>,
    ) -> Result<(), ServerError> {
        actix_rt::System::new().block_on(self.serve(stop, abort, hangups))
    }

    async fn serve(
        self,
        stop: impl Future<Output = ()>,
        abort: impl Future<Output = ()>,
        hangups: Option<(Hangups, Source)>,
    ) -> Result<(), ServerError> {
        let start = self.start_line()?;
        let Self {
            listener,
            ops_listener,
            crew,
        } = self;
        // What needs a restart to change is taken from here.
        let settings = crew.settings();
        let checks = begin_checks(&crew, &settings);
        let mut server = actix_server::Server::build()
            .workers(crew.size())
            .max_concurrent_connections(usize::MAX)
            .disable_signals();
        let with_ops = ops_listener.is_none();
        if let Some(ops_listener) = ops_listener {
            let crew = crew.clone();
            server = server.listen("operator", ops_listener, move || {
                let crew = crew.clone();
                let pages = App::new().configure(|config| pages::configure_ops(config, &crew));
                let http = HttpService::build()
                    .keep_alive(KeepAlive::Disabled)
                    .client_request_timeout(Duration::ZERO)
                    .finish(map_config(pages, |_| AppConfig::default()));
                accept(crew, Door::Operator).and_then(http)
            })?;
        }
        let factory = {
            let (settings, crew) = (settings.clone(), crew.clone());
            move || {
                let worker = Worker::on_this_thread(&crew);
                let crew = crew.clone();
                let pages = App::new().configure(|config| {
                    pages::configure(config, &crew, &settings.server);
                    if with_ops {
                        pages::configure_ops(config, &crew);
                    }
                });
                let http = HttpService::build()
                    .on_connect_ext(|socket: &HttpSocket, extensions| {
                        if let Some(counted) = socket.counted() {
                            extensions.insert(counted.clone());
                        }
                    })
                    // A page is one request; who sends more and reads nothing gets no further.
                    .keep_alive(KeepAlive::Disabled)
                    // The socket's own deadline is the one that counts.
                    .client_request_timeout(Duration::ZERO)
                    .upgrade(fn_service(move |upgrading| {
                        upgrade(upgrading, worker.clone())
                    }))
                    .finish(map_config(pages, |_| AppConfig::default()));
                accept(crew, Door::Public).and_then(http)
            }
        };
        let serving = server.listen("meeting-server", listener, factory)?.run();
        let handle = serving.handle();
        let serving = actix_rt::spawn(serving);
        let reporting = async {
            start.log(&settings);
            log_openness(&crew.keyring());
            report_for_ever(crew.clone(), settings.log.stats_interval).await;
        };
        let reloading = async {
            match hangups {
                Some((hangups, source)) => reload_for_ever(&crew, checks, hangups, source).await,
                None => {
                    let _checks = checks;
                    std::future::pending().await
                }
            }
        };
        let mut abort = pin!(abort);
        let mut at_once = tokio::select! {
            // In this order: who reads that it has started may stop it.
            biased;
            () = &mut abort => true,
            () = stop => false,
            () = reloading => false,
            () = reporting => false,
            ended = serving => {
                return Ok(ended.map_err(io::Error::other)??);
            }
        };
        if !at_once {
            at_once = tokio::select! {
                () = drain(&crew, settings.server.drain_timeout) => false,
                () = abort => true,
            };
        }
        if at_once {
            crew.begin_drain();
            log::warn!("ended at once");
            // Nobody is waited for, but everybody is told, and has a line in the log.
            for arbiter in crew.arbiters() {
                arbiter.spawn_fn(|| {
                    Worker::begin_drain();
                    clients::dismiss_all(Duration::ZERO, 0, 1);
                });
            }
            tokio::time::sleep(LAST_WORDS).await;
        }
        handle.stop(false).await;
        Ok(())
    }

    /// Where a browser on this machine finds the page.
    fn page_url(&self) -> io::Result<String> {
        let scheme = match self.crew.identity() {
            Some(_) => "https",
            None => "http",
        };
        Ok(format!("{scheme}://{}/", reachable(self.local_addr()?)))
    }

    fn start_line(&self) -> io::Result<StartLine> {
        let has_page = self.crew.settings().server.demo;
        Ok(StartLine {
            bind: self.local_addr()?,
            page: has_page.then(|| self.page_url()).transpose()?,
            ops: self.ops_addr()?,
            workers: self.crew.size(),
        })
    }
}

/// What the log says at the start that the settings do not know.
struct StartLine {
    bind: SocketAddr,
    page: Option<String>,
    ops: Option<SocketAddr>,
    workers: usize,
}

impl StartLine {
    fn log(&self, settings: &Settings) {
        log::info!(
            version = env!("CARGO_PKG_VERSION"),
            commit = Some(crate::COMMIT).filter(|commit| !commit.is_empty()),
            bind:% = self.bind,
            page = self.page.as_deref(),
            ops = self.ops.map(|ops| ops.to_string()).as_deref(),
            workers = self.workers,
            tls = !settings.tls.cert_file.is_empty(),
            max_connections = settings.server.max_connections,
            max_connections_per_ip = settings.server.max_connections_per_ip,
            max_rooms = settings.rooms.max_rooms,
            max_members = settings.rooms.max_members,
            rate_limit = settings.session.rate_limit;
            "start"
        );
    }
}

/// How long the threads have for their last words when the server is ended at once.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long a connection for which there is no place may take to ask and to read that there is none.
/// It is a file descriptor all the same.
const TIME_TO_BE_REFUSED: Duration = Duration::from_secs(1);

/// For whom a listener is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// For everybody: connections are counted, and speak under TLS where there is TLS.
    Public,
    /// For the operator: neither.
    Operator,
}

/// Makes of an accepted connection one that speaks HTTP.
fn accept(
    crew: Arc<Crew>,
    door: Door,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (HttpSocket, Protocol, Option<SocketAddr>),
    Error = DispatchError,
    InitError = (),
> {
    fn_service(move |tcp: TcpStream| {
        let crew = crew.clone();
        async move {
            let peer = tcp.peer_addr().ok();
            let address = peer.map(|peer| peer.ip());
            let public = Some(&crew).filter(|_| door == Door::Public);
            if public.is_some_and(|crew| !crew.admission().admits_connect(address)) {
                // Closed without an answer: a TLS handshake is what the limit is there to save.
                count_refused_connect(address);
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
            // An answer that is followed by an event must not wait for the client's ACK.
            tcp.set_nodelay(true)?;
            let counted = public.map(|crew| Arc::new(crew.admission().accept(address)));
            let has_no_place = counted.as_ref().is_some_and(|counted| !counted.has_place());
            let join_timeout = crew.settings().session.join_timeout;
            let timeout = if has_no_place {
                join_timeout.min(TIME_TO_BE_REFUSED)
            } else {
                join_timeout
            };
            let tls = public.and_then(|crew| crew.identity());
            let tls = tls.map(Identity::acceptor);
            let socket = HttpSocket::accept(tcp, tls, timeout, counted)
                .await
                .inspect_err(|error| {
                    // Whoever looks for open ports does this all day.
                    log::debug!(client:% = ShownAddress(address), error:% = error; "no TLS");
                })?;
            Ok((socket, Protocol::Http1, peer))
        }
    })
}

/// Listens. Accepted sockets inherit a `send_buffer` from the listener; 0 leaves it to the system,
/// which lets it grow to the third value of `net.ipv4.tcp_wmem`.
fn listen(addr: SocketAddr, backlog: u32, send_buffer: usize) -> Result<TcpListener, ServerError> {
    let listener = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if send_buffer > 0 {
            socket.set_send_buffer_size(send_buffer)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    };
    listener().map_err(|source| ServerError::Bind { addr, source })
}

/// Tells everybody that the server goes down and waits until the last one has gone, or `timeout`
/// has passed. Connections that have not upgraded are not waited for.
///
/// Each room says goodbye together, and the rooms one after another over the first
/// half of the time, so that those who come back do not come all at once, whether they know of
/// `retry_after_ms` or not.
async fn drain(crew: &Crew, timeout: Duration) {
    let begun = Instant::now();
    crew.begin_drain();
    log::info!(connections = crew.admission().upgraded(); "going down");
    let arbiters = crew.arbiters();
    let mut rooms = Vec::with_capacity(arbiters.len());
    for arbiter in &arbiters {
        let (tell, told) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // Nobody listens any more where the stop was cut short.
            let _ = tell.send(Worker::begin_drain());
        });
        // A thread that hangs must not keep the others from their goodbye.
        let count = tokio::time::timeout(Duration::from_millis(500), told).await;
        rooms.push(count.map_or(0, |count| count.unwrap_or(0)));
    }
    let all = rooms.iter().sum();
    let mut first = 0;
    for (arbiter, count) in arbiters.into_iter().zip(rooms) {
        arbiter.spawn_fn(move || clients::dismiss_all(timeout / 2, first, all));
        first += count;
    }
    // A room has its last word in the log when its last member has left.
    let is_over = || crew.admission().upgraded() == 0 && crew.admission().rooms() == 0;
    while !is_over() && begun.elapsed() < timeout {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    log::info!(connections_left = crew.admission().upgraded(); "gone down");
}

/// Keeps SIGXFSZ from ending the process: with a handler for it, a write to a log file that has
/// reached its size limit (RLIMIT_FSIZE) fails instead, and the line is lost.
///
/// # Errors
/// Where the system refuses to have it caught.
pub fn survive_file_size_limit() -> io::Result<()> {
    // Only an event loop installs a handler. The handler outlives it, and what it would wake.
    let event_loop = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _entered = event_loop.enter();
    let _handler = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    Ok(())
}

/// Done at the SIGTERM or SIGINT with this number, the first being 1.
///
/// # Errors
/// Where the system refuses to have them caught.
pub async fn signalled(times: usize) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for _ in 0..times {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    Ok(())
}
