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
        CONTENT_SECURITY_POLICY, CacheControl, CacheDirective, ETag, EntityTag, IfNoneMatch,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
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

const FILES: &[File] = &[
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

/// A route for each file.
pub fn configure(config: &mut web::ServiceConfig) {
    for file in FILES {
        let tag = tag(file.text);
        // One that cannot be read is none.
        let answer = move |known: Option<web::Header<IfNoneMatch>>| {
            let response = answer(file, &tag, known.as_deref());
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
