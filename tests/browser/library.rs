//! The client library in a page of another origin.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

use crate::{common::*, window::Driver};

/// An empty page of an origin of its own. Its server ends with the process.
fn other_origin() -> SocketAddr {
    const PAGE: &str = "<!doctype html><link rel=icon href=data:,><title>another page</title>";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                // A browser opens connections that it may never use.
                let head = stream.read(&mut [0; 4096]);
                if head.is_ok_and(|bytes| bytes > 0) {
                    let length = PAGE.len();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
                         Connection: close\r\n\r\n{PAGE}"
                    );
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
    addr
}

#[test]
fn a_page_of_another_origin_imports_the_library_and_joins() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::with(|settings| settings.server.demo = false);
    let mut ben = server.join("c", "ben");
    let page = driver.browser();
    page.go(&format!("http://{}/", other_origin()));
    let joined = page.js_async(&format!(
        "const {{ MeetingClient }} = await import('http://{addr}/client.js'); \
         window.client = new MeetingClient('ws://{addr}/ws'); \
         const joined = await client.join({{ app: 'test', channel: 'c', endpoint: 'anna' }}); \
         const types = await (await fetch('http://{addr}/client.d.ts')).text(); \
         return [joined.endpoint, types.includes('export class MeetingClient')];",
        addr = server.addr
    ));
    assert_eq!(joined, serde_json::json!(["anna", true]));
    assert_eq!(ben.event("endpoint")["stat"], "join");
    page.js_async("await client.close();");
    assert_eq!(ben.event("endpoint")["stat"], "leave");
}
