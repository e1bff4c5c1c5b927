//! Authentication: the first frame, the session it names, and a place among the user's connections.
//!
//! An unauthenticated connection gets one read budget and ten seconds, and is invisible to other users.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::frames::{self, Close, Reader, Received};
use crate::app::App;
use crate::db::Session;
use crate::fan_out::{OnlineSnapshot, PresenceGuard, Shard};
use crate::limits::{AUTH_TIMEOUT, FRAMES_PER_READ};
use crate::metrics::Refused;
use crate::model::{Epoch, MessageId};
use crate::net::{ConnectionPermits, Stream};
use crate::protocol::{self, Auth, AuthFailure, ServerFrame};

/// Why a connection was rejected.
pub(super) enum Rejection {
    /// Closed after an `auth_failed` frame.
    Refused(AuthFailure),
    /// The user connects too often, or the user or the address has too many connections.
    TooMany,
    /// Closed with only a close frame, like [`TooMany`](Self::TooMany).
    Closed(Close),
}

/// An authenticated connection, before it is set up.
pub(super) struct Authenticated {
    pub(super) shard: Arc<Shard>,
    /// The shard's count of revocations from before the session was checked.
    pub(super) revocation: u64,
    pub(super) session: Session,
    /// Whether the client reads all rooms that its user may read.
    pub(super) all_rooms: bool,
    pub(super) presence: PresenceGuard,
    pub(super) snapshot: OnlineSnapshot,
    /// Whether a `user_join` was published for this connection.
    pub(super) announced: bool,
    pub(super) resume: Resume,
}

/// Reads the client's `auth` frame, checks its session, and counts the connection as one of its user's, and no longer
/// as a stranger of its address.
pub(super) async fn authenticate(
    app: &App,
    stream: &Stream,
    reader: &mut Reader,
    permits: &mut ConnectionPermits,
) -> Result<Authenticated, Rejection> {
    // The shard's count of revocations is read before the session is checked, so that a later revocation is noticed
    // either by the check or by the count.
    let shard = Arc::clone(app.next_shard());
    let revocation = shard.position().revocation;
    let auth = first_frame(app, stream, reader).await?;
    let session = match app.db.validate_session(auth.token.digest()).await {
        Ok(Some(session)) => session,
        Ok(None) => return Err(Rejection::Refused(AuthFailure::Unauthorized)),
        Err(_) => return Err(Rejection::Refused(AuthFailure::Unavailable)),
    };
    app.rates.connects.take(session.user, Instant::now()).map_err(|_| Rejection::TooMany)?;
    // The client may come from another node that is a moment ahead, and must not be told to discard what it has from
    // there.
    if auth.last_id.is_some_and(|known| known > app.db.last_id()) && app.db.barrier().await.is_err() {
        return Err(Rejection::Refused(AuthFailure::Unavailable));
    }
    if let Some(stranger) = &permits.per_ip {
        let address = stranger.address();
        permits.per_ip = Some(app.members_per_ip.enter(address).ok_or(Rejection::TooMany)?);
        app.known_addresses.note(session.user, address);
    }
    let entered = app.presence.enter(&session.username, session.is_bot).map_err(|_| Rejection::TooMany)?;
    let (presence, snapshot, announced) = entered;
    let resume = Resume::of(&auth, app.db.epoch(), app.db.last_id());
    let all_rooms = auth.all_rooms;
    Ok(Authenticated { shard, revocation, session, all_rooms, presence, snapshot, announced, resume })
}

/// Tells a rejected client why, then closes.
pub(super) async fn reject(app: &App, stream: &Stream, rejection: Rejection) {
    let (reason, close, answer) = match rejection {
        Rejection::Refused(code) => {
            let reason = match code {
                AuthFailure::Unauthorized | AuthFailure::AuthTimeout => Refused::Unauthorized,
                AuthFailure::InvalidJson => Refused::Invalid,
                AuthFailure::Unavailable => Refused::Unavailable,
            };
            (Some(reason), Close::AUTH_FAILED, protocol::encode(&ServerFrame::auth_failed(code)))
        }
        Rejection::TooMany => (Some(Refused::Connections), Close::TOO_MANY, Bytes::new()),
        Rejection::Closed(close) => (None, close, Bytes::new()),
    };
    if let Some(reason) = reason {
        app.metrics.refuse(reason);
    }
    frames::close(stream, close, &answer).await;
}

/// Where in the history a connection continues.
pub(super) struct Resume {
    /// The last message in the database.
    pub(super) last_id: MessageId,
    /// The last message the client has, or is to fetch by itself.
    pub(super) after: MessageId,
    /// Whether the client must discard its history: it is of another epoch, or ahead of this one.
    pub(super) afresh: bool,
}

impl Resume {
    /// Where to continue for a client that sent this `auth`, in the history of `epoch` that ends with `last_id` so far.
    fn of(auth: &Auth, epoch: &Epoch, last_id: MessageId) -> Self {
        let same_history = auth.epoch.as_ref().is_none_or(|known| known == epoch.as_str());
        match auth.last_id {
            Some(known) if same_history && known <= last_id => Self { last_id, after: known, afresh: false },
            known => Self { last_id, after: last_id, afresh: known.is_some() },
        }
    }
}

/// Reads the first frame, before its deadline.
async fn first_frame(app: &App, stream: &Stream, reader: &mut Reader) -> Result<Auth, Rejection> {
    let text = tokio::select! {
        text = tokio::time::timeout(AUTH_TIMEOUT, first_text(stream, reader)) => match text {
            Ok(text) => text.map_err(Rejection::Closed)?,
            Err(_) => return Err(Rejection::Refused(AuthFailure::AuthTimeout)),
        },
        () = app.until_stopping() => return Err(Rejection::Closed(Close::SHUTDOWN)),
    };
    Auth::parse(&text).map_err(Rejection::Refused)
}

async fn first_text(stream: &Stream, reader: &mut Reader) -> Result<String, Close> {
    let mut control_frames = 0;
    loop {
        let received = reader.next(stream);
        let mut replies = BytesMut::new();
        reader.take_replies(&mut replies);
        frames::write(stream, &mut &replies[..]).await?;
        match received {
            Received::Text(text) => return Ok(text.as_str().to_owned()),
            Received::Binary(_) => return Err(Close::BINARY),
            Received::Control if control_frames < FRAMES_PER_READ => control_frames += 1,
            // An unauthenticated connection gets a single read budget.
            Received::Control | Received::BudgetSpent => return Err(Close::ABUSE),
            Received::Nothing => stream.readable().await.map_err(|_| Close::GONE)?,
            Received::Closed(close) => return Err(close),
        }
    }
}
