//! Web Push: a device whose browser is closed is told that there is something to read.
//!
//! There is no gateway in between and no account with anybody: each browser gives a URL of its maker's push service and
//! a key (RFC 8030), what is sent there is encrypted for that key ([`encrypt`], RFC 8291) and signed with this server's
//! ([`vapid`], RFC 8292). The URL is a member's choice and is not believed ([`endpoint`], [`dial`], [`global`]).
//!
//! A message's way: the writer notes its room ([`news`]); when it is ten seconds old the database says whom it
//! concerns; each of their devices gets a place in the [`queue`]; and when its turn has come, the database says what
//! there is to tell it at that moment ([`sender`]). Of several nodes all come so far, and one sends.

mod base64url;
mod dial;
mod dns;
mod encrypt;
mod endpoint;
mod global;
mod news;
mod post;
mod queue;
mod resolve;
mod sender;
mod sight;
mod text;
mod vapid;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "cluster")]
use std::time::Instant;

use crate::config::Config;
use crate::db::{self, Db};
use crate::model::UserId;
use dial::Dialer;
use endpoint::{Endpoint, Hosts};
use post::Client;
use vapid::Vapid;

pub(crate) use encrypt::Keys;
pub use endpoint::HostPattern;
pub(crate) use news::Rooms;
pub(crate) use sender::Pusher;
pub(crate) use sight::Eye;
use sight::Sight;

/// Times that a node tries to make the key known before it starts without pushing, and the time between two.
const KEY_TRIES: u32 = 30;
const KEY_PAUSE: Duration = Duration::from_secs(1);

/// Why a server cannot push.
#[derive(Debug, thiserror::Error)]
enum PushError {
    /// The database does not give or take the key.
    #[error("the database does not keep the key")]
    Database(#[from] db::Error),
    /// A key cannot be made.
    #[error("the system has no random numbers")]
    Random,
    /// What the database keeps is no key.
    #[error("the key in the database cannot be used: {0}")]
    Key(String),
    /// TLS cannot be spoken.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// What only the tests have.
    #[cfg(feature = "push-test")]
    #[error("the tests' push service: {0}")]
    Tests(String),
}

/// All that pushing needs.
#[derive(Debug)]
pub(crate) struct Push {
    hosts: Hosts,
    client: Client,
    rooms: Arc<Rooms>,
    sight: Arc<Sight>,
    /// How long a page that was in sight and has not been heard from counts as in sight.
    sight_life: Duration,
}

impl Push {
    /// Makes ready to push, if the operator said whom push services may write to. What is in the way of it is no reason
    /// not to serve.
    pub(crate) async fn start(config: &Config, db: &Db, rooms: Arc<Rooms>) -> Option<Self> {
        let started = Self::try_start(config, db, rooms).await;
        started.unwrap_or_else(|error| {
            tracing::error!(%error, "push is off");
            None
        })
    }

    /// The key is made at the first start, also where nothing is pushed yet.
    async fn try_start(config: &Config, db: &Db, rooms: Arc<Rooms>) -> Result<Option<Self>, PushError> {
        let key = keep_key(db, vapid::generate_key().map_err(|_| PushError::Random)?).await?;
        let Some(subject) = subject(config) else {
            tracing::info!("push is off: it needs --push-contact, or --public-url with https");
            return Ok(None);
        };
        // Of several nodes none knows when somebody subscribes at another.
        if db.is_one_of_several() || db.has_subscriptions().await? {
            rooms.listen();
        }
        let vapid = Vapid::new(&key, subject).map_err(|error| PushError::Key(error.to_string()))?;
        Ok(Some(Self {
            hosts: Hosts::with(&config.push_host),
            client: Client::new(Dialer::for_program()?, vapid),
            rooms,
            sight: Arc::default(),
            sight_life: config.ping_interval() + config.ping_interval() / 2,
        }))
    }

    /// Begins to tell: somebody has subscribed.
    pub(crate) fn listen(&self) {
        self.rooms.listen();
    }

    /// The key that browsers subscribe to.
    pub(crate) fn public_key(&self) -> String {
        self.client.public_key()
    }

    /// An endpoint as it is stored, or what is wrong with it.
    pub(crate) fn check_endpoint(&self, url: &str) -> Result<String, &'static str> {
        Endpoint::parse(url, &self.hosts).map(|endpoint| endpoint.as_str().to_owned())
    }

    /// Says when a page in sight of a user was last heard from.
    #[cfg(feature = "cluster")]
    pub(crate) fn eyes(&self) -> impl Fn(UserId) -> Option<Instant> + use<> {
        let sight = Arc::clone(&self.sight);
        move |user| sight.heard_at(user)
    }

    /// For a connection that may say whether its page is in sight.
    pub(crate) fn eye(&self, user: UserId) -> Eye {
        Eye::new(&self.sight, user)
    }
}

/// The key that is kept: `key`, unless there was one already. All nodes of a cluster push with one, which an entry of
/// their log says; it is tried again while the log has no leader.
async fn keep_key(db: &Db, key: Vec<u8>) -> Result<Vec<u8>, db::Error> {
    for _ in 0..KEY_TRIES {
        match db.vapid_key(key.clone()).await {
            Err(db::Error::Unavailable) if db.is_one_of_several() => tokio::time::sleep(KEY_PAUSE).await,
            kept => return kept,
        }
    }
    db.vapid_key(key).await
}

/// Whom a push service may write to: a `mailto:` or `https:` URL (RFC 8292 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(String);

impl FromStr for Contact {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let has_content =
            |rest: &str| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control());
        let address = text.strip_prefix("mailto:").and_then(|rest| rest.split_once('@'));
        let is_address = address.is_some_and(|(user, host)| has_content(user) && is_reachable(host));
        let is_page = text.strip_prefix("https://").is_some_and(is_reachable);
        let is_contact = is_address || is_page;
        if is_contact {
            Ok(Self(text.into()))
        } else {
            Err("it is mailto:ADDRESS or https://HOST, and not of localhost")
        }
    }
}

/// Whether a push service takes this for a host: Apple refuses `localhost`.
fn is_reachable(rest: &str) -> bool {
    let host = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
    host.contains('.') && !host.ends_with(".localhost") && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whom the operator has push services write to: the contact, or else the page's own address.
fn subject(config: &Config) -> Option<String> {
    let page = || config.public_url.as_ref()?.as_str().parse().ok();
    config.push_contact.clone().or_else(page).map(|Contact(url)| url)
}

#[cfg(test)]
#[expect(dead_code, reason = "the tests of the whole server use more of it")]
#[path = "../../tests/common/push_service.rs"]
mod push_service;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_one_that_a_push_service_can_write_to() {
        for contact in ["mailto:me@chat.example", "https://chat.example", "https://chat.example:8443/about?x"] {
            assert!(contact.parse::<Contact>().is_ok(), "{contact}");
        }
        for contact in [
            "",
            "me@chat.example",
            "mailto:",
            "mailto:me",
            "mailto:@chat.example",
            "mailto:me@localhost",
            "http://chat.example",
            "https://",
            "https://localhost",
            "https://localhost:8443/",
            "https://x.localhost/",
            "https://chat.example/\r\nX: y",
            "mailto:me you@chat.example",
            "https://chat.example/a b",
            "https://chat.example/\u{7}",
        ] {
            assert!(contact.parse::<Contact>().is_err(), "{contact}");
        }
    }
}
