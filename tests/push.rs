//! Web Push, with a push service of our own: `cargo test --features push-test --test push`. The feature lets the server
//! push to this machine, and has it wait a tenth of the time.

mod common;
#[expect(dead_code, reason = "the unit tests use more of it")]
#[path = "common/push_service.rs"]
mod push_service;

use std::time::Duration;

use common::{Client, PASSWORD, Request, Response, TestServer, chinwag, int, metric, text, wait_while};
use push_service::{Answer, Browser, HOST, Push, PushService};
use serde_json::{Value, json};

/// What a server needs to push.
const PUSHES: [&str; 4] = ["--push-contact", "mailto:me@chat.example", "--push-host", HOST];

/// A server, the push service it pushes to, and the browser that is behind every subscription.
struct Setting {
    service: PushService,
    server: TestServer,
    browser: Browser,
    /// The value of the variable that leads the server to the service.
    variable: String,
}

impl Setting {
    fn new() -> Setting {
        Setting::with(&[&PUSHES[..], &["--metrics-listen", "127.0.0.1:0"]].concat())
    }

    fn with(flags: &[&str]) -> Setting {
        Setting::with_environment(flags, &[])
    }

    fn with_environment(flags: &[&str], variables: &[(&str, &str)]) -> Setting {
        let service = PushService::start();
        let variable = format!("{}:{}", service.port(), service.directory().display());
        let variables = [variables, &[("CHINWAG_PUSH_TEST", variable.as_str())]].concat();
        let server = TestServer::with_environment(flags, &variables);
        Setting { service, server, browser: Browser::of_rfc_8291(), variable }
    }

    fn subscription(&self, name: &str) -> Value {
        let keys = json!({"p256dh": self.browser.p256dh(), "auth": self.browser.auth()});
        json!({"endpoint": PushService::endpoint(name), "keys": keys, "what": "all"})
    }

    /// `PUT /push` of the subscription `name`, with other fields.
    async fn put(&self, client: &Client, name: &str, more: Value) -> Response {
        let mut body = self.subscription(name);
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.server.request("PUT", "/push").by(client).json(&body).send().await
    }

    async fn subscribe(&self, client: &Client, name: &str) {
        self.subscribe_with(client, name, json!({})).await;
    }

    async fn subscribe_with(&self, client: &Client, name: &str, more: Value) {
        let response = self.put(client, name, more).await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// Says something, and returns its id.
    async fn say(&self, client: &Client, room: i64, content: &str) -> i64 {
        let body = json!({"content": content, "room": room});
        let response = self.server.post("/messages").by(client).json(&body).send().await;
        assert_eq!(response.status, 201, "{response:?}");
        int(&response.json()["id"])
    }

    /// Makes a room with `members`, and returns its id.
    async fn room(&self, client: &Client, name: &str, members: &[&str]) -> i64 {
        let body = json!({"name": name, "kind": "private", "members": members});
        let response = self.server.post("/rooms").by(client).json(&body).send().await;
        assert_eq!(response.status, 201, "{response:?}");
        int(&response.json()["id"])
    }

    async fn direct(&self, client: &Client, username: &str) -> i64 {
        let response = self.server.post("/direct").by(client).json(&json!({"username": username})).send().await;
        assert_eq!(response.status, 201, "{response:?}");
        int(&response.json()["id"])
    }

    async fn notify(&self, client: &Client, room: i64, what: &str) {
        let request = self.server.request("PUT", &format!("/rooms/{room}/notify"));
        let response = request.by(client).json(&json!({"what": what})).send().await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// The next push, and what it says.
    fn next(&self) -> (Push, Value) {
        let push = self.service.next();
        let said = self.browser.decrypt(&push.body);
        (push, serde_json::from_str(&said).expect("JSON"))
    }

    /// The text of the next push. Pushes come in the order of messages: one before it that should not have come would
    /// have come instead.
    fn next_text(&self) -> String {
        text(&self.next().1["text"]).to_owned()
    }

    async fn metric(&self, name: &str) -> f64 {
        let response = Request::new(self.server.metrics_address().await, "GET", "/metrics").send().await;
        metric(response.text(), name)
    }

    async fn until_metric(&self, name: &str, value: f64) {
        wait_while("the metric", async || self.metric(name).await < value).await;
    }

    fn subscriptions(&self) -> i64 {
        self.server.number("SELECT count(*) FROM push_subscriptions")
    }
}

/// Two people, of whom the second has a device.
async fn two(setting: &Setting) -> (Client, Client) {
    let ada = Client::register(&setting.server, "ada").await;
    let bob = Client::register(&setting.server, "bob").await;
    setting.subscribe(&bob, "bob").await;
    (ada, bob)
}

#[tokio::test]
async fn a_message_reaches_a_browser_that_is_closed() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let id = setting.say(&ada, 1, "hello \u{1f44b} \"there\"").await;
    let (push, said) = setting.next();
    assert_eq!(push.path, "/bob");
    let expected = json!({"room": 1, "message": id, "name": "Lobby", "from": "ada", "text": "hello \u{1f44b} \"there\"", "count": 1});
    assert_eq!(said, expected);
    let key = setting.server.get("/push").by(&ada).send().await.json();
    assert_eq!(text(&key["key"]).len(), 87, "65 bytes in base64url");
    assert!(push.headers["authorization"].ends_with(text(&key["key"])));
}

#[tokio::test]
async fn the_author_is_not_told() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    setting.subscribe(&ada, "ada").await;
    setting.say(&ada, 1, "by ada").await;
    assert_eq!(setting.next().0.path, "/bob");
    setting.say(&bob, 1, "by bob").await;
    assert_eq!(setting.next().0.path, "/ada");
}

#[tokio::test]
async fn what_is_read_anywhere_in_time_is_not_told() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    let mut page = bob.connect_with(json!({"rooms": true})).await;
    let id = setting.say(&ada, 1, "read").await;
    page.send(&json!({"type": "read", "room": 1, "id": id})).await;
    page.heard().await;
    page.close().await;
    setting.say(&ada, 1, "unread").await;
    let (_, said) = setting.next();
    assert_eq!((text(&said["text"]), int(&said["count"])), ("unread", 1));
}

#[tokio::test]
async fn a_page_in_sight_is_not_rung() {
    let setting = Setting::with(&[&PUSHES[..], &["--ping-interval", "2"]].concat());
    let (ada, bob) = two(&setting).await;
    let mut page = bob.connect_with(json!({"rooms": true})).await;
    page.send(&json!({"type": "ping", "in_sight": true})).await;
    page.next_of("pong").await;
    setting.say(&ada, 1, "seen").await;
    page.next_of("message").await;
    // What is heard from it after the message came says that it was seen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    page.send(&json!({"type": "ping", "in_sight": true})).await;
    page.next_of("pong").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(setting.service.try_next().is_none());
    page.send(&json!({"type": "ping", "in_sight": false})).await;
    page.next_of("pong").await;
    setting.say(&ada, 1, "not seen").await;
    assert_eq!(setting.next_text(), "not seen");
}

/// As on a phone that has fallen asleep.
#[tokio::test]
async fn a_page_in_sight_that_is_not_heard_from_any_more_is_rung() {
    let setting = Setting::with(&[&PUSHES[..], &["--ping-interval", "2"]].concat());
    let (ada, bob) = two(&setting).await;
    let mut page = bob.connect_with(json!({"rooms": true})).await;
    page.send(&json!({"type": "ping", "in_sight": true})).await;
    page.next_of("pong").await;
    setting.say(&ada, 1, "not seen").await;
    assert_eq!(setting.next_text(), "not seen");
}

#[tokio::test]
async fn somebody_who_wants_mentions_is_told_of_mentions_and_of_direct_messages() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    setting.subscribe_with(&bob, "bob", json!({"what": "mentions"})).await;
    setting.say(&ada, 1, "no name").await;
    setting.until_metric("chinwag_messages_total", 1.0).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    setting.say(&ada, 1, "for @bob").await;
    assert_eq!(setting.next_text(), "for @bob");
    let direct = setting.direct(&ada, "bob").await;
    setting.say(&ada, direct, "just you").await;
    let (_, said) = setting.next();
    assert_eq!(text(&said["text"]), "just you");
    assert!(said.get("name").is_none());
}

#[tokio::test]
async fn a_room_that_one_has_silenced_does_not_ring() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    let room = setting.room(&ada, "noise", &["bob"]).await;
    setting.notify(&bob, room, "nothing").await;
    setting.say(&ada, room, "noise").await;
    setting.say(&ada, 1, "lobby").await;
    assert_eq!(setting.next_text(), "lobby");
    setting.notify(&bob, room, "all").await;
    setting.say(&ada, room, "music").await;
    assert_eq!(setting.next_text(), "music");
}

#[tokio::test]
async fn nobody_is_told_of_a_room_that_they_may_not_read_any_more() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let eve = Client::register(&setting.server, "eve").await;
    setting.subscribe(&eve, "eve").await;
    let room = setting.room(&ada, "plans", &["bob"]).await;
    setting.say(&ada, room, "secret").await;
    // Removed before it is told.
    let member = setting.server.request("DELETE", &format!("/rooms/{room}/members/bob"));
    assert_eq!(member.by(&ada).send().await.status, 204);
    setting.say(&ada, 1, "for all").await;
    let mut told = [setting.next(), setting.next()].map(|(push, said)| (push.path, text(&said["text"]).to_owned()));
    told.sort();
    assert_eq!(told, [("/bob".into(), "for all".into()), ("/eve".into(), "for all".into())]);
}

#[tokio::test]
async fn what_was_taken_back_is_not_told() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let id = setting.say(&ada, 1, "oops").await;
    let delete = setting.server.request("DELETE", &format!("/messages/{id}"));
    assert_eq!(delete.by(&ada).send().await.status, 200);
    setting.say(&ada, 1, "better").await;
    let (_, said) = setting.next();
    assert_eq!((text(&said["text"]), int(&said["count"])), ("better", 1));
}

#[tokio::test]
async fn a_text_may_be_hidden_from_the_screen() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    setting.subscribe_with(&bob, "bob", json!({"hides_text": true})).await;
    setting.say(&ada, 1, "for your eyes").await;
    let (_, said) = setting.next();
    assert!(said.get("text").is_none());
    assert_eq!(text(&said["from"]), "ada");
}

#[tokio::test]
async fn a_flood_is_one_push_an_interval() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let mut page = ada.connect().await;
    let contents: Vec<_> = (0..2_000).map(|number| format!("message {number}")).collect();
    page.store_all("flood", &contents).await;
    setting.until_metric("chinwag_messages_total", 2_000.0).await;
    // On a fast machine all of them are stored before the first push.
    let mut pushes = Vec::new();
    loop {
        let (push, said) = setting.next();
        pushes.push(push.came_at);
        if text(&said["text"]) == "message 1999" {
            assert_eq!(int(&said["count"]), 1_000, "counted no further");
            break;
        }
    }
    assert!(pushes.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(400)), "{pushes:?}");
}

#[tokio::test]
async fn a_subscription_that_its_push_service_does_not_know_is_forgotten() {
    for status in [404, 410] {
        let setting = Setting::new();
        let (ada, _) = two(&setting).await;
        setting.service.answer(&[Answer::Status(status, "")]);
        setting.say(&ada, 1, "hello").await;
        setting.next();
        wait_while("the end of the subscription", async || setting.subscriptions() > 0).await;
    }
}

#[tokio::test]
async fn nothing_else_loses_a_phone() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    // The first of them: after others it would be tried later than that anyway.
    setting.service.answer(&[
        Answer::Status(429, "Retry-After: 1\r\n"),
        Answer::Status(500, ""),
        Answer::HangUp,
        Answer::Status(503, ""),
    ]);
    setting.say(&ada, 1, "hello").await;
    let came: Vec<_> = (0..5).map(|_| setting.next().0.came_at).collect();
    assert!(came[1] - came[0] >= Duration::from_secs(1), "as Retry-After says");
    // Refused for good: the push is lost, the phone is not.
    setting.service.answer(&[Answer::Status(413, "")]);
    setting.say(&ada, 1, "too large").await;
    setting.next();
    setting.say(&ada, 1, "as ever").await;
    assert_eq!(setting.next_text(), "as ever");
    assert_eq!(setting.subscriptions(), 1);
}

#[tokio::test]
async fn a_subscription_goes_with_the_session_it_was_made_in() {
    let setting = Setting::new();
    let (_, bob) = two(&setting).await;
    let other = Client::login(&setting.server, "bob").await;
    setting.subscribe(&other, "other").await;
    assert_eq!(setting.subscriptions(), 2);
    bob.logout().await;
    assert_eq!(setting.subscriptions(), 1);
    chinwag(&setting.server.database_path(), &["user", "disable", "bob"]).ok();
    assert_eq!(setting.subscriptions(), 0);
}

#[tokio::test]
async fn a_ban_and_the_end_of_an_account_end_its_subscriptions() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let eve = Client::register(&setting.server, "eve").await;
    setting.subscribe(&eve, "eve").await;
    let ban = setting.server.post("/users/bob/ban").by(&ada).json(&json!({"messages": false})).send().await;
    assert_eq!(ban.status, 204, "{ban:?}");
    assert_eq!(setting.server.number("SELECT count(*) FROM push_subscriptions WHERE endpoint LIKE '%/eve'"), 1);
    assert_eq!(setting.subscriptions(), 1);
    let body = json!({"password": PASSWORD, "messages": false});
    let deleted = setting.server.request("DELETE", "/account").by(&eve).json(&body).send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    assert_eq!(setting.subscriptions(), 0);
}

#[tokio::test]
async fn another_password_ends_the_pushes_to_other_sessions() {
    let setting = Setting::new();
    let (_, bob) = two(&setting).await;
    let other = Client::login(&setting.server, "bob").await;
    setting.subscribe(&other, "other").await;
    let body = json!({"password": PASSWORD, "new_password": "another long password"});
    let changed = setting.server.post("/password").by(&bob).json(&body).send().await;
    assert_eq!(changed.status, 204, "{changed:?}");
    assert_eq!(setting.subscriptions(), 1);
    assert_eq!(setting.server.number("SELECT count(*) FROM push_subscriptions WHERE endpoint LIKE '%/bob'"), 1);
}

#[tokio::test]
async fn an_endpoint_belongs_to_the_account_that_put_it_last() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    setting.subscribe(&ada, "bob").await;
    assert_eq!(setting.subscriptions(), 1);
    setting.say(&bob, 1, "to ada's phone").await;
    assert_eq!(setting.next_text(), "to ada's phone");
    // And the one who had it cannot end it.
    let end = |client| {
        let body = json!({"endpoint": PushService::endpoint("bob")});
        setting.server.request("DELETE", "/push").by(client).json(&body).send()
    };
    assert_eq!(end(&bob).await.status, 204);
    assert_eq!(setting.subscriptions(), 1);
    assert_eq!(end(&ada).await.status, 204);
    assert_eq!(setting.subscriptions(), 0);
}

#[tokio::test]
async fn of_more_than_eight_devices_those_visited_last_stay() {
    let setting = Setting::new();
    let (_, bob) = two(&setting).await;
    for number in 0..8 {
        setting.subscribe(&bob, &format!("{number}")).await;
    }
    assert_eq!(setting.subscriptions(), 8);
    assert_eq!(setting.server.number("SELECT count(*) FROM push_subscriptions WHERE endpoint LIKE '%/bob'"), 0);
}

#[tokio::test]
async fn a_device_that_was_not_used_for_two_months_is_not_told() {
    let setting = Setting::new();
    let (ada, bob) = two(&setting).await;
    let old = "UPDATE push_subscriptions SET visited_at = visited_at - 61 * 86400000";
    setting.server.database().execute(old, []).expect("the database takes it");
    setting.say(&ada, 1, "to nobody").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    setting.subscribe(&bob, "new").await;
    assert_eq!(setting.subscriptions(), 1);
    setting.say(&ada, 1, "to the new one").await;
    assert_eq!(setting.next().0.path, "/new");
}

#[tokio::test]
async fn a_clock_that_is_right_again_forgets_no_device() {
    let mut setting = Setting::new();
    let (ada, _) = two(&setting).await;
    setting.server.stop().await;
    setting.server.set_back_what_is_stored();
    setting.server.restart_with_environment(&[("CHINWAG_PUSH_TEST", &setting.variable)]);
    setting.subscribe(&ada, "ada").await;
    assert_eq!(setting.subscriptions(), 2);
    setting.say(&ada, 1, "to bob").await;
    assert_eq!(setting.next().0.path, "/bob");
}

#[tokio::test]
async fn what_is_no_subscription_is_refused() {
    let setting = Setting::new();
    let (ada, _) = two(&setting).await;
    for more in [
        json!({"endpoint": "https://evil.example/x"}),
        json!({"endpoint": "http://push.test/x"}),
        json!({"endpoint": "https://push.test:8443/x"}),
        json!({"endpoint": "https://user@push.test/x"}),
        json!({"endpoint": "https://push.test/x#y"}),
        json!({"endpoint": "https://127.0.0.1/x"}),
        json!({"endpoint": format!("https://push.test/{}", "x".repeat(2_048))}),
        json!({"endpoint": 7}),
        json!({"keys": {}}),
        json!({"keys": {"p256dh": "AAAA", "auth": "AAAA"}}),
        json!({"what": "nothing"}),
        json!({"what": "some"}),
        json!({"hides_text": "yes"}),
    ] {
        let response = setting.put(&ada, "ada", more.clone()).await;
        assert_eq!(response.error(), (400, "invalid_request".into()), "{more}");
    }
    let nobody = Client::known(&setting.server, "ada", &"x".repeat(ada.token.len()));
    assert_eq!(setting.put(&nobody, "ada", json!({})).await.error(), (401, "unauthorized".into()));
    assert_eq!(setting.server.get("/push").send().await.error(), (401, "unauthorized".into()));
    assert_eq!(setting.subscriptions(), 1);
}

#[tokio::test]
async fn without_a_contact_nothing_is_pushed_and_that_is_said() {
    let setting = Setting::with(&["--push-host", HOST]);
    let ada = Client::register(&setting.server, "ada").await;
    setting.server.logged("push is off").await;
    assert_eq!(setting.put(&ada, "ada", json!({})).await.error(), (404, "not_found".into()));
    assert_eq!(setting.server.get("/push").by(&ada).send().await.error(), (404, "not_found".into()));
    assert_eq!(setting.server.get("/about").send().await.json()["push"], false);
}

#[tokio::test]
async fn where_the_page_is_at_https_that_is_contact_enough() {
    for (url, pushes) in
        [("https://chat.example/", true), ("http://chat.example/", false), ("https://localhost/", false)]
    {
        let setting = Setting::with(&["--public-url", url]);
        let ada = Client::register(&setting.server, "ada").await;
        let status = setting.server.get("/push").by(&ada).send().await.status;
        assert_eq!(status, if pushes { 200 } else { 404 }, "{url}");
    }
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", proxy.local_addr().expect("it is bound"));
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let setting = Setting::with_environment(&PUSHES, &names.map(|name| (name, url.as_str())));
    let (ada, _) = two(&setting).await;
    setting.say(&ada, 1, "straight there").await;
    assert_eq!(setting.next_text(), "straight there");
    proxy.set_nonblocking(true).expect("a socket that does not block");
    assert_eq!(proxy.accept().expect_err("nobody came").kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_key_outlives_the_server_and_is_not_exported() {
    let mut setting = Setting::new();
    let (ada, _) = two(&setting).await;
    assert_eq!(setting.server.get("/about").send().await.json()["push"], true);
    let key = setting.server.get("/push").by(&ada).send().await.json();
    assert!(setting.server.stop().await.success());
    let exported = chinwag(&setting.server.database_path(), &["export"]).ok();
    assert!(exported.contains("ada") && !exported.contains("vapid") && !exported.contains(HOST), "{exported}");
    let variable = setting.variable.clone();
    setting.server.restart_with_environment(&[("CHINWAG_PUSH_TEST", &variable)]);
    assert_eq!(setting.server.get("/push").by(&ada).send().await.json(), key);
    // And those who had subscribed are told as before.
    setting.say(&ada, 1, "still here").await;
    assert_eq!(setting.next_text(), "still here");
}

#[tokio::test]
async fn a_backup_has_the_key_and_the_subscriptions() {
    let mut setting = Setting::new();
    let (ada, _) = two(&setting).await;
    let key = setting.server.get("/push").by(&ada).send().await.json();
    let (database, backup) = (setting.server.database_path(), setting.server.directory().join("backup.db"));
    chinwag(&database, &["backup", backup.to_str().expect("UTF-8")]).ok();
    assert!(setting.server.stop().await.success());
    setting.server.database().execute_batch("DELETE FROM meta WHERE key = 'vapid_key'").expect("the key is lost");
    setting.server.database().execute_batch("DELETE FROM push_subscriptions").expect("and the phones");
    chinwag(&database, &["restore", backup.to_str().expect("UTF-8")]).ok();
    setting.server.restart_with_environment(&[("CHINWAG_PUSH_TEST", &setting.variable)]);
    assert_eq!(setting.server.get("/push").by(&ada).send().await.json(), key);
    setting.say(&ada, 1, "as before the fire").await;
    assert_eq!(setting.next_text(), "as before the fire");
}
