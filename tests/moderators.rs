//! Moderators: one is always left, and none shuts out another. What one may do is in the conformance suite; here is what
//! takes several of them, whom an operator makes.

mod common;

use common::{Client, PASSWORD, Request, TestServer, chinwag};
use serde_json::json;

/// Somebody whom the operator has made a moderator.
async fn moderator(server: &TestServer, name: &str) -> Client {
    let client = Client::register(server, name).await;
    set_role(server, name, "moderator");
    client
}

fn set_role(server: &TestServer, name: &str, role: &str) {
    chinwag(&server.database_path(), &["user", "role", name, role]).ok();
}

/// The end of somebody's account, by their own hand.
fn end_of(server: &TestServer, client: &Client) -> Request {
    let body = json!({"password": PASSWORD, "messages": false});
    server.request("DELETE", "/account").by(client).json(&body)
}

/// A ban of `name`, by `client`.
fn ban(server: &TestServer, client: &Client, name: &str) -> Request {
    server.post(&format!("/users/{name}/ban")).by(client).json(&json!({"messages": false}))
}

fn forbidden() -> (u16, String) {
    (403, "forbidden".to_owned())
}

#[tokio::test]
async fn of_two_moderators_one_can_go_and_the_last_one_cannot() {
    let server = TestServer::start();
    // The first person is a moderator.
    let (ada, bob) = (Client::register(&server, "ada").await, moderator(&server, "bob").await);
    assert_eq!(end_of(&server, &bob).send().await.status, 204);
    assert_eq!(end_of(&server, &ada).send().await.error(), forbidden());
    ada.page("limit=1").await;
    moderator(&server, "carol").await;
    assert_eq!(end_of(&server, &ada).send().await.status, 204);
}

#[tokio::test]
async fn of_two_moderators_who_go_at_once_one_stays() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, moderator(&server, "bob").await);
    let (one, other) = tokio::join!(end_of(&server, &ada).send(), end_of(&server, &bob).send());
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 403]);
    assert_eq!(server.number("SELECT count(*) FROM users WHERE is_moderator = 1 AND disabled_at IS NULL"), 1);
}

#[tokio::test]
async fn a_moderator_who_is_shut_out_is_none_who_is_left() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    moderator(&server, "bob").await;
    chinwag(&server.database_path(), &["user", "disable", "bob"]).ok();
    assert_eq!(end_of(&server, &ada).send().await.error(), forbidden());
    chinwag(&server.database_path(), &["user", "enable", "bob"]).ok();
    assert_eq!(end_of(&server, &ada).send().await.status, 204);
}

#[tokio::test]
async fn a_moderator_is_not_banned_by_another_until_they_are_none() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, moderator(&server, "bob").await);
    let mut connection = bob.connect().await;
    assert_eq!(ban(&server, &ada, "bob").send().await.error(), forbidden());
    connection.store("n", "still here").await;
    set_role(&server, "bob", "member");
    assert_eq!(ban(&server, &bob, "ada").send().await.error(), forbidden(), "what was a moderator bans nobody");
    assert_eq!(ban(&server, &ada, "bob").send().await.status, 204);
    assert_eq!(connection.close_code().await, 1008);
}

#[tokio::test]
async fn a_bot_is_no_moderator() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    chinwag(&server.database_path(), &["bot", "add", "builder"]).ok();
    let refused = chinwag(&server.database_path(), &["user", "role", "builder", "moderator"]).failed();
    assert!(refused.contains("this is a bot"), "{refused}");
}

#[tokio::test]
async fn a_role_counts_from_the_next_request_on() {
    let server = TestServer::start();
    let (_ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let invite = async || server.post("/invites").by(&bob).json(&json!({})).send().await.status;
    assert_eq!(invite().await, 403);
    set_role(&server, "bob", "moderator");
    assert_eq!(invite().await, 201);
    set_role(&server, "bob", "member");
    assert_eq!(invite().await, 403);
}
