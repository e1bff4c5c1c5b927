//! Who comes in: the first frame, the session it names, a place among the user's connections.
//!
//! Until that is done a connection is a stranger, who gets one burst of bytes and ten seconds, and of whom nobody is
//! told.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::socket::{self, Close, Reader, Received};
use crate::config::{AUTH_TIMEOUT, FRAMES_PER_READ};
use crate::db::Session;
use crate::fan_out::Shard;
use crate::handler::App;
use crate::metrics::Refused;
use crate::model::{Epoch, MessageId};
use crate::presence::{PresenceGuard, Snapshot};
use crate::protocol::{self, Auth, AuthFailure, ServerFrame};
use crate::stream::Stream;

/// Why a connection never became one.
pub(super) enum TurnedAway {
    /// With `auth_failed`.
    Refused(AuthFailure),
    /// The user comes too often, or is here often enough.
    TooMany,
    /// With the close frame alone, as [`TooMany`](Self::TooMany).
    Ended(Close),
}

/// Who came in, and what they have.
pub(super) struct Arrival {
    pub(super) shard: Arc<Shard>,
    /// The shard's count of revocations, from before the session was checked.
    pub(super) revocation: u64,
    pub(super) session: Session,
    pub(super) presence: PresenceGuard,
    pub(super) snapshot: Snapshot,
    /// Whether others were told that the user came.
    pub(super) announced: bool,
    pub(super) resume: Resume,
}

/// Has the client say who it is and what it has, and finds it a place among its user's connections.
pub(super) async fn identify(app: &App, stream: &Stream, reader: &mut Reader) -> Result<Arrival, TurnedAway> {
    // The shard's count of revocations is taken before the session is checked: one that comes after is seen, either by
    // the check or by the count.
    let shard = Arc::clone(app.next_shard());
    let revocation = shard.position().revocation;
    let auth = first_frame(app, stream, reader).await?;
    let session = match app.db.validate_session(auth.token.digest()).await {
        Ok(Some(session)) => session,
        Ok(None) => return Err(TurnedAway::Refused(AuthFailure::Unauthorized)),
        Err(_) => return Err(TurnedAway::Refused(AuthFailure::Unavailable)),
    };
    app.connect_rate.take(session.user, Instant::now()).map_err(|_| TurnedAway::TooMany)?;
    let entered = app.presence.enter(&session.username).map_err(|_| TurnedAway::TooMany)?;
    let (presence, snapshot, announced) = entered;
    let resume = Resume::of(&auth, app.db.epoch(), app.db.last_id());
    Ok(Arrival { shard, revocation, session, presence, snapshot, announced, resume })
}

/// Says why to who does not get in, and closes.
pub(super) async fn turn_away(app: &App, stream: &Stream, turned_away: TurnedAway) {
    let (reason, close, answer) = match turned_away {
        TurnedAway::Refused(code) => {
            let reason = match code {
                AuthFailure::Unauthorized | AuthFailure::AuthTimeout => Refused::Unauthorized,
                AuthFailure::InvalidJson => Refused::Invalid,
                AuthFailure::Unavailable => Refused::Unavailable,
            };
            (Some(reason), Close::AUTH_FAILED, protocol::encode(&ServerFrame::auth_failed(code)))
        }
        TurnedAway::TooMany => (Some(Refused::Connections), Close::TOO_MANY, Bytes::new()),
        TurnedAway::Ended(close) => (None, close, Bytes::new()),
    };
    if let Some(reason) = reason {
        app.metrics.refuse(reason);
    }
    socket::close(stream, close, &answer).await;
}

/// Where a connection goes on.
pub(super) struct Resume {
    /// The last message there is.
    pub(super) last_id: MessageId,
    /// The last one the client has, or is to fetch by itself.
    pub(super) after: MessageId,
    /// Whether the client is to forget what it has: it is of another epoch, or ahead of this one.
    pub(super) afresh: bool,
}

impl Resume {
    /// Where a client goes on that says this, in the history of `epoch` that so far ends with `last_id`.
    fn of(auth: &Auth, epoch: &Epoch, last_id: MessageId) -> Self {
        let same_history = auth.epoch.as_ref().is_none_or(|known| known == epoch.as_str());
        match auth.last_id {
            Some(known) if same_history && known <= last_id => Self { last_id, after: known, afresh: false },
            known => Self { last_id, after: last_id, afresh: known.is_some() },
        }
    }
}

/// Reads the first frame, within its deadline.
async fn first_frame(app: &App, stream: &Stream, reader: &mut Reader) -> Result<Auth, TurnedAway> {
    let text = tokio::select! {
        text = tokio::time::timeout(AUTH_TIMEOUT, first_text(stream, reader)) => match text {
            Ok(text) => text.map_err(TurnedAway::Ended)?,
            Err(_) => return Err(TurnedAway::Refused(AuthFailure::AuthTimeout)),
        },
        () = app.until_stopping() => return Err(TurnedAway::Ended(Close::SHUTDOWN)),
    };
    Auth::parse(&text).map_err(TurnedAway::Refused)
}

async fn first_text(stream: &Stream, reader: &mut Reader) -> Result<String, Close> {
    let mut control_frames = 0;
    loop {
        let received = reader.next(stream);
        let mut replies = BytesMut::new();
        reader.take_replies(&mut replies);
        socket::write(stream, &mut &replies[..]).await?;
        match received {
            Received::Text(text) => return Ok(text.as_str().to_owned()),
            Received::Binary(_) => return Err(Close::BINARY),
            Received::Control if control_frames < FRAMES_PER_READ => control_frames += 1,
            // A stranger gets one burst, and no second.
            Received::Control | Received::Enough => return Err(Close::ABUSE),
            Received::Nothing => stream.readable().await.map_err(|_| Close::GONE)?,
            Received::End(close) => return Err(close),
        }
    }
}
