//! Registering and logging in, and who may do what.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, int, text};
use crate::suite::http::Call;
use crate::suite::world::{PASSWORD, World};
use crate::suite::{Row, table};

pub(crate) const ROWS: &[Row] = table! {
    "register", "POST /register is 201 {\"username\"}" => register;
    "register-json", "a body that is not the object asked for is 400 invalid_json" => register_json;
    "username-rules", "a username that breaks the rules is 422 invalid_username" => username_rules;
    "username-all", "`all`, in any case, cannot be registered" => username_all;
    "password-rules", "under 8 or over 256 characters are 422 invalid_password" => password_rules;
    "username-taken", "usernames are unique without regard to case: 409 username_taken" => username_taken;
    "invalid-invite", "an invitation that is none is 403 invalid_invite" => invalid_invite;
    "registration-closed", "without an invitation, where one is needed, 403 registration_closed" => registration_closed;
    "login", "POST /login is 200 with token, username and expires_at in milliseconds" => login;
    "invalid-credentials", "a wrong name and a wrong password get the same 401 invalid_credentials" => invalid_credentials;
    "logout", "POST /logout is 204; the token is dead at once" => logout;
    "logout-socket", "a logout closes the session's sockets with 1008" => logout_socket;
    "logout-other", "a logout leaves other sessions alone" => logout_other;
    "unauthorized", "without a session, or with a dead one, 401 unauthorized on every route that needs one" => unauthorized;
    "first-moderator", "the first account is a moderator, and later ones are not" => first_moderator;
    "about", "GET /about needs no session and has all its fields" => about;
};

async fn register(w: World) -> Check {
    let name = w.unique("Reg.x_y");
    let answer = w.register(&name).await?.ok(201)?;
    expect(answer["username"] == name.as_str(), format!("username {name}"), &answer)
}

async fn register_json(w: World) -> Check {
    let bodies = ["", "nothing", "[]", "{\"username\":\"x\"}", "{\"username\":1,\"password\":\"correct horse\"}"];
    for body in bodies {
        let answer = w.ask(Call::new("POST", "/register").body("application/json", body)).await?;
        answer.refused(400, "invalid_json")?;
    }
    Ok(())
}

async fn username_rules(w: World) -> Check {
    for name in ["", ".dot", "-dash", "_line", "two words", "ünal", "a/b", &"x".repeat(33)] {
        w.register(name).await?.refused(422, "invalid_username")?;
    }
    let longest = format!("{:x<32}", w.unique("x"));
    w.register(&longest).await?.ok(201).map(|_| ())
}

async fn username_all(w: World) -> Check {
    for name in ["all", "ALL", "All"] {
        w.register(name).await?.refused(422, "invalid_username")?;
    }
    Ok(())
}

async fn password_rules(w: World) -> Check {
    for password in ["", "1234567", &"x".repeat(257)] {
        let account = json!({"username": w.unique("x"), "password": password});
        w.register_as(account).await?.refused(422, "invalid_password")?;
    }
    // Characters are counted, not bytes.
    let account = json!({"username": w.unique("x"), "password": "ü".repeat(256)});
    w.register_as(account).await?.ok(201).map(|_| ())
}

async fn username_taken(w: World) -> Check {
    let name = w.cast("ada").await?.name;
    for name in [name.clone(), name.to_uppercase()] {
        w.register(&name).await?.refused(409, "username_taken")?;
    }
    Ok(())
}

async fn invalid_invite(w: World) -> Check {
    w.needs_invitations().await?;
    let account = json!({"username": w.unique("x"), "password": PASSWORD, "invite": "no-such-invitation"});
    w.ask(Call::new("POST", "/register").json(&account)).await?.refused(403, "invalid_invite")
}

async fn registration_closed(w: World) -> Check {
    w.needs_invitations().await?;
    let account = json!({"username": w.unique("x"), "password": PASSWORD});
    w.ask(Call::new("POST", "/register").json(&account)).await?.refused(403, "registration_closed")
}

async fn login(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let account = json!({"username": ada.name, "password": ada.password});
    let answer = w.ask(Call::new("POST", "/login").json(&account)).await?.ok(200)?;
    expect(answer["username"] == ada.name.as_str(), format!("username {}", ada.name), &answer)?;
    expect(text(&answer, "token")?.len() >= 16, "a token", &answer)?;
    // A moment that is in milliseconds: seconds would be in 1970.
    expect(int(&answer, "expires_at")? > 1_600_000_000_000, "milliseconds", &answer)
}

async fn invalid_credentials(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let try_as = |name: &str| {
        w.ask(Call::new("POST", "/login").json(&json!({"username": name, "password": "not the password"})))
    };
    let wrong_password = try_as(&ada.name).await?;
    wrong_password.refused(401, "invalid_credentials")?;
    let wrong_name = try_as(&w.unique("nobody")).await?;
    wrong_name.refused(401, "invalid_credentials")?;
    expect(wrong_name.body == wrong_password.body, format!("the same answer, {wrong_password}"), &wrong_name)
}

async fn logout(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let session = w.login(&ada.name, &ada.password).await?;
    w.ask(Call::new("POST", "/logout").by(&session)).await?.ok(204)?;
    w.get(&session, "/messages").await?.refused(401, "unauthorized")?;
    w.ask(Call::new("POST", "/logout").by(&session)).await?.refused(401, "unauthorized")
}

async fn logout_socket(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let session = w.login(&ada.name, &ada.password).await?;
    let mut socket = w.connect(&session).await?;
    w.ask(Call::new("POST", "/logout").by(&session)).await?.ok(204)?;
    socket.closes_with(1008).await
}

async fn logout_other(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let session = w.login(&ada.name, &ada.password).await?;
    let mut socket = w.connect(&ada).await?;
    w.ask(Call::new("POST", "/logout").by(&session)).await?.ok(204)?;
    w.get(&ada, "/messages").await?.ok(200)?;
    socket.settle().await.map(|_| ())
}

async fn unauthorized(w: World) -> Check {
    let routes = [
        ("POST", "/logout"),
        ("GET", "/messages"),
        ("POST", "/messages"),
        ("GET", "/rooms"),
        ("POST", "/rooms"),
        ("POST", "/direct"),
        ("PATCH", "/rooms/1"),
        ("PUT", "/rooms/1/members/x"),
        ("DELETE", "/rooms/1/members/x"),
        ("PATCH", "/messages/1"),
        ("DELETE", "/messages/1"),
        ("GET", "/search?q=x"),
        ("GET", "/users"),
        ("POST", "/password"),
        ("GET", "/sessions"),
        ("DELETE", "/sessions/1"),
        ("DELETE", "/sessions"),
        ("DELETE", "/account"),
        ("GET", "/export"),
        ("POST", "/invites"),
        ("GET", "/invites"),
        ("DELETE", "/invites/1"),
        ("POST", "/users/x/ban"),
        ("POST", "/users/x/unban"),
        ("GET", "/images/1"),
    ];
    for (method, path) in routes {
        let body = Value::Object(serde_json::Map::new());
        let call = if method == "GET" { Call::new(method, path) } else { Call::new(method, path).json(&body) };
        w.ask(call.clone()).await?.refused(401, "unauthorized")?;
        w.ask(call.header("Authorization", "Bearer never-a-token")).await?.refused(401, "unauthorized")?;
    }
    Ok(())
}

async fn first_moderator(w: World) -> Check {
    let (first, later) = (w.moderator().await?, w.cast("ada").await?);
    for (person, is_moderator) in [(first, true), (later, false)] {
        let socket = w.connect(&person).await?;
        let expected = format!("moderator {is_moderator} for {}", person.name);
        expect(socket.welcome["moderator"] == is_moderator, expected, &socket.welcome)?;
    }
    Ok(())
}

async fn about(w: World) -> Check {
    let about = w.about().await?;
    text(&about, "name")?;
    text(&about, "version")?;
    text(&about, "registration")?;
    expect(about["new"] == false, "\"new\":false, since there is an account", &about)?;
    expect(about["push"].is_boolean() && about["limits"].is_object(), "push and limits", &about)?;
    let reactions =
        about["reactions"].as_array().is_some_and(|set| set.iter().all(Value::is_string) && !set.is_empty());
    expect(reactions, "a set of reactions", &about)
}
