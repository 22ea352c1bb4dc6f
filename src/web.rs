//! The files that browsers are given, embedded in the binary. What programs ask for over HTTP is
//! in [`pages`](crate::pages).
//!
//! A browser may keep a file, but asks each time whether it is still the one, so that nobody runs
//! an old client against a new server. The page at `/` names the others relative to itself, so that
//! a proxy may put them all below a path of its own.

use std::hash::Hasher;

use actix_web::{
    HttpResponse, Route, guard,
    http::header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, CacheControl, CacheDirective, ETag,
        EntityTag, HeaderValue, IfNoneMatch, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
    web,
};
use siphasher::sip::SipHasher13;

/// One file: where it is, what it is, and its text.
struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// The page and what it consists of, but for the client library.
const PAGE: &[File] = &[
    File {
        path: "/",
        content_type: "text/html; charset=utf-8",
        text: include_str!("web/index.html"),
    },
    File {
        path: "/page.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("web/page.css"),
    },
    File {
        path: "/icon.svg",
        content_type: "image/svg+xml; charset=utf-8",
        text: include_str!("web/icon.svg"),
    },
    File {
        path: "/page.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/page.js"),
    },
    File {
        path: "/words.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/words.js"),
    },
    File {
        path: "/dom.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/dom.js"),
    },
    File {
        path: "/chat.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/chat.js"),
    },
    File {
        path: "/tail.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/tail.js"),
    },
    File {
        path: "/members.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/members.js"),
    },
    File {
        path: "/publishing.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/publishing.js"),
    },
    File {
        path: "/camera.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/camera.js"),
    },
    File {
        path: "/inspector.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/inspector.js"),
    },
    File {
        path: "/wire-text.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("web/wire-text.js"),
    },
];

/// The client library. Browsers import modules of other origins only with their permission.
const LIBRARY: &[File] = &[
    File {
        path: "/client.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("../client/client.js"),
    },
    File {
        path: "/client.d.ts",
        content_type: "application/typescript; charset=utf-8",
        text: include_str!("../client/client.d.ts"),
    },
];

/// What the page may do: run, show and ask for what this server serves, and nothing else. It has
/// tokens and sessions in it. 'self' is the WebSocket too; a form is never sent, since its fields
/// would stand in the URL; nobody puts the page into a frame of theirs and has somebody else click.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; media-src 'self' blob: mediastream:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// A route for each file of the page.
pub fn configure_page(config: &mut web::ServiceConfig) {
    configure(config, PAGE, false);
}

/// A route for each file of the client library.
pub fn configure_library(config: &mut web::ServiceConfig) {
    configure(config, LIBRARY, true);
}

/// `any_origin`: pages of any origin may read the files.
fn configure(config: &mut web::ServiceConfig, files: &'static [File], any_origin: bool) {
    for file in files {
        let tag = tag(file.text);
        // One that cannot be read is none.
        let answer = move |known: Option<web::Header<IfNoneMatch>>| {
            let mut response = answer(file, &tag, known.as_deref());
            if any_origin {
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            async { response }
        };
        config.service(web::resource(file.path).route(get_or_head().to(answer)));
    }
}

/// Some load balancers ask with HEAD.
pub(crate) fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn answer(file: &'static File, tag: &EntityTag, known: Option<&IfNoneMatch>) -> HttpResponse {
    let is_known = match known {
        None => false,
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(tags)) => tags.iter().any(|one| one.weak_eq(tag)),
    };
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header(ETag(tag.clone()))
        .insert_header(CacheControl(vec![CacheDirective::NoCache]))
        // Also where the text is known: they take the place of what the browser has kept.
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if is_known {
        return response.finish();
    }
    response
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .content_type(file.content_type)
        .body(file.text)
}

/// The same for the same text, on every machine.
fn tag(text: &str) -> EntityTag {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    EntityTag::new_strong(format!("{:016x}", hasher.finish()))
}
