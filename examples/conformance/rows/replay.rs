//! What a client that comes back is told of changes: each as it is now, once.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, int, none, one};
use crate::suite::world::World;
use crate::suite::{Row, table};

pub(crate) const ROWS: &[Row] = table! {
    "replay-current", "a message is replayed once with its current text and reactions" => replay_current;
    "replay-deleted", "not if it is deleted; its delete is" => replay_deleted;
    "replay-delete-old", "every delete is, whatever the age of its message" => replay_delete_old;
    "replay-edit-old", "of a message seen before, the last edit, at its own id" => replay_edit_old;
    "replay-react-old", "of a message seen before, the last react of each person and emoji, off too" => replay_react_old;
    "replay-room", "a room that changed comes once, as it is now, at the id of its last change" => replay_room;
    "replay-added", "a room one was added to comes at that event, then what is past it" => replay_added;
    "replay-removed", "of a room one may not read now there is room_gone only" => replay_removed;
    "replay-order", "in the order of ids" => replay_order;
    "replay-read", "read is never replayed" => replay_read;
    "replay-hidden", "nothing of a room that this user may not read" => replay_hidden;
    "replay-mine", "`mine` and the counts of ROOM are the reader's own" => replay_mine;
};

async fn replay_current(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let before = w.say(&ada, room, "before").await?;
    let message = w.say(&ada, room, "old").await?;
    let emoji = w.reaction(0).await?;
    let react = json!({"type": "react", "message": message, "emoji": emoji, "on": true});
    w.connect(&ben).await?.store(&react).await?;
    w.edit(&ada, message, "new").await?;
    let frames = w.replay(&ada, before).await?;
    let reactions = json!([{"emoji": emoji, "count": 1, "mine": false, "names": [ben.name]}]);
    one(&frames, &json!({"type": "message", "id": message}))?;
    one(&frames, &json!({"type": "message", "id": message, "content": "new", "reactions": reactions}))?;
    none(&frames, &json!({"type": "edit", "message": message}))?;
    none(&frames, &json!({"type": "react", "message": message}))
}

async fn replay_deleted(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let before = w.say(&ada, 1, "before").await?;
    let message = w.say(&ada, 1, "soon gone").await?;
    let id = w.take_back(&ada, message).await?;
    let frames = w.replay(&ada, before).await?;
    none(&frames, &json!({"type": "message", "id": message}))?;
    one(&frames, &json!({"type": "delete", "id": id, "message": message, "by": ada.name})).map(|_| ())
}

async fn replay_delete_old(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "soon gone").await?;
    let edited = w.edit(&ada, message, "still there").await?;
    let id = w.take_back(&ada, message).await?;
    one(&w.replay(&ada, edited).await?, &json!({"type": "delete", "id": id, "room": 1, "message": message}))?;
    none(&w.replay(&ada, message).await?, &json!({"type": "edit", "message": message}))
}

async fn replay_edit_old(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let message = w.say(&ada, 1, "one").await?;
    w.edit(&ada, message, "two").await?;
    let last = w.edit(&ada, message, "three").await?;
    let frames = w.replay(&ada, message).await?;
    one(&frames, &json!({"type": "edit", "message": message}))?;
    one(&frames, &json!({"type": "edit", "id": last, "message": message, "content": "three"})).map(|_| ())
}

async fn replay_react_old(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let message = w.say(&ada, 1, "news").await?;
    let (first, second) = (w.reaction(0).await?, w.reaction(1).await?);
    let mut socket = w.connect(&ben).await?;
    let react = |emoji: &str, on: bool| json!({"type": "react", "message": message, "emoji": emoji, "on": on});
    socket.store(&react(&first, true)).await?;
    let kept = socket.store(&react(&second, true)).await?;
    let off = socket.store(&react(&first, false)).await?;
    let frames = w.replay(&ada, message).await?;
    one(&frames, &json!({"type": "react", "message": message, "emoji": first}))?;
    one(&frames, &json!({"type": "react", "id": off, "username": ben.name, "emoji": first, "on": false}))?;
    one(&frames, &json!({"type": "react", "id": kept, "username": ben.name, "emoji": second, "on": true})).map(|_| ())
}

async fn replay_room(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let before = w.say(&ada, room, "before").await?;
    let mut socket = w.connect(&ben).await?;
    for topic in ["one", "two"] {
        w.patch(&ada, &format!("/rooms/{room}"), &json!({"topic": topic})).await?.ok(200)?;
    }
    let live = socket.wait(&json!({"type": "room", "room": {"id": room, "topic": "two"}})).await?;
    let last = int(&live, "id")?;
    let frames = w.replay(&ben, before).await?;
    one(&frames, &json!({"type": "room", "room": {"id": room}}))?;
    one(&frames, &json!({"type": "room", "id": last, "room": {"id": room, "topic": "two"}})).map(|_| ())
}

async fn replay_added(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ada, 1, "before").await?;
    let room = w.private(&ada, &[]).await?;
    let unseen = w.say(&ada, room, "before ben").await?;
    let mut socket = w.connect(&ben).await?;
    w.put(&ada, &format!("/rooms/{room}/members/{}", ben.name)).await?.ok(204)?;
    let added = int(&socket.wait(&json!({"type": "room", "room": {"id": room}})).await?, "id")?;
    let seen = w.say(&ada, room, "with ben").await?;
    let frames = w.replay(&ben, before).await?;
    one(&frames, &json!({"type": "room", "id": added, "room": {"id": room}}))?;
    none(&frames, &json!({"type": "message", "id": unseen}))?;
    one(&frames, &json!({"type": "message", "id": seen, "room": room}))?;
    // By a page it is there.
    let page = w.page(&ben, room, "limit=200").await?;
    one(&page, &json!({"id": unseen})).map(|_| ())
}

async fn replay_removed(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let before = w.say(&ada, room, "before").await?;
    w.say(&ada, room, "missed").await?;
    w.edit(&ada, before, "changed").await?;
    w.patch(&ada, &format!("/rooms/{room}"), &json!({"topic": "changed"})).await?.ok(200)?;
    w.delete(&ada, &format!("/rooms/{room}/members/{}", ben.name)).await?.ok(204)?;
    w.say(&ada, room, "without ben").await?;
    let frames = w.replay(&ben, before).await?;
    one(&frames, &json!({"type": "room_gone", "room": room}))?;
    let other = frames
        .iter()
        .find(|frame| (frame["room"] == room && frame["type"] != "room_gone") || frame["room"]["id"] == room);
    expect(other.is_none(), "nothing else of the room", format!("{other:?}"))
}

async fn replay_order(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let before = w.say(&ada, room, "before").await?;
    let other = w.say(&ada, room, "other").await?;
    w.edit(&ada, before, "changed").await?;
    w.patch(&ada, &format!("/rooms/{room}"), &json!({"topic": "changed"})).await?.ok(200)?;
    w.say(&ada, 1, "elsewhere").await?;
    w.take_back(&ada, other).await?;
    w.say(&ada, room, "last").await?;
    let frames = w.replay(&ada, before).await?;
    let events = ["message", "edit", "delete", "react", "room", "room_gone"];
    let ids: Vec<_> = frames
        .iter()
        .filter(|frame| frame["type"].as_str().is_some_and(|kind| events.contains(&kind)))
        .map(|frame| frame["id"].as_i64())
        .collect();
    let rises = ids.is_sorted_by(|one, next| one < next) && ids.len() == 5;
    expect(rises, "five events, ids rising", Value::from(frames))
}

async fn replay_read(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ada, 1, "before").await?;
    let id = w.say(&ada, 1, "read").await?;
    let mut socket = w.connect(&ben).await?;
    socket.send(&json!({"type": "read", "room": 1, "id": id})).await?;
    socket.wait(&json!({"type": "read", "room": 1})).await?;
    none(&w.replay(&ben, before).await?, &json!({"type": "read"}))
}

async fn replay_hidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let before = w.say(&ada, 1, "before").await?;
    let room = w.private(&ada, &[]).await?;
    let hidden = w.say(&ada, room, "hidden").await?;
    w.edit(&ada, hidden, "hidden still").await?;
    w.take_back(&ada, hidden).await?;
    let frames = w.replay(&ben, before).await?;
    let leak = frames.iter().find(|frame| frame["room"] == room || frame["room"]["id"] == room);
    expect(leak.is_none(), "nothing of the room", format!("{leak:?}"))
}

async fn replay_mine(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let before = w.say(&ben, room, "before").await?;
    let message = w.say(&ada, room, "news").await?;
    let emoji = w.reaction(0).await?;
    let react = json!({"type": "react", "message": message, "emoji": emoji, "on": true});
    w.connect(&ben).await?.store(&react).await?;
    w.patch(&ada, &format!("/rooms/{room}"), &json!({"topic": "changed"})).await?.ok(200)?;
    for (reader, mine, unread) in [(&ada, false, 1), (&ben, true, 1)] {
        let frames = w.replay(reader, before).await?;
        one(&frames, &json!({"type": "message", "id": message, "reactions": [{"emoji": emoji, "mine": mine}]}))?;
        one(&frames, &json!({"type": "room", "room": {"id": room, "unread": unread}}))?;
    }
    Ok(())
}
