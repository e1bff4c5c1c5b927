//! One connection's life, once [it is known whose it is](super::arrival): receive, catch up, close.
//!
//! The task reads the client's frames and answers them. What everybody is told is written by the connection's
//! [shard](crate::fan_out), as long as the socket keeps up; when it does not, [`Connection::catch_up`] brings it up
//! again. Resume, a slow socket and a shard that lagged are one and the same there.
//!
//! While the messages of one read are being stored the socket is not read: that is the backpressure, and it makes one
//! command of all that came together. What is needed only now and then is boxed, so that an idle connection's future
//! is small.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::arrival::{Arrival, Resume, identify, turn_away};
use super::socket::{self, Close, Reader, Received};
use crate::config::{
    FRAME_MAX_BYTES, FRAMES_PER_READ, REFUSED_BURST, REFUSED_RATE, REPLAY_MAX_MESSAGES, SESSION_TOUCH,
};
use crate::db::{self, Missed, NewMessage, Sender};
use crate::fan_out::{Ending, Seat, Shard, Summons};
use crate::handler::{Admission, App};
use crate::hub::{Position, SliceBuilder, Told};
use crate::metrics::Refused;
use crate::model::{Message, MessageId, Nonce};
use crate::presence::{PresenceGuard, Snapshot};
use crate::protocol::{self, ClientFrame, Encoder, ErrorCode, Refusal, ServerFrame};
use crate::rate_limit::{Allowance, Bucket};
use crate::stream::Stream;

/// Serves one upgraded stream, from which `early` was read already, until it ends.
///
/// No `async fn`: its future would keep room for the arguments as long as the connection lives.
pub(super) fn serve(
    app: Arc<App>,
    stream: Stream,
    early: &[u8],
    admission: Admission,
) -> impl Future<Output = ()> + use<> {
    let reader = Reader::new(early, FRAME_MAX_BYTES);
    let entering = Box::pin(enter(app, stream, reader, admission));
    async {
        let Some((mut connection, mut reader)) = entering.await else { return };
        let ended = connection.run(&mut reader).await;
        Box::pin(connection.close(ended)).await;
    }
}

/// Has the client say who it is and what it has, and brings it up to where its shard takes over. None if it was turned
/// away, or did not stay so long.
async fn enter(
    app: Arc<App>,
    stream: Stream,
    mut reader: Reader,
    Admission { place, address }: Admission,
) -> Option<(Connection, Reader)> {
    let arrival = match identify(&app, &stream, &mut reader).await {
        Ok(arrival) => arrival,
        Err(turned_away) => {
            turn_away(&app, &stream, turned_away).await;
            return None;
        }
    };
    // No stranger to its address any more.
    drop(address);
    let (mut connection, welcome) = Connection::open(app, stream, place, arrival);
    match connection.welcome(welcome).await {
        Ok(()) => Some((connection, reader)),
        Err(ended) => {
            connection.close(ended).await;
            None
        }
    }
}

/// How a connection ended, and the answers that are still due: what was stored is acknowledged, whatever ends it.
struct Ended {
    close: Close,
    last_words: Bytes,
}

impl From<Close> for Ended {
    fn from(close: Close) -> Self {
        Self { close, last_words: Bytes::new() }
    }
}

/// An authenticated connection.
struct Connection {
    app: Arc<App>,
    shard: Arc<Shard>,
    seat: Arc<Seat>,
    presence: PresenceGuard,
    /// All frames of this connection.
    frames: Bucket,
    /// Frames that were refused: who goes on sending such is closed.
    refused: Bucket,
    /// When the session was last noted as used.
    session_used: Instant,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// A connection for who came in, and the frames that welcome them.
    fn open(app: Arc<App>, stream: Stream, place: OwnedSemaphorePermit, arrival: Arrival) -> (Self, Bytes) {
        let Arrival { shard, revocation, session, presence, snapshot, announced, resume } = arrival;
        let Snapshot { online, users, seq } = snapshot;
        let username = session.username.as_str();
        let Resume { last_id, after, afresh } = resume;
        let mut welcome = Encoder::default();
        welcome.push(&ServerFrame::AuthSuccess {
            username,
            last_id: last_id.get(),
            epoch: app.db.epoch().as_str(),
            online,
            users: &users,
        });
        if announced {
            welcome.push(&ServerFrame::UserJoin { username });
        }
        if afresh {
            app.metrics.resyncs.add(1);
            welcome.push(&ServerFrame::Resync { after: 0, last_id: last_id.get() });
        }
        app.metrics.connections_opened.add(1);
        tracing::info!(user = %username, session = session.id.0, "connected");
        let position = Position { message: after, presence: seq, revocation };
        let now = Instant::now();
        let connection = Self {
            seat: Seat::new(stream, session.user, session.id, app.clock, position),
            app,
            shard,
            presence,
            frames: Bucket::full(now),
            refused: Bucket::full(now),
            session_used: now,
            _place: place,
        };
        (connection, welcome.take().freeze())
    }

    /// Welcomes the client, and brings it up to where its shard takes over.
    async fn welcome(&mut self, welcome: Bytes) -> Result<(), Ended> {
        self.shard.enlist(&self.seat).map_err(Close::from)?;
        self.write(&welcome).await?;
        self.catch_up().await
    }

    /// Says what is still due, and closes.
    async fn close(self, Ended { close, last_words }: Ended) {
        let Self { seat, presence, .. } = self;
        let (user, session) = (presence.username(), seat.session().0);
        tracing::info!(%user, session, code = close.code(), reason = close.reason(), "disconnected");
        // The user leaves now, and not when the peer has finished the closing handshake.
        drop(presence);
        let rest = seat.take_leave();
        socket::close(&seat.stream, close, &[&rest[..], &last_words].concat()).await;
    }

    /// Serves the connection until it ends.
    async fn run(&mut self, reader: &mut Reader) -> Ended {
        loop {
            let summons = tokio::select! {
                biased;
                summons = self.seat.summons() => Some(summons),
                readable = self.readable(reader) => match readable {
                    Ok(()) => None,
                    Err(_) => return Close::GONE.into(),
                },
            };
            let served = match summons {
                None => Box::pin(self.receive(reader)).await,
                Some(Summons::Behind) => Box::pin(self.catch_up()).await,
                Some(Summons::Close(ending)) => Err(Close::from(ending).into()),
            };
            if let Err(ended) = served {
                return ended;
            }
        }
    }

    async fn readable(&self, reader: &Reader) -> std::io::Result<()> {
        if reader.has_buffered() {
            // Between two bursts of one connection all the others have their turn.
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.seat.stream.readable().await
    }

    /// Reads what has come, a burst at most, and answers it.
    async fn receive(&mut self, reader: &mut Reader) -> Result<(), Ended> {
        let now = Instant::now();
        let mut burst = Burst::default();
        reader.begin_burst();
        for _ in 0..FRAMES_PER_READ {
            match reader.next(&self.seat.stream) {
                Received::Nothing | Received::Enough => break,
                Received::End(close) => burst.end = Some(close),
                Received::Binary(_) => burst.end = Some(Close::BINARY),
                Received::Text(text) => self.take_frame(Some(text.as_str()), now, &mut burst),
                Received::Control => self.take_frame(None, now, &mut burst),
            }
            if burst.end.is_some() {
                break;
            }
        }
        for _ in 0..reader.take_fragments() {
            if burst.end.is_none()
                && let Err(refusal) = self.count_frame(now)
            {
                self.refuse(&refusal, now, &mut burst);
            }
        }
        self.seat.heard(self.app.clock);
        if now.duration_since(self.session_used) > SESSION_TOUCH {
            self.session_used = now;
            self.app.db.touch_session(self.seat.session());
        }
        self.store(&mut burst, now).await;
        let mut answer = burst.answers.take();
        reader.take_replies(&mut answer);
        match burst.end {
            Some(close) => Err(Ended { close, last_words: answer.freeze() }),
            None if answer.is_empty() => Ok(()),
            None => self.answer(answer.freeze()).await,
        }
    }

    /// Takes one frame into the burst; a control frame, which was answered already, has no text.
    fn take_frame(&mut self, text: Option<&str>, now: Instant, burst: &mut Burst) {
        if let Err(refusal) = self.try_take_frame(text, now, burst) {
            self.refuse(&refusal, now, burst);
        }
    }

    fn try_take_frame(&mut self, text: Option<&str>, now: Instant, burst: &mut Burst) -> Result<(), Refusal> {
        self.count_frame(now).map_err(|refusal| refusal.of(text.unwrap_or_default()))?;
        let Some(text) = text else { return Ok(()) };
        match ClientFrame::parse(text)? {
            ClientFrame::Message { content, nonce } => {
                if let Err(wait) = self.app.message_rate.take(self.seat.user(), now) {
                    return Err(Refusal::rate_limited(wait, nonce));
                }
                burst.nonces.push(nonce.clone());
                burst.messages.push(NewMessage { content, nonce });
            }
            ClientFrame::Typing => self.app.presence.typing(self.seat.user(), self.presence.username(), now),
            ClientFrame::Ping => burst.answers.push(&ServerFrame::Pong),
        }
        Ok(())
    }

    /// Counts one frame against what a connection may send.
    fn count_frame(&mut self, now: Instant) -> Result<(), Refusal> {
        let Some(allowance) = self.app.frame_allowance else { return Ok(()) };
        self.frames.take(allowance, now).map_err(|wait| Refusal::rate_limited(wait, None))
    }

    /// Answers that a frame was refused, and ends a connection on which that goes on, if it is the client's doing.
    fn refuse(&mut self, refusal: &Refusal, now: Instant, burst: &mut Burst) {
        let reason = match refusal.code {
            ErrorCode::RateLimited => Refused::Rate,
            ErrorCode::Unavailable => Refused::Unavailable,
            ErrorCode::InvalidJson | ErrorCode::InvalidMessage => Refused::Invalid,
        };
        self.app.metrics.refuse(reason);
        burst.answers.push(&ServerFrame::refusal(refusal));
        if reason == Refused::Unavailable {
            return;
        }
        let allowance = Allowance::per_second(REFUSED_RATE, REFUSED_BURST);
        if self.refused.take(allowance, now).is_err() {
            burst.end.get_or_insert(Close::ABUSE);
        }
    }

    /// Stores the messages of a burst with one command; each is acknowledged when all of them are on disk.
    async fn store(&mut self, burst: &mut Burst, now: Instant) {
        if burst.messages.is_empty() {
            return;
        }
        let (session, user) = (self.seat.session(), self.seat.user());
        let sender = Sender { session, user, username: self.presence.username().clone() };
        let stored = self.app.db.store_messages(sender, std::mem::take(&mut burst.messages)).await;
        let nonces = std::mem::take(&mut burst.nonces).into_iter();
        match stored {
            Ok(ids) => {
                for (nonce, id) in nonces.zip(ids) {
                    if let Some(nonce) = nonce {
                        burst.answers.push(&ServerFrame::Ack { nonce: nonce.as_str(), id: id.get() });
                    }
                }
            }
            Err(db::Error::SessionEnded) => drop(burst.end.get_or_insert(Close::REVOKED)),
            Err(_) => nonces.for_each(|nonce| self.refuse(&Refusal::unavailable(nonce), now, burst)),
        }
    }

    /// Writes an answer; if the socket does not take it at once, the shard goes on without this connection until it is
    /// brought up.
    async fn answer(&mut self, answer: Bytes) -> Result<(), Ended> {
        let Err(left) = self.seat.try_answer(answer) else { return Ok(()) };
        if let Err(ending) = self.seat.take_turn() {
            return Err(Ended { close: ending.into(), last_words: left });
        }
        let rest = self.seat.take_rest();
        self.write(&[&rest[..], &left].concat()).await?;
        self.catch_up().await
    }

    /// Writes in the task's turn, until the connection is to be closed: what is then left of a frame are last words.
    async fn write(&self, bytes: &[u8]) -> Result<(), Ended> {
        let mut left = bytes;
        tokio::select! {
            biased;
            ending = self.seat.ended() => {
                Err(Ended { close: ending.into(), last_words: Bytes::copy_from_slice(left) })
            }
            written = socket::write(&self.seat.stream, &mut left) => Ok(written?),
        }
    }

    /// Brings the connection to where its shard is, from wherever it stands, and has the shard take over: with the
    /// messages it has not been given, who is online if it missed a change, and a session that is still live.
    ///
    /// What is missing is looked up again until the shard's door is passed, so that nothing is lost between the two
    /// (promises 3 and 4).
    async fn catch_up(&mut self) -> Result<(), Ended> {
        self.seat.take_turn().map_err(Close::from)?;
        self.write(&self.seat.take_rest()).await?;
        let mut counted = false;
        loop {
            let target = self.shard.position();
            let mut position = self.seat.position();
            if position.revocation < target.revocation {
                self.recheck_session().await?;
                position.revocation = target.revocation;
            } else if position.message < target.message {
                position = self.replay(position, target.message, &mut counted).await?;
            } else if position.presence < target.presence {
                let Snapshot { online, users, seq } = self.app.presence.snapshot();
                let presence = protocol::encode(&ServerFrame::Presence { online, users: Some(&users) });
                self.write(&presence).await?;
                position.presence = seq;
            }
            self.seat.set_position(position);
            self.seat.heard(self.app.clock);
            if self.shard.join(&self.seat) == Ok(()) {
                return Ok(());
            }
        }
    }

    /// Waits, but not once the connection is to be closed: whoever stands in line hears of a logout or a stop there too.
    async fn unless_ended<T>(&self, wait: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            biased;
            ending = self.seat.ended() => Err(Close::from(ending).into()),
            done = wait => Ok(done),
        }
    }

    /// One of a few permits to read what was missed: however many catch up at once, the reader thread and memory serve
    /// them in order.
    async fn permit_to_read(&self) -> Result<SemaphorePermit<'_>, Ended> {
        self.unless_ended(self.app.catch_ups.acquire()).await?.map_err(|_| Close::SHUTDOWN.into())
    }

    /// Checks that the session is still live, since some session was revoked. In line like a replay: after one logout
    /// many may look at once.
    async fn recheck_session(&self) -> Result<(), Ended> {
        let _permit = self.permit_to_read().await?;
        let lives = self.unless_ended(self.app.db.session_lives(self.seat.session())).await?;
        if lives.map_err(Close::from)? { Ok(()) } else { Err(Close::REVOKED.into()) }
    }

    /// One step from `position` towards the message `target`: writes a chunk of messages from the database; or, if they
    /// are too many, tells the client to fetch them itself. Where the connection then stands.
    ///
    /// `counted` is whether this catch-up was counted: it is one, however many chunks it takes.
    async fn replay(&self, position: Position, target: MessageId, counted: &mut bool) -> Result<Position, Ended> {
        let permit = self.permit_to_read().await?;
        let missed = self.unless_ended(self.app.db.messages_after(position.message, REPLAY_MAX_MESSAGES)).await?;
        let missed = missed.map_err(Close::from)?;
        if matches!(missed, Missed::Messages(_)) && !std::mem::replace(counted, true) {
            self.app.metrics.catch_ups.add(1);
        }
        match missed {
            Missed::TooMany => {
                drop(permit);
                self.resync(position).await
            }
            // What was committed since is deleted already.
            Missed::Messages(messages) if messages.is_empty() => Ok(Position { message: target, ..position }),
            Missed::Messages(messages) => self.write_chunk(messages, position, permit).await,
        }
    }

    /// Tells the client that it is too far behind to be brought up, and where to go on.
    async fn resync(&self, position: Position) -> Result<Position, Ended> {
        let last_id = self.app.db.last_id();
        self.app.metrics.resyncs.add(1);
        let resync = ServerFrame::Resync { after: position.message.get(), last_id: last_id.get() };
        self.write(&protocol::encode(&resync)).await?;
        Ok(Position { message: last_id, ..position })
    }

    /// Writes as much of a chunk as the socket takes at once. The chunk is held only so long: if the socket blocks, it is
    /// dropped but for the frame that was cut, and read again when the socket takes more. So memory for a slow reader is
    /// one frame.
    async fn write_chunk(
        &self,
        messages: Vec<Message>,
        position: Position,
        permit: SemaphorePermit<'_>,
    ) -> Result<Position, Ended> {
        let mut slice = SliceBuilder::default();
        for message in &messages {
            slice.push(&ServerFrame::message(message), Told::Message(message.id));
        }
        drop(messages);
        let slice = slice.build((Some(position.message), None));
        let stream = &self.seat.stream;
        let written = match stream.try_write(slice.bytes()) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Close::GONE.into()),
        };
        let whole = written == slice.bytes().len();
        let (position, rest) = slice.cut(written, position);
        drop((slice, permit));
        if !whole {
            // Nothing is between two frames while the socket is waited for, so that a close frame can be.
            self.write(&rest).await?;
            self.unless_ended(socket::writable(stream)).await??;
        }
        Ok(position)
    }
}

/// Without the database a connection cannot be brought up.
impl From<db::Error> for Close {
    fn from(_: db::Error) -> Self {
        Self::UNAVAILABLE
    }
}

impl From<Ending> for Close {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Revoked => Self::REVOKED,
            Ending::DeadPeer => Self::DEAD_PEER,
            Ending::Shutdown => Self::SHUTDOWN,
            Ending::Gone => Self::GONE,
        }
    }
}

/// What one read came to: messages to store, and answers.
#[derive(Default)]
struct Burst {
    messages: Vec<NewMessage>,
    /// Of the messages, in their order.
    nonces: Vec<Option<Nonce>>,
    answers: Encoder,
    /// How the connection ends after this burst, if it does.
    end: Option<Close>,
}
