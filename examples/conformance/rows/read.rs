//! How far each has read.

use serde_json::json;

use crate::suite::check::{Check, int, like, none};
use crate::suite::world::World;
use crate::suite::{Row, table};

pub(crate) const ROWS: &[Row] = table! {
    "unread", "ROOM counts the messages after what one has read" => unread;
    "unread-own", "one's own and deleted messages are not unread" => unread_own;
    "unread-new-account", "a new account has read open rooms up to its registration" => unread_new_account;
    "unread-new-member", "a new member has read up to the event that added them, also when added again" => unread_new_member;
    "read", "`read` reaches this user's own connections and nobody else" => read;
    "read-rises", "it only rises" => read_rises;
    "read-clamped", "it is clamped to what there is" => read_clamped;
    "read-hidden", "read and typing for a room one may not read are ignored" => read_hidden;
};

async fn unread(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let first = w.say(&ada, room, "one").await?;
    w.say(&ada, room, "two").await?;
    w.say(&ada, room, "three").await?;
    like(&w.room(&ben, room).await?, &json!({"unread": 3}))?;
    let mut socket = w.connect(&ben).await?;
    socket.send(&json!({"type": "read", "room": room, "id": first})).await?;
    socket.wait(&json!({"type": "read", "room": room, "id": first})).await?;
    like(&w.room(&ben, room).await?, &json!({"unread": 2, "read": first}))
}

async fn unread_own(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    w.say(&ben, room, "my own").await?;
    let deleted = w.say(&ada, room, "taken back").await?;
    w.take_back(&ada, deleted).await?;
    like(&w.room(&ben, room).await?, &json!({"unread": 0}))
}

async fn unread_new_account(w: World) -> Check {
    let ada = w.cast("ada").await?;
    w.say(&ada, 1, "before").await?;
    let zed = w.account("zed").await?;
    like(&w.room(&zed, 1).await?, &json!({"unread": 0}))?;
    w.say(&ada, 1, "after").await?;
    like(&w.room(&zed, 1).await?, &json!({"unread": 1}))
}

async fn unread_new_member(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    let path = format!("/rooms/{room}/members/{}", ben.name);
    for round in 0..2 {
        w.say(&ada, room, &format!("before {round}")).await?;
        w.put(&ada, &path).await?.ok(204)?;
        like(&w.room(&ben, room).await?, &json!({"unread": 0}))?;
        w.say(&ada, room, &format!("after {round}")).await?;
        like(&w.room(&ben, room).await?, &json!({"unread": 1}))?;
        w.delete(&ada, &path).await?.ok(204)?;
    }
    Ok(())
}

async fn read(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let id = w.say(&ada, room, "read me").await?;
    let (mut of_ada, mut here, mut there) = (w.connect(&ada).await?, w.connect(&ben).await?, w.connect(&ben).await?);
    here.send(&json!({"type": "read", "room": room, "id": id})).await?;
    there.wait(&json!({"type": "read", "room": room, "id": id})).await?;
    none(&of_ada.settle().await?, &json!({"type": "read"}))
}

async fn read_rises(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (first, second) = (w.say(&ada, room, "one").await?, w.say(&ada, room, "two").await?);
    let mut socket = w.connect(&ben).await?;
    socket.send(&json!({"type": "read", "room": room, "id": second})).await?;
    socket.wait(&json!({"type": "read", "room": room, "id": second})).await?;
    socket.send(&json!({"type": "read", "room": room, "id": first})).await?;
    socket.settle().await?;
    like(&w.room(&ben, room).await?, &json!({"read": second, "unread": 0}))
}

async fn read_clamped(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let id = w.say(&ada, room, "one").await?;
    let mut socket = w.connect(&ben).await?;
    socket.send(&json!({"type": "read", "room": room, "id": id + 1_000_000})).await?;
    let read = int(&socket.wait(&json!({"type": "read", "room": room})).await?, "id")?;
    w.say(&ada, room, "two").await?;
    like(&w.room(&ben, room).await?, &json!({"read": read, "unread": 1}))
}

async fn read_hidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    let id = w.say(&ada, room, "mine").await?;
    let (mut of_ada, mut socket) = (w.connect(&ada).await?, w.connect(&ben).await?);
    socket.send(&json!({"type": "read", "room": room, "id": id})).await?;
    socket.send(&json!({"type": "typing", "room": room})).await?;
    let frames = socket.settle().await?;
    none(&frames, &json!({"type": "error"}))?;
    none(&frames, &json!({"type": "read"}))?;
    none(&of_ada.settle().await?, &json!({"type": "typing", "username": ben.name}))
}
