//! An origin as browsers write it into the `Origin` header (RFC 6454 section 6.2, WHATWG URL).
//!
//! The header is compared byte by byte, so any other spelling of an origin would never match.

use std::net::Ipv6Addr;

/// Schemes that have a default port, which browsers leave out.
const DEFAULT_PORTS: [(&str, &str); 5] = [
    ("https", "443"),
    ("http", "80"),
    ("wss", "443"),
    ("ws", "80"),
    ("ftp", "21"),
];

/// Checks that `origin` is spelled as browsers spell it.
///
/// # Errors
/// What would be right: the same origin in the right spelling where there is one.
pub(super) fn check(origin: &str) -> Result<(), String> {
    // Pages from files, sandboxed frames and data: URLs; some WebViews write `file://` for files.
    if ["null", "file://"].contains(&origin) {
        return Ok(());
    }
    match spelled_right(origin) {
        Some(right) if right == origin => Ok(()),
        Some(right) => Err(format!("must be \"{right}\", as browsers write it")),
        None => Err(
            "must be like \"https://meet.example.org\": scheme, host, and the port where it \
                    is not the scheme's own; or \"null\" or \"file://\""
                .into(),
        ),
    }
}

/// The origin that a browser would send for a page of this URL; `None` where it is no such URL.
fn spelled_right(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let in_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(in_scheme) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, port) = host_and_port(&rest[..end])?;
    let is_default = |(of, default): &(&str, &str)| (*of, Some(*default)) == (&*scheme, port);
    let port = port.filter(|_| !DEFAULT_PORTS.iter().any(is_default));
    Some(match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// Host and port of an authority, each as browsers write it.
fn host_and_port(authority: &str) -> Option<(String, Option<&str>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside of brackets is part of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        Some("") => None,
        Some(port) => {
            let number = port.parse::<u16>().ok()?;
            // The parser takes a plus sign and leading zeros.
            (number.to_string() == port).then_some(Some(port))?
        }
        None => None,
    };
    let in_brackets = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match in_brackets {
        Some(address) => bracketed(address.parse().ok()?),
        None => host.to_ascii_lowercase(),
    };
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let fits = in_brackets.is_some() || (!host.is_empty() && host.bytes().all(in_name));
    fits.then_some((host, port))
}

/// An IPv6 address as browsers write it: never with an IPv4 address in it.
fn bracketed(address: Ipv6Addr) -> String {
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
        _ => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_every_scheme_are_taken() {
        for origin in [
            "null",
            "file://",
            "https://meet.example.org",
            "https://meet.example.org:8443",
            "http://localhost:3000",
            "https://a.example:80",
            "http://[2001:db8::1]:8080",
            "http://[::ffff:c000:201]",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://3f1a6f2e-0d5b-4f7a-9c55-0f9f8c1b7a11",
        ] {
            assert_eq!(check(origin), Ok(()), "{origin}");
        }
    }

    #[test]
    fn another_spelling_is_refused_with_the_right_one() {
        for (origin, right) in [
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("https://a.example:", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("https://a.example/meet", "https://a.example"),
            ("https://a.example?x=1", "https://a.example"),
            ("https://a.example:8443/#x", "https://a.example:8443"),
            ("HTTPS://a.example", "https://a.example"),
            ("https://A.Example", "https://a.example"),
            ("Tauri://LocalHost", "tauri://localhost"),
            ("http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]"),
            ("http://[2001:DB8:0:0::1]", "http://[2001:db8::1]"),
        ] {
            let remedy = check(origin).unwrap_err();
            assert!(remedy.contains(&format!("{right:?}")), "{origin}: {remedy}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for origin in [
            "",
            "*",
            "NULL",
            "a.example",
            "https:a.example",
            "https://",
            "https:///a",
            "file:",
            "file:///",
            "file:///android_asset",
            "FILE://",
            "https://a b.example",
            "https://a.example:http",
            "https://a.example:99999",
            "https://a.example:+443",
            "https://anna@a.example",
            "https://*.example",
            "https://bücher.example",
            "https://[::1",
            "https://[a]",
            "1https://a.example",
            " https://a.example",
        ] {
            let remedy = check(origin).unwrap_err();
            assert!(remedy.contains("must be like"), "{origin}: {remedy}");
        }
    }
}
