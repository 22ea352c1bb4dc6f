//! What the server answers over plain HTTP: how it is, and what belongs to a WebSocket. The page and
//! its files are in [`web`](crate::web).

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, Quality},
    },
    web,
};

use crate::{
    crew::Crew,
    metrics::{self, Format, ProcessFigures},
    settings, upgrade,
    web::{self as files, get_or_head},
};

/// How long a worker's registry may take to say that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// The routes that clients and load balancers need.
pub fn configure(config: &mut web::ServiceConfig, crew: &Arc<Crew>, settings: &settings::Server) {
    config
        .app_data(web::Data::from(crew.clone()))
        .service(web::resource("/healthz").route(get_or_head().to(health)))
        .route(upgrade::PATH, web::to(upgrade_required));
    if settings.demo {
        config.configure(files::configure_page);
    }
    // The page imports the library.
    if settings.demo || settings.client_library {
        config.configure(files::configure_library);
    }
}

/// The routes that are the operator's.
pub fn configure_ops(config: &mut web::ServiceConfig, crew: &Arc<Crew>) {
    config
        .app_data(web::Data::from(crew.clone()))
        .service(web::resource("/readyz").route(get_or_head().to(health)))
        .service(web::resource("/livez").route(get_or_head().to(alive)))
        .service(web::resource("/metrics").route(get_or_head().to(metrics)));
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(text)
}

async fn health(crew: web::Data<Crew>) -> HttpResponse {
    if crew.is_draining() {
        plain(StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        plain(StatusCode::OK, "ok")
    }
}

async fn alive(crew: web::Data<Crew>) -> HttpResponse {
    if crew.is_alive(ALIVE_WITHIN).await {
        plain(StatusCode::OK, "ok")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer")
    }
}

async fn metrics(
    crew: web::Data<Crew>,
    accept: Option<web::Header<header::Accept>>,
) -> HttpResponse {
    let format = metrics_format(accept.as_deref());
    // The kernel may count descriptors for milliseconds; the rooms of this thread do not wait for
    // it.
    let process = match web::block(ProcessFigures::read).await {
        Ok(Ok(figures)) => Some(figures),
        Ok(Err(error)) => {
            log::debug!(error:% = error; "the figures of the process cannot be read");
            None
        }
        Err(error) => {
            log::debug!(error:% = error; "the figures of the process cannot be read");
            None
        }
    };
    match metrics::encode(&crew, process, format) {
        Ok(text) => HttpResponse::Ok()
            .content_type(format.content_type())
            .insert_header((header::VARY, "accept"))
            .body(text),
        Err(error) => {
            log::error!("the figures cannot be written: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// OpenMetrics where the scraper asks for it and does not prefer plain text.
fn metrics_format(accept: Option<&header::Accept>) -> Format {
    let quality = |essence: &str| {
        let items = accept.map_or(&[][..], |accept| &accept.0);
        let named = items
            .iter()
            .filter(|item| item.item.essence_str() == essence);
        named.map(|item| item.quality).max()
    };
    match quality("application/openmetrics-text") {
        Some(asked) if asked > Quality::ZERO && Some(asked) >= quality("text/plain") => {
            Format::OpenMetrics
        }
        _ => Format::Text,
    }
}

async fn upgrade_required() -> HttpResponse {
    HttpResponse::build(StatusCode::UPGRADE_REQUIRED)
        .insert_header((header::UPGRADE, "websocket"))
        .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
        .content_type("text/plain; charset=utf-8")
        .body("this is a WebSocket; ask for an upgrade\n")
}
