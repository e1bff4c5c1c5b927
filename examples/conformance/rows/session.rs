//! One's own account, invitations, and people who look after the place.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, int, is_like, list, none, not_offered, one, text};
use crate::suite::http::Call;
use crate::suite::world::{PASSWORD, Person, World};
use crate::suite::{Row, table};

pub(crate) const ROWS: &[Row] = table! {
    "password", "POST /password is 204; the old password is none any more" => password;
    "password-sessions", "a new password ends every other session, and not this one" => password_sessions;
    "password-wrong", "a wrong password is 401 invalid_credentials, a bad new one 422 invalid_password" => password_wrong;
    "sessions", "GET /sessions lists one's sessions, the current one marked" => sessions;
    "session-end", "DELETE /sessions/ID ends that session and closes its sockets with 1008" => session_end;
    "session-end-current", "of the current session it is a logout" => session_end_current;
    "sessions-end", "DELETE /sessions ends all but this one" => sessions_end;
    "session-foreign", "somebody else's session is not_found" => session_foreign;
    "account-delete", "DELETE /account is 204: session and login are dead, messages stay if not told otherwise" => account_delete;
    "account-delete-messages", "with messages, each goes by a delete event" => account_delete_messages;
    "account-delete-wrong", "a wrong password is 401 invalid_credentials" => account_delete_wrong;
    "account-delete-direct", "of a direct room the other reads on, and it is archived" => account_delete_direct;
    "account-delete-private", "private rooms are left" => account_delete_private;
    "account-last-moderator", "the last moderator cannot: forbidden" => account_last_moderator;
    "export", "GET /export is one's own messages wherever they are, a JSON object a line, and nothing of others" => export;
    "invite-create", "POST /invites is 201 with id, code and url; by default for one use" => invite_create;
    "invite-list", "GET /invites lists what is left, by whom and who came, and never the code" => invite_list;
    "invite-uses", "an invitation lets in as many as it says: then 403 invalid_invite" => invite_uses;
    "invite-delete", "DELETE /invites/ID is 204, and the code is none any more" => invite_delete;
    "invite-forbidden", "who may not invite is forbidden" => invite_forbidden;
    "invite-foreign", "somebody else's invitation is not_found, or forbidden to somebody who may not invite" => invite_foreign;
    "ban", "a ban is 204: sessions end with 1008, and the login is refused" => ban;
    "ban-messages", "with messages, each goes by a delete event" => ban_messages;
    "ban-forbidden", "only a moderator bans, and not a moderator: forbidden" => ban_forbidden;
    "unban", "after an unban, 204, the login works again" => unban;
    "bot-message", "a bot posts, and its messages say `bot`" => bot_message;
    "bot-absent", "a bot is not counted as present" => bot_absent;
    "bot-forbidden", "account routes are forbidden to a bot" => bot_forbidden;
};

async fn password(w: World) -> Check {
    let zed = w.account("zed").await?;
    change_password(&w, &zed, PASSWORD, "another password").await?.ok(204)?;
    let old = json!({"username": zed.name, "password": PASSWORD});
    w.ask(Call::new("POST", "/login").json(&old)).await?.refused(401, "invalid_credentials")?;
    w.login(&zed.name, "another password").await.map(|_| ())
}

async fn change_password(w: &World, who: &Person, old: &str, new: &str) -> Check<crate::suite::http::Answer> {
    w.post(who, "/password", &json!({"password": old, "new_password": new})).await
}

async fn password_sessions(w: World) -> Check {
    let zed = w.account("zed").await?;
    let other = w.login(&zed.name, PASSWORD).await?;
    let mut socket = w.connect(&other).await?;
    change_password(&w, &zed, PASSWORD, "another password").await?.ok(204)?;
    socket.closes_with(1008).await?;
    w.get(&other, "/rooms").await?.refused(401, "unauthorized")?;
    w.get(&zed, "/rooms").await?.ok(200).map(|_| ())
}

async fn password_wrong(w: World) -> Check {
    let zed = w.account("zed").await?;
    change_password(&w, &zed, "not the password", "another password").await?.refused(401, "invalid_credentials")?;
    change_password(&w, &zed, PASSWORD, "short").await?.refused(422, "invalid_password")?;
    w.login(&zed.name, PASSWORD).await.map(|_| ())
}

async fn sessions_of(w: &World, who: &Person) -> Check<Vec<Value>> {
    let sessions = w.get(who, "/sessions").await?.ok(200)?;
    Ok(list(&sessions, "sessions")?.to_vec())
}

async fn sessions(w: World) -> Check {
    let zed = w.account("zed").await?;
    w.login(&zed.name, PASSWORD).await?;
    let sessions = sessions_of(&w, &zed).await?;
    expect(sessions.len() == 2, "two sessions", Value::from(sessions.clone()))?;
    for session in &sessions {
        int(session, "id")?;
        int(session, "created_at")?;
        int(session, "last_used_at")?;
        text(session, "client")?;
    }
    let current = sessions.iter().filter(|session| session["current"] == true).count();
    expect(current == 1, "one current session", Value::from(sessions))
}

async fn session_end(w: World) -> Check {
    let zed = w.account("zed").await?;
    let other = w.login(&zed.name, PASSWORD).await?;
    let mut socket = w.connect(&other).await?;
    let sessions = sessions_of(&w, &zed).await?;
    let id = int(one(&sessions, &json!({"current": false}))?, "id")?;
    w.delete(&zed, &format!("/sessions/{id}")).await?.ok(204)?;
    socket.closes_with(1008).await?;
    w.get(&other, "/rooms").await?.refused(401, "unauthorized")?;
    w.get(&zed, "/rooms").await?.ok(200).map(|_| ())
}

async fn session_end_current(w: World) -> Check {
    let zed = w.account("zed").await?;
    let sessions = sessions_of(&w, &zed).await?;
    let id = int(one(&sessions, &json!({"current": true}))?, "id")?;
    w.delete(&zed, &format!("/sessions/{id}")).await?.ok(204)?;
    w.get(&zed, "/rooms").await?.refused(401, "unauthorized")
}

async fn sessions_end(w: World) -> Check {
    let zed = w.account("zed").await?;
    let other = w.login(&zed.name, PASSWORD).await?;
    w.delete(&zed, "/sessions").await?.ok(204)?;
    w.get(&other, "/rooms").await?.refused(401, "unauthorized")?;
    w.get(&zed, "/rooms").await?.ok(200).map(|_| ())
}

async fn session_foreign(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let sessions = sessions_of(&w, &ada).await?;
    let id = int(one(&sessions, &json!({"current": true}))?, "id")?;
    w.delete(&ben, &format!("/sessions/{id}")).await?.refused(404, "not_found")?;
    w.get(&ada, "/rooms").await?.ok(200).map(|_| ())
}

async fn delete_account(w: &World, who: &Person, messages: bool) -> Check {
    let body = json!({"password": PASSWORD, "messages": messages});
    w.ask(Call::new("DELETE", "/account").by(who).json(&body)).await?.ok(204).map(|_| ())
}

async fn account_delete(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let id = w.say(&zed, 1, "I was here").await?;
    delete_account(&w, &zed, false).await?;
    w.get(&zed, "/rooms").await?.refused(401, "unauthorized")?;
    let account = json!({"username": zed.name, "password": PASSWORD});
    w.ask(Call::new("POST", "/login").json(&account)).await?.refused(401, "invalid_credentials")?;
    let message = w.message(&ada, 1, id).await?;
    expect(message["content"] == "I was here", "the message, still there", &message)
}

async fn account_delete_messages(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let ids = [w.say(&zed, 1, "one").await?, w.say(&zed, 1, "two").await?];
    let mut socket = w.connect(&ada).await?;
    delete_account(&w, &zed, true).await?;
    for id in ids {
        socket.wait(&json!({"type": "delete", "room": 1, "message": id})).await?;
        let message = w.message(&ada, 1, id).await?;
        expect(message.is_null(), "no such message in a page", &message)?;
    }
    Ok(())
}

async fn account_delete_wrong(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let body = json!({"password": "not the password", "messages": false});
    let call = Call::new("DELETE", "/account").by(&ada).json(&body);
    w.ask(call).await?.refused(401, "invalid_credentials")?;
    w.get(&ada, "/rooms").await?.ok(200).map(|_| ())
}

async fn account_delete_direct(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let room = int(&w.post(&zed, "/direct", &json!({"username": ada.name})).await?.ok(201)?, "id")?;
    let id = w.say(&zed, room, "goodbye").await?;
    delete_account(&w, &zed, false).await?;
    let message = w.message(&ada, room, id).await?;
    expect(message["content"] == "goodbye", "the message, still there", &message)?;
    let shown = w.room(&ada, room).await?;
    expect(shown["archived"] == true, "an archived room", &shown)?;
    let answer = w.post(&ada, "/messages", &json!({"room": room, "content": "are you there?"})).await?;
    answer.refused(409, "archived")
}

async fn account_delete_private(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let room = w.private(&ada, &[&zed]).await?;
    delete_account(&w, &zed, false).await?;
    let shown = w.room(&ada, room).await?;
    expect(shown["members"] == json!([ada.name]), format!("only {} left", ada.name), &shown)
}

async fn account_last_moderator(w: World) -> Check {
    if w.options().moderator.is_some() {
        return not_offered("this moderator may not be the only one");
    }
    let moderator = w.moderator().await?;
    let body = json!({"password": PASSWORD, "messages": false});
    w.ask(Call::new("DELETE", "/account").by(&moderator).json(&body)).await?.refused(403, "forbidden")?;
    w.get(&moderator, "/rooms").await?.ok(200).map(|_| ())
}

async fn export(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let room = w.private(&zed, &[&ada]).await?;
    let in_lobby = w.say(&zed, 1, "in the lobby").await?;
    let in_room = w.say(&zed, room, "in the room").await?;
    let gone = w.say(&zed, room, "taken back").await?;
    w.take_back(&zed, gone).await?;
    w.say(&ada, room, "somebody else's").await?;
    let answer = w.get(&zed, "/export").await?;
    expect(answer.status == 200, "status 200", &answer)?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines: Option<Vec<Value>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let lines = Value::from(lines.unwrap_or_default());
    let expected = json!([
        {"id": in_lobby, "room": 1, "content": "in the lobby"},
        {"id": in_room, "room": room, "content": "in the room"}
    ]);
    expect(is_like(&lines, &expected), format!("the lines {expected}"), text)?;
    int(&lines[0], "created_at").map(|_| ())
}

async fn invite(w: &World, body: &Value) -> Check<(i64, String)> {
    let made = w.post(&w.moderator().await?, "/invites", body).await?.ok(201)?;
    let code = text(&made, "code")?.to_owned();
    expect(text(&made, "url")?.contains(&code), "a url with the code", &made)?;
    Ok((int(&made, "id")?, code))
}

async fn invite_shown(w: &World, id: i64) -> Check<Value> {
    let invites = w.get(&w.moderator().await?, "/invites").await?.ok(200)?;
    let found = list(&invites, "invites")?.iter().find(|invite| invite["id"] == id);
    Ok(found.cloned().unwrap_or_default())
}

async fn come(w: &World, code: &str) -> Check<(String, crate::suite::http::Answer)> {
    let name = w.unique("guest");
    let account = json!({"username": name, "password": PASSWORD, "invite": code});
    let answer = w.ask(Call::new("POST", "/register").json(&account)).await?;
    Ok((name, answer))
}

async fn invite_create(w: World) -> Check {
    let (id, _) = invite(&w, &json!({})).await?;
    let shown = invite_shown(&w, id).await?;
    expect(shown["uses"] == 1 && shown["left"] == 1, "one use", &shown)?;
    let seven_days = 7 * 24 * 3_600_000;
    let lasts = int(&shown, "expires_at")? - int(&shown, "created_at")?;
    expect((lasts - seven_days).abs() < 1_000, format!("{seven_days} ms, which are seven days"), lasts)
}

async fn invite_list(w: World) -> Check {
    w.needs_invitations().await?;
    let (id, code) = invite(&w, &json!({"uses": 3, "expires_in": 3_600_000})).await?;
    let (name, answer) = come(&w, &code).await?;
    answer.ok(201)?;
    let shown = invite_shown(&w, id).await?;
    let by = w.moderator().await?.name;
    let expected = json!({"uses": 3, "left": 2, "created_by": by, "users": [name]});
    expect(is_like(&shown, &expected), expected.to_string(), &shown)?;
    expect(!shown.to_string().contains(&code), "no code", &shown)
}

async fn invite_uses(w: World) -> Check {
    w.needs_invitations().await?;
    let (_, code) = invite(&w, &json!({"uses": 2, "expires_in": 3_600_000})).await?;
    for _ in 0..2 {
        come(&w, &code).await?.1.ok(201)?;
    }
    come(&w, &code).await?.1.refused(403, "invalid_invite")
}

async fn invite_delete(w: World) -> Check {
    w.needs_invitations().await?;
    let (id, code) = invite(&w, &json!({"uses": 2, "expires_in": 3_600_000})).await?;
    w.delete(&w.moderator().await?, &format!("/invites/{id}")).await?.ok(204)?;
    come(&w, &code).await?.1.refused(403, "invalid_invite")
}

async fn invite_forbidden(w: World) -> Check {
    let answer = w.post(&w.cast("ada").await?, "/invites", &json!({})).await?;
    if answer.status == 201 {
        return not_offered("everyone may invite here");
    }
    answer.refused(403, "forbidden")
}

async fn invite_foreign(w: World) -> Check {
    let (ada, (id, code)) = (w.cast("ada").await?, invite(&w, &json!({})).await?);
    let answer = w.delete(&ada, &format!("/invites/{id}")).await?;
    let may_invite = w.post(&ada, "/invites", &json!({})).await?.status == 201;
    let either = [(404, "not_found"), (403, "forbidden")];
    answer.is_error(if may_invite { &either[..1] } else { &either })?;
    come(&w, &code).await?.1.ok(201).map(|_| ())
}

async fn ban_person(w: &World, who: &Person, messages: bool) -> Check {
    let moderator = w.moderator().await?;
    let body = json!({"messages": messages});
    w.post(&moderator, &format!("/users/{}/ban", who.name), &body).await?.ok(204).map(|_| ())
}

async fn ban(w: World) -> Check {
    let zed = w.account("zed").await?;
    let id = w.say(&zed, 1, "what I said").await?;
    let mut socket = w.connect(&zed).await?;
    ban_person(&w, &zed, false).await?;
    socket.closes_with(1008).await?;
    w.get(&zed, "/rooms").await?.refused(401, "unauthorized")?;
    let account = json!({"username": zed.name, "password": PASSWORD});
    w.ask(Call::new("POST", "/login").json(&account)).await?.refused(401, "invalid_credentials")?;
    let message = w.message(&w.cast("ada").await?, 1, id).await?;
    expect(message["content"] == "what I said", "the message, still there", &message)
}

async fn ban_messages(w: World) -> Check {
    let (zed, ada) = (w.account("zed").await?, w.cast("ada").await?);
    let id = w.say(&zed, 1, "spam").await?;
    let mut socket = w.connect(&ada).await?;
    ban_person(&w, &zed, true).await?;
    socket.wait(&json!({"type": "delete", "room": 1, "message": id})).await?;
    let message = w.message(&ada, 1, id).await?;
    expect(message.is_null(), "no such message in a page", &message)
}

async fn ban_forbidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let body = json!({"messages": false});
    w.post(&ada, &format!("/users/{}/ban", ben.name), &body).await?.refused(403, "forbidden")?;
    w.post(&ada, &format!("/users/{}/unban", ben.name), &body).await?.refused(403, "forbidden")?;
    let moderator = w.moderator().await?;
    w.post(&moderator, &format!("/users/{}/ban", moderator.name), &body).await?.refused(403, "forbidden")?;
    w.get(&ben, "/rooms").await?.ok(200).map(|_| ())
}

async fn unban(w: World) -> Check {
    let zed = w.account("zed").await?;
    ban_person(&w, &zed, false).await?;
    let moderator = w.moderator().await?;
    w.ask(Call::new("POST", format!("/users/{}/unban", zed.name)).by(&moderator)).await?.ok(204)?;
    w.login(&zed.name, PASSWORD).await.map(|_| ())
}

fn bot(w: &World) -> Check<Person> {
    match &w.options().bot {
        Some(token) => Ok(Person { name: "the bot".into(), password: String::new(), token: token.clone() }),
        None => not_offered("needs --bot TOKEN"),
    }
}

async fn bot_message(w: World) -> Check {
    let (bot, ada) = (bot(&w)?, w.cast("ada").await?);
    let mut socket = w.connect(&ada).await?;
    let id = w.say(&bot, 1, "beep").await?;
    let frames = socket.until(id).await?;
    one(&frames, &json!({"type": "message", "id": id, "bot": true}))?;
    let id = w.say(&ada, 1, "no beep").await?;
    none(&socket.until(id).await?, &json!({"type": "message", "id": id, "bot": true}))
}

async fn bot_absent(w: World) -> Check {
    let (bot, ada) = (bot(&w)?, w.cast("ada").await?);
    let mut socket = w.connect(&ada).await?;
    let of_bot = w.connect(&bot).await?;
    let name = text(&of_bot.welcome, "username")?;
    let listed = list(&of_bot.welcome, "users")?.iter().any(|user| user == name);
    expect(!listed, "no bot among those present", &of_bot.welcome)?;
    none(&socket.settle().await?, &json!({"type": "user_join", "username": name}))
}

async fn bot_forbidden(w: World) -> Check {
    let bot = bot(&w)?;
    for path in ["/sessions", "/export", "/invites"] {
        w.get(&bot, path).await?.refused(403, "forbidden")?;
    }
    let body = json!({"password": PASSWORD, "new_password": PASSWORD});
    w.post(&bot, "/password", &body).await?.refused(403, "forbidden")
}
