//! The process around the rooms: worker threads, the listener, signals, and the end.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::{App, dev::AppConfig};
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};

use crate::{
    admission::Admission, clients, crew::Crew, http_socket::HttpSocket, media::MediaServers, pages,
    settings::Settings, upgrade::upgrade, worker::Worker,
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
    /// A setting asks for what this version does not do. Better no server than one that is open
    /// where it was meant to be guarded.
    #[error("{0} is set, and this version cannot do that yet; leave it out")]
    NotYet(&'static str),
    /// The system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A server that listens and does not serve yet.
pub struct Server {
    listener: TcpListener,
    settings: Arc<Settings>,
    crew: Arc<Crew>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ServerError::Bind`] where the address cannot be had, [`ServerError::NotYet`] for settings
    /// that would have to be ignored at somebody's peril.
    pub fn bind(settings: Settings) -> Result<Self, ServerError> {
        if !settings.auth.keys.is_empty() {
            return Err(ServerError::NotYet("auth.keys"));
        }
        if !settings.tls.cert_file.is_empty() {
            return Err(ServerError::NotYet("tls.cert_file"));
        }
        let addr = settings.server.bind;
        let listener = listen(addr, settings.server.max_pending)
            .map_err(|source| ServerError::Bind { addr, source })?;
        let admission = Admission::new(&settings);
        let crew = Arc::new(Crew::new(settings.worker_count(), admission));
        Ok(Self {
            listener,
            settings: Arc::new(settings),
            crew,
        })
    }

    /// Where it listens; the port is the real one where the settings say 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then says goodbye to everybody and returns. To be called
    /// outside of any event loop: it brings its own.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub fn run(self, stop: impl Future<Output = ()> + 'static) -> Result<(), ServerError> {
        actix_rt::System::new().block_on(self.serve(stop))
    }

    async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self {
            listener,
            settings,
            crew,
        } = self;
        let workers = settings.worker_count();
        log::info!(
            "meeting-server {} listens on {}, workers {workers}",
            env!("CARGO_PKG_VERSION"),
            listener.local_addr()?,
        );
        let media = Arc::new(MediaServers::new(&settings.media_servers));
        let factory = {
            let (settings, crew) = (settings.clone(), crew.clone());
            move || {
                let worker = Worker::on_this_thread(&settings, &media, &crew);
                let (crew, door) = (crew.clone(), crew.clone());
                let pages = App::new().configure(|config| pages::configure(config, &crew));
                let http = HttpService::build()
                    .on_connect_ext(move |socket: &HttpSocket, extensions| {
                        let peer = socket.get_ref().peer_addr().ok().map(|peer| peer.ip());
                        extensions.insert(Arc::new(door.admission().accept(peer)));
                    })
                    // The socket's own deadline is the one that counts.
                    .client_request_timeout(Duration::ZERO)
                    .upgrade(fn_service(move |upgrading| {
                        upgrade(upgrading, worker.clone())
                    }))
                    .finish(map_config(pages, |_| AppConfig::default()));
                let join_timeout = settings.session.join_timeout;
                fn_service(move |socket: TcpStream| async move {
                    // An answer that is followed by an event must not wait for the client's ACK.
                    socket.set_nodelay(true)?;
                    let peer = socket.peer_addr().ok();
                    let socket = HttpSocket::new(socket, join_timeout);
                    Ok::<_, DispatchError>((socket, Protocol::Http1, peer))
                })
                .and_then(http)
            }
        };
        let serving = actix_server::Server::build()
            .workers(workers)
            .max_concurrent_connections(usize::MAX)
            .disable_signals()
            .listen("meeting-server", listener, factory)?
            .run();
        let handle = serving.handle();
        let serving = actix_rt::spawn(serving);
        tokio::select! {
            () = stop => {}
            ended = serving => {
                return Ok(ended.map_err(io::Error::other)??);
            }
        }
        drain(&crew, settings.server.drain_timeout).await;
        handle.stop(false).await;
        Ok(())
    }
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Tells everybody that the server goes down and waits until the last one has gone, or `timeout`
/// has passed.
async fn drain(crew: &Crew, timeout: Duration) {
    crew.begin_drain();
    log::info!("going down; connections {}", crew.admission().connections());
    for arbiter in crew.arbiters() {
        arbiter.spawn_fn(|| clients::with(clients::Clients::dismiss_all));
    }
    let begun = Instant::now();
    while crew.admission().connections() > 0 && begun.elapsed() < timeout {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    log::info!(
        "gone down; connections left {}",
        crew.admission().connections()
    );
}

/// Done at the first SIGTERM or SIGINT.
///
/// # Errors
/// Where the system refuses to have them caught.
pub async fn signalled() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => log::info!("SIGTERM"),
        _ = interrupt.recv() => log::info!("SIGINT"),
    }
    Ok(())
}
