//! From HTTP to WebSocket (RFC 6455 section 4.2): a request that asks for an upgrade is checked
//! and answered here, and its socket leaves HTTP for good.

use std::{borrow::Cow, convert::Infallible, fmt, net::IpAddr, rc::Rc, sync::Arc};

use actix_codec::Framed;
use actix_http::{
    Method, Request, Response, StatusCode, Version,
    body::BodySize,
    h1::{Codec, Message},
    header::{self, HeaderValue},
    ws,
};
use bytes::Bytes;
use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;

use crate::{
    admission::{self, Counted},
    clients, connection,
    handshake::{Handshake, ShownAddress, UpgradeToken},
    http_socket::HttpSocket,
    ids::MAX_IDENTIFIER_BYTES,
    protocol::token::Token,
    stats::REFUSALS,
    throttle::Throttle,
    worker::Worker,
};

/// The path of the WebSocket.
pub const PATH: &str = "/ws";

/// Answers an upgrade request and, where it is granted, hands the socket to its connection.
///
/// # Errors
/// None: a client that goes away meanwhile is nobody's error.
pub async fn upgrade(
    (request, framed): (Request, Framed<HttpSocket, Codec>),
    worker: Rc<Worker>,
) -> Result<(), Infallible> {
    match check(&request).and_then(|()| admit(&request, &worker)) {
        Ok(handshake) => accept(&request, handshake, framed, worker).await,
        Err(refused) => {
            count(&refused, &request, &worker);
            refuse(refused.response, refused.text, framed).await;
        }
    }
    Ok(())
}

/// An upgrade that is not granted.
struct Refused {
    response: Response<()>,
    text: String,
    /// One of [`REFUSALS`].
    reason: &'static str,
}

fn refused(reason: &'static str, status: StatusCode, text: impl fmt::Display) -> Refused {
    let mut response = Response::with_body(status, ());
    response.head_mut().headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Refused {
        response,
        text: format!("{text}\n"),
        reason,
    }
}

/// Counts it; and warns where it is the operator's affair and not only the client's.
fn count(refused: &Refused, request: &Request, worker: &Worker) {
    let client = ShownAddress(client_address(request, worker));
    let origin = request.head().headers.get(header::ORIGIN);
    let origin = origin.and_then(|origin| origin.to_str().ok());
    count_refusal(refused.reason, client, origin);
}

/// Counts a connection that is closed for `connect_rate_per_ip` before it has sent anything.
pub fn count_refused_connect(peer: Option<IpAddr>) {
    count_refusal("connect_rate", ShownAddress(peer), None);
}

fn count_refusal(reason: &'static str, client: ShownAddress, origin: Option<&str>) {
    static WARNINGS: [Throttle; REFUSALS.len()] = [const { Throttle::new() }; REFUSALS.len()];
    let Some(at) = REFUSALS.iter().position(|known| *known == reason) else {
        return;
    };
    clients::with(|clients| clients.shared().stats.refusals[at].add(1));
    if reason != "handshake"
        && let Some(suppressed) = WARNINGS[at].permit()
    {
        log::warn!(
            reason = reason,
            client:% = client,
            origin = origin,
            suppressed = suppressed;
            "upgrade refused"
        );
    }
}

/// Whether it is a WebSocket handshake.
fn check(request: &Request) -> Result<(), Refused> {
    if request.path() != PATH {
        return Err(refused(
            "handshake",
            StatusCode::NOT_FOUND,
            "the WebSocket is at /ws",
        ));
    }
    if request.method() != Method::GET {
        let mut refused = refused(
            "handshake",
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket begins with a GET",
        );
        refused
            .response
            .head_mut()
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Err(refused);
    }
    if request.version() < Version::HTTP_11 {
        return Err(refused(
            "handshake",
            StatusCode::BAD_REQUEST,
            "a WebSocket begins with HTTP/1.1",
        ));
    }
    let has_body = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|name| request.head().headers.contains_key(name));
    if has_body {
        return Err(refused(
            "handshake",
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake has no body",
        ));
    }
    if let Err(error) = ws::verify_handshake(request.head()) {
        let status = Response::from(error).status();
        let mut refused = refused(
            "handshake",
            status,
            "this is no WebSocket handshake of RFC 6455, version 13",
        );
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = refused.response.head_mut().headers_mut();
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        return Err(refused);
    }
    Ok(())
}

fn peer_address(request: &Request) -> Option<IpAddr> {
    request.head().peer_addr.map(|peer| peer.ip())
}

/// Where it comes from, behind all trusted proxies.
fn client_address(request: &Request, worker: &Worker) -> Option<IpAddr> {
    let forwarded_for: Vec<&[u8]> = request
        .head()
        .headers
        .get_all(header::X_FORWARDED_FOR)
        .map(HeaderValue::as_bytes)
        .collect();
    let client = |peer| {
        let admission = worker.crew.admission();
        admission.client_address(peer, forwarded_for.iter().copied())
    };
    peer_address(request).map(client)
}

/// Whether this client may come in, and what is kept of it.
fn admit(request: &Request, worker: &Worker) -> Result<Handshake, Refused> {
    if worker.crew.is_draining() {
        return Err(refused(
            "draining",
            StatusCode::SERVICE_UNAVAILABLE,
            "the server shuts down",
        ));
    }
    let admission = worker.crew.admission();
    let headers = &request.head().headers;
    let client = client_address(request, worker);
    let counted = match request.conn_data::<Arc<Counted>>() {
        Some(counted) => counted.clone(),
        None => Arc::new(admission.accept(peer_address(request))),
    };
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    match admission.upgrade(&counted, client, origin) {
        Ok(admitted) => Ok(Handshake {
            client,
            channels: channels(request),
            device: query(request, "device").next().map(|device| kept(&device)),
            token: UpgradeToken::new(
                query(request, "token")
                    .next()
                    .and_then(|token| Token::new(&token))
                    .or_else(|| bearer(request)),
            ),
            settings: worker.crew.settings(),
            admitted,
        }),
        Err(reason) => {
            let (word, status) = match reason {
                admission::Refused::Origin => ("origin", StatusCode::FORBIDDEN),
                admission::Refused::Full => ("full", StatusCode::SERVICE_UNAVAILABLE),
                admission::Refused::FullForAddress => {
                    ("full_for_address", StatusCode::SERVICE_UNAVAILABLE)
                }
                admission::Refused::ConnectRate => ("connect_rate", StatusCode::TOO_MANY_REQUESTS),
            };
            Err(refused(word, status, reason))
        }
    }
}

async fn accept(
    request: &Request,
    handshake: Handshake,
    mut framed: Framed<HttpSocket, Codec>,
    worker: Rc<Worker>,
) {
    let mut response = ws::handshake_response(request.head());
    let Ok(response) = response.message_body(()) else {
        return log::error!("a handshake's response could not be built");
    };
    if framed
        .send(Message::Item((response, BodySize::None)))
        .await
        .is_err()
    {
        return;
    }
    let parts = framed.into_parts();
    let mut unread = parts.read_buf;
    let (socket, behind_head, since_accept) = parts.io.into_inner();
    unread.extend_from_slice(&behind_head);
    let handshake = Arc::new(handshake);
    connection::begin(socket, since_accept, handshake, unread, worker);
}

async fn refuse(response: Response<()>, text: String, mut framed: Framed<HttpSocket, Codec>) {
    let size = BodySize::Sized(text.len() as u64);
    let body = Bytes::from(text);
    let messages = [
        Message::Item((response, size)),
        Message::Chunk(Some(body)),
        Message::Chunk(None),
    ];
    for message in messages {
        if framed.feed(message).await.is_err() {
            return;
        }
    }
    let flushed = <_ as SinkExt<Message<(Response<()>, BodySize)>>>::flush(&mut framed).await;
    // TLS has a goodbye of its own.
    if flushed.is_err() || framed.into_parts().io.shutdown().await.is_err() {
        log::debug!("a client went away before it was refused");
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1), where that is there.
fn bearer(request: &Request) -> Option<Token> {
    let value = request.head().headers.get(header::AUTHORIZATION)?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Token::new(token.trim_matches(' '))
}

/// So much of an identifier in the URL is kept for as long as the connection lives: what is longer is
/// none, and stays so.
const KEPT_BYTES: usize = MAX_IDENTIFIER_BYTES + 4;

fn kept(identifier: &str) -> Box<str> {
    identifier[..identifier.floor_char_boundary(KEPT_BYTES)].into()
}

/// The first `?channel=` and the first that differs.
fn channels(request: &Request) -> [Option<Box<str>>; 2] {
    let first = query(request, "channel").next();
    let other = query(request, "channel").find(|other| Some(other) != first.as_ref());
    [first, other].map(|channel| channel.map(|channel| kept(&channel)))
}

/// A parameter of the request's URL as often as it is there and not empty.
fn query<'r>(request: &'r Request, name: &str) -> impl Iterator<Item = Cow<'r, str>> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .filter(move |(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value)
}
