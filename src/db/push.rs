//! The database's part of Web Push: subscriptions, the server's key, the devices that a room's messages concern, and
//! what a push to a device says at the moment it is sent.

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::apply::Execution;
use super::change::{Change, Done, Reply};
use super::data::{Sender, millis};
use super::error::Error;
use super::reader::{Request, answer};
use super::reads::ReadPositions;
use super::{Db, sql};
use crate::limits::push::{DEVICES_AT_ONCE, SUBSCRIPTION_LIFETIME, USER_SUBSCRIPTIONS_MAX};
use crate::model::{MessageId, UnixMillis, UserId, Username};
use crate::room::{NotifyAbout, RoomId};

/// A subscription's row. Never used again, so that a push cannot reach another device than it was meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DeviceId(pub i64);

/// A browser's subscription: where to push to, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Subscription {
    /// The push service's URL.
    pub endpoint: String,
    /// The browser's keys.
    #[cfg_attr(feature = "cluster", serde(with = "super::encoding::base64"))]
    pub keys: Vec<u8>,
    /// For rooms that its user has made no choice for.
    pub about: NotifyAbout,
    /// Whether a push leaves out the message's text.
    pub hides_text: bool,
}

/// The messages of a room past one, up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// The room.
    pub room: RoomId,
    /// They come after this one.
    pub after: MessageId,
    /// The last of them.
    pub up_to: MessageId,
}

/// What a push to a device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The owner of the device.
    pub user: UserId,
    /// The push service's URL.
    pub endpoint: String,
    /// The browser's keys.
    pub keys: Vec<u8>,
    /// The room's name; `None` for a direct room.
    pub name: Option<String>,
    /// The newest message.
    pub message: MessageId,
    /// Its author.
    pub from: Username,
    /// Its text, unless the device hides texts.
    pub text: Option<String>,
    /// Unread messages that the push counts, the newest included.
    pub count: u32,
}

/// A change of this part.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(super) enum PushChange {
    /// Keeps a key, if there is none yet.
    KeepKey {
        #[cfg_attr(feature = "cluster", serde(with = "super::encoding::base64"))]
        key: Vec<u8>,
    },
    Subscribe {
        sender: Sender,
        subscription: Subscription,
        /// How many of the user's subscriptions stay: those visited last.
        keep: u32,
        /// Milliseconds after its last visit at which a subscription is forgotten.
        lifetime: i64,
    },
    Unsubscribe {
        user: UserId,
        endpoint: String,
    },
    Forget {
        device: DeviceId,
    },
}

impl Execution<'_> {
    pub(super) fn push(&self, change: &PushChange) -> rusqlite::Result<Done> {
        let (connection, moment) = (self.connection, self.moment);
        match change {
            PushChange::KeepKey { key } => return sql::keep_vapid_key(connection, key).map(Done::KeptKey),
            PushChange::Subscribe { sender, subscription, keep, lifetime } => {
                let lives = sql::sender_lives(connection, sender, moment.expired_at)?;
                if lives {
                    sql::forget_unvisited(connection, moment.expiry.plus(lifetime.saturating_neg()))?;
                    sql::subscribe(connection, sender, subscription, moment.now)?;
                    sql::forget_surplus(connection, sender.user, *keep)?;
                }
                return Ok(Done::Subscribed(if lives { Ok(()) } else { Err(Error::SessionEnded) }));
            }
            PushChange::Unsubscribe { user, endpoint } => sql::unsubscribe(connection, *user, endpoint)?,
            PushChange::Forget { device } => sql::forget_device(connection, *device)?,
        }
        Ok(Done::Applied)
    }
}

/// A question for the reader thread.
#[derive(Debug)]
pub(super) enum PushRequest {
    Concerned { news: News, after: DeviceId, visited_after: UnixMillis, reply: oneshot::Sender<Vec<DeviceId>> },
    Notice { device: DeviceId, news: News, reply: oneshot::Sender<Option<Notice>> },
    Subscribed { reply: oneshot::Sender<bool> },
}

impl PushRequest {
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Concerned { reply, .. } => reply.is_closed(),
            Self::Notice { reply, .. } => reply.is_closed(),
            Self::Subscribed { reply } => reply.is_closed(),
        }
    }

    pub(super) fn run(self, connection: &Connection, reads: &ReadPositions) -> rusqlite::Result<()> {
        match self {
            Self::Concerned { news, after, visited_after, reply } => {
                answer(reply, sql::concerned_devices(connection, news, after, visited_after, DEVICES_AT_ONCE))
            }
            Self::Notice { device, news, reply } => answer(reply, notice(connection, reads, device, news)),
            Self::Subscribed { reply } => answer(reply, sql::has_subscriptions(connection)),
        }
    }
}

/// What to push to a device about a room's news: nothing, if its user may not read the room any more, has read it, or
/// wants no notification.
fn notice(
    connection: &Connection,
    reads: &ReadPositions,
    device: DeviceId,
    news: News,
) -> rusqlite::Result<Option<Notice>> {
    let Some(recipient) = sql::recipient(connection, device, news.room)? else { return Ok(None) };
    let sql::Recipient { user, endpoint, keys, hides_text, about, name } = recipient;
    let read = sql::read_up_to(connection, user, news.room)?.max(reads.of(user, news.room));
    let Some((newest, count)) = sql::to_tell(connection, user, about, News { after: read, ..news })? else {
        return Ok(None);
    };
    if newest <= news.after {
        return Ok(None);
    }
    let Some((from, text)) = sql::said(connection, newest)? else { return Ok(None) };
    let text = (!hides_text).then_some(text);
    Ok(Some(Notice { user, endpoint, keys, name, message: newest, from, text, count }))
}

impl Db {
    /// The server's VAPID key: `key`, unless there was one already.
    pub async fn vapid_key(&self, key: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.apply(Change::Push(PushChange::KeepKey { key }), Reply::KeptKey).await
    }

    /// Stores a subscription for as long as the session that made it lives. It belongs to nobody else from then on.
    pub async fn subscribe(&self, sender: Sender, subscription: Subscription) -> Result<(), Error> {
        let (keep, lifetime) = (USER_SUBSCRIPTIONS_MAX, millis(SUBSCRIPTION_LIFETIME));
        let change = PushChange::Subscribe { sender, subscription, keep, lifetime };
        self.apply(Change::Push(change), Reply::Subscribed).await?
    }

    /// Ends a user's subscription, if they have it.
    pub async fn unsubscribe(&self, user: UserId, endpoint: String) -> Result<(), Error> {
        self.apply(Change::Push(PushChange::Unsubscribe { user, endpoint }), Reply::Applied).await
    }

    /// Ends the subscription of a device, which its push service does not know any more.
    pub async fn forget_device(&self, device: DeviceId) -> Result<(), Error> {
        self.apply(Change::Push(PushChange::Forget { device }), Reply::Applied).await
    }

    /// Whether any device is subscribed.
    pub async fn has_subscriptions(&self) -> Result<bool, Error> {
        self.request(|reply| Request::Push(PushRequest::Subscribed { reply })).await
    }

    /// Devices that `news` may concern, after one, by id: [`DEVICES_AT_ONCE`], fewer at the end. Read positions are not
    /// considered yet.
    pub async fn concerned_devices(&self, news: News, after: DeviceId) -> Result<Vec<DeviceId>, Error> {
        let visited_after = self.visited_after();
        self.request(|reply| Request::Push(PushRequest::Concerned { news, after, visited_after, reply })).await
    }

    /// Devices that were visited last up to this moment are not told of anything.
    fn visited_after(&self) -> UnixMillis {
        self.shared.expiry.now().plus(-millis(SUBSCRIPTION_LIFETIME))
    }

    /// What to push to a device about a room at this moment.
    pub async fn notice(&self, device: DeviceId, news: News) -> Result<Option<Notice>, Error> {
        self.request(|reply| Request::Push(PushRequest::Notice { device, news, reply })).await
    }
}
