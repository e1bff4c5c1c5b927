//! `/metrics`, on a listener of its own.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use tokio::task::JoinSet;

use super::error::ApiError;
use super::response::{Response, body, error_response, override_hyper_error, secure};
use super::stream::HttpStream;
use crate::app::App;
use crate::limits::{ACCEPT_BACKOFF, METRICS_AT_ONCE, METRICS_TIMEOUT};
#[cfg(feature = "cluster")]
use crate::metrics::render_log;
use crate::net::Listener;

/// Serves `/metrics`, a few connections at once and one request on each. This listener is for the operator; a
/// connection without a request holds one of [`METRICS_AT_ONCE`] places for [`METRICS_TIMEOUT`].
pub(crate) async fn serve(app: Arc<App>, listener: Listener) -> Infallible {
    let mut serving = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if serving.len() < METRICS_AT_ONCE => accepted,
            Some(_) = serving.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let app = Arc::clone(&app);
        serving.spawn(async move {
            let service = service_fn(|request: hyper::Request<_>| {
                let answer = answer(&app, request.method(), request.uri().path(), request.headers().get(HOST));
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(HttpStream::new(stream, override_hyper_error), service);
            drop(tokio::time::timeout(METRICS_TIMEOUT, connection).await);
        });
    }
}

/// Answers a request on the metrics listener, but none for another host: that is of a page whose name was made to point
/// here.
fn answer(app: &App, method: &Method, path: &str, host: Option<&HeaderValue>) -> Response {
    let is_foreign = |host: &HeaderValue| !host.to_str().is_ok_and(|host| app.config.is_ours(host));
    let mut response = match (method, path) {
        _ if host.is_some_and(is_foreign) => error_response(&ApiError::UnknownHost),
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let text = app.metrics.render(app.presence.counts());
            #[cfg(feature = "cluster")]
            let text = text + &app.cluster.as_ref().map(|cluster| render_log(&cluster.figures())).unwrap_or_default();
            let mut response = body(StatusCode::OK, text.into());
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        }
        (_, "/metrics") => error_response(&ApiError::MethodNotAllowed("GET, HEAD".into())),
        _ => error_response(&ApiError::NotFound),
    };
    secure(&mut response, false);
    response
}
