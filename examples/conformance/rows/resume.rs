//! Coming back: what was missed comes first, then what is live, or else a `resync`.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, ids, int, none, of, one, text};
use crate::suite::socket::{Incoming, Socket};
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// More than is replayed.
const TOO_MANY: usize = 1_001;
/// Enough of the longest messages to fill what lies between a server and a reader who does not read.
const BACKLOG: usize = 400;
/// People who fill it: each may write 16 KB/s.
const WRITERS: usize = 16;
/// So small that such a reader is soon behind.
const RECEIVE_BUFFER: u32 = 4 << 10;

pub(crate) const ROWS: &[Row] = table! {
    "resume", "promise 3: auth with last_id replays every later message once, in order, then come live ones" => resume;
    "resume-epoch", "the epoch that auth_success named is accepted with last_id" => resume_epoch;
    "resume-none", "without last_id delivery starts after auth_success.last_id" => resume_none;
    "resync-epoch", "of another epoch: resync with after 0" => resync_epoch;
    "resync-ahead", "ahead of the server: resync with after 0" => resync_ahead;
    "resync-far", "past 1,000 messages: resync from last_id on, then live" => resync_far;
    "replay-counts-own", "the 1,000 counts what this user may see" => replay_counts_own;
    "slow-reader", "promise 4: a reader who is behind loses nothing, and nobody waits for it" => slow_reader;
};

async fn resume(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let mut socket = w.connect(&ada).await?;
    let cursor = w.say(&ben, 1, "seen").await?;
    socket.until(cursor).await?;
    drop(socket);
    let mut missed = Vec::new();
    for number in 0..5 {
        missed.push(w.say(&ben, 1, &format!("missed {number}")).await?);
    }
    let mut socket = w.connect_at_once(&ada, &json!({"rooms": true, "last_id": cursor})).await?;
    missed.push(w.say(&ben, 1, "live").await?);
    let frames = socket.until(missed[5]).await?;
    let got: Vec<i64> = of(&frames, "message").iter().filter_map(|frame| frame["id"].as_i64()).collect();
    expect(got == missed, format!("messages {missed:?}"), format!("{got:?}"))
}

async fn resume_epoch(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let socket = w.connect(&ada).await?;
    let epoch = text(&socket.welcome, "epoch")?.to_owned();
    let cursor = int(&socket.welcome, "last_id")?;
    drop(socket);
    let id = w.say(&ben, 1, "missed").await?;
    let mut socket = w.connect_with(&ada, &json!({"rooms": true, "last_id": cursor, "epoch": epoch})).await?;
    let frames = socket.until(id).await?;
    none(&frames, &json!({"type": "resync"}))?;
    one(&frames, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn resume_none(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ben, 1, "before").await?;
    let mut socket = w.connect_at_once(&ada, &json!({"rooms": true})).await?;
    let id = w.say(&ben, 1, "after").await?;
    let frames = socket.until(id).await?;
    none(&frames, &json!({"type": "message", "id": before}))?;
    one(&frames, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn resync_epoch(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ben, 1, "before").await?;
    let auth = json!({"rooms": true, "last_id": before - 1, "epoch": "of another server"});
    starts_anew(&w, &ada, &auth, before).await
}

async fn resync_ahead(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ben, 1, "before").await?;
    starts_anew(&w, &ada, &json!({"rooms": true, "last_id": before + 1_000_000}), before).await
}

async fn starts_anew(w: &World, ada: &Person, auth: &Value, before: i64) -> Check {
    let mut socket = w.connect_with(ada, auth).await?;
    let resync = socket.wait(&json!({"type": "resync"})).await?;
    let is_anew = resync["after"] == 0 && int(&resync, "last_id")? >= before;
    expect(is_anew, format!("resync with after 0 and last_id of at least {before}"), &resync)?;
    let id = w.say(ada, 1, "live").await?;
    one(&socket.until(id).await?, &json!({"type": "message", "id": id})).map(|_| ())
}

/// A room of four with over a thousand messages, and the id before the first.
async fn crowded(w: &World) -> Check<(Person, i64, i64)> {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    let cursor = w.say(&ada, room, "the beginning").await?;
    let mut sockets = [w.connect(&ada).await?, w.connect(&ben).await?, w.connect(&cy).await?];
    for number in 0..TOO_MANY {
        let count = sockets.len();
        let message = json!({"type": "message", "room": room, "content": format!("number {number}")});
        sockets[number % count].store(&message).await?;
    }
    Ok((ada, room, cursor))
}

async fn resync_far(w: World) -> Check {
    let (ada, room, cursor) = crowded(&w).await?;
    let mut socket = w.connect_with(&ada, &json!({"rooms": true, "last_id": cursor})).await?;
    let resync = socket.wait(&json!({"type": "resync"})).await?;
    let last = int(&resync, "last_id")?;
    expect(resync["after"] == cursor && last >= cursor + 1_001, format!("resync after {cursor}"), &resync)?;
    let id = w.say(&ada, room, "live").await?;
    one(&socket.until(id).await?, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn replay_counts_own(w: World) -> Check {
    let zed = w.cast("dee").await?;
    let (_, _, cursor) = crowded(&w).await?;
    let id = w.say(&zed, 1, "mine").await?;
    let frames = w.replay(&zed, cursor).await?;
    none(&frames, &json!({"type": "resync"}))?;
    one(&frames, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn slow_reader(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(w.account("writer").await?);
    }
    let members: Vec<_> = writers.iter().chain([&ben, &cy]).collect();
    let room = w.private(&ada, &members).await?;
    let mut sockets = Vec::new();
    for writer in &writers {
        sockets.push(w.connect(writer).await?);
    }
    let cursor = w.say(&ada, room, "the beginning").await?;
    let mut slow = Socket::open(&w, Some(RECEIVE_BUFFER)).await?;
    slow.authenticate(&cy, &json!({"rooms": true})).await?;
    let mut fast = w.connect(&ben).await?;
    let mut stored = Vec::new();
    for number in 0..BACKLOG {
        let content = format!("{number} {}", "😀".repeat(3_900));
        let message = json!({"type": "message", "room": room, "content": content});
        stored.push(sockets[number % WRITERS].store(&message).await?);
        // Nobody waits for the one who does not read.
        fast.wait(&json!({"type": "message", "id": stored[number]})).await?;
    }
    let got = catch_up(&w, slow, &cy, room, cursor, stored[BACKLOG - 1]).await?;
    let missing = stored.iter().filter(|id| !got.contains(id)).count();
    let expected = format!("{BACKLOG} messages, each once, in order");
    expect(got == stored, expected, format!("{} messages, {missing} missing", got.len()))
}

/// Reads on to the message `last` of a room, as a client does: through a `resync`, and through an end of the
/// connection, since a server need not keep one that takes nothing.
async fn catch_up(w: &World, mut slow: Socket, who: &Person, room: i64, cursor: i64, last: i64) -> Check<Vec<i64>> {
    let mut got = vec![cursor];
    while got.last().is_some_and(|id| *id < last) {
        let frame = match slow.incoming(w.options().patience).await? {
            Incoming::Frame(frame) => frame,
            Incoming::Ping(_) | Incoming::Pong(_) => continue,
            Incoming::End(_) => {
                slow = w.connect_with(who, &json!({"rooms": true, "last_id": got.last()})).await?;
                continue;
            }
        };
        match frame["type"].as_str() {
            Some("message") if frame["room"] == room => got.push(int(&frame, "id")?),
            Some("resync") => {
                let (mut after, up_to) = (int(&frame, "after")?, int(&frame, "last_id")?);
                while after < up_to {
                    let missed = ids(&w.page(who, room, &format!("after={after}&limit=200")).await?);
                    after = missed.last().copied().unwrap_or(up_to);
                    got.extend(missed.into_iter().filter(|id| *id <= up_to));
                }
            }
            _ => {}
        }
    }
    Ok(got.split_off(1))
}
