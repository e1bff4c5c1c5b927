//! The connection itself: coming in, frames that must not be, presence, deadlines.

use std::time::Duration;

use serde_json::json;

use crate::suite::check::{Check, expect, int, list, none, not_offered, text};
use crate::suite::socket::{BINARY, CONTINUATION, FIN, Incoming, PING, Socket, TEXT, frame};
use crate::suite::world::World;
use crate::suite::{Row, table};

/// The contract's: the first frame must be there by then.
const AUTH_DEADLINE: Duration = Duration::from_secs(10);
/// What a machine that is busy may need beyond a deadline.
const SLACK: Duration = Duration::from_secs(5);
/// More frames than any client has a use for.
const FLOOD_FRAMES: usize = 20_000;

pub(crate) const ROWS: &[Row] = table! {
    "auth-success", "auth_success is the first frame, with username, last_id, epoch, online and users" => auth_success;
    "auth-server", "auth_success has `moderator` and the server's name" => auth_server;
    "auth-epoch", "the epoch names the history: the same on every connection" => auth_epoch;
    "auth-first", "a first frame of another type is auth_failed unauthorized, then 1008" => auth_first;
    "auth-unauthorized", "a token that is none is auth_failed unauthorized, then 1008" => auth_unauthorized;
    "auth-json", "a first frame that is no JSON object is auth_failed invalid_json, then 1008" => auth_json;
    "join", "user_join goes to everyone, the joiner too, who is counted in online and users" => join;
    "join-once", "a user's second connection joins nobody" => join_once;
    "leave", "user_leave goes to everyone when the last connection is gone" => leave;
    "leave-once", "user_leave waits for the last connection" => leave_once;
    "ping", "ping is answered by pong" => ping;
    "pong-last-id", "pong has last_id, which counts every event" => pong_last_id;
    "protocol-ping", "a ping of the protocol is answered with its own payload" => protocol_ping;
    "fragments", "a message in fragments is one message" => fragments;
    "close-handshake", "a close is answered by a close, and the server hangs up" => close_handshake;
    "close-1009", "a frame over 64 KiB closes with 1009" => close_1009;
    "close-1007", "text that is not UTF-8 closes with 1007" => close_1007;
    "close-1003", "a binary frame closes with 1003" => close_1003;
    "close-1002-mask", "a frame without a mask closes with 1002" => close_1002_mask;
    "close-1002-reserved", "a reserved bit closes with 1002" => close_1002_reserved;
    "close-1002-continuation", "a continuation of nothing closes with 1002" => close_1002_continuation;
    "close-1008-abuse", "persistent abuse closes with 1008" => close_1008_abuse;
    "frame-json", "a frame that is no JSON object is an error invalid_json, and the connection goes on" => frame_json;
    "frame-type", "an unknown type is an error invalid_json, and the connection goes on" => frame_type;
    "frame-fields", "unknown fields of a frame are ignored" => frame_fields;
    "presence", "over so many users presence counts instead of naming" => presence;
};

pub(crate) const SLOW: &[Row] = table! {
    "auth-timeout", "without auth within 10 s comes auth_failed auth_timeout, then 1008" => auth_timeout;
    "server-pings", "the server pings every connection" => server_pings;
    "dead-peer", "a connection that is silent for two and a half pings is closed with 1001, and its user leaves" => dead_peer;
};

async fn auth_success(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let id = w.say(&ada, 1, "before").await?;
    let socket = w.connect_with(&ada, &json!({})).await?;
    let welcome = &socket.welcome;
    expect(welcome["username"] == ada.name.as_str(), format!("username {}", ada.name), welcome)?;
    expect(int(welcome, "last_id")? >= id, format!("last_id of at least {id}"), welcome)?;
    expect(!text(welcome, "epoch")?.is_empty(), "an epoch", welcome)?;
    let users = list(welcome, "users")?;
    expect(users.iter().any(|user| *user == ada.name.as_str()), format!("{} among the users", ada.name), welcome)?;
    expect(int(welcome, "online")? >= i64::try_from(users.len()).unwrap_or(0), "at least as many online", welcome)
}

async fn auth_server(w: World) -> Check {
    let socket = w.connect(&w.cast("ada").await?).await?;
    expect(socket.welcome["moderator"] == false, "moderator false", &socket.welcome)?;
    let name = &w.about().await?["name"];
    expect(socket.welcome["server"] == *name, format!("server {name}"), &socket.welcome)
}

async fn auth_epoch(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (first, second) = (w.connect(&ada).await?, w.connect(&ben).await?);
    let epoch = text(&first.welcome, "epoch")?;
    expect(second.welcome["epoch"] == epoch, format!("epoch {epoch}"), &second.welcome)
}

async fn fails_auth(w: &World, first: &str, code: &str) -> Check {
    let mut socket = Socket::open(w, None).await?;
    socket.send_text(first).await?;
    let answer = socket.next().await?;
    let is_failed = answer["type"] == "auth_failed" && answer["code"] == code && answer["message"].is_string();
    expect(is_failed, format!("auth_failed {code}"), &answer)?;
    socket.closes_with(1008).await
}

async fn auth_first(w: World) -> Check {
    fails_auth(&w, "{\"type\":\"message\",\"content\":\"hello\"}", "unauthorized").await
}

async fn auth_unauthorized(w: World) -> Check {
    fails_auth(&w, "{\"type\":\"auth\",\"token\":\"never-a-token\"}", "unauthorized").await
}

async fn auth_json(w: World) -> Check {
    for first in ["hello", "[]", "{\"type\":\"auth\",\"token\":7}"] {
        fails_auth(&w, first, "invalid_json").await?;
    }
    Ok(())
}

async fn join(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("zed").await?);
    let mut witness = w.connect(&ada).await?;
    let mut newcomer = w.connect(&zed).await?;
    let joined = json!({"type": "user_join", "username": zed.name});
    let users = list(&newcomer.welcome, "users")?;
    expect(users.iter().any(|user| *user == zed.name.as_str()), "the joiner among users", &newcomer.welcome)?;
    let mut sorted = users.to_vec();
    sorted.sort_by_key(|user| user.as_str().map(str::to_lowercase));
    expect(users == sorted, "users in order", &newcomer.welcome)?;
    witness.wait(&joined).await?;
    newcomer.wait(&joined).await.map(|_| ())
}

async fn join_once(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("zed").await?);
    let mut witness = w.connect(&ada).await?;
    let mut first = w.connect(&zed).await?;
    witness.wait(&json!({"type": "user_join", "username": zed.name})).await?;
    let mut second = w.connect(&zed).await?;
    second.settle().await?;
    first.settle().await?;
    none(&witness.settle().await?, &json!({"type": "user_join", "username": zed.name}))
}

async fn leave(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("zed").await?);
    let mut witness = w.connect(&ada).await?;
    let socket = w.connect(&zed).await?;
    socket.close(1000).await?;
    witness.wait(&json!({"type": "user_leave", "username": zed.name})).await.map(|_| ())
}

async fn leave_once(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("zed").await?);
    let mut witness = w.connect(&ada).await?;
    let (first, second) = (w.connect(&zed).await?, w.connect(&zed).await?);
    let left = json!({"type": "user_leave", "username": zed.name});
    first.close(1000).await?;
    // A round trip of the other connection, and of the witness: whatever the first close led to has come.
    let id = w.say(&zed, 1, "still here").await?;
    let frames = witness.until(id).await?;
    none(&frames, &left)?;
    second.close(1000).await?;
    witness.wait(&left).await.map(|_| ())
}

async fn ping(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.send(&json!({"type": "ping"})).await?;
    socket.wait(&json!({"type": "pong"})).await.map(|_| ())
}

async fn pong_last_id(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let mut socket = w.connect(&ada).await?;
    // An event that is not for this connection counts, too.
    let room = w.private(&ben, &[]).await?;
    let id = w.say(&ben, room, "elsewhere").await?;
    loop {
        socket.send(&json!({"type": "ping"})).await?;
        let pong = socket.wait(&json!({"type": "pong"})).await?;
        if int(&pong, "last_id")? >= id {
            return Ok(());
        }
    }
}

async fn protocol_ping(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.send_bytes("a ping of the protocol", &frame(FIN | PING, b"are you there")).await?;
    loop {
        match socket.incoming(w.options().patience).await? {
            Incoming::Pong(payload) => {
                return expect(payload == b"are you there", "a pong with the payload", format!("{payload:?}"));
            }
            Incoming::End(code) => return expect(false, "a pong", format!("the end, code {code:?}")),
            _ => {}
        }
    }
}

async fn fragments(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    let nonce = w.unique("nonce");
    let text = json!({"type": "message", "content": "in pieces", "nonce": nonce}).to_string();
    let (first, rest) = text.as_bytes().split_at(10);
    let (second, third) = rest.split_at(10);
    socket.send_bytes("the first fragment", &frame(TEXT, first)).await?;
    socket.send_bytes("a ping between", &frame(FIN | PING, b"")).await?;
    socket.send_bytes("the second fragment", &frame(CONTINUATION, second)).await?;
    socket.send_bytes("the last fragment", &frame(FIN | CONTINUATION, third)).await?;
    let answer = socket.answer_to(&json!(nonce)).await?;
    expect(answer["type"] == "ack", "an ack", &answer)
}

async fn close_handshake(w: World) -> Check {
    let socket = w.connect(&w.cast("ada").await?).await?;
    let code = socket.close(1000).await?;
    expect(code == Some(1000), "a close with 1000", format!("{code:?}"))
}

async fn closes(w: &World, what: &str, bytes: &[u8], code: u16) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.send_bytes(what, bytes).await?;
    socket.closes_with(code).await
}

async fn close_1009(w: World) -> Check {
    closes(&w, "a frame of 64 KiB and a byte", &frame(FIN | TEXT, &vec![b' '; (64 << 10) + 1]), 1009).await
}

async fn close_1007(w: World) -> Check {
    closes(&w, "text that is not UTF-8", &frame(FIN | TEXT, b"\"\xff\xfe\""), 1007).await
}

async fn close_1003(w: World) -> Check {
    closes(&w, "a binary frame", &frame(FIN | BINARY, b"{}"), 1003).await
}

async fn close_1002_mask(w: World) -> Check {
    closes(&w, "a frame without a mask", b"\x81\x02{}", 1002).await
}

async fn close_1002_reserved(w: World) -> Check {
    closes(&w, "a frame with a reserved bit", &frame(FIN | 0x40 | TEXT, b"{}"), 1002).await
}

async fn close_1002_continuation(w: World) -> Check {
    closes(&w, "a continuation of nothing", &frame(FIN | CONTINUATION, b"{}"), 1002).await
}

async fn close_1008_abuse(w: World) -> Check {
    let mut socket = w.connect(&w.account("zed").await?).await?;
    let some: Vec<u8> = std::iter::repeat_n(frame(FIN | TEXT, b"{\"type\":\"nothing\"}"), 100).flatten().collect();
    for _ in 0..FLOOD_FRAMES / 100 {
        // The write fails once the server has closed, as it should.
        if socket.send_bytes("100 frames of no known type", &some).await.is_err() {
            break;
        }
    }
    socket.closes_with(1008).await
}

async fn errs(w: &World, text: &str) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.send_text(text).await?;
    let error = socket.wait(&json!({"type": "error"})).await?;
    expect(error["code"] == "invalid_json" && error["message"].is_string(), "an error invalid_json", &error)?;
    socket.settle().await.map(|_| ())
}

async fn frame_json(w: World) -> Check {
    for text in ["hello", "[]", "7", ""] {
        errs(&w, text).await?;
    }
    Ok(())
}

async fn frame_type(w: World) -> Check {
    for text in ["{\"type\":\"nothing\"}", "{}", "{\"type\":7}"] {
        errs(&w, text).await?;
    }
    Ok(())
}

async fn frame_fields(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    let message = json!({"type": "message", "content": "with more", "colour": {"deep": ["blue"]}});
    let id = socket.store(&message).await?;
    expect(id > 0, "an id", id)
}

async fn presence(_: World) -> Check {
    not_offered("needs over a thousand accounts")
}

async fn auth_timeout(w: World) -> Check {
    let mut socket = Socket::open(&w, None).await?;
    w.step("says nothing".into());
    let answer = socket.next_within(AUTH_DEADLINE + SLACK).await?;
    expect(answer["type"] == "auth_failed" && answer["code"] == "auth_timeout", "auth_failed auth_timeout", &answer)?;
    socket.closes_with(1008).await
}

async fn server_pings(w: World) -> Check {
    let mut socket = w.connect(&w.account("quiet").await?).await?;
    let deadline = w.options().ping_interval * 3 / 2 + SLACK;
    let pinged = async {
        loop {
            match socket.incoming(deadline).await? {
                Incoming::Ping(_) => return Ok(()),
                Incoming::End(code) => return expect(false, "a ping", format!("the end, code {code:?}")),
                _ => {}
            }
        }
    };
    let waited = tokio::time::timeout(deadline, pinged).await;
    waited.unwrap_or_else(|_| expect(false, "a ping", format!("none for {deadline:?}")))
}

async fn dead_peer(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("silent").await?);
    let mut socket = w.connect(&zed).await?;
    socket.is_alive = false;
    let deadline = w.options().ping_interval * 5 / 2 + w.options().ping_interval + SLACK;
    let end = socket.end(deadline).await?;
    expect(end == Some(1001), format!("a close with 1001 within {deadline:?}"), format!("{end:?}"))?;
    let witness = w.connect(&ada).await?;
    let users = list(&witness.welcome, "users")?;
    expect(!users.iter().any(|user| *user == zed.name.as_str()), format!("{} has left", zed.name), &witness.welcome)
}
