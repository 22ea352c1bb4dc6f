//! Plain HTTP, as a load balancer or a scraper speaks it.

use std::{io::Read, net::SocketAddr};

use super::Client;

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    pub body: String,
}

impl Response {
    /// A header's value; the name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = lines.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// One GET on a connection of its own.
pub fn get(addr: SocketAddr, path: &str) -> Response {
    get_with(addr, path, "")
}

/// The same with more lines in the request's head.
pub fn get_with(addr: SocketAddr, path: &str, more: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{more}\r\n");
    exchange(addr, &request)
}

/// An upgrade request with these further header lines; the status of the answer.
pub fn upgrade_status(addr: SocketAddr, headers: &str) -> u16 {
    upgrade(&mut Client::tcp(addr), headers)
}

/// The same on a connection that may stay open.
pub fn upgrade(client: &mut Client, headers: &str) -> u16 {
    client.write(
        format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             {headers}\r\n"
        )
        .as_bytes(),
    );
    status(&client.read_http_head())
}

/// The same with HEAD.
pub fn head(addr: SocketAddr, path: &str) -> Response {
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    exchange(addr, &request)
}

fn exchange(addr: SocketAddr, request: &str) -> Response {
    let mut client = Client::tcp(addr);
    client.write(request.as_bytes());
    let mut text = String::new();
    client.stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    Response {
        status: status(head),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn status(head: &str) -> u16 {
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status.and_then(|status| status.parse().ok()).expect(head)
}
