//! The listener: accepts connections, admits them within the limits, and hands them to hyper.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::http::{ApiError, HttpStream, override_hyper_error, raw_error_response};
use crate::limits::{ACCEPT_BACKOFF, HEAD_MAX_BYTES, HEAD_TIMEOUT, HEADERS_MAX, LINGER_TIMEOUT, PROXY_IDLE_TIMEOUT};
use crate::metrics::Refused;
use crate::net::{ConnectionPermits, Listener, Peer, Stream};
use crate::router::route;

/// Accepts a listener's connections forever.
pub(super) async fn accept(
    app: Arc<App>,
    listener: Listener,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
) -> Infallible {
    let mut failing = false;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that ended in the queue is not a fault; a lack of descriptors or memory is one that
                // lasts.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "cannot accept connections; existing ones continue");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!("accepting connections again");
        }
        let Some(peer) = admit(&app, &slots, address, stream.is_tls()) else {
            app.metrics.refuse(Refused::Connections);
            tracing::debug!(?address, "connection refused");
            reject(stream, &refusals);
            continue;
        };
        if stream.is_tls() && !may_shake_hands(&app, &peer) {
            app.metrics.refuse(Refused::Rate);
            tracing::debug!(?address, "handshake refused");
            continue;
        }
        tokio::spawn(serve(Arc::clone(&app), stream, peer));
    }
}

/// Takes the permits of a new connection, if there are any left for its address. A trusted proxy's connection counts for
/// no address until it carries a request, and then for that of the client. Every peer on a Unix socket is trusted; without a
/// forwarded address its address is that of this machine.
fn admit(app: &App, slots: &Arc<Semaphore>, address: Option<IpAddr>, is_tls: bool) -> Option<Peer> {
    let connection = Arc::clone(slots).try_acquire_owned().ok()?;
    let proxied = address.is_none_or(|address| app.config.trusts(address));
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let per_ip = if proxied { None } else { Some(app.connections_per_ip.enter(address)?) };
    let permits = ConnectionPermits { connection, per_ip };
    let peer = Peer { address, proxied, is_tls, permits: Arc::new(Mutex::new(Some(permits))) };
    (proxied || app.has_place_for(&peer)).then_some(peer)
}

/// Whether the address may do another TLS handshake. A trusted proxy is not limited: its clients cannot be told apart
/// yet.
fn may_shake_hands(app: &App, peer: &Peer) -> bool {
    peer.proxied || app.rates.handshakes.take(peer.address, Instant::now()).is_ok()
}

/// Tells a connection that the limit is reached, without hyper. Only a few at once are kept open until they have surely
/// received it.
fn reject(stream: Stream, refusals: &Arc<Semaphore>) {
    // Over TLS a refusal would cost a handshake, so the connection is just closed. A socket that was just accepted has
    // room for the answer; if it does not, it is gone.
    if stream.is_tls() || stream.try_write(&raw_error_response(&ApiError::TooManyConnections, false)).is_err() {
        return;
    }
    if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
        tokio::spawn(async move {
            drop(tokio::time::timeout(LINGER_TIMEOUT, stream.finish()).await);
            drop(permit);
        });
    }
}

/// Serves HTTP on one connection, until it ends or becomes a WebSocket.
async fn serve(app: Arc<App>, stream: Stream, peer: Peer) {
    let service = service_fn(|request| {
        let answer = route(Arc::clone(&app), peer.clone(), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let head_timeout = if peer.proxied { PROXY_IDLE_TIMEOUT } else { HEAD_TIMEOUT };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(HttpStream::new(stream, override_hyper_error), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = app.until_stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
