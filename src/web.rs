//! The files that browsers are given, embedded in the binary. What programs ask for over HTTP is
//! in [`pages`](crate::pages).
//!
//! A browser may keep a file, but asks each time whether it is still the one, so that nobody runs
//! an old client against a new server.

use std::hash::Hasher;

use actix_web::{
    HttpResponse,
    http::header::{
        CacheControl, CacheDirective, ETag, EntityTag, IfNoneMatch, X_CONTENT_TYPE_OPTIONS,
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

/// A route for each file.
pub fn configure(config: &mut web::ServiceConfig) {
    for file in FILES {
        let tag = tag(file.text);
        let answer = move |known: web::Header<IfNoneMatch>| {
            let response = answer(file, &tag, &known);
            async { response }
        };
        config.service(web::resource(file.path).route(crate::pages::get_or_head().to(answer)));
    }
}

fn answer(file: &'static File, tag: &EntityTag, known: &IfNoneMatch) -> HttpResponse {
    let is_known = match known {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|one| one.weak_eq(tag)),
    };
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header(ETag(tag.clone()))
        .insert_header(CacheControl(vec![CacheDirective::NoCache]));
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
