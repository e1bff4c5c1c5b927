//! What is done to a message after it was sent: edits, deletes, reactions, quotes.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, int, like, list, none, not_offered, one, text};
use crate::suite::http::Call;
use crate::suite::world::World;
use crate::suite::{Row, table};

/// An id that no message has.
const NEVER: i64 = 1 << 52;
/// A quote is cut to so many characters.
const QUOTE_CHARS: usize = 140;

pub(crate) const ROWS: &[Row] = table! {
    "edit", "an edit is acknowledged with the event's id, and everyone gets `edit` with the new text" => edit;
    "edit-http", "PATCH /messages/ID is 200 {\"id\"}, the event's" => edit_http;
    "edit-shown", "a page shows the current text, with edited_at" => edit_shown;
    "edit-invalid", "an edit to what is no text is invalid_message" => edit_invalid;
    "edit-forbidden", "only one's own: forbidden, also to a moderator" => edit_forbidden;
    "edit-unknown", "of a message that never was: not_found" => edit_unknown;
    "edit-gone", "of a deleted one: gone" => edit_gone;
    "edit-old", "after 24 h: too_old" => edit_old;
    "delete", "a delete is acknowledged with the event's id, and everyone gets `delete` with who did it" => delete;
    "delete-http", "DELETE /messages/ID is 200 {\"id\"}, the event's" => delete_http;
    "delete-shown", "promise 9: a deleted text is in no page and no search" => delete_shown;
    "delete-replayed", "promise 9: nor in a replay" => delete_replayed;
    "delete-moderator", "a moderator deletes others' in open rooms" => delete_moderator;
    "delete-forbidden", "others are forbidden" => delete_forbidden;
    "delete-gone", "twice is gone; never was is not_found" => delete_gone;
    "refusal-order", "deleted comes before not yours, not yours before archived" => refusal_order;
    "react", "a reaction is acknowledged, and everyone gets `react`; off again, too" => react;
    "react-shown", "reactions are counted, named, and `mine` is the reader's own" => react_shown;
    "react-unknown", "a reaction outside the set is invalid_message" => react_unknown;
    "react-same", "a react that changes nothing is acknowledged with the id that made it so, and no event" => react_same;
    "react-gone", "to a deleted message: gone" => react_gone;
    "react-live", "a live message has no reactions" => react_live;
    "quote", "reply_to shows whom and what it answers" => quote;
    "quote-cut", "a quote is cut to 140 characters" => quote_cut;
    "quote-current", "a quote shows the current text when it is read" => quote_current;
    "quote-deleted", "promise 9: of a deleted message only the id" => quote_deleted;
    "quote-gone", "an answer to a deleted message: gone" => quote_gone;
    "quote-elsewhere", "an answer to a message of another room: not_found" => quote_elsewhere;
    "nonce-any", "a nonce seen before is acknowledged with its first id, whatever comes with it" => nonce_any;
    "nonce-deleted", "promise 9: the nonce of a deleted message is acknowledged and brings nothing back" => nonce_deleted;
    "nonce-patch", "Idempotency-Key works with PATCH and DELETE, too" => nonce_patch;
};

async fn edit(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (mut of_ada, mut of_ben) = (w.connect(&ada).await?, w.connect(&ben).await?);
    let message = w.say(&ada, room, "fisrt").await?;
    let id = of_ada.store(&json!({"type": "edit", "message": message, "content": " first "})).await?;
    expect(id > message, format!("an id past {message}"), id)?;
    let expected = json!({"type": "edit", "id": id, "room": room, "message": message, "content": "first"});
    let frames = of_ben.until(id).await?;
    int(one(&frames, &expected)?, "edited_at")?;
    let id = w.edit(&ada, message, "second").await?;
    one(&of_ada.until(id).await?, &json!({"type": "edit", "id": id, "content": "second"})).map(|_| ())
}

async fn edit_http(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "fisrt").await?;
    let mut socket = w.connect(&ada).await?;
    let id = w.edit(&ada, message, "first").await?;
    let expected = json!({"type": "edit", "id": id, "room": 1, "message": message, "content": "first"});
    one(&socket.until(id).await?, &expected).map(|_| ())
}

async fn edit_shown(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let message = w.say(&ada, 1, "before").await?;
    w.edit(&ada, message, "after").await?;
    let shown = w.message(&ben, 1, message).await?;
    like(&shown, &json!({"id": message, "content": "after"}))?;
    let edited = int(&shown, "edited_at")?;
    expect(edited >= int(&shown, "created_at")?, "edited_at after created_at", &shown)
}

async fn edit_invalid(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "stays").await?;
    for content in [json!(""), json!("a\u{0}b"), json!("x".repeat(4_001))] {
        let answer = w.patch(&ada, &format!("/messages/{message}"), &json!({"content": content})).await?;
        answer.refused(422, "invalid_message")?;
    }
    let shown = w.message(&ada, 1, message).await?;
    like(&shown, &json!({"content": "stays"}))
}

async fn edit_forbidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let message = w.say(&ada, 1, "hers").await?;
    for other in [ben, w.moderator().await?] {
        let answer = w.patch(&other, &format!("/messages/{message}"), &json!({"content": "his"})).await?;
        answer.refused(403, "forbidden")?;
    }
    let shown = w.message(&ada, 1, message).await?;
    like(&shown, &json!({"content": "hers"}))
}

async fn edit_unknown(w: World) -> Check {
    let ada = w.cast("ada").await?;
    w.patch(&ada, &format!("/messages/{NEVER}"), &json!({"content": "x"})).await?.refused(404, "not_found")
}

async fn edit_gone(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "soon gone").await?;
    w.take_back(&ada, message).await?;
    w.patch(&ada, &format!("/messages/{message}"), &json!({"content": "back"})).await?.refused(410, "gone")?;
    let shown = w.message(&ada, 1, message).await?;
    expect(shown.is_null(), "no such message", &shown)
}

async fn edit_old(_: World) -> Check {
    not_offered("needs a message that is a day old")
}

async fn delete(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let message = w.say(&ada, room, "oops").await?;
    let (mut of_ada, mut of_ben) = (w.connect(&ada).await?, w.connect(&ben).await?);
    let id = of_ada.store(&json!({"type": "delete", "message": message})).await?;
    let expected = json!({"type": "delete", "id": id, "room": room, "message": message, "by": ada.name});
    one(&of_ben.until(id).await?, &expected).map(|_| ())
}

async fn delete_http(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "oops").await?;
    let mut socket = w.connect(&ada).await?;
    let id = w.take_back(&ada, message).await?;
    one(&socket.until(id).await?, &json!({"type": "delete", "id": id, "message": message, "by": ada.name})).map(|_| ())
}

async fn delete_shown(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let deleted = w.say(&ada, room, "a secret word").await?;
    let replaced = w.say(&ada, room, "a secret number").await?;
    w.take_back(&ada, deleted).await?;
    w.edit(&ada, replaced, "nothing").await?;
    let page = w.page(&ada, room, "limit=200").await?;
    expect(page.len() == 1, "one message", Value::from(page.clone()))?;
    let found = w.get(&ada, &format!("/search?q=secret&room={room}")).await?.ok(200)?;
    expect(list(&found, "messages")?.is_empty(), "nothing found", &found)?;
    let shown = w.room(&ada, room).await?;
    expect(shown["last"]["id"] == replaced && !shown.to_string().contains("secret"), "no secret in ROOM", &shown)
}

async fn delete_replayed(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let before = w.say(&ada, room, "before").await?;
    let deleted = w.say(&ada, room, "a secret word").await?;
    let replaced = w.say(&ada, room, "a secret number").await?;
    w.edit(&ada, replaced, "nothing").await?;
    w.take_back(&ada, deleted).await?;
    let frames = Value::from(w.replay(&ada, before).await?);
    expect(!frames.to_string().contains("secret"), "no secret in the replay", frames)
}

async fn delete_moderator(w: World) -> Check {
    let (ada, moderator) = (w.cast("ada").await?, w.moderator().await?);
    let message = w.say(&ada, 1, "rude").await?;
    let mut socket = w.connect(&ada).await?;
    let id = w.take_back(&moderator, message).await?;
    one(&socket.until(id).await?, &json!({"type": "delete", "message": message, "by": moderator.name})).map(|_| ())
}

async fn delete_forbidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let message = w.say(&ada, 1, "hers").await?;
    w.delete(&ben, &format!("/messages/{message}")).await?.refused(403, "forbidden")?;
    let mut socket = w.connect(&ben).await?;
    socket.refused(&json!({"type": "delete", "message": message}), "forbidden").await
}

async fn delete_gone(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "oops").await?;
    w.take_back(&ada, message).await?;
    w.delete(&ada, &format!("/messages/{message}")).await?.refused(410, "gone")?;
    w.delete(&ada, &format!("/messages/{NEVER}")).await?.refused(404, "not_found")
}

async fn refusal_order(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (kept, deleted) = (w.say(&ada, room, "kept").await?, w.say(&ada, room, "deleted").await?);
    w.take_back(&ada, deleted).await?;
    let change = json!({"content": "his"});
    w.patch(&ben, &format!("/messages/{deleted}"), &change).await?.refused(410, "gone")?;
    w.patch(&ada, &format!("/rooms/{room}"), &json!({"archived": true})).await?.ok(200)?;
    w.patch(&ada, &format!("/messages/{deleted}"), &change).await?.refused(410, "gone")?;
    w.patch(&ben, &format!("/messages/{kept}"), &change).await?.refused(403, "forbidden")?;
    w.patch(&ada, &format!("/messages/{kept}"), &change).await?.refused(409, "archived")
}

async fn react(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (message, emoji) = (w.say(&ada, room, "good news").await?, w.reaction(0).await?);
    let (mut of_ada, mut of_ben) = (w.connect(&ada).await?, w.connect(&ben).await?);
    for on in [true, false] {
        let id = of_ben.store(&json!({"type": "react", "message": message, "emoji": emoji, "on": on})).await?;
        let expected = json!({
            "type": "react", "id": id, "room": room, "message": message, "username": ben.name, "emoji": emoji, "on": on
        });
        one(&of_ada.until(id).await?, &expected)?;
    }
    let shown = w.message(&ada, room, message).await?;
    expect(shown["reactions"].as_array().is_none_or(Vec::is_empty), "no reactions left", &shown)
}

async fn react_shown(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    let (message, emoji) = (w.say(&ada, room, "good news").await?, w.reaction(1).await?);
    for person in [&ben, &cy] {
        let react = json!({"type": "react", "message": message, "emoji": emoji, "on": true});
        w.connect(person).await?.store(&react).await?;
    }
    for (reader, mine) in [(&ada, false), (&ben, true)] {
        let shown = w.message(reader, room, message).await?;
        like(&shown["reactions"], &json!([{"emoji": emoji, "count": 2, "mine": mine}]))?;
        let mut names: Vec<_> = list(&shown["reactions"][0], "names")?.iter().filter_map(Value::as_str).collect();
        names.sort_unstable();
        let mut expected = [ben.name.as_str(), cy.name.as_str()];
        expected.sort_unstable();
        expect(names == expected, format!("names {expected:?}"), format!("{names:?}"))?;
    }
    Ok(())
}

async fn react_unknown(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "news").await?;
    let mut socket = w.connect(&ada).await?;
    for emoji in ["x", "", "🧨🧨"] {
        let react = json!({"type": "react", "message": message, "emoji": emoji, "on": true});
        socket.refused(&react, "invalid_message").await?;
    }
    let react = json!({"type": "react", "message": message, "emoji": w.reaction(0).await?});
    socket.refused(&react, "invalid_message").await
}

async fn react_same(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let (message, emoji) = (w.say(&ada, 1, "news").await?, w.reaction(0).await?);
    let mut socket = w.connect(&ada).await?;
    let react = json!({"type": "react", "message": message, "emoji": emoji, "on": true});
    let first = socket.store(&react).await?;
    socket.until(first).await?;
    let second = socket.store(&react).await?;
    expect(first == second, format!("id {first} again"), second)?;
    let last = w.say(&ada, 1, "after it").await?;
    none(&socket.until(last).await?, &json!({"type": "react", "message": message}))
}

async fn react_gone(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "oops").await?;
    w.take_back(&ada, message).await?;
    let react = json!({"type": "react", "message": message, "emoji": w.reaction(0).await?, "on": true});
    w.connect(&ada).await?.refused(&react, "gone").await
}

async fn react_live(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let mut socket = w.connect(&ben).await?;
    let message = w.say(&ada, 1, "news").await?;
    let frames = socket.until(message).await?;
    let shown = one(&frames, &json!({"type": "message", "id": message}))?;
    expect(shown.get("reactions").is_none(), "no reactions", shown)
}

async fn quote(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let asked = w.say(&ada, room, "who comes?").await?;
    let mut socket = w.connect(&ada).await?;
    let id = w.say_with(&ben, &json!({"room": room, "content": "I do", "reply_to": asked})).await?;
    let expected = json!({"id": id, "reply_to": {"id": asked, "username": ada.name, "content": "who comes?"}});
    one(&socket.until(id).await?, &expected)?;
    let shown = w.message(&ada, room, id).await?;
    like(&shown, &expected)
}

async fn quote_cut(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let asked = w.say(&ada, 1, &"ü".repeat(QUOTE_CHARS + 20)).await?;
    let id = w.say_with(&ada, &json!({"content": "re", "reply_to": asked})).await?;
    let shown = w.message(&ada, 1, id).await?;
    let quoted = text(&shown["reply_to"], "content")?;
    // An ellipsis may take the place of the last one.
    let count = quoted.chars().count();
    expect((QUOTE_CHARS - 3..=QUOTE_CHARS).contains(&count), format!("{QUOTE_CHARS} characters"), count)
}

async fn quote_current(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let asked = w.say(&ada, 1, "before").await?;
    let id = w.say_with(&ada, &json!({"content": "re", "reply_to": asked})).await?;
    w.edit(&ada, asked, "after").await?;
    let shown = w.message(&ada, 1, id).await?;
    like(&shown, &json!({"reply_to": {"id": asked, "content": "after"}}))
}

async fn quote_deleted(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let asked = w.say(&ada, 1, "taken back").await?;
    let id = w.say_with(&ada, &json!({"content": "re", "reply_to": asked})).await?;
    w.take_back(&ada, asked).await?;
    let shown = w.message(&ada, 1, id).await?;
    expect(shown["reply_to"] == json!({"id": asked}), format!("reply_to {{\"id\":{asked}}}"), &shown)
}

async fn quote_gone(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let asked = w.say(&ada, 1, "taken back").await?;
    w.take_back(&ada, asked).await?;
    let body = json!({"content": "re", "reply_to": asked});
    w.post(&ada, "/messages", &body).await?.refused(410, "gone")
}

async fn quote_elsewhere(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let asked = w.say(&ada, room, "in here").await?;
    let body = json!({"room": 1, "content": "re", "reply_to": asked});
    w.post(&ada, "/messages", &body).await?.refused(404, "not_found")
}

async fn nonce_any(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let mut socket = w.connect(&ada).await?;
    let (message, nonce) = (w.say(&ada, 1, "unchanged").await?, w.unique("nonce"));
    let first = socket.store(&json!({"type": "message", "content": "x", "nonce": nonce})).await?;
    let frames = [
        json!({"type": "edit", "message": message, "content": "changed", "nonce": nonce}),
        json!({"type": "delete", "message": message, "nonce": nonce}),
        json!({"type": "react", "message": message, "emoji": w.reaction(0).await?, "on": true, "nonce": nonce}),
        json!({"type": "message", "room": 1, "content": "y", "nonce": nonce}),
    ];
    for frame in frames {
        let id = socket.store(&frame).await?;
        expect(id == first, format!("an ack with {first} for {frame}"), id)?;
    }
    let shown = w.message(&ada, 1, message).await?;
    expect(shown["content"] == "unchanged" && shown.get("reactions").is_none(), "the message, unchanged", &shown)
}

async fn nonce_deleted(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let mut socket = w.connect(&ada).await?;
    let message = json!({"type": "message", "room": room, "content": "oops", "nonce": w.unique("nonce")});
    let first = socket.store(&message).await?;
    w.take_back(&ada, first).await?;
    let again = socket.store(&message).await?;
    expect(again == first, format!("an ack with {first}"), again)?;
    let page = w.page(&ada, room, "limit=200").await?;
    expect(page.is_empty(), "nothing in the room", Value::from(page))
}

async fn nonce_patch(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "first").await?;
    let (patch, delete) = (w.unique("key"), w.unique("key"));
    let target = format!("/messages/{message}");
    let mut ids = Vec::new();
    for content in ["second", "third"] {
        let call = Call::new("PATCH", &target).by(&ada).json(&json!({"content": content}));
        ids.push(int(&w.ask(call.header("Idempotency-Key", &patch)).await?.ok(200)?, "id")?);
    }
    let shown = w.message(&ada, 1, message).await?;
    expect(ids[0] == ids[1] && shown["content"] == "second", "one edit", format!("{ids:?}, {shown}"))?;
    for _ in 0..2 {
        let call = Call::new("DELETE", &target).by(&ada).header("Idempotency-Key", &delete);
        ids.push(int(&w.ask(call).await?.ok(200)?, "id")?);
    }
    expect(ids[2] == ids[3], "one delete", format!("{ids:?}"))
}
