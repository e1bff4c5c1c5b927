//! What Web Push keeps and asks: subscriptions, the server's key, whom a room's messages concern, and what there is to
//! tell a device at the moment it is told.

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

/// A subscription's row. Never used again, so that a device is not told what was meant for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DeviceId(pub i64);

/// Where a browser is reached, and what it wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The push service's URL.
    pub endpoint: String,
    /// The browser's keys.
    pub keys: Vec<u8>,
    /// Of rooms for which its user has not said otherwise.
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

/// What there is to tell a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose device it is.
    pub user: UserId,
    /// The push service's URL.
    pub endpoint: String,
    /// The browser's keys.
    pub keys: Vec<u8>,
    /// The room's name; a direct room has none.
    pub name: Option<String>,
    /// The newest message.
    pub message: MessageId,
    /// Its author.
    pub from: Username,
    /// Its text, if the device shows texts.
    pub text: Option<String>,
    /// Unread messages to tell of, the newest among them.
    pub count: u32,
}

/// What can be done to it.
#[derive(Debug, Clone)]
pub(super) enum PushChange {
    /// Keeps a key, if there is none yet.
    KeepKey {
        key: Vec<u8>,
    },
    Subscribe {
        sender: Sender,
        subscription: Subscription,
        /// How many subscriptions of the user stay, those visited last.
        keep: u32,
        /// Those not visited since are forgotten.
        visited_after: UnixMillis,
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
            PushChange::Subscribe { sender, subscription, keep, visited_after } => {
                let lives = sql::sender_lives(connection, sender, moment.expired_at)?;
                if lives {
                    sql::forget_unvisited(connection, *visited_after)?;
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

/// What can be asked.
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

/// What there is to tell a device of a room's news: nothing, if its user may not read the room any more, has read it or
/// does not want to hear of it.
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

    /// Keeps a subscription for as long as the session it is made in lives; it is nobody else's from then on.
    pub async fn subscribe(&self, sender: Sender, subscription: Subscription) -> Result<(), Error> {
        let keep = USER_SUBSCRIPTIONS_MAX;
        let change = PushChange::Subscribe { sender, subscription, keep, visited_after: visited_after() };
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

    /// The devices that may have to be told of `news`, after one, by their ids; [`DEVICES_AT_ONCE`] unless it is the end.
    /// Whether they have read it is not looked at.
    pub async fn concerned_devices(&self, news: News, after: DeviceId) -> Result<Vec<DeviceId>, Error> {
        let visited_after = visited_after();
        self.request(|reply| Request::Push(PushRequest::Concerned { news, after, visited_after, reply })).await
    }

    /// What there is to tell a device of a room at this moment.
    pub async fn notice(&self, device: DeviceId, news: News) -> Result<Option<Notice>, Error> {
        self.request(|reply| Request::Push(PushRequest::Notice { device, news, reply })).await
    }
}

fn visited_after() -> UnixMillis {
    UnixMillis::now().plus(-millis(SUBSCRIPTION_LIFETIME))
}
