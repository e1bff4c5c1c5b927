//! One push: a POST to a push service (RFC 8030 5), and what its answer means for the subscription.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
};
use hyper::{Request, StatusCode};
use tokio::time::timeout;

use super::dial::Dialer;
use super::encrypt::Keys;
use super::endpoint::Endpoint;
use super::vapid::Vapid;
use crate::limits::FAULT_SAID_AGAIN;
use crate::limits::push::{PUSH_ANSWER_HEADERS_MAX, PUSH_ANSWER_MAX_BYTES, PUSH_TIMEOUT, PUSH_TTL};

/// The outcome of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The push service has it.
    Sent,
    /// There is no such subscription any more (RFC 8030 7.3): the only answers that say so are 404 and 410.
    Ended,
    /// It was rejected, and would be again.
    Refused,
    /// It may succeed later, after the time that the push service names, if it does.
    Later(Option<Duration>),
}

/// Pushes, with the server's key.
#[derive(Debug)]
pub(super) struct Client {
    dialer: Dialer,
    vapid: Vapid,
    /// When a fault was last logged.
    said: Mutex<Option<Instant>>,
}

impl Client {
    pub(super) fn new(dialer: Dialer, vapid: Vapid) -> Self {
        Self { dialer, vapid, said: Mutex::new(None) }
    }

    /// The key that browsers subscribe to.
    pub(super) fn public_key(&self) -> String {
        self.vapid.public_key()
    }

    /// Sends `text` to a browser. A push that still waits at the push service is replaced by the next with its `topic`
    /// (RFC 8030 5.4).
    pub(super) async fn push(&self, endpoint: &Endpoint, keys: &Keys, topic: &str, text: &[u8]) -> Outcome {
        let outcome = match self.request(endpoint, keys, topic, text) {
            Ok(request) => match timeout(PUSH_TIMEOUT, self.exchange(endpoint, request)).await {
                Ok(Ok((status, headers))) => judge(status, &headers),
                Ok(Err(error)) => self.failed(endpoint, &error),
                Err(_) => self.failed(endpoint, &io::ErrorKind::TimedOut.into()),
            },
            Err(error) => {
                tracing::warn!(?endpoint, %error, "cannot make a push");
                Outcome::Refused
            }
        };
        tracing::debug!(?endpoint, ?outcome, "pushed");
        outcome
    }

    /// A network that is down fails every push, so this is logged once in a while.
    fn failed(&self, endpoint: &Endpoint, error: &io::Error) -> Outcome {
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() > FAULT_SAID_AGAIN) {
            *said = Some(Instant::now());
            tracing::warn!(?endpoint, %cause, "cannot reach a push service; it is tried again");
        } else {
            tracing::debug!(?endpoint, %cause, "cannot reach a push service");
        }
        Outcome::Later(None)
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        keys: &Keys,
        topic: &str,
        text: &[u8],
    ) -> Result<Request<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let body = keys.encrypt(text)?;
        let authorization = self.vapid.authorization(endpoint.origin(), now).map_err(|_| "cannot sign")?;
        let request = Request::post(endpoint.path())
            .header(HOST, endpoint.host())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("TTL", PUSH_TTL.as_secs())
            .header("Urgency", "high")
            .header("Topic", topic)
            .header(CONNECTION, "close");
        Ok(request.body(Full::new(body.into()))?)
    }

    /// One request and the head of its answer, on a connection of its own. The body of the answer is not read, since
    /// the status says enough. Redirects are not followed.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> io::Result<(StatusCode, HeaderMap)> {
        let stream = self.dialer.dial(endpoint.host()).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(PUSH_ANSWER_MAX_BYTES).max_headers(PUSH_ANSWER_HEADERS_MAX);
        let (mut sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        let mut answer = pin!(sender.send_request(request));
        // The connection is driven until the answer is there; if it ends first, the answer is there, too.
        let answer = tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        let (head, _) = answer.map_err(io::Error::other)?.into_parts();
        Ok((head.status, head.headers))
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Outcome {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Outcome::Ended,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Later(retry_after(headers)),
        status if status.is_success() => Outcome::Sent,
        status if status.is_server_error() => Outcome::Later(retry_after(headers)),
        _ => Outcome::Refused,
    }
}

/// How long a push service asks to wait: seconds, or until a date (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial::tests::dialer;
    use super::super::endpoint::Hosts;
    use super::super::push_service::{Answer, Browser, HOST, PushService};
    use super::super::resolve::tests::NameServer;
    use super::super::vapid::generate_key;
    use super::*;

    const TEXT: &str = r#"{"title":"Lobby"}"#;

    struct Setting {
        service: PushService,
        client: Client,
        browser: Browser,
        /// Answers while it is there.
        _names: NameServer,
    }

    impl Setting {
        async fn new() -> Self {
            let service = PushService::start();
            let names = NameServer::start(|_| vec![[127, 0, 0, 1].into()]).await;
            let vapid = Vapid::new(&generate_key().unwrap(), "mailto:me@chat.example".into()).unwrap();
            let client = Client::new(dialer(&service, names.resolver()), vapid);
            Self { service, client, browser: Browser::of_rfc_8291(), _names: names }
        }

        async fn push(&self) -> Outcome {
            let hosts = Hosts::with(&[HOST.parse().unwrap()]);
            let endpoint = Endpoint::parse(&PushService::endpoint("a?b=c"), &hosts).unwrap();
            let keys = Keys::parse(&self.browser.p256dh(), &self.browser.auth()).unwrap();
            self.client.push(&endpoint, &keys, "topic", TEXT.as_bytes()).await
        }

        async fn outcome_of(&self, answer: Answer) -> Outcome {
            self.service.answer(&[answer]);
            self.push().await
        }
    }

    #[tokio::test]
    async fn a_push_reaches_the_browser_and_says_who_sends_it() {
        let setting = Setting::new().await;
        assert_eq!(setting.push().await, Outcome::Sent);
        let push = setting.service.next();
        assert_eq!(push.path, "/a?b=c");
        assert_eq!(setting.browser.decrypt(&push.body), TEXT);
        for (name, value) in [
            ("host", HOST),
            ("content-encoding", "aes128gcm"),
            ("ttl", "86400"),
            ("urgency", "high"),
            ("topic", "topic"),
            ("connection", "close"),
        ] {
            assert_eq!(push.headers[name], value, "{name}");
        }
        assert!(push.headers["authorization"].ends_with(&setting.client.public_key()));
    }

    #[tokio::test]
    async fn only_404_and_410_end_a_subscription() {
        let setting = Setting::new().await;
        let waits = |seconds| Outcome::Later(Some(Duration::from_secs(seconds)));
        for (answer, outcome) in [
            (Answer::Status(200, ""), Outcome::Sent),
            (Answer::Status(404, ""), Outcome::Ended),
            (Answer::Status(410, ""), Outcome::Ended),
            (Answer::Status(301, "Location: https://evil.example/\r\n"), Outcome::Refused),
            (Answer::Status(400, ""), Outcome::Refused),
            (Answer::Status(401, ""), Outcome::Refused),
            (Answer::Status(403, ""), Outcome::Refused),
            (Answer::Status(413, ""), Outcome::Refused),
            (Answer::Status(429, "Retry-After: 120\r\n"), waits(120)),
            (Answer::Status(429, "Retry-After: soon\r\n"), Outcome::Later(None)),
            (Answer::Status(500, ""), Outcome::Later(None)),
            (Answer::Status(503, "Retry-After: 7\r\n"), waits(7)),
            (Answer::Status(503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n"), Outcome::Later(None)),
            (Answer::HangUp, Outcome::Later(None)),
        ] {
            assert_eq!(setting.outcome_of(answer).await, outcome, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_no_further_than_a_head_may_be_long() {
        let setting = Setting::new().await;
        for answer in [Answer::Endlessly, Answer::Interimly] {
            assert_eq!(setting.outcome_of(answer).await, Outcome::Later(None), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_push_service_that_says_nothing_or_dawdles_is_left_in_time() {
        let left = async |answer| {
            let (setting, started) = (Setting::new().await, Instant::now());
            assert_eq!(setting.outcome_of(answer).await, Outcome::Later(None), "{answer:?}");
            assert!(started.elapsed() >= PUSH_TIMEOUT);
        };
        tokio::join!(left(Answer::Nothing), left(Answer::Slowly));
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_not_talked_to() {
        let (setting, other) = (Setting::new().await, PushService::start());
        let vapid = Vapid::new(&generate_key().unwrap(), String::new()).unwrap();
        let names = NameServer::start(|_| vec![[127, 0, 0, 1].into()]).await;
        let mut dialer = dialer(&other, names.resolver());
        dialer.redirect_to(setting.service.port());
        let setting = Setting { client: Client::new(dialer, vapid), ..setting };
        assert_eq!(setting.push().await, Outcome::Later(None));
        assert!(setting.service.try_next().is_none());
    }
}
