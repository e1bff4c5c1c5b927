//! `/metrics`, on a listener of its own.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use tokio::task::JoinSet;

use super::App;
use crate::config::{ACCEPT_BACKOFF, METRICS_AT_ONCE, METRICS_TIMEOUT};
use crate::error::ApiError;
use crate::http_stream::HttpStream;
use crate::listen::Listener;
use crate::response::{Response, body, error_response, instead_of_hypers, secure};

/// Serves `/metrics` to whoever watches, a few connections at once and a request each: this listener is for the
/// operator, and who reaches it and asks nothing holds one of [`METRICS_AT_ONCE`] turns, for [`METRICS_TIMEOUT`].
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
                let answer = answer(&app, request.method(), request.uri().path());
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(HttpStream::new(stream, instead_of_hypers), service);
            drop(tokio::time::timeout(METRICS_TIMEOUT, connection).await);
        });
    }
}

/// Answers a request on the metrics listener.
fn answer(app: &App, method: &Method, path: &str) -> Response {
    let mut response = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut response = body(StatusCode::OK, app.metrics.render(app.presence.counts()).into());
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        }
        (_, "/metrics") => error_response(&ApiError::MethodNotAllowed("GET, HEAD")),
        _ => error_response(&ApiError::NotFound),
    };
    secure(&mut response);
    response
}
