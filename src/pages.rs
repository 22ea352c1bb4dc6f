//! What the server answers over plain HTTP: its page, and whether it is well.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};

use crate::{crew::Crew, metrics, upgrade};

const PAGE: &str = include_str!("web/index.html");

/// The routes.
pub fn configure(config: &mut web::ServiceConfig, crew: &Arc<Crew>) {
    config
        .app_data(web::Data::from(crew.clone()))
        .route("/", web::get().to(page))
        .route("/healthz", web::get().to(health))
        .route("/readyz", web::get().to(health))
        .route("/metrics", web::get().to(metrics))
        .route(upgrade::PATH, web::to(upgrade_required));
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .body(PAGE)
}

async fn health(crew: web::Data<Crew>) -> HttpResponse {
    if crew.is_draining() {
        HttpResponse::ServiceUnavailable()
            .content_type("text/plain; charset=utf-8")
            .body("draining\n")
    } else {
        HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .body("ok")
    }
}

async fn metrics(crew: web::Data<Crew>) -> HttpResponse {
    match metrics::encode(&crew) {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => {
            log::error!("the figures cannot be written: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

async fn upgrade_required() -> HttpResponse {
    HttpResponse::build(StatusCode::UPGRADE_REQUIRED)
        .insert_header((header::UPGRADE, "websocket"))
        .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
        .content_type("text/plain; charset=utf-8")
        .body("this is a WebSocket; ask for an upgrade\n")
}
