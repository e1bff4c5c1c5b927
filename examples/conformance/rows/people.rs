//! Who is here.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, like, list};
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

pub(crate) const ROWS: &[Row] = table! {
    "users", "GET /users has username, bot, moderator, online and last_seen of each" => users;
    "users-sorted", "sorted, up to 200" => users_sorted;
    "users-prefix", "prefix narrows it, without regard to case" => users_prefix;
    "users-online", "online says who is connected" => users_online;
    "users-disabled", "without deleted and disabled ones" => users_disabled;
};

async fn found(w: &World, prefix: &str) -> Check<Vec<Value>> {
    let users = w.get(&w.cast("ada").await?, &format!("/users?prefix={prefix}")).await?.ok(200)?;
    Ok(list(&users, "users")?.to_vec())
}

async fn the(w: &World, person: &Person) -> Check<Value> {
    let users = found(w, &person.name).await?;
    Ok(users.into_iter().find(|user| user["username"] == person.name.as_str()).unwrap_or_default())
}

async fn users(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let shown = the(&w, &ada).await?;
    like(&shown, &json!({"username": ada.name, "bot": false, "moderator": false}))?;
    let is_whole =
        shown["online"].is_boolean() && shown.get("last_seen").is_some_and(|seen| seen.is_null() || seen.is_i64());
    expect(is_whole, "online and last_seen", &shown)?;
    let moderator = the(&w, &w.moderator().await?).await?;
    like(&moderator, &json!({"moderator": true}))
}

async fn users_sorted(w: World) -> Check {
    w.pair().await?;
    let users = found(&w, "").await?;
    let names: Vec<_> = users.iter().filter_map(|user| user["username"].as_str().map(str::to_lowercase)).collect();
    expect(names.len() >= 3 && names.len() <= 200 && names.is_sorted(), "names in order", format!("{names:?}"))
}

async fn users_prefix(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let users = Value::from(found(&w, &ada.name.to_uppercase()).await?).to_string();
    expect(users.contains(&ada.name) && !users.contains(&ben.name), format!("only {}", ada.name), users)
}

async fn users_online(w: World) -> Check {
    let zed = w.account("zed").await?;
    like(&the(&w, &zed).await?, &json!({"online": false}))?;
    let _socket = w.connect(&zed).await?;
    like(&the(&w, &zed).await?, &json!({"online": true}))
}

async fn users_disabled(w: World) -> Check {
    let zed = w.account("zed").await?;
    expect(!the(&w, &zed).await?.is_null(), "listed before", "nobody")?;
    let moderator = w.moderator().await?;
    w.post(&moderator, &format!("/users/{}/ban", zed.name), &json!({"messages": false})).await?.ok(204)?;
    let shown = the(&w, &zed).await?;
    expect(shown.is_null(), "not listed", &shown)
}
