//! What the writer thread can do, as data: a [`Change`] says what to do, a [`Reply`] who waits for it, and [`Done`]
//! what the outcome is.
//!
//! Applying a change depends only on the database, the change and its [`Moment`]: not on a clock, a random number, a flag
//! or a constant that another version may have changed. So equal changes in equal order give equal databases, on any
//! machine, at any time and in any batches.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::account::{AccountCommand, AccountOutcome};
use super::admin::{AdminCommand, AdminError, AdminOutcome};
use super::data::{NewImage, Prune, Pruned, Sender, Write, WriteOutcome, WriteRules};
use super::error::{AccountError, Error, ImageError, RoomError, WriteError};
use super::expiry::Belief;
use super::nonce_days::NonceDays;
#[cfg(any(feature = "push", feature = "cluster"))]
use super::push::PushChange;
use super::room_changes::{RoomCommand, RoomOutcome};
use crate::limits::MESSAGES_PER_COMMIT;
use crate::model::{SessionId, UnixMillis, UserId, Username};
use crate::room::ImageId;
use crate::secret::Digest;

/// A change of the database. No value of it can fail a transaction: a change that cannot be made is refused alone.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(super) enum Change {
    RegisterUser {
        username: Username,
        password_hash: String,
        /// The invitation, of which this is one use.
        invite: Option<Digest>,
    },
    LoginUser {
        user: UserId,
        /// The hash that the password was verified against.
        password_hash: String,
        digest: Digest,
        /// A short form of the client's name.
        client: String,
        /// How many of the user's sessions stay: the newest.
        keep: u32,
    },
    TouchSession {
        session: SessionId,
    },
    EndSession {
        digest: Digest,
    },
    Write {
        sender: Sender,
        writes: Vec<Write>,
        rules: WriteRules,
    },
    Room {
        /// The session in which it is done.
        session: SessionId,
        by: UserId,
        command: RoomCommand,
    },
    Account {
        /// The session in which it is done.
        session: SessionId,
        by: UserId,
        command: AccountCommand,
    },
    StoreImage {
        session: SessionId,
        owner: UserId,
        image: NewImage,
        /// How many pictures one user may have that are in no message yet.
        at_most: u32,
    },
    Administer {
        command: AdminCommand,
        /// How many messages it looks at, if it removes messages.
        rows: u32,
    },
    /// A node that is built without `push` applies it too: its database is as the others'.
    #[cfg(any(feature = "push", feature = "cluster"))]
    Push(PushChange),
    Sweep(Sweep),
    /// Is in no log: each node has clocks of its own.
    #[cfg_attr(feature = "cluster", serde(skip))]
    KeepClocks {
        /// The day of the nonces that come now, and how long it has lasted.
        nonce_day: (i64, Duration),
        /// The time that is believed.
        belief: Belief,
    },
    /// Changes nothing: its answer says that a transaction was committed.
    Check,
}

impl Change {
    /// Its share of the writes in one commit. A picture is as much for the disk as thousands of messages: no commit has
    /// two.
    pub(super) fn writes(&self) -> usize {
        match self {
            Self::Write { writes, .. } => writes.len(),
            Self::StoreImage { .. } => MESSAGES_PER_COMMIT,
            _ => 0,
        }
    }

    /// Whether it can change stored messages, or how they look.
    pub(super) fn may_change_messages(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::Room { .. }
            | Self::Account { .. }
            | Self::Administer { .. }
            | Self::Sweep(_) => true,
            Self::RegisterUser { .. }
            | Self::LoginUser { .. }
            | Self::TouchSession { .. }
            | Self::EndSession { .. }
            | Self::StoreImage { .. }
            | Self::KeepClocks { .. }
            | Self::Check => false,
            #[cfg(any(feature = "push", feature = "cluster"))]
            Self::Push(_) => false,
        }
    }

    /// Whether it can change something about sessions that it does not end: their user's role.
    pub(super) fn may_change_sessions(&self) -> bool {
        matches!(self, Self::Administer { command: AdminCommand::SetRole { .. }, .. })
    }

    /// The first version of entries that has it: a node that reads older ones only stops where it finds it.
    #[cfg(feature = "cluster")]
    pub(super) fn version(&self) -> u32 {
        match self {
            Self::Push(_) => 2,
            _ => 1,
        }
    }
}

/// One round of removing what has expired.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(super) struct Sweep {
    /// How many sessions, and how many nonces, are removed at most.
    pub(super) rows: u32,
    /// Rooms that their last members left up to this moment are removed.
    pub(super) emptied_until: UnixMillis,
    /// Pictures stored up to this moment that no message names are removed,
    pub(super) unnamed_until: UnixMillis,
    /// and all that were stored up to this one.
    pub(super) images_until: Option<UnixMillis>,
    /// How many pictures are removed at most.
    pub(super) images: u32,
    pub(super) prune: Option<Prune>,
}

/// When a change is made. It comes with the change, which must not read a clock itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: UnixMillis,
    /// The time by which things expire, and are too old for something.
    pub(super) expiry: UnixMillis,
    /// Sessions last used at or before this are expired.
    pub(super) expired_at: UnixMillis,
    pub(super) nonce_days: NonceDays,
}

/// A change, when it is made, and who waits for it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) moment: Moment,
    pub(super) change: Change,
    pub(super) reply: Reply,
}

/// What applying a change answers, once it is committed.
#[derive(Debug)]
pub(super) enum Done {
    /// The change was made, and there is nothing to add.
    Applied,
    Registered(Result<(), Error>),
    LoggedIn(Option<SessionId>),
    /// Whether there was such a session.
    LoggedOut(bool),
    Written(Written),
    Room(Result<RoomOutcome, RoomError>),
    Account(Result<AccountOutcome, AccountError>),
    ImageStored(Result<ImageId, ImageError>),
    Administered(Result<AdminOutcome, AdminError>),
    #[cfg(any(feature = "push", feature = "cluster"))]
    Subscribed(Result<(), Error>),
    #[cfg(any(feature = "push", feature = "cluster"))]
    KeptKey(Vec<u8>),
    Swept(Swept),
}

/// What became of each of a sender's writes, or why it was refused.
pub(super) type Written = Result<Vec<Result<WriteOutcome, WriteError>>, Error>;

/// What a sweep left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    /// Whether there may be more expired sessions or nonces.
    pub(super) more_expired: bool,
    /// When the session that expires next was last used.
    pub(super) oldest_use: Option<UnixMillis>,
    pub(super) pruned: Option<Pruned>,
}

/// The waiting side of a change. Dropping a reply says that the database is unavailable.
#[derive(Debug)]
pub(super) enum Reply {
    /// Nobody.
    None,
    Applied(oneshot::Sender<()>),
    Registered(oneshot::Sender<Result<(), Error>>),
    LoggedIn(oneshot::Sender<Option<SessionId>>),
    LoggedOut(oneshot::Sender<bool>),
    Written {
        reply: oneshot::Sender<Written>,
        /// The writes' bytes in the queue, given back when they are stored or refused.
        queued: OwnedSemaphorePermit,
    },
    Room(oneshot::Sender<Result<RoomOutcome, RoomError>>),
    ImageStored(oneshot::Sender<Result<ImageId, ImageError>>),
    Account(oneshot::Sender<Result<AccountOutcome, AccountError>>),
    Administered(oneshot::Sender<Result<AdminOutcome, AdminError>>),
    #[cfg(any(feature = "push", feature = "cluster"))]
    Subscribed(oneshot::Sender<Result<(), Error>>),
    #[cfg(any(feature = "push", feature = "cluster"))]
    KeptKey(oneshot::Sender<Vec<u8>>),
    Swept(oneshot::Sender<Swept>),
}

impl Reply {
    /// Whether nobody waits any more.
    #[cfg(feature = "cluster")]
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::None => false,
            Self::Applied(reply) => reply.is_closed(),
            Self::Registered(reply) => reply.is_closed(),
            Self::LoggedIn(reply) => reply.is_closed(),
            Self::LoggedOut(reply) => reply.is_closed(),
            Self::Written { reply, .. } => reply.is_closed(),
            Self::Room(reply) => reply.is_closed(),
            Self::Administered(reply) => reply.is_closed(),
            Self::Swept(reply) => reply.is_closed(),
            Self::Account(reply) => reply.is_closed(),
            Self::ImageStored(reply) => reply.is_closed(),
            #[cfg(any(feature = "push", feature = "cluster"))]
            Self::Subscribed(reply) => reply.is_closed(),
            #[cfg(any(feature = "push", feature = "cluster"))]
            Self::KeptKey(reply) => reply.is_closed(),
        }
    }

    /// Answers the caller that waits.
    pub(super) fn answer(self, done: Done) {
        match (self, done) {
            (Self::None, _) => {}
            (Self::Applied(reply), Done::Applied) => send(reply, ()),
            (Self::Registered(reply), Done::Registered(registered)) => send(reply, registered),
            (Self::LoggedIn(reply), Done::LoggedIn(session)) => send(reply, session),
            (Self::LoggedOut(reply), Done::LoggedOut(existed)) => send(reply, existed),
            (Self::Written { reply, queued }, Done::Written(written)) => {
                drop(queued);
                send(reply, written);
            }
            (Self::Room(reply), Done::Room(outcome)) => send(reply, outcome),
            (Self::ImageStored(reply), Done::ImageStored(stored)) => send(reply, stored),
            (Self::Account(reply), Done::Account(outcome)) => send(reply, outcome),
            (Self::Administered(reply), Done::Administered(outcome)) => send(reply, outcome),
            #[cfg(any(feature = "push", feature = "cluster"))]
            (Self::Subscribed(reply), Done::Subscribed(subscribed)) => send(reply, subscribed),
            #[cfg(any(feature = "push", feature = "cluster"))]
            (Self::KeptKey(reply), Done::KeptKey(key)) => send(reply, key),
            (Self::Swept(reply), Done::Swept(swept)) => send(reply, swept),
            (reply, done) => debug_assert!(false, "{reply:?} does not wait for {done:?}"),
        }
    }
}

fn send<T>(reply: oneshot::Sender<T>, value: T) {
    // Fails if nobody waits any more.
    drop(reply.send(value));
}
