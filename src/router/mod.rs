//! From a request to its handler: the [routing table](table), and the checks before it: the host, the origin, and the
//! client behind a proxy.

mod table;

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

use crate::app::App;
use crate::http::proxy::{self, X_REQUEST_ID};
#[cfg(feature = "push")]
use crate::http::push;
use crate::http::{
    ApiError, Response, about, account, assets, empty, error_response, images, messages, rest, rooms, search, secure,
};
use crate::limits::URI_MAX_BYTES;
use crate::metrics::Refused;
use crate::model::{MessageId, SessionId};
use crate::net::Peer;
use crate::room::{ImageId, RoomId};
use crate::secret::random_name;
use crate::ws;
use table::{Action, Found, Params};

/// Answers one request.
pub(crate) async fn route(app: Arc<App>, mut peer: Peer, request: Request<Incoming>) -> Response {
    if peer.proxied {
        peer.address = proxy::client_address(request.headers(), peer.address, |address| app.config.trusts(address));
    } else if peer.address.to_canonical().is_loopback() && proxy::forwards(request.headers()) {
        warn_of_proxy(&app, peer.address);
    }
    let info = RequestInfo::of(&request, &peer);
    let allowed_origin = cross_origin(&app, request.headers());
    // Hyper reads such a body by its chunks and drops a Content-Length beside them, which a proxy in front may have
    // relied on: later requests on this connection cannot be trusted (RFC 9112 6.1).
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let body_pending = !request.body().is_end_stream();
    let result = match admit(&app, &peer, &request) {
        Ok(()) => dispatch(&app, &peer, request).await,
        Err(error) => Err(error),
    };
    let failed_with_body = body_pending && result.is_err();
    let mut response = result.unwrap_or_else(|error| refuse(&app, &info, &error));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    secure(&mut response, peer.is_tls);
    let headers = response.headers_mut();
    // On every answer, allowed or not: a cache must not serve one site's answer to another (RFC 9110 12.5.5).
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

/// Lets a request through if its host is ours and, behind a trusted proxy, its client is within the limit of
/// connections.
fn admit(app: &App, peer: &Peer, request: &Request<Incoming>) -> Result<(), ApiError> {
    check_host(app, peer, request)?;
    if peer.proxied && !(app.has_place_for(peer) && peer.count_for_client(&app.connections_per_ip)) {
        return Err(ApiError::TooManyConnections);
    }
    Ok(())
}

/// Refuses a request without exactly one well-formed Host header (RFC 9112 3.2): of two, a proxy in front may have gone
/// by the other.
///
/// Refuses a request for a host that is not ours, too: a page on the Internet may point its name at this server (DNS
/// rebinding), and the browser would then take the two for one origin (RFC 9110 7.4). A trusted proxy has chosen the
/// hosts it answers for.
fn check_host(app: &App, peer: &Peer, request: &Request<Incoming>) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => host.to_str().unwrap_or_default(),
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        _ => return Err(ApiError::InvalidRequest("the Host header must be valid and appear exactly once")),
    };
    if peer.proxied || app.config.is_ours(host) {
        return Ok(());
    }
    if app.rates.refusal_log.take((), Instant::now()).is_ok() {
        tracing::warn!(%host, "refused a request for a host that is not ours: if it is, start with --host or --public-url");
    }
    Err(ApiError::UnknownHost)
}

/// Whether this is a host with an optional port, without a user in front (RFC 9110 7.2).
fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    host.is_empty() || (Authority::try_from(host).is_ok() && !host.contains(&b'@'))
}

/// Looks the request up in the routing table and runs its action.
async fn dispatch(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    if request.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > URI_MAX_BYTES) {
        return Err(ApiError::UriTooLong);
    }
    let path = request.uri().path().to_owned();
    // HEAD is GET whose body hyper leaves out.
    let method = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let (action, params) = match table::find(&method, &path) {
        Found::Route(action, params) => (action, params),
        Found::OtherMethods(allow) if method == Method::OPTIONS => return Ok(options(&allow)),
        Found::OtherMethods(allow) => return Err(ApiError::MethodNotAllowed(allow.into())),
        Found::Nothing => return Err(ApiError::NotFound),
    };
    // Reading needs no check: without the CORS headers a browser keeps the answer from the page. A request that changes
    // something has done so by then, and a WebSocket is not subject to CORS.
    if method != Method::GET || action == Action::WebSocket {
        check_origin(app, request.headers())?;
    }
    // A node that is behind must not answer 404 or 401, nor present a page as the newest.
    let is_current = !action.reads() || app.db.barrier().await.is_ok();
    // What changes something needs the log too, and would only wait for it once more.
    if !is_current && (method != Method::GET || asks_for_what_follows(request.uri().query())) {
        return Err(ApiError::Unavailable);
    }
    let answer = act(app, peer, request, action, &params, &path).await;
    if is_current { answer } else { answer.map_err(|error| if error.denies() { ApiError::Unavailable } else { error }) }
}

/// Whether the query asks for a page that a client appends to what it has.
fn asks_for_what_follows(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("after=")))
}

/// Runs an action.
async fn act(
    app: &Arc<App>,
    peer: &Peer,
    mut request: Request<Incoming>,
    action: Action,
    params: &Params<'_>,
    path: &str,
) -> Result<Response, ApiError> {
    match action {
        #[cfg(feature = "push")]
        Action::PushKey => push::key(app, request.headers()).await,
        #[cfg(feature = "push")]
        Action::Subscribe => push::subscribe(app, request).await,
        #[cfg(feature = "push")]
        Action::Unsubscribe => push::unsubscribe(app, request).await,
        Action::Register => rest::register(app, peer, request).await,
        Action::Login => rest::login(app, peer, request).await,
        Action::Logout => rest::logout(app, request.headers()).await,
        Action::MessageHistory => messages::message_history(app, request.headers(), request.uri().query()).await,
        Action::SendMessage => messages::send_message(app, request).await,
        Action::EditMessage => messages::edit_message(app, request, MessageId::new(params.id("id")?)).await,
        Action::DeleteMessage => {
            messages::delete_message(app, request.headers(), MessageId::new(params.id("id")?)).await
        }
        Action::Rooms => rooms::list(app, request.headers()).await,
        Action::CreateRoom => rooms::create(app, request).await,
        Action::ChangeRoom => rooms::change(app, request, RoomId(params.id("id")?)).await,
        Action::AddMember => {
            rooms::add_member(app, request.headers(), RoomId(params.id("id")?), params.username("name")?).await
        }
        Action::RemoveMember => {
            rooms::remove_member(app, request.headers(), RoomId(params.id("id")?), params.username("name")?).await
        }
        Action::NotifyRoom => rooms::notify(app, request, RoomId(params.id("id")?)).await,
        Action::Direct => rooms::direct(app, request).await,
        Action::Users => about::users(app, request.headers(), request.uri().query()).await,
        Action::About => about::about(app).await,
        Action::SetPassword => account::set_password(app, peer, request).await,
        Action::Sessions => account::sessions(app, request.headers()).await,
        Action::EndSession => account::end_session(app, request.headers(), SessionId(params.id("id")?)).await,
        Action::EndOtherSessions => account::end_other_sessions(app, request.headers()).await,
        Action::DeleteAccount => account::delete_account(app, peer, request).await,
        Action::Export => account::export(app, request.headers()).await,
        Action::Invite => account::invite(app, peer, request).await,
        Action::Invites => account::invites(app, request.headers()).await,
        Action::DeleteInvite => account::delete_invite(app, request.headers(), params.id("id")?).await,
        Action::Ban => account::ban(app, request, params.username("name")?).await,
        Action::Unban => account::unban(app, request.headers(), params.username("name")?).await,
        Action::StoreImage => images::store(app, request).await,
        Action::Image => images::get(app, request.headers(), ImageId(params.id("id")?)).await,
        Action::Search => search::search(app, request.headers(), request.uri().query()).await,
        Action::WebSocket => ws::upgrade(app, peer, &mut request),
        Action::Health => rest::healthz(app).await,
        Action::Asset => assets::get(path, request.headers()).ok_or(ApiError::NotFound),
    }
}

/// The methods a path takes; also the answer to a browser's preflight from an allowed origin.
fn options(allow: &str) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let allow = HeaderValue::try_from(allow).expect("methods are plain ASCII");
    headers.insert(ALLOW, allow.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow);
    headers
        .insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type, idempotency-key"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Refuses a browser whose page is of another site, unless the operator allowed that site. Only browsers send `Origin`,
/// and a page cannot change it.
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
    if is_allowed(app, origin) || same_host() {
        return Ok(());
    }
    if app.rates.refusal_log.take((), Instant::now()).is_ok() {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        tracing::warn!(
            %origin,
            %host,
            "refused a page of another origin than the host: if it is ours, have the proxy pass Host on; else --allow-origin"
        );
    }
    Err(ApiError::ForbiddenOrigin)
}

/// A host without the default port of its scheme: browsers leave it out, and some proxies do not (RFC 6454 6.2).
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

/// The request's part of a log line about its refusal.
struct RequestInfo {
    address: IpAddr,
    method: Method,
    uri: Uri,
    /// The id that a trusted proxy gave it.
    id: Option<String>,
}

impl RequestInfo {
    fn of(request: &Request<Incoming>, peer: &Peer) -> Self {
        let id = if peer.proxied { proxy::request_id(request.headers()).map(ToOwned::to_owned) } else { None };
        Self { address: peer.address, method: request.method().clone(), uri: request.uri().clone(), id }
    }
}

/// Counts, logs and answers a refusal. The id in the answer is that of the log line.
fn refuse(app: &App, info: &RequestInfo, error: &ApiError) -> Response {
    let reason = match error {
        ApiError::RateLimited(_) => Refused::Rate,
        ApiError::Unavailable | ApiError::NoSpace => Refused::Unavailable,
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
    let request = info.id.clone().unwrap_or_else(random_name);
    let RequestInfo { address, method, uri, .. } = info;
    // Without the query, which may contain anything if a client is mistaken.
    let (path, status, code) = (uri.path(), error.status().as_u16(), error.code());
    let level = match reason {
        Refused::Unavailable | Refused::Connections => Level::WARN,
        // Somebody guesses passwords, or is too fast.
        Refused::Rate => Level::INFO,
        Refused::Unauthorized if *error != ApiError::Unauthorized => Level::INFO,
        Refused::Unauthorized | Refused::Invalid => Level::DEBUG,
    };
    let let_through = || app.rates.refusal_log.take((), Instant::now()).is_ok();
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

/// Warns, once, that a proxy on this machine is not trusted: all its clients share the limits of one address.
fn warn_of_proxy(app: &App, address: IpAddr) {
    if !app.warned_of_proxy.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            %address,
            "X-Forwarded-For from this machine is ignored: if that is your proxy, start with --trusted-proxy {address}"
        );
    }
}
