//! The life of one connection once it is [authenticated](super::authenticate): receive, catch up, close.
//!
//! The task reads the client's frames and answers them. What everyone is told is written by the connection's
//! [shard](crate::fan_out), as long as the socket keeps up; when it does not, [`Connection::catch_up`] takes over. That
//! one function serves resuming clients, slow sockets and shards that lagged.
//!
//! While the messages of one read are being stored, the socket is not read: that is the backpressure, and it turns
//! everything that arrived together into one command. Rarely used futures are boxed, so that the future of an idle
//! connection is small.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::authenticate::{Authenticated, Resume, authenticate, reject};
use super::frames::{self, Close, Reader, Received};
use crate::app::{App, WriteHeld};
use crate::db::{self, Backlog, BacklogQuery, Sender, Write, WriteError, WriteOutcome};
use crate::fan_out::{
    CloseReason, FrameBatchBuilder, FrameKind, OnlineSnapshot, Position, PresenceGuard, Reach, Shard, Span, Subscriber,
    WakeReason,
};
use crate::limits::{
    AUTH_MAX_BYTES, FRAME_MAX_BYTES, FRAMES_PER_READ, REFUSED_BURST, REFUSED_RATE, REPLAY_MAX_MESSAGES, SESSION_TOUCH,
};
use crate::metrics::Refused;
use crate::model::{MessageId, Nonce};
use crate::net::{ConnectionPermits, IpPermit, Stream};
use crate::protocol::{self, ClientFrame, Encoder, ErrorCode, Refusal, ServerFrame};
#[cfg(feature = "push")]
use crate::push::Eye;
use crate::rate_limit::{Allowance, Bucket};
use crate::room::{Audience, Missed, RoomId};
use crate::unfinished::UnfinishedBytes;

/// Logs that a user comes or goes: past the rate of such lines only at the level `debug`.
macro_rules! log_at_rate {
    ($app:expr, $($line:tt)+) => {
        if $app.rates.connection_log.take((), Instant::now()).is_ok() {
            tracing::info!($($line)+);
        } else {
            tracing::debug!($($line)+);
        }
    };
}

/// Serves an upgraded stream until it ends. `early` was read from it already.
///
/// Not an `async fn`: its future would keep room for the arguments as long as the connection lives.
pub(super) fn serve(
    app: Arc<App>,
    stream: Stream,
    early: &[u8],
    permits: ConnectionPermits,
) -> impl Future<Output = ()> + use<> {
    let reader = Reader::new(early, AUTH_MAX_BYTES);
    let entering = Box::pin(enter(app, stream, reader, permits));
    async {
        let Some((mut connection, mut reader)) = entering.await else { return };
        let disconnect = connection.run(&mut reader).await;
        // Frees what it holds of an unfinished message before the peer is waited for.
        drop(reader);
        // The user was there until now.
        connection.app.db.touch_session(connection.subscriber.session());
        Box::pin(connection.close(disconnect)).await;
    }
}

/// Authenticates a connection and catches it up to where its shard takes over. `None` if it was rejected or ended
/// before that.
async fn enter(
    app: Arc<App>,
    stream: Stream,
    mut reader: Reader,
    mut permits: ConnectionPermits,
) -> Option<(Connection, Reader)> {
    let authenticated = match authenticate(&app, &stream, &mut reader, &mut permits).await {
        Ok(authenticated) => authenticated,
        Err(rejection) => {
            drop(reader);
            reject(&app, &stream, rejection).await;
            return None;
        }
    };
    reader.allow(FRAME_MAX_BYTES);
    let (mut connection, welcome) = Connection::open(app, stream, permits, authenticated);
    match connection.welcome(welcome, &reader).await {
        Ok(()) => Some((connection, reader)),
        Err(disconnect) => {
            drop(reader);
            connection.close(disconnect).await;
            None
        }
    }
}

/// How a connection ends, and the answers still to be sent: what was stored is acknowledged, whatever ends the
/// connection.
struct Disconnect {
    close: Close,
    pending_output: Bytes,
}

impl From<Close> for Disconnect {
    fn from(close: Close) -> Self {
        Self { close, pending_output: Bytes::new() }
    }
}

/// An authenticated connection.
struct Connection {
    app: Arc<App>,
    shard: Arc<Shard>,
    subscriber: Arc<Subscriber>,
    presence: PresenceGuard,
    /// Whether the user is a program.
    is_bot: bool,
    /// Whether the page is in sight; `None` if this server does not push.
    #[cfg(feature = "push")]
    eye: Option<Eye>,
    /// Rate limit on all frames.
    frames: Bucket,
    /// Rate limit on rejected frames; exceeding it closes the connection.
    refused: Bucket,
    /// Bytes held of a message that is not whole yet.
    unfinished: UnfinishedBytes,
    /// When that message must be whole.
    deadline: Option<Instant>,
    /// When the use of the session was last recorded.
    session_used: Instant,
    _permit: OwnedSemaphorePermit,
    _per_ip: Option<IpPermit>,
}

impl Connection {
    /// Sets up an authenticated connection; also returns the frames that welcome its client.
    fn open(app: Arc<App>, stream: Stream, permits: ConnectionPermits, authenticated: Authenticated) -> (Self, Bytes) {
        let ConnectionPermits { connection: permit, per_ip } = permits;
        let Authenticated { shard, revocation, session, all_rooms, presence, snapshot, announced, resume } =
            authenticated;
        let OnlineSnapshot { online, users, seq } = snapshot;
        let username = session.username.as_str();
        let Resume { last_id, after, afresh } = resume;
        let mut welcome = Encoder::default();
        welcome.push(&ServerFrame::AuthSuccess {
            username,
            last_id: last_id.get(),
            epoch: app.db.epoch().as_str(),
            online,
            users: &users,
            moderator: session.is_moderator,
            server: &app.config.name,
        });
        if announced {
            welcome.push(&ServerFrame::UserJoin { username });
        }
        if afresh {
            app.metrics.resyncs.add(1);
            welcome.push(&ServerFrame::Resync { after: 0, last_id: last_id.get() });
        }
        app.metrics.connections_opened.add(1);
        log_at_rate!(app, user = %username, session = session.id.0, "connected");
        // A client of the first edition has nothing to look up: it reads one room, and everybody does.
        let membership = if all_rooms { 0 } else { u64::MAX };
        let position = Position { event: after, presence: seq, revocation, membership };
        let now = Instant::now();
        let subscriber = Subscriber::new(stream, (session.user, session.id), all_rooms, app.clock, position);
        presence.attach(&subscriber);
        let connection = Self {
            subscriber,
            #[cfg(feature = "push")]
            eye: app.push.as_ref().map(|push| push.eye(session.user)),
            app,
            shard,
            presence,
            is_bot: session.is_bot,
            frames: Bucket::full(now),
            refused: Bucket::full(now),
            unfinished: UnfinishedBytes::default(),
            deadline: None,
            session_used: now,
            _permit: permit,
            _per_ip: per_ip,
        };
        (connection, welcome.take().freeze())
    }

    /// Welcomes the client, and catches it up to where its shard takes over.
    async fn welcome(&mut self, welcome: Bytes, reader: &Reader) -> Result<(), Disconnect> {
        self.check_unfinished(reader, Instant::now())?;
        self.shard.register(&self.subscriber).map_err(Close::from)?;
        self.write(&welcome).await?;
        self.catch_up().await
    }

    /// Sends what is still pending, and closes.
    async fn close(self, Disconnect { close, pending_output }: Disconnect) {
        let Self { app, subscriber, presence, .. } = self;
        let (user, session) = (presence.username(), subscriber.session().0);
        log_at_rate!(app, %user, session, code = close.code(), reason = close.reason(), "disconnected");
        // The user leaves now, not when the peer has finished the closing handshake.
        drop(presence);
        let rest = subscriber.start_closing();
        frames::close(&subscriber.stream, close, &[&rest[..], &pending_output].concat()).await;
    }

    /// Serves the connection until it ends.
    async fn run(&mut self, reader: &mut Reader) -> Disconnect {
        loop {
            let wake = tokio::select! {
                biased;
                wake = self.subscriber.woken() => Some(wake),
                readable = self.readable(reader) => match readable {
                    Ok(()) => None,
                    Err(close) => return close.into(),
                },
            };
            let served = match wake {
                None => Box::pin(self.receive(reader)).await,
                Some(WakeReason::Behind) => Box::pin(self.catch_up()).await,
                Some(WakeReason::Close(reason)) => Err(Close::from(reason).into()),
            };
            if let Err(disconnect) = served {
                return disconnect;
            }
        }
    }

    /// Waits for input; for the rest of a message that has begun to arrive, until its deadline.
    async fn readable(&self, reader: &Reader) -> Result<(), Close> {
        if reader.has_buffered() {
            // Between two reads of one connection, all the others run.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let Some(deadline) = reader.deadline() else {
            return self.subscriber.stream.readable().await.map_err(|_| Close::GONE);
        };
        // Boxed, so that an idle connection's future has no room for it.
        match Box::pin(tokio::time::timeout_at(deadline.into(), self.subscriber.stream.readable())).await {
            Ok(readable) => readable.map_err(|_| Close::GONE),
            Err(_) => Err(Close::UNFINISHED),
        }
    }

    /// Reads what has arrived, up to the read budget, and answers it.
    async fn receive(&mut self, reader: &mut Reader) -> Result<(), Disconnect> {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        reader.begin_read();
        for _ in 0..FRAMES_PER_READ {
            match reader.next(&self.subscriber.stream) {
                Received::Nothing | Received::BudgetSpent => break,
                Received::Closed(close) => inbound.close = Some(close),
                Received::Binary(_) => inbound.close = Some(Close::BINARY),
                Received::Text(text) => self.take_frame(Some(text.as_str()), now, &mut inbound),
                Received::Control => self.take_frame(None, now, &mut inbound),
            }
            if inbound.close.is_some() {
                break;
            }
        }
        for _ in 0..reader.take_fragments() {
            if inbound.close.is_none()
                && let Err(refusal) = self.count_frame(now)
            {
                self.refuse(&refusal, now, &mut inbound);
            }
        }
        if let Err(close) = self.check_unfinished(reader, now) {
            inbound.close.get_or_insert(close);
        }
        self.subscriber.heard(self.app.clock);
        #[cfg(feature = "push")]
        if let Some(eye) = &self.eye {
            eye.heard(now);
        }
        if now.duration_since(self.session_used) > SESSION_TOUCH {
            self.session_used = now;
            self.app.db.touch_session(self.subscriber.session());
        }
        // Before the messages, so that nobody seems to type what has just been sent.
        self.pass_on_activity(&mut inbound, now).await;
        self.store(&mut inbound, now).await;
        let mut answer = inbound.answers.take();
        reader.take_replies(&mut answer);
        match inbound.close {
            Some(close) => Err(Disconnect { close, pending_output: answer.freeze() }),
            None if answer.is_empty() => Ok(()),
            None => self.answer(answer.freeze()).await,
        }
    }

    /// Closes a connection whose message has been arriving for too long, or whose user or server exceeds the budget of
    /// unfinished bytes.
    fn check_unfinished(&mut self, reader: &Reader, now: Instant) -> Result<(), Close> {
        self.deadline = reader.deadline();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Close::UNFINISHED);
        }
        let (user, bytes) = (self.subscriber.user(), reader.unfinished_bytes());
        self.unfinished.hold(&self.app.unfinished, user, bytes).map_err(|_| Close::TOO_MUCH_UNFINISHED)
    }

    /// Handles one frame. A control frame has no text and is answered already, but costs a token like any other.
    fn take_frame(&mut self, text: Option<&str>, now: Instant, inbound: &mut Inbound) {
        if let Err(refusal) = self.try_take_frame(text, now, inbound) {
            self.refuse(&refusal, now, inbound);
        }
    }

    fn try_take_frame(&mut self, text: Option<&str>, now: Instant, inbound: &mut Inbound) -> Result<(), Refusal> {
        self.count_frame(now).map_err(|refusal| refusal.of(text.unwrap_or_default()))?;
        let Some(text) = text else { return Ok(()) };
        let frame = match ClientFrame::parse(text) {
            Ok(frame) => frame,
            Err(refusal) => return inbound.hold(refusal),
        };
        match frame {
            ClientFrame::Message(message) => self.take_write(Write::Message(message), now, inbound)?,
            ClientFrame::Edit { message, content, nonce } => {
                self.take_write(Write::Edit { message, content, nonce }, now, inbound)?;
            }
            ClientFrame::Delete { message, nonce } => {
                self.take_write(Write::Delete { message, nonce }, now, inbound)?;
            }
            ClientFrame::React { message, emoji, on, nonce } => {
                self.take_write(Write::React { message, emoji, on, nonce }, now, inbound)?;
            }
            ClientFrame::Read { room, id } => inbound.activity.push((room, Activity::Read(id))),
            ClientFrame::Typing { room } => inbound.activity.push((room, Activity::Typing)),
            #[cfg(feature = "push")]
            ClientFrame::Ping { in_sight } => {
                self.pong(inbound);
                if let (Some(eye), Some(in_sight)) = (&self.eye, in_sight) {
                    eye.set(in_sight, now);
                }
            }
            #[cfg(not(feature = "push"))]
            ClientFrame::Ping {} => self.pong(inbound),
        }
        Ok(())
    }

    fn pong(&self, inbound: &mut Inbound) {
        let last_id = self.subscriber.all_rooms().then(|| self.shard.told(&self.subscriber).get());
        inbound.answers.push(&ServerFrame::Pong { last_id });
    }

    /// Takes a write, if the user is not too fast and the disk has room. One with a nonce is held and not refused: it
    /// may be a repeat, which `settle_held` acknowledges.
    fn take_write(&self, write: Write, now: Instant, inbound: &mut Inbound) -> Result<(), Refusal> {
        match (self.app.may_write(self.subscriber.user(), &write, now), write.nonce().cloned()) {
            (Ok(()), nonce) => {
                inbound.taken.push(Taken { nonce, bytes: write.text_bytes() });
                inbound.writes.push(write);
            }
            (Err(held), nonce) => return inbound.hold(refusal_of_held(held, nonce)),
        }
        Ok(())
    }

    /// Counts one frame against the limit of this connection.
    fn count_frame(&mut self, now: Instant) -> Result<(), Refusal> {
        let Some(allowance) = self.app.rates.frames else { return Ok(()) };
        self.frames.take(allowance, now).map_err(|wait| Refusal::rate_limited(wait, None))
    }

    /// Answers that a frame was rejected. Closes the connection if too many were, and the client is to blame.
    fn refuse(&mut self, refusal: &Refusal, now: Instant, inbound: &mut Inbound) {
        let reason = match refusal.code {
            ErrorCode::RateLimited => Refused::Rate,
            ErrorCode::Unavailable | ErrorCode::NoSpace => Refused::Unavailable,
            _ => Refused::Invalid,
        };
        self.app.metrics.refuse(reason);
        inbound.answers.push(&ServerFrame::refusal(refusal));
        if reason == Refused::Unavailable {
            return;
        }
        let allowance = Allowance::per_second(REFUSED_RATE, REFUSED_BURST);
        if self.refused.take(allowance, now).is_err() {
            inbound.close.get_or_insert(Close::ABUSE);
        }
    }

    /// Stores everything that one read brought with one command, and acknowledges each write when all of them are on
    /// disk.
    async fn store(&mut self, inbound: &mut Inbound, now: Instant) {
        if !inbound.writes.is_empty() {
            let (session, user) = (self.subscriber.session(), self.subscriber.user());
            let sender = Sender { session, user, username: self.presence.username().clone(), is_bot: self.is_bot };
            let written = self.app.db.write(sender, std::mem::take(&mut inbound.writes)).await;
            let taken = std::mem::take(&mut inbound.taken);
            match written {
                Ok(written) => {
                    let repeated =
                        taken.iter().zip(&written).filter(|(_, outcome)| outcome.is_ok_and(|it| it.is_repeat));
                    self.app.forgive_repeats(user, repeated.map(|(taken, _)| taken.bytes), now);
                    for (Taken { nonce, .. }, outcome) in taken.into_iter().zip(written) {
                        match (nonce, outcome) {
                            (Some(nonce), Ok(WriteOutcome { event, .. })) => inbound.acknowledge(&nonce, event),
                            (None, Ok(_)) => {}
                            (nonce, Err(error)) => self.refuse(&refusal_of(error, nonce), now, inbound),
                        }
                    }
                }
                Err(db::Error::SessionEnded) => drop(inbound.close.get_or_insert(Close::REVOKED)),
                Err(_) => {
                    let refusals = taken.into_iter().map(|taken| Refusal::unavailable(taken.nonce));
                    refusals.for_each(|refusal| self.refuse(&refusal, now, inbound));
                }
            }
        }
        self.settle_held(inbound, now).await;
    }

    /// Answers invalid and held writes: one that was stored before is acknowledged, the others are refused.
    async fn settle_held(&mut self, inbound: &mut Inbound, now: Instant) {
        if inbound.held.is_empty() {
            return;
        }
        let (nonces, refusals): (Vec<_>, Vec<_>) = std::mem::take(&mut inbound.held).into_iter().unzip();
        let seen = self.app.db.seen(self.subscriber.user(), nonces.clone()).await.unwrap_or_default();
        for (at, (nonce, refusal)) in nonces.into_iter().zip(refusals).enumerate() {
            match seen.get(at).copied().flatten() {
                Some(event) => inbound.acknowledge(&nonce, event),
                None => self.refuse(&refusal, now, inbound),
            }
        }
    }

    /// Takes typing and read marks, and ignores those of rooms that the user does not read.
    async fn pass_on_activity(&self, inbound: &mut Inbound, now: Instant) {
        for (room, activity) in std::mem::take(&mut inbound.activity) {
            if self.app.rates.activity.take(self.subscriber.user(), now).is_err() {
                continue;
            }
            let Some(audience) = self.audience_of(room).await else { continue };
            let (user, username) = (self.subscriber.user(), self.presence.username());
            match activity {
                Activity::Typing => self.app.presence.typing((user, username), (room, audience), now),
                Activity::Read(id) => {
                    if let Some(id) = self.app.db.note_read(user, room, id).await {
                        self.app.presence.tell_read(username, (room, audience), id);
                    }
                }
            }
        }
    }

    /// The audience of a room, if the user reads it.
    async fn audience_of(&self, room: RoomId) -> Option<Audience> {
        if self.app.db.is_open(room) {
            return Some(Audience::Everyone);
        }
        let reads = if self.subscriber.all_rooms() {
            self.subscriber.is_in(room)
        } else {
            self.app.db.room(self.subscriber.user(), room).await.is_ok_and(|room| room.is_some())
        };
        reads.then_some(Audience::Members(room))
    }

    /// Writes an answer. If the socket does not accept all of it at once, the shard goes on without this connection
    /// until that has caught up.
    async fn answer(&mut self, answer: Bytes) -> Result<(), Disconnect> {
        let Err(left) = self.subscriber.try_answer(answer) else { return Ok(()) };
        if let Err(reason) = self.subscriber.claim_writes() {
            return Err(Disconnect { close: reason.into(), pending_output: left });
        }
        let rest = self.subscriber.take_frame_tail();
        self.write(&[&rest[..], &left].concat()).await?;
        self.catch_up().await
    }

    /// Writes as the write owner, until the connection is to be closed: the rest of `bytes` then becomes pending
    /// output.
    async fn write(&self, bytes: &[u8]) -> Result<(), Disconnect> {
        let mut left = bytes;
        tokio::select! {
            biased;
            close = self.must_close() => {
                Err(Disconnect { close, pending_output: Bytes::copy_from_slice(left) })
            }
            written = frames::write(&self.subscriber.stream, &mut left) => Ok(written?),
        }
    }

    /// Brings the connection from wherever it is to the position of its shard, and hands its writes to the shard: sends
    /// the messages it has not been sent, the users online if it missed a change, and checks that its session is still
    /// live.
    ///
    /// Looks again until the shard accepts the connection, so that nothing is lost between the two (promises 3 and 4).
    async fn catch_up(&mut self) -> Result<(), Disconnect> {
        self.subscriber.claim_writes().map_err(Close::from)?;
        let tail = self.subscriber.take_frame_tail();
        if !tail.is_empty() {
            self.write(&tail).await?;
            // While it was blocked it was not pinged, and it must not be closed as silent as soon as it joins.
            self.subscriber.heard(self.app.clock);
        }
        let mut catch_up = CatchUp { origin: self.subscriber.position().event, seen: None, counted: false };
        loop {
            let target = self.shard.position();
            let mut position = self.subscriber.position();
            if position.revocation < target.revocation {
                self.recheck_session().await?;
                position.revocation = target.revocation;
            } else if position.event < target.event || position.membership < target.membership {
                position = self.replay(position, target, &mut catch_up).await?;
            } else if position.presence < target.presence {
                let OnlineSnapshot { online, users, seq } = self.app.presence.snapshot();
                let presence = protocol::encode(&ServerFrame::Presence { online, users: Some(&users) });
                self.write(&presence).await?;
                position.presence = seq;
            }
            self.subscriber.set_position(position);
            if self.shard.join(&self.subscriber) == Ok(()) {
                return Ok(());
            }
        }
    }

    /// Resolves when the connection must close, whatever it waits for: logout, shutdown, a message that is not whole in
    /// time.
    async fn must_close(&self) -> Close {
        let Some(deadline) = self.deadline else { return self.subscriber.closing().await.into() };
        let closing = tokio::time::timeout_at(deadline.into(), self.subscriber.closing());
        closing.await.map_or(Close::UNFINISHED, Close::from)
    }

    /// Awaits `wait`, but returns early if the connection must close.
    async fn unless_closing<T>(&self, wait: impl Future<Output = T>) -> Result<T, Disconnect> {
        tokio::select! {
            biased;
            close = self.must_close() => Err(close.into()),
            done = wait => Ok(done),
        }
    }

    /// One of a few permits to read what was missed: however many connections catch up at once, the reader thread and
    /// memory serve them in order.
    async fn permit_to_read(&self) -> Result<SemaphorePermit<'_>, Disconnect> {
        self.unless_closing(self.app.catch_ups.acquire()).await?.map_err(|_| Close::SHUTDOWN.into())
    }

    /// Checks that the session is still live, since some session was revoked. Needs a permit like a replay: after one
    /// logout many connections may check at once.
    async fn recheck_session(&self) -> Result<(), Disconnect> {
        let _permit = self.permit_to_read().await?;
        let lives = self.unless_closing(self.app.db.session_lives(self.subscriber.session())).await?;
        if lives.map_err(Close::from)? { Ok(()) } else { Err(Close::REVOKED.into()) }
    }

    /// One step from `position` towards `target`: notes which rooms the user reads, and writes a chunk of events from
    /// the database, both of one moment; or, if they are too many, tells the client to fetch them itself. Returns where
    /// the connection then stands.
    async fn replay(
        &self,
        position: Position,
        target: Position,
        catch_up: &mut CatchUp,
    ) -> Result<Position, Disconnect> {
        let permit = self.permit_to_read().await?;
        let (user, all_rooms, after) = (self.subscriber.user(), self.subscriber.all_rooms(), position.event);
        let seen = catch_up.seen.unwrap_or(after);
        let query = BacklogQuery { user, all_rooms, after, origin: catch_up.origin, seen };
        let backlog = self.unless_closing(self.app.db.backlog(query, REPLAY_MAX_MESSAGES)).await?;
        let Backlog { rooms, last_id, missed, up_to } = backlog.map_err(Close::from)?;
        catch_up.seen.get_or_insert(last_id);
        if all_rooms {
            self.subscriber.set_rooms(rooms);
        }
        let mut position = match missed {
            None => {
                drop(permit);
                self.resync(position, last_id).await?
            }
            // Everything that was committed since is deleted already, or not for this reader.
            Some(missed) if missed.is_empty() => Position { event: target.event.max(up_to), ..position },
            Some(missed) => {
                if !std::mem::replace(&mut catch_up.counted, true) {
                    self.app.metrics.catch_ups.add(1);
                }
                self.write_chunk(missed, up_to, position, permit).await?
            }
        };
        // Only a replay reports changes of rooms, so they count as reported when the replay is complete.
        if position.event >= last_id {
            position.membership = position.membership.max(target.membership);
        }
        Ok(position)
    }

    /// Tells the client that it missed too much for a replay, and where to continue.
    async fn resync(&self, position: Position, last_id: MessageId) -> Result<Position, Disconnect> {
        self.app.metrics.resyncs.add(1);
        let resync = ServerFrame::Resync { after: position.event.get(), last_id: last_id.get() };
        self.write(&protocol::encode(&resync)).await?;
        Ok(Position { event: last_id, ..position })
    }

    /// Writes as much of a chunk, which leads to `up_to`, as the socket takes at once. The chunk is held only so long:
    /// if the socket blocks, all but the frame that was cut is dropped, and read again when the socket takes more. So
    /// memory for a slow reader is one frame.
    async fn write_chunk(
        &self,
        missed: Arc<Vec<Missed>>,
        up_to: MessageId,
        position: Position,
        permit: SemaphorePermit<'_>,
    ) -> Result<Position, Disconnect> {
        let mut batch = FrameBatchBuilder::default();
        for event in missed.iter() {
            batch.push(&ServerFrame::missed(event), FrameKind::Event(event.id()), Reach::ALL);
        }
        drop(missed);
        let batch = batch.build(Span::of_events(position.event, up_to));
        let stream = &self.subscriber.stream;
        let written = match stream.try_write(batch.bytes()) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Close::GONE.into()),
        };
        if written == batch.bytes().len() {
            return Ok(batch.advance(position));
        }
        let (position, rest) = batch.after_partial_write(written, position);
        drop((batch, permit));
        // The socket is between two frames while we wait for it, so that a close frame can still be sent.
        self.write(&rest).await?;
        self.unless_closing(frames::writable(stream)).await??;
        // It was not pinged meanwhile, and a socket that accepts bytes shows that the peer is alive.
        self.subscriber.heard(self.app.clock);
        Ok(position)
    }
}

/// What a catch-up remembers from chunk to chunk.
struct CatchUp {
    /// Where it began.
    origin: MessageId,
    /// The last event that was stored when the first chunk was read.
    seen: Option<MessageId>,
    /// Whether the metrics have counted it: once, however many chunks it takes.
    counted: bool,
}

fn refusal_of_held(held: WriteHeld, nonce: Option<Nonce>) -> Refusal {
    match held {
        WriteHeld::TooFast(wait) => Refusal::rate_limited(wait, nonce),
        WriteHeld::NoSpace => Refusal::no_space(nonce),
    }
}

/// The answer to a write that the room or the message does not allow.
fn refusal_of(error: WriteError, nonce: Option<Nonce>) -> Refusal {
    let code = match error {
        WriteError::NotFound => ErrorCode::NotFound,
        WriteError::Gone => ErrorCode::Gone,
        WriteError::Forbidden => ErrorCode::Forbidden,
        WriteError::Archived => ErrorCode::Archived,
        WriteError::TooOld => ErrorCode::TooOld,
    };
    Refusal::of_write(code, error.to_string(), nonce)
}

/// A connection cannot catch up without the database.
impl From<db::Error> for Close {
    fn from(_: db::Error) -> Self {
        Self::UNAVAILABLE
    }
}

impl From<CloseReason> for Close {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Revoked => Self::REVOKED,
            CloseReason::DeadPeer => Self::DEAD_PEER,
            CloseReason::Shutdown => Self::SHUTDOWN,
            CloseReason::Gone => Self::GONE,
        }
    }
}

/// What one read brought, and the answers to it.
#[derive(Default)]
struct Inbound {
    writes: Vec<Write>,
    /// What to settle about each, in the same order.
    taken: Vec<Taken>,
    /// The nonces of writes that are invalid or held, and why, unless they were stored before.
    held: Vec<(Nonce, Refusal)>,
    activity: Vec<(RoomId, Activity)>,
    answers: Encoder,
    /// How the connection ends after this read, if it does.
    close: Option<Close>,
}

/// What to settle about a write once it is stored or refused.
struct Taken {
    nonce: Option<Nonce>,
    /// Bytes of its text, which counted against the user's rate.
    bytes: usize,
}

impl Inbound {
    /// Puts a refusal off until it is known whether what it refuses was stored before, if its nonce can tell.
    fn hold(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        match refusal.nonce.clone() {
            Some(nonce) => self.held.push((nonce, refusal)),
            None => return Err(refusal),
        }
        Ok(())
    }

    fn acknowledge(&mut self, nonce: &Nonce, event: MessageId) {
        self.answers.push(&ServerFrame::Ack { nonce: nonce.as_str(), id: event.get() });
    }
}

/// What a client says of a room without writing there.
enum Activity {
    Typing,
    /// Read up to here.
    Read(MessageId),
}
