//! Rooms: who makes, sees, changes and leaves them.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, int, is_like, like, list, none, one, text};
use crate::suite::http::Call;
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// So many new direct rooms a user may make in an hour.
const DIRECTS_AN_HOUR: usize = 20;
/// An id that no room or message has.
const NEVER: i64 = 1 << 52;

pub(crate) const ROWS: &[Row] = table! {
    "lobby", "room 1 is open, always there, and takes what names no room" => lobby;
    "room-shape", "ROOM has all its fields" => room_shape;
    "room-open", "POST /rooms is 201 ROOM, and everybody hears of an open room" => room_open;
    "room-private", "a private room has its maker and the members named, and only they hear of it" => room_private;
    "room-name", "a room's name has 1 to 60 characters after trimming, no control characters" => room_name;
    "room-name-taken", "a name is unique among open rooms without regard to case: 409 name_taken" => room_name_taken;
    "room-name-private", "names of private rooms are never compared with anything" => room_name_private;
    "room-invalid", "a bad kind, emoji or topic is invalid_request" => room_invalid;
    "room-message", "a message in a room reaches its readers only, with `room`" => room_message;
    "room-hidden", "a room one may not read is the same not_found as one that never was, by every route" => room_hidden;
    "room-hidden-message", "so is a message in it" => room_hidden_message;
    "room-moderator", "a moderator who is no member has no more rights in a private room" => room_moderator;
    "patch-open", "PATCH of an open room: moderators, 200 ROOM, and everybody hears of it" => patch_open;
    "patch-open-forbidden", "and others are forbidden" => patch_open_forbidden;
    "patch-private", "PATCH of a private room: its members" => patch_private;
    "patch-direct", "PATCH of a direct room is forbidden" => patch_direct;
    "patch-lobby-archive", "the lobby cannot be archived: forbidden" => patch_lobby_archive;
    "archived-write", "in an archived room writing, editing and reacting are 409 archived" => archived_write;
    "archived-rest", "deleting and read work there, and members come and go" => archived_rest;
    "archived-back", "PATCH takes archived:false, and it is written again" => archived_back;
    "archived-name", "an archived room keeps its name" => archived_name;
    "member-add", "PUT of a member is 204: the new one hears of the room, the others of its members" => member_add;
    "member-add-again", "adding who is in is 204 and no event" => member_add_again;
    "member-remove", "DELETE of a member is 204: room_gone for that one, the members for the others" => member_remove;
    "member-remove-again", "removing who is not in is 204 and no event" => member_remove_again;
    "member-leave", "one leaves by removing oneself" => member_leave;
    "member-open", "members of an open room: invalid_request" => member_open;
    "member-direct", "members of a direct room: forbidden" => member_direct;
    "member-unknown", "a name that nobody has is not_found" => member_unknown;
    "member-disabled", "and so is a disabled one" => member_disabled;
    "removed", "promise 8: once the removal is answered, no frame of that room and nothing by any route" => removed;
    "direct", "POST /direct is 201 ROOM, then 200 with the same one, from either side" => direct;
    "direct-heard", "both hear of it when it is made" => direct_heard;
    "direct-alone", "one alone has a room for notes" => direct_alone;
    "direct-unknown", "with nobody: not_found" => direct_unknown;
    "direct-rate", "20 new ones an hour a user: then rate_limited" => direct_rate;
    "judged-by-room", "what is done to a message is judged by its own room, whatever the request says" => judged_by_room;
    "first-edition", "without \"rooms\":true only the lobby's message, edit, delete and typing come" => first_edition;
    "first-edition-send", "such a connection may send to any room" => first_edition_send;
};

async fn lobby(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let shown = w.room(&ada, 1).await?;
    like(&shown, &json!({"id": 1, "kind": "open", "members": null, "archived": false}))?;
    let id = w.say_with(&ada, &json!({"content": "to the lobby"})).await?;
    let page = w.get(&ada, "/messages?limit=1").await?.ok(200)?;
    like(&page, &json!({"messages": [{"id": id, "room": 1}]}))
}

async fn room_shape(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let body = json!({
        "name": " Shape ", "kind": "private", "emoji": "🚲", "topic": "what it is about", "members": [ben.name]
    });
    let made = w.post(&ada, "/rooms", &body).await?.ok(201)?;
    let id = int(&made, "id")?;
    let mut members = [&ada.name, &ben.name];
    members.sort();
    let expected = json!({
        "id": id, "kind": "private", "name": "Shape", "emoji": "🚲", "topic": "what it is about", "members": members,
        "member_count": 2, "archived": false, "last": null, "unread": 0, "mentioned": 0
    });
    like(&made, &expected)?;
    int(&made, "read")?;
    let said = w.say(&ada, id, "the last").await?;
    let shown = w.room(&ben, id).await?;
    like(&shown, &json!({"id": id, "last": {"id": said, "room": id, "content": "the last", "username": ada.name}}))
}

async fn room_open(w: World) -> Check {
    let (ada, moderator) = (w.cast("ada").await?, w.moderator().await?);
    let mut socket = w.connect(&ada).await?;
    let name = w.unique("Open");
    let made = w.post(&moderator, "/rooms", &json!({"name": name, "kind": "open"})).await?.ok(201)?;
    like(&made, &json!({"kind": "open", "name": name, "members": null, "emoji": null}))?;
    let room = int(&made, "id")?;
    let frame = socket.wait(&json!({"type": "room", "room": {"id": room, "kind": "open", "name": name}})).await?;
    int(&frame, "id")?;
    let shown = w.room(&ada, room).await?;
    expect(!shown.is_null(), "the room in GET /rooms", &shown)
}

async fn room_private(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let (mut of_ada, mut of_ben, mut of_cy) = (w.connect(&ada).await?, w.connect(&ben).await?, w.connect(&cy).await?);
    let room = w.private(&ada, &[&ben]).await?;
    let last = w.say(&ada, 1, "after it").await?;
    let heard = json!({"type": "room", "room": {"id": room, "kind": "private"}});
    one(&of_ada.until(last).await?, &heard)?;
    one(&of_ben.until(last).await?, &heard)?;
    none(&of_cy.until(last).await?, &json!({"type": "room", "room": {"id": room}}))?;
    let hidden = w.room(&cy, room).await?;
    expect(hidden.is_null(), "no such room for others", &hidden)
}

async fn room_name(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for name in ["", "  ", &"x".repeat(61), "a\nb", "a\u{0}b"] {
        let body = json!({"name": name, "kind": "private"});
        w.post(&ada, "/rooms", &body).await?.refused(400, "invalid_request")?;
    }
    let body = json!({"name": format!(" {} ", "ü".repeat(60)), "kind": "private"});
    let made = w.post(&ada, "/rooms", &body).await?.ok(201)?;
    expect(made["name"] == "ü".repeat(60), "60 characters, trimmed", &made)
}

async fn room_name_taken(w: World) -> Check {
    let moderator = w.moderator().await?;
    let name = w.unique("Café Ärger");
    let create = async |name: String| w.post(&moderator, "/rooms", &json!({"name": name, "kind": "open"})).await;
    let room = int(&create(name.clone()).await?.ok(201)?, "id")?;
    create(name.to_uppercase()).await?.refused(409, "name_taken")?;
    let other = int(&create(w.unique("Other")).await?.ok(201)?, "id")?;
    let body = json!({"name": name.to_lowercase()});
    w.patch(&moderator, &format!("/rooms/{other}"), &body).await?.refused(409, "name_taken")?;
    // Its own name in another case is no other's.
    w.patch(&moderator, &format!("/rooms/{room}"), &body).await?.ok(200).map(|_| ())
}

async fn room_name_private(w: World) -> Check {
    let (moderator, ada) = (w.moderator().await?, w.cast("ada").await?);
    let name = w.unique("Same");
    w.post(&moderator, "/rooms", &json!({"name": name, "kind": "open"})).await?.ok(201)?;
    for _ in 0..2 {
        w.post(&ada, "/rooms", &json!({"name": name, "kind": "private"})).await?.ok(201)?;
    }
    let name = w.unique("Private first");
    w.post(&ada, "/rooms", &json!({"name": name, "kind": "private"})).await?.ok(201)?;
    w.post(&moderator, "/rooms", &json!({"name": name, "kind": "open"})).await?.ok(201).map(|_| ())
}

async fn room_invalid(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let name = w.unique("Bad");
    let bodies = [
        json!({"name": name, "kind": "direct"}),
        json!({"name": name, "kind": "hidden"}),
        json!({"name": name, "kind": "private", "emoji": ""}),
        json!({"name": name, "kind": "private", "emoji": "x".repeat(17)}),
        json!({"name": name, "kind": "private", "topic": "x".repeat(251)}),
    ];
    for body in bodies {
        w.post(&ada, "/rooms", &body).await?.refused(400, "invalid_request")?;
    }
    let body = json!({"name": name, "kind": "private", "emoji": "x".repeat(16), "topic": "x".repeat(250)});
    w.post(&ada, "/rooms", &body).await?.ok(201).map(|_| ())
}

async fn room_message(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (mut of_ben, mut of_cy) = (w.connect(&ben).await?, w.connect(&cy).await?);
    let id = w.connect(&ada).await?.store(&json!({"type": "message", "room": room, "content": "among us"})).await?;
    one(&of_ben.until(id).await?, &json!({"type": "message", "id": id, "room": room}))?;
    none(&of_cy.until(id).await?, &json!({"type": "message", "id": id}))?;
    let lobby = w.page(&cy, 1, "limit=200").await?;
    none(&lobby, &json!({"id": id}))
}

/// Everything that one can ask of a room.
fn calls_of_room(person: &Person, room: i64) -> Vec<Call> {
    let content = json!({"room": room, "content": "hello?"});
    vec![
        Call::new("GET", format!("/messages?room={room}")),
        Call::new("POST", "/messages").json(&content),
        Call::new("POST", format!("/messages?room={room}")).body("text/plain", "hello?"),
        Call::new("PATCH", format!("/rooms/{room}")).json(&json!({"topic": "mine"})),
        Call::new("PUT", format!("/rooms/{room}/members/{}", person.name)),
        Call::new("DELETE", format!("/rooms/{room}/members/{}", person.name)),
        Call::new("GET", format!("/search?q=hello&room={room}")),
    ]
    .into_iter()
    .map(|call| call.by(person))
    .collect()
}

async fn is_hidden(w: &World, person: &Person, room: i64) -> Check {
    for (call, never) in calls_of_room(person, room).into_iter().zip(calls_of_room(person, NEVER)) {
        w.hidden(call, never).await?;
    }
    let mut socket = w.connect(person).await?;
    socket.refused(&json!({"type": "message", "room": room, "content": "hello?"}), "not_found").await?;
    let shown = w.room(person, room).await?;
    expect(shown.is_null(), "no such room in GET /rooms", &shown)
}

async fn room_hidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    is_hidden(&w, &ben, room).await?;
    // Nor does anything of it come in by asking for it.
    let page = w.page(&ada, room, "limit=200").await?;
    expect(page.is_empty(), "nothing stored", Value::from(page))
}

async fn room_hidden_message(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    let id = w.say(&ada, room, "hidden").await?;
    let gone = w.say(&ada, room, "hidden and gone").await?;
    w.take_back(&ada, gone).await?;
    let reaction = w.reaction(0).await?;
    let mut socket = w.connect(&ben).await?;
    for message in [id, gone] {
        let calls = |message: i64| {
            [
                Call::new("PATCH", format!("/messages/{message}")).by(&ben).json(&json!({"content": "changed"})),
                Call::new("DELETE", format!("/messages/{message}")).by(&ben),
                Call::new("POST", "/messages").by(&ben).json(&json!({"content": "re", "reply_to": message})),
            ]
        };
        for (call, never) in calls(message).into_iter().zip(calls(NEVER)) {
            w.hidden(call, never).await?;
        }
        let react = json!({"type": "react", "message": message, "emoji": reaction, "on": true});
        socket.refused(&react, "not_found").await?;
        socket.refused(&json!({"type": "edit", "message": message, "content": "changed"}), "not_found").await?;
        socket.refused(&json!({"type": "delete", "message": message}), "not_found").await?;
    }
    Ok(())
}

async fn room_moderator(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let moderator = w.moderator().await?;
    let room = w.private(&ada, &[&ben]).await?;
    is_hidden(&w, &moderator, room).await?;
    // Nor as a member over what others wrote.
    let id = w.say(&ada, room, "mine").await?;
    w.put(&ada, &format!("/rooms/{room}/members/{}", moderator.name)).await?.ok(204)?;
    w.delete(&moderator, &format!("/messages/{id}")).await?.refused(403, "forbidden")
}

async fn patch_open(w: World) -> Check {
    let (ada, moderator) = (w.cast("ada").await?, w.moderator().await?);
    let room = w.open_room().await?;
    let mut socket = w.connect(&ada).await?;
    let name = w.unique("Renamed");
    let body = json!({"name": name, "topic": "new", "emoji": "🌻"});
    let patched = w.patch(&moderator, &format!("/rooms/{room}"), &body).await?.ok(200)?;
    like(&patched, &body)?;
    let mut expected = json!({"type": "room", "room": {"id": room}});
    for field in ["name", "topic", "emoji"] {
        expected["room"][field] = body[field].clone();
    }
    socket.wait(&expected).await.map(|_| ())
}

async fn patch_open_forbidden(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.open_room().await?;
    for body in [json!({"topic": "mine"}), json!({"archived": true})] {
        w.patch(&ada, &format!("/rooms/{room}"), &body).await?.refused(403, "forbidden")?;
    }
    w.patch(&ada, "/rooms/1", &json!({"name": "Mine"})).await?.refused(403, "forbidden")
}

async fn patch_private(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let patched = w.patch(&ben, &format!("/rooms/{room}"), &json!({"topic": "ours"})).await?.ok(200)?;
    like(&patched, &json!({"topic": "ours"}))?;
    let shown = w.room(&ada, room).await?;
    like(&shown, &json!({"topic": "ours"}))
}

async fn direct_room(w: &World, one: &Person, other: &Person) -> Check<i64> {
    let answer = w.post(one, "/direct", &json!({"username": other.name})).await?;
    expect(answer.status == 200 || answer.status == 201, "status 200 or 201", &answer)?;
    int(&answer.json()?, "id")
}

async fn patch_direct(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = direct_room(&w, &ada, &ben).await?;
    for body in [json!({"topic": "ours"}), json!({"archived": true})] {
        w.patch(&ada, &format!("/rooms/{room}"), &body).await?.refused(403, "forbidden")?;
    }
    Ok(())
}

async fn patch_lobby_archive(w: World) -> Check {
    let moderator = w.moderator().await?;
    w.patch(&moderator, "/rooms/1", &json!({"archived": true})).await?.refused(403, "forbidden")
}

/// A private room of ada and ben with a message of ada's, archived.
async fn archived(w: &World) -> Check<(Person, Person, i64, i64)> {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let id = w.say(&ada, room, "the last word").await?;
    let shown = w.patch(&ada, &format!("/rooms/{room}"), &json!({"archived": true})).await?.ok(200)?;
    like(&shown, &json!({"archived": true}))?;
    Ok((ada, ben, room, id))
}

async fn archived_write(w: World) -> Check {
    let (ada, _, room, id) = archived(&w).await?;
    w.post(&ada, "/messages", &json!({"room": room, "content": "more"})).await?.refused(409, "archived")?;
    w.patch(&ada, &format!("/messages/{id}"), &json!({"content": "else"})).await?.refused(409, "archived")?;
    let mut socket = w.connect(&ada).await?;
    socket.refused(&json!({"type": "message", "room": room, "content": "more"}), "archived").await?;
    let react = json!({"type": "react", "message": id, "emoji": w.reaction(0).await?, "on": true});
    socket.refused(&react, "archived").await
}

async fn archived_rest(w: World) -> Check {
    let (ada, ben, room, id) = archived(&w).await?;
    let cy = w.cast("cy").await?;
    let mut socket = w.connect(&ben).await?;
    socket.send(&json!({"type": "read", "room": room, "id": id})).await?;
    socket.wait(&json!({"type": "read", "room": room, "id": id})).await?;
    w.put(&ada, &format!("/rooms/{room}/members/{}", cy.name)).await?.ok(204)?;
    w.delete(&ada, &format!("/rooms/{room}/members/{}", cy.name)).await?.ok(204)?;
    w.take_back(&ada, id).await?;
    let message = w.message(&ada, room, id).await?;
    expect(message.is_null(), "no such message", &message)
}

async fn archived_back(w: World) -> Check {
    let (ada, _, room, _) = archived(&w).await?;
    let shown = w.patch(&ada, &format!("/rooms/{room}"), &json!({"archived": false})).await?.ok(200)?;
    like(&shown, &json!({"archived": false}))?;
    w.say(&ada, room, "again").await.map(|_| ())
}

async fn archived_name(w: World) -> Check {
    let moderator = w.moderator().await?;
    let body = json!({"name": w.unique("Kept"), "kind": "open"});
    let room = int(&w.post(&moderator, "/rooms", &body).await?.ok(201)?, "id")?;
    w.patch(&moderator, &format!("/rooms/{room}"), &json!({"archived": true})).await?.ok(200)?;
    w.post(&moderator, "/rooms", &body).await?.refused(409, "name_taken")
}

async fn member_add(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let (mut of_ben, mut of_cy) = (w.connect(&ben).await?, w.connect(&cy).await?);
    w.put(&ben, &format!("/rooms/{room}/members/{}", cy.name)).await?.ok(204)?;
    let heard = json!({"type": "room", "room": {"id": room, "member_count": 3}});
    let (in_ben, in_cy) = (of_ben.wait(&heard).await?, of_cy.wait(&heard).await?);
    expect(in_ben["id"] == in_cy["id"], "one event for both", format!("{in_ben} and {in_cy}"))?;
    let members = list(&in_cy["room"], "members")?;
    expect(members.iter().any(|name| *name == cy.name.as_str()), "the new member", &in_cy)?;
    let id = w.say(&cy, room, "thank you").await?;
    one(&of_ben.until(id).await?, &json!({"type": "message", "id": id})).map(|_| ())
}

async fn no_event(w: &World, call: Call, who: &Person, room: i64) -> Check {
    let mut socket = w.connect(who).await?;
    w.ask(call).await?.ok(204)?;
    let id = w.say(who, 1, "after it").await?;
    let frames = socket.until(id).await?;
    none(&frames, &json!({"type": "room", "room": {"id": room}}))?;
    none(&frames, &json!({"type": "room_gone", "room": room}))
}

async fn member_add_again(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let call = Call::new("PUT", format!("/rooms/{room}/members/{}", ben.name)).by(&ada);
    no_event(&w, call, &ben, room).await
}

async fn member_remove(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    let (mut of_ben, mut of_cy) = (w.connect(&ben).await?, w.connect(&cy).await?);
    w.delete(&ada, &format!("/rooms/{room}/members/{}", cy.name)).await?.ok(204)?;
    let gone = of_cy.wait(&json!({"type": "room_gone", "room": room})).await?;
    let heard = of_ben.wait(&json!({"type": "room", "room": {"id": room, "member_count": 2}})).await?;
    expect(gone["id"] == heard["id"] && gone["id"].is_i64(), "one event for both", format!("{gone} and {heard}"))
}

async fn member_remove_again(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    let call = Call::new("DELETE", format!("/rooms/{room}/members/{}", ben.name)).by(&ada);
    no_event(&w, call, &ada, room).await
}

async fn member_leave(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    w.delete(&ben, &format!("/rooms/{room}/members/{}", ben.name)).await?.ok(204)?;
    let (left, kept) = (w.room(&ben, room).await?, w.room(&ada, room).await?);
    expect(left.is_null(), "no such room any more", &left)?;
    like(&kept, &json!({"member_count": 1}))
}

async fn member_open(w: World) -> Check {
    let (ada, moderator) = (w.cast("ada").await?, w.moderator().await?);
    let path = format!("/rooms/1/members/{}", ada.name);
    w.put(&moderator, &path).await?.refused(400, "invalid_request")?;
    w.delete(&moderator, &path).await?.refused(400, "invalid_request")
}

async fn member_direct(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = direct_room(&w, &ada, &ben).await?;
    w.put(&ada, &format!("/rooms/{room}/members/{}", cy.name)).await?.refused(403, "forbidden")?;
    w.delete(&ada, &format!("/rooms/{room}/members/{}", ben.name)).await?.refused(403, "forbidden")
}

async fn member_unknown(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let path = format!("/rooms/{room}/members/{}", w.unique("nobody"));
    w.put(&ada, &path).await?.refused(404, "not_found")
}

async fn member_disabled(w: World) -> Check {
    let (ada, zed, moderator) = (w.cast("ada").await?, w.account("zed").await?, w.moderator().await?);
    let room = w.private(&ada, &[]).await?;
    w.post(&moderator, &format!("/users/{}/ban", zed.name), &json!({"messages": false})).await?.ok(204)?;
    w.put(&ada, &format!("/rooms/{room}/members/{}", zed.name)).await?.refused(404, "not_found")
}

async fn removed(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    let before = w.say(&ada, room, "a secret hello").await?;
    let mut of_cy = [w.connect(&cy).await?, w.connect(&cy).await?];
    w.delete(&ada, &format!("/rooms/{room}/members/{}", cy.name)).await?.ok(204)?;
    let mut of_ben = w.connect(&ben).await?;
    of_ben.send(&json!({"type": "typing", "room": room})).await?;
    let said = of_ben.store(&json!({"type": "message", "room": room, "content": "without them"})).await?;
    let last = w.edit(&ada, before, "another secret hello").await?;
    for socket in &mut of_cy {
        let frames = socket.until(last).await?;
        let gone = int(one(&frames, &json!({"type": "room_gone", "room": room}))?, "id")?;
        let late = frames.iter().find(|frame| {
            let is_of_room = frame["room"] == room || frame["room"]["id"] == room;
            is_of_room && (frame["id"].as_i64().is_some_and(|id| id > gone) || frame["type"] == "typing")
        });
        expect(late.is_none(), format!("no frame of room {room} past {gone}"), format!("{late:?}"))?;
    }
    let frames = w.replay(&cy, before - 1).await?;
    for id in [before, said] {
        none(&frames, &json!({"type": "message", "id": id}))?;
    }
    let found = w.get(&cy, "/search?q=secret%20hello").await?.ok(200)?;
    none(list(&found, "messages")?, &json!({"room": room}))?;
    is_hidden(&w, &cy, room).await
}

async fn direct(w: World) -> Check {
    let (ada, zed) = (w.cast("ada").await?, w.account("zed").await?);
    let made = w.post(&zed, "/direct", &json!({"username": ada.name})).await?.ok(201)?;
    let mut members = [&ada.name, &zed.name];
    members.sort();
    like(&made, &json!({"kind": "direct", "name": null, "members": members}))?;
    for (one, other) in [(&zed, &ada), (&ada, &zed)] {
        let again = w.post(one, "/direct", &json!({"username": other.name})).await?.ok(200)?;
        expect(again["id"] == made["id"], format!("room {}", made["id"]), &again)?;
    }
    Ok(())
}

async fn direct_heard(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let zed = w.account("zed").await?;
    let (mut of_ada, mut of_zed, mut of_ben) = (w.connect(&ada).await?, w.connect(&zed).await?, w.connect(&ben).await?);
    let room = direct_room(&w, &zed, &ada).await?;
    let heard = json!({"type": "room", "room": {"id": room, "kind": "direct"}});
    let id = int(&of_ada.wait(&heard).await?, "id")?;
    of_zed.wait(&heard).await?;
    none(&of_ben.until(id).await?, &heard)
}

async fn direct_alone(w: World) -> Check {
    let zed = w.account("zed").await?;
    let made = w.post(&zed, "/direct", &json!({"username": zed.name})).await?.ok(201)?;
    like(&made, &json!({"kind": "direct", "members": [zed.name]}))?;
    let id = w.say(&zed, int(&made, "id")?, "a note").await?;
    let again = w.post(&zed, "/direct", &json!({"username": zed.name})).await?.ok(200)?;
    like(&again, &json!({"id": made["id"], "last": {"id": id}}))
}

async fn direct_unknown(w: World) -> Check {
    let body = json!({"username": w.unique("nobody")});
    w.post(&w.cast("ada").await?, "/direct", &body).await?.refused(404, "not_found")
}

async fn direct_rate(w: World) -> Check {
    let zed = w.account("zed").await?;
    for _ in 0..DIRECTS_AN_HOUR {
        let other = w.account("other").await?;
        w.post(&zed, "/direct", &json!({"username": other.name})).await?.ok(201)?;
    }
    let other = w.account("other").await?;
    let call = Call::new("POST", "/direct").by(&zed).json(&json!({"username": other.name})).once();
    let answer = w.ask(call).await?;
    answer.refused(429, "rate_limited")?;
    let wait = answer.header("retry-after");
    expect(wait.is_some(), "Retry-After", format!("{wait:?}"))
}

async fn judged_by_room(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (room, own) = (w.private(&ada, &[]).await?, w.private(&ben, &[]).await?);
    let id = w.say(&ada, room, "hers").await?;
    let body = json!({"content": "his", "room": own, "message": id});
    w.patch(&ben, &format!("/messages/{id}?room={own}"), &body).await?.refused(404, "not_found")?;
    let mut socket = w.connect(&ben).await?;
    socket.refused(&json!({"type": "delete", "message": id, "room": own}), "not_found").await?;
    let moderator = w.moderator().await?;
    w.delete(&moderator, &format!("/messages/{id}?room=1")).await?.refused(404, "not_found")?;
    let message = w.message(&ada, room, id).await?;
    expect(message["content"] == "hers", "the message, unchanged", &message)
}

async fn first_edition(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let mut socket = w.connect_with(&ben, &json!({})).await?;
    let mut of_ada = w.connect(&ada).await?;
    of_ada.send(&json!({"type": "typing", "room": room})).await?;
    let elsewhere = of_ada.store(&json!({"type": "message", "room": room, "content": "elsewhere"})).await?;
    let said = w.say(&ada, 1, "in the lobby").await?;
    let react = json!({"type": "react", "message": said, "emoji": w.reaction(0).await?, "on": true});
    of_ada.store(&react).await?;
    let edited = w.edit(&ada, said, "in the lobby, changed").await?;
    w.patch(&ada, &format!("/rooms/{room}"), &json!({"topic": "changed"})).await?.ok(200)?;
    socket.send(&json!({"type": "read", "room": 1, "id": said})).await?;
    let deleted = w.take_back(&ada, said).await?;
    let frames = socket.through(&json!({"type": "delete", "id": deleted})).await?;
    one(&frames, &json!({"type": "message", "id": said}))?;
    one(&frames, &json!({"type": "edit", "id": edited}))?;
    none(&frames, &json!({"id": elsewhere}))?;
    for kind in ["react", "room", "room_gone", "read"] {
        none(&frames, &json!({"type": kind}))?;
    }
    none(&frames, &json!({"type": "typing", "username": ada.name}))
}

async fn first_edition_send(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let mut socket = w.connect_with(&ada, &json!({})).await?;
    let id = socket.store(&json!({"type": "message", "room": room, "content": "to the room"})).await?;
    let message = w.message(&ben, room, id).await?;
    let is_there = is_like(&message, &json!({"content": "to the room", "room": room}));
    expect(is_there && text(&message, "username")? == ada.name, "the message in its room", &message)
}
