//! The routing table, and what is asked of a request first: its host, its origin, and who stands behind its proxy.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CONNECTION, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING, VARY,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tracing::Level;

use crate::config::URI_MAX_BYTES;
use crate::error::ApiError;
use crate::handler::{App, Peer, assets, rest, ws};
use crate::metrics::Refused;
use crate::model::random_name;
use crate::proxy::{self, X_REQUEST_ID};
use crate::response::{Response, empty, error_response, secure};

/// Answers one request.
pub(crate) async fn route(app: Arc<App>, mut peer: Peer, request: Request<Incoming>) -> Response {
    if peer.proxied {
        peer.address = proxy::client_address(request.headers(), peer.address, |address| app.config.trusts(address));
    } else if peer.address.to_canonical().is_loopback() && proxy::forwards(request.headers()) {
        warn_of_proxy(&app, peer.address);
    }
    let asked = Asked::of(&request, &peer);
    let allowed_origin = cross_origin(&app, request.headers());
    // Hyper reads such a body by its chunks and drops a Content-Length beside them, which a proxy in front may have
    // believed: whatever follows on this connection is not to be trusted (RFC 9112 6.1).
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let body_pending = !request.body().is_end_stream();
    let result = match check_host(&request) {
        Ok(()) => dispatch(&app, &peer, request).await,
        Err(error) => Err(error),
    };
    let failed_with_body = body_pending && result.is_err();
    let mut response = result.unwrap_or_else(|error| refuse(&app, &asked, &error));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    secure(&mut response);
    let headers = response.headers_mut();
    // On every answer, allowed or not: a cache must not give one site's to another (RFC 9110 12.5.5).
    if !app.config.allow_origin.is_empty() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = allowed_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if chunked || failed_with_body || peer.is_crowded() {
        headers.append(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Refuses a request that does not name its host, well-formed and once (RFC 9112 3.2): with two of them, what stands between the
/// browser and this server may have gone by the other.
fn check_host(request: &Request<Incoming>) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(ApiError::InvalidRequest("a request names its host, well-formed and once")),
    }
}

/// Whether this is a host and perhaps a port, without a user in front (RFC 9110 7.2).
fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    host.is_empty() || (Authority::try_from(host).is_ok() && !host.contains(&b'@'))
}

/// The routing table: what there is, and what each path takes.
async fn dispatch(app: &Arc<App>, peer: &Peer, mut request: Request<Incoming>) -> Result<Response, ApiError> {
    const GET: &str = "GET, HEAD, OPTIONS";
    const POST: &str = "POST, OPTIONS";

    if request.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > URI_MAX_BYTES) {
        return Err(ApiError::UriTooLong);
    }
    let path = request.uri().path().to_owned();
    // HEAD is GET whose body hyper leaves out.
    let method = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    match (method, path.as_str()) {
        (Method::POST, "/register") => {
            check_origin(app, request.headers())?;
            rest::register(app, peer, request).await
        }
        (Method::POST, "/login") => {
            check_origin(app, request.headers())?;
            rest::login(app, peer, request).await
        }
        (Method::POST, "/logout") => {
            check_origin(app, request.headers())?;
            rest::logout(app, request.headers()).await
        }
        (Method::GET, "/messages") => rest::message_history(app, request.headers(), request.uri().query()).await,
        (Method::GET, "/ws") => {
            check_origin(app, request.headers())?;
            ws::upgrade(app, peer, &mut request)
        }
        (Method::GET, "/healthz") => rest::healthz(app).await,
        (Method::GET, path) if assets::exists(path) => assets::get(path, request.headers()).ok_or(ApiError::NotFound),
        (method, path) => {
            let allow = match path {
                "/register" | "/login" | "/logout" => POST,
                "/messages" | "/ws" | "/healthz" => GET,
                path if assets::exists(path) => GET,
                _ => return Err(ApiError::NotFound),
            };
            if method == Method::OPTIONS { Ok(options(allow)) } else { Err(ApiError::MethodNotAllowed(allow)) }
        }
    }
}

/// What a path takes; also the answer to a browser that asks before it sends from an allowed origin.
fn options(allow: &'static str) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Refuses a browser whose page is of another site, unless the operator allowed that site. Only browsers send
/// `Origin`, and they do not let a page change it.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    if origins.next().is_some() {
        return Err(ApiError::ForbiddenOrigin);
    }
    let origin = origin.to_str().map_err(|_| ApiError::ForbiddenOrigin)?;
    // The scheme is not compared: behind a proxy the server does not know which one the browser used.
    let same_host = || {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let (scheme, of_origin) = origin.split_once("://").unzip();
        let without_port = |host| without_default_port(scheme.unwrap_or_default(), host);
        let (host, of_origin) = (host.map(without_port), of_origin.map(without_port));
        host.zip(of_origin).is_some_and(|(host, of_origin)| !host.is_empty() && host.eq_ignore_ascii_case(of_origin))
    };
    if is_allowed(app, origin) || same_host() { Ok(()) } else { Err(ApiError::ForbiddenOrigin) }
}

/// A host without the port that its scheme has anyway: a browser leaves it out, and some proxies do not (RFC 6454 6.2).
fn without_default_port<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host)
}

fn is_allowed(app: &App, origin: &str) -> bool {
    app.config.allow_origin.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// The request's `Origin`, if it is another site that the operator allowed.
fn cross_origin(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    origin.to_str().is_ok_and(|origin| is_allowed(app, origin)).then(|| origin.clone())
}

/// What a log line says of a request that was refused.
struct Asked {
    address: IpAddr,
    method: Method,
    uri: Uri,
    /// As a trusted proxy named it.
    id: Option<String>,
}

impl Asked {
    fn of(request: &Request<Incoming>, peer: &Peer) -> Self {
        let id = if peer.proxied { proxy::request_id(request.headers()).map(ToOwned::to_owned) } else { None };
        Self { address: peer.address, method: request.method().clone(), uri: request.uri().clone(), id }
    }
}

/// Counts and logs a refusal, and answers it: the id in the answer is that of the log line.
fn refuse(app: &App, asked: &Asked, error: &ApiError) -> Response {
    let reason = match error {
        ApiError::RateLimited(_) => Refused::Rate,
        ApiError::Unavailable => Refused::Unavailable,
        ApiError::TooManyConnections => Refused::Connections,
        ApiError::Unauthorized
        | ApiError::InvalidCredentials
        | ApiError::ForbiddenOrigin
        | ApiError::RegistrationClosed
        | ApiError::InviteNeeded
        | ApiError::InvalidInvite => Refused::Unauthorized,
        _ => Refused::Invalid,
    };
    app.metrics.refuse(reason);
    let request = asked.id.clone().unwrap_or_else(random_name);
    let Asked { address, method, uri, .. } = asked;
    // The query is left out: who mistypes a client may put anything there.
    let (path, status, code) = (uri.path(), error.status().as_u16(), error.code());
    let level = match reason {
        Refused::Unavailable | Refused::Connections => Level::WARN,
        // Somebody guesses passwords, or hurries.
        Refused::Rate => Level::INFO,
        Refused::Unauthorized if *error != ApiError::Unauthorized => Level::INFO,
        Refused::Unauthorized | Refused::Invalid => Level::DEBUG,
    };
    let let_through = || app.refusal_log_rate.take((), Instant::now()).is_ok();
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(request, %address, %method, path, status, code, "request refused")
        };
    }
    match level {
        Level::WARN if let_through() => log!(warn),
        Level::INFO if let_through() => log!(info),
        _ => log!(debug),
    }
    let mut response = error_response(error);
    response.headers_mut().insert(X_REQUEST_ID, HeaderValue::try_from(request).expect("an id is plain ASCII"));
    response
}

/// Says, once, that a proxy on this machine is not believed: then all its clients share one address's limits.
fn warn_of_proxy(app: &App, address: IpAddr) {
    if !app.warned_of_proxy.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            %address,
            "X-Forwarded-For from this machine is ignored: if that is your proxy, start with --trusted-proxy {address}"
        );
    }
}
