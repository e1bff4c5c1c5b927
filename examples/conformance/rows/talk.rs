//! Messages: what they may be, how they are acknowledged, shown and read back.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, ids, int, is_like, like, list, none, not_offered, of, one, text};
use crate::suite::http::Call;
use crate::suite::socket::Socket;
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// More than any server takes from one user at once; a server without a rate takes them all.
const FLOOD_MESSAGES: usize = 400;
/// So few at a time that a server which is strict about what it refuses does not close the connection.
const FLOOD_AT_ONCE: usize = 50;

pub(crate) const ROWS: &[Row] = table! {
    "message", "a message reaches everyone, the sender too, once, as MESSAGE" => message;
    "message-trim", "white space around the content is cut off, what is inside stays" => message_trim;
    "message-blank", "a content of white space only is invalid_message, and the connection goes on" => message_blank;
    "message-long", "4,000 characters, whatever their bytes, are stored; 4,001 are invalid_message" => message_long;
    "message-control", "control characters but line feed and tab are invalid_message" => message_control;
    "message-fields", "a message without its fields is invalid_message" => message_fields;
    "nonce-rules", "a nonce has 1 to 64 characters" => nonce_rules;
    "ack", "a message with a nonce is acknowledged with its id" => ack;
    "ack-none", "without a nonce there is no ack" => ack_none;
    "error-nonce", "an error carries the nonce of what it refuses" => error_nonce;
    "stored-before-shown", "promise 1: what is shown or acknowledged can be read back at once" => stored_before_shown;
    "one-order", "promise 2: every client sees the same messages in the order of ids, none skipped, none twice" => one_order;
    "send-once", "promise 5: the same nonce again, on any connection, gets the first id, and nothing is shown twice" => send_once;
    "nonce-per-user", "a nonce is unique to its user only" => nonce_per_user;
    "nonce-http", "nonces are one space over HTTP and WebSocket" => nonce_http;
    "rate", "over the rate a frame is refused with rate_limited and retry_after, and sent again then stored" => rate;
    "rate-nonce", "a nonce sent again costs nothing of the rate" => rate_nonce;
    "typing", "typing is told to the others and not to oneself, at most once a second" => typing;
    "typing-room", "typing in a room is told to that room only" => typing_room;
    "messages-newest", "GET /messages is the newest 50, ids rising, with has_more" => messages_newest;
    "messages-before", "before=ID is what came before, the nearest" => messages_before;
    "messages-after", "after=ID is what came after, the nearest" => messages_after;
    "messages-limit", "limit is 1 to 200" => messages_limit;
    "messages-query", "a malformed query is invalid_request" => messages_query;
    "messages-two", "two of before, after and around are invalid_request" => messages_two;
    "messages-around", "around=ID puts that message in the middle and adds has_newer" => messages_around;
    "messages-around-none", "the message that around names need not exist" => messages_around_none;
    "messages-chunked", "a page of over 256 KiB of text has no Content-Length" => messages_chunked;
    "post", "POST /messages is 201 {\"id\"}, and everyone sees it" => post;
    "post-invalid", "what is no message is 422 invalid_message" => post_invalid;
    "post-text", "a body of text/plain is the message, with ?room=" => post_text;
    "post-form", "so is what `curl -d` sends, as it is, one final line break off" => post_form;
    "post-key", "Idempotency-Key is the nonce" => post_key;
    "post-key-differs", "a header and a body that differ are invalid_request" => post_key_differs;
    "post-room-differs", "?room= and a body that differ are invalid_request" => post_room_differs;
};

async fn message(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (mut of_ada, mut of_ben) = (w.connect(&ada).await?, w.connect(&ben).await?);
    let id = of_ada.store(&json!({"type": "message", "content": "hello, everybody"})).await?;
    let expected = json!({"type": "message", "id": id, "username": ada.name, "content": "hello, everybody", "room": 1});
    let frames = of_ben.until(id).await?;
    int(one(&frames, &expected)?, "created_at")?;
    // The sender's own came before its ack or comes after it.
    let again = w.replay(&ada, id - 1).await?;
    one(&again, &expected)?;
    let id = w.say(&ben, 1, "hello, ada").await?;
    let frames = of_ada.until(id).await?;
    one(&frames, &json!({"type": "message", "id": id, "content": "hello, ada"}))?;
    let id = w.say(&ada, 1, "my own").await?;
    one(&of_ada.until(id).await?, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn content_of(w: &World, who: &Person, content: &str) -> Check<String> {
    let id = w.connect(who).await?.store(&json!({"type": "message", "content": content})).await?;
    Ok(text(&w.message(who, 1, id).await?, "content")?.to_owned())
}

async fn message_trim(w: World) -> Check {
    let stored = content_of(&w, &w.cast("ada").await?, " \n\u{3000} two  \n words\t\u{a0}").await?;
    expect(stored == "two  \n words", "\"two  \\n words\"", format!("{stored:?}"))
}

async fn message_blank(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    for content in ["", " ", "\n\t \u{3000}"] {
        socket.refused(&json!({"type": "message", "content": content}), "invalid_message").await?;
    }
    socket.store(&json!({"type": "message", "content": "not blank"})).await.map(|_| ())
}

async fn message_long(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.store(&json!({"type": "message", "content": "😀".repeat(4_000)})).await?;
    socket.refused(&json!({"type": "message", "content": "x".repeat(4_001)}), "invalid_message").await
}

async fn message_control(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    for character in ['\0', '\u{1b}', '\r', '\u{7f}', '\u{85}'] {
        let content = format!("before{character}after");
        socket.refused(&json!({"type": "message", "content": content}), "invalid_message").await?;
    }
    socket.store(&json!({"type": "message", "content": "line\n\tfeed and tab"})).await.map(|_| ())
}

async fn message_fields(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    socket.refused(&json!({"type": "message"}), "invalid_message").await?;
    socket.refused(&json!({"type": "message", "content": 7}), "invalid_message").await
}

async fn nonce_rules(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    for nonce in [String::new(), "n".repeat(65)] {
        socket.send(&json!({"type": "message", "content": "x", "nonce": nonce})).await?;
        let error = socket.wait(&json!({"type": "error"})).await?;
        expect(error["code"] == "invalid_message", "an error invalid_message", &error)?;
    }
    let nonce = format!("{:n<64}", w.unique("nonce"));
    socket.store(&json!({"type": "message", "content": "x", "nonce": nonce})).await.map(|_| ())
}

async fn ack(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    let (nonce, content) = (w.unique("nonce"), w.unique("content"));
    let id = socket.store(&json!({"type": "message", "content": content, "nonce": nonce})).await?;
    let message = w.message(&w.cast("ada").await?, 1, id).await?;
    expect(message["content"] == content.as_str(), format!("message {id} with the content {content}"), &message)
}

async fn ack_none(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    let content = w.unique("content");
    socket.send(&json!({"type": "message", "content": content})).await?;
    let shown = socket.wait(&json!({"type": "message", "content": content})).await?;
    none(&socket.until(int(&shown, "id")?).await?, &json!({"type": "ack"}))
}

async fn error_nonce(w: World) -> Check {
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    let nonce = w.unique("nonce");
    socket.send(&json!({"type": "message", "content": "", "nonce": nonce})).await?;
    let error = socket.wait(&json!({"type": "error"})).await?;
    expect(error["nonce"] == nonce.as_str(), format!("an error with the nonce {nonce}"), &error)
}

async fn stored_before_shown(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (mut of_ada, mut of_ben) = (w.connect(&ada).await?, w.connect(&ben).await?);
    for _ in 0..5 {
        let content = w.unique("content");
        of_ada.send(&json!({"type": "message", "content": content, "nonce": w.unique("nonce")})).await?;
        let shown = of_ben.wait(&json!({"type": "message", "content": content})).await?;
        let id = int(&shown, "id")?;
        let read = w.message(&ben, 1, id).await?;
        expect(read["content"] == content.as_str(), format!("message {id} in the page"), &read)?;
        let ack = of_ada.wait(&json!({"type": "ack"})).await?;
        expect(ack["id"] == id, format!("an ack with {id}"), &ack)?;
    }
    Ok(())
}

async fn one_order(w: World) -> Check {
    const EACH: usize = 8;
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    let mut sockets = [w.connect(&ada).await?, w.connect(&ben).await?, w.connect(&cy).await?];
    for number in 0..EACH {
        for (sender, socket) in sockets.iter_mut().enumerate() {
            let content = format!("{number} of {sender}");
            socket.send(&json!({"type": "message", "room": room, "content": content})).await?;
        }
    }
    let mut orders = Vec::new();
    for socket in &mut sockets {
        let mut seen = Vec::new();
        while seen.len() < EACH * 3 {
            seen.push(int(&socket.wait(&json!({"type": "message", "room": room})).await?, "id")?);
        }
        none(&socket.settle().await?, &json!({"type": "message", "room": room}))?;
        expect(seen.is_sorted_by(|one, next| one < next), "ids that rise", format!("{seen:?}"))?;
        orders.push(seen);
    }
    expect(orders[0] == orders[1] && orders[1] == orders[2], "one order for all", format!("{orders:?}"))?;
    let stored = ids(&w.page(&ada, room, "limit=200").await?);
    expect(stored == orders[0], format!("the same order in the page, {:?}", orders[0]), format!("{stored:?}"))
}

async fn send_once(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let (mut first, mut second) = (w.connect(&ada).await?, w.connect(&ada).await?);
    let message = json!({"type": "message", "content": "once", "nonce": w.unique("nonce")});
    let id = first.store(&message).await?;
    second.until(id).await?;
    let again = second.store(&message).await?;
    expect(again == id, format!("an ack with {id}"), again)?;
    let last = w.say(&ada, 1, "after it").await?;
    for socket in [&mut first, &mut second] {
        let frames = socket.until(last).await?;
        let shown =
            of(&frames, "message").iter().filter(|frame| frame["content"] == "once" && frame["id"] != id).count();
        expect(shown == 0, "no second message", Value::from(frames))?;
    }
    let page = w.page(&ada, 1, &format!("after={id}")).await?;
    none(&page, &json!({"content": "once"}))
}

async fn nonce_per_user(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let message = json!({"type": "message", "content": "mine", "nonce": w.unique("nonce")});
    let of_ada = w.connect(&ada).await?.store(&message).await?;
    let of_ben = w.connect(&ben).await?.store(&message).await?;
    expect(of_ada != of_ben, "two messages", format!("id {of_ben} twice"))
}

async fn nonce_http(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let nonce = w.unique("nonce");
    let id = w.connect(&ada).await?.store(&json!({"type": "message", "content": "first", "nonce": nonce})).await?;
    let again = w.say_with(&ada, &json!({"content": "second", "nonce": nonce})).await?;
    expect(again == id, format!("id {id}"), again)
}

/// Sends far too much, until some is refused: the first error, and what was acknowledged, by nonce and id.
async fn flood(w: &World, who: &Person) -> Check<(Socket, Value, Vec<(String, i64)>)> {
    let mut socket = w.connect(who).await?;
    let (mut stored, mut first_error) = (Vec::new(), None);
    while first_error.is_none() && stored.len() < FLOOD_MESSAGES {
        let nonces: Vec<String> = (0..FLOOD_AT_ONCE).map(|_| w.unique("nonce")).collect();
        for nonce in &nonces {
            socket.send(&json!({"type": "message", "content": "flood", "nonce": nonce})).await?;
        }
        for nonce in nonces {
            let answer = socket.answer_to(&json!(nonce)).await?;
            if answer["type"] == "ack" {
                stored.push((nonce, int(&answer, "id")?));
            } else {
                first_error.get_or_insert(answer);
            }
        }
    }
    match first_error {
        Some(error) => Ok((socket, error, stored)),
        None => not_offered("takes messages as fast as they can be sent"),
    }
}

async fn rate(w: World) -> Check {
    let (mut socket, error, _) = flood(&w, &w.account("zed").await?).await?;
    expect(error["code"] == "rate_limited", "an error rate_limited", &error)?;
    let wait = int(&error, "retry_after")?;
    expect((1..120_000).contains(&wait), "retry_after in milliseconds", &error)?;
    socket.store(&json!({"type": "message", "content": "later", "nonce": error["nonce"]})).await.map(|_| ())
}

async fn rate_nonce(w: World) -> Check {
    let (mut socket, _, stored) = flood(&w, &w.account("zed").await?).await?;
    for (nonce, _) in &stored {
        socket.send(&json!({"type": "message", "content": "again", "nonce": nonce})).await?;
    }
    for (nonce, id) in stored {
        let answer = socket.answer_to(&json!(nonce)).await?;
        expect(answer["type"] == "ack" && answer["id"] == id, format!("an ack with {id}"), &answer)?;
    }
    Ok(())
}

async fn typing(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (zed, told) = (w.account("zed").await?, json!({"type": "typing"}));
    let (mut of_zed, mut of_ben) = (w.connect(&zed).await?, w.connect(&ben).await?);
    for _ in 0..3 {
        of_zed.send(&json!({"type": "typing"})).await?;
    }
    none(&of_zed.settle().await?, &told)?;
    of_ben.wait(&json!({"type": "typing", "username": zed.name})).await?;
    let id = w.say(&ada, 1, "meanwhile").await?;
    none(&of_ben.until(id).await?, &json!({"type": "typing", "username": zed.name}))
}

async fn typing_room(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (mut of_ada, mut of_ben, mut of_cy) = (w.connect(&ada).await?, w.connect(&ben).await?, w.connect(&cy).await?);
    of_ada.send(&json!({"type": "typing", "room": room})).await?;
    of_ben.wait(&json!({"type": "typing", "username": ada.name, "room": room})).await?;
    none(&of_cy.settle().await?, &json!({"type": "typing", "username": ada.name}))
}

/// A room of ada's with `count` messages, and their ids.
async fn filled(w: &World, count: usize) -> Check<(Person, i64, Vec<i64>)> {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let mut stored = Vec::new();
    for number in 0..count {
        stored.push(w.say(&ada, room, &format!("number {number}")).await?);
    }
    Ok((ada, room, stored))
}

async fn reads(w: &World, who: &Person, query: &str, expected: &[i64], more: &Value) -> Check {
    let page = w.get(who, &format!("/messages?{query}")).await?.ok(200)?;
    let got = ids(list(&page, "messages")?);
    expect(got == expected, format!("ids {expected:?}"), format!("{got:?}"))?;
    like(&page, more)
}

async fn messages_newest(w: World) -> Check {
    let (ada, room, stored) = filled(&w, 53).await?;
    reads(&w, &ada, &format!("room={room}"), &stored[3..], &json!({"has_more": true})).await?;
    reads(&w, &ada, &format!("room={room}&limit=200"), &stored, &json!({"has_more": false})).await
}

async fn messages_before(w: World) -> Check {
    let (ada, room, stored) = filled(&w, 6).await?;
    let query = format!("room={room}&limit=2&before={}", stored[4]);
    reads(&w, &ada, &query, &stored[2..4], &json!({"has_more": true})).await?;
    let query = format!("room={room}&limit=2&before={}", stored[2]);
    reads(&w, &ada, &query, &stored[..2], &json!({"has_more": false})).await
}

async fn messages_after(w: World) -> Check {
    let (ada, room, stored) = filled(&w, 6).await?;
    let query = format!("room={room}&limit=2&after={}", stored[1]);
    reads(&w, &ada, &query, &stored[2..4], &json!({"has_more": true})).await?;
    let query = format!("room={room}&limit=2&after={}", stored[3]);
    reads(&w, &ada, &query, &stored[4..], &json!({"has_more": false})).await
}

async fn messages_limit(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for limit in ["0", "201", "-1", "many", ""] {
        w.get(&ada, &format!("/messages?limit={limit}")).await?.refused(400, "invalid_request")?;
    }
    w.get(&ada, "/messages?limit=200").await?.ok(200)?;
    w.get(&ada, "/messages?limit=1").await?.ok(200).map(|_| ())
}

async fn messages_query(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for query in ["before=x", "after=-1", "around=1.5", "before=", "room=x"] {
        w.get(&ada, &format!("/messages?{query}")).await?.refused(400, "invalid_request")?;
    }
    Ok(())
}

async fn messages_two(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for query in ["before=9&after=1", "before=9&around=5", "after=1&around=5"] {
        w.get(&ada, &format!("/messages?{query}")).await?.refused(400, "invalid_request")?;
    }
    Ok(())
}

async fn messages_around(w: World) -> Check {
    let (ada, room, stored) = filled(&w, 7).await?;
    let page = w.get(&ada, &format!("/messages?room={room}&around={}&limit=4", stored[3])).await?.ok(200)?;
    let got = ids(list(&page, "messages")?);
    // Half of four on each side; the message itself may be counted with either.
    let is_middle = got.contains(&stored[3])
        && (3..=5).contains(&got.len())
        && stored[1..6].windows(got.len()).any(|part| part == got);
    expect(is_middle, format!("some four ids of {:?} around {}", &stored[1..6], stored[3]), format!("{got:?}"))?;
    like(&page, &json!({"has_more": true, "has_newer": true}))?;
    let page = w.get(&ada, &format!("/messages?room={room}&around={}&limit=200", stored[3])).await?.ok(200)?;
    let got = ids(list(&page, "messages")?);
    expect(got == stored, format!("all of {stored:?}"), format!("{got:?}"))?;
    like(&page, &json!({"has_more": false, "has_newer": false}))
}

async fn messages_around_none(w: World) -> Check {
    let (ada, room, stored) = filled(&w, 5).await?;
    w.take_back(&ada, stored[2]).await?;
    let page = w.page(&ada, room, &format!("around={}&limit=4", stored[2])).await?;
    let (got, expected) = (ids(&page), [stored[0], stored[1], stored[3], stored[4]]);
    expect(got == expected, format!("two before and two after, {expected:?}"), format!("{got:?}"))
}

async fn messages_chunked(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    // 4,000 characters of four bytes each: eighteen are more than 256 KiB.
    for _ in 0..18 {
        w.say(&ada, room, &"😀".repeat(4_000)).await?;
    }
    let answer = w.get(&ada, &format!("/messages?room={room}")).await?;
    let page = answer.ok(200)?;
    expect(list(&page, "messages")?.len() == 18, "18 messages", list(&page, "messages")?.len())?;
    let is_chunked = answer.header("content-length").is_none() && answer.header("transfer-encoding") == Some("chunked");
    expect(
        is_chunked,
        "Transfer-Encoding: chunked and no Content-Length",
        format!("{:?}", answer.header("content-length")),
    )
}

async fn post(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let mut socket = w.connect(&ben).await?;
    let answer = w.post(&ada, "/messages", &json!({"content": "by post"})).await?.ok(201)?;
    let id = int(&answer, "id")?;
    let expected = json!({"type": "message", "id": id, "room": 1, "username": ada.name, "content": "by post"});
    one(&socket.until(id).await?, &expected).map(|_| ())
}

async fn post_invalid(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for body in [json!({"content": " "}), json!({"content": "a\u{0}b"}), json!({"content": "x", "nonce": ""})] {
        w.post(&ada, "/messages", &body).await?.refused(422, "invalid_message")?;
    }
    let call = Call::new("POST", "/messages").by(&ada).body("application/json", "[");
    w.ask(call).await?.refused(400, "invalid_json")
}

async fn post_bare(w: &World, media_type: &str, body: &str, content: &str) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let call = Call::new("POST", format!("/messages?room={room}")).by(&ada).body(media_type, body);
    let id = int(&w.ask(call).await?.ok(201)?, "id")?;
    let message = w.message(&ada, room, id).await?;
    expect(message["content"] == content, format!("content {content:?}"), &message)
}

async fn post_text(w: World) -> Check {
    post_bare(&w, "text/plain", "{\"content\": as it is}", "{\"content\": as it is}").await?;
    post_bare(&w, "text/plain; charset=utf-8", "ünïcode\n", "ünïcode").await
}

async fn post_form(w: World) -> Check {
    post_bare(&w, "application/x-www-form-urlencoded", "a=1&b=%20+c\n", "a=1&b=%20+c").await
}

async fn post_key(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let key = w.unique("key");
    let post = |content: &str| {
        let call = Call::new("POST", "/messages").by(&ada).body("text/plain", content);
        w.ask(call.header("Idempotency-Key", &key))
    };
    let first = int(&post("first").await?.ok(201)?, "id")?;
    let second = int(&post("second").await?.ok(201)?, "id")?;
    expect(first == second, format!("id {first} again"), second)?;
    let id = w.say_with(&ada, &json!({"content": "third", "nonce": key})).await?;
    expect(id == first, format!("id {first} for the same nonce"), id)
}

async fn post_key_differs(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let body = json!({"content": "x", "nonce": w.unique("nonce")});
    let call = Call::new("POST", "/messages").by(&ada).json(&body).header("Idempotency-Key", &w.unique("key"));
    w.ask(call).await?.refused(400, "invalid_request")
}

async fn post_room_differs(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let body = json!({"content": "x", "room": 1});
    let call = Call::new("POST", format!("/messages?room={room}")).by(&ada).json(&body);
    w.ask(call).await?.refused(400, "invalid_request")?;
    let page = w.page(&ada, room, "limit=1").await?;
    expect(is_like(&Value::from(page.clone()), &json!([])), "nothing stored", Value::from(page))
}
