//! Web Push by one node for all: `--features cluster,push-test`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Engine;
use crate::common::{Client, TestServer, int, text, within};
use crate::nodes::Cluster;
use crate::push_service::{Answer, Browser, HOST, Push, PushService};

/// Three nodes that push, and the push service that they push to.
struct Setting {
    cluster: Cluster,
    service: PushService,
    browser: Browser,
}

impl Setting {
    async fn new() -> Option<Setting> {
        let engine = Engine::one().await?;
        let service = PushService::start();
        let variable = format!("{}:{}", service.port(), service.directory().display());
        let flags = ["--push-contact", "mailto:me@chat.example", "--push-host", HOST];
        let mut cluster = Cluster::start(engine, 0).await;
        for _ in 0..3 {
            let base = cluster.copy_of_the_base();
            cluster.join_with(base, &flags, &[("CHINWAG_PUSH_TEST", &variable)]);
        }
        let setting = Setting { cluster, service, browser: Browser::of_rfc_8291() };
        setting.nodes()[0].logged("this node pushes for all").await;
        Some(setting)
    }

    /// The first is the one that pushes.
    fn nodes(&self) -> &[TestServer] {
        &self.cluster.nodes
    }

    /// Subscribes a device, called as its user, at a node.
    async fn subscribe(&self, client: &Client, node: usize) {
        let keys = json!({"p256dh": self.browser.p256dh(), "auth": self.browser.auth()});
        let body = json!({"endpoint": PushService::endpoint(&client.username), "keys": keys, "what": "all"});
        let response = self.nodes()[node].request("PUT", "/push").by(client).json(&body).send().await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    async fn say(&self, client: &Client, node: usize, content: &str) -> i64 {
        let response = self.nodes()[node].post("/messages").by(client).json(&json!({"content": content})).send().await;
        assert_eq!(response.status, 201, "{response:?}");
        int(&response.json()["id"])
    }

    fn read(&self, push: &Push) -> Value {
        serde_json::from_str(&self.browser.decrypt(&push.body)).expect("JSON")
    }

    /// Whom the next push is for, what it says, and of how many messages.
    fn next(&self) -> (String, String, i64) {
        let push = self.service.next();
        let said = self.read(&push);
        (push.path, text(&said["text"]).to_owned(), int(&said["count"]))
    }
}

/// A push as [`Setting::next`] tells of it.
fn push(to: &str, said: &str, count: i64) -> (String, String, i64) {
    (format!("/{to}"), said.to_owned(), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_somebody_who_is_away_is_pushed_by_one_node_of_three() {
    let Some(setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[2], "ada").await;
    let bob = Client::register(&setting.nodes()[1], "bob").await;
    setting.subscribe(&bob, 1).await;
    let keys = setting.nodes().iter().map(async |node| node.get("/push").by(&bob).send().await.json());
    let keys: Vec<_> = futures_util::future::join_all(keys).await;
    assert!(keys.iter().all(|key| *key == keys[0]), "they push with one key");
    for number in 1..=3 {
        // Another node's push of the one before would come before the next.
        setting.say(&ada, 2, &format!("number {number}")).await;
        assert_eq!(setting.next(), push("bob", &format!("number {number}"), number));
    }
    setting.cluster.are_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_whose_page_is_in_sight_at_another_node_is_not_pushed_to() {
    let Some(setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[0], "ada").await;
    let (bob, eve) =
        (Client::register(&setting.nodes()[0], "bob").await, Client::register(&setting.nodes()[0], "eve").await);
    setting.subscribe(&bob, 0).await;
    setting.subscribe(&eve, 0).await;
    let mut page = bob.at(&setting.nodes()[2]).connect_with(json!({"rooms": true})).await;
    let mut look = async |in_sight| {
        page.send(&json!({"type": "ping", "in_sight": in_sight})).await;
        page.next_of("pong").await;
    };
    look(true).await;
    setting.say(&ada, 1, "seen").await;
    assert_eq!(setting.next(), push("eve", "seen", 1));
    look(false).await;
    setting.say(&ada, 1, "not seen").await;
    let mut pushes = [setting.next(), setting.next()];
    pushes.sort();
    assert_eq!(pushes, [push("bob", "not seen", 2), push("eve", "not seen", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_node_that_pushes_dies_before_it_did_another_does() {
    let Some(mut setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[1], "ada").await;
    let bob = Client::register(&setting.nodes()[1], "bob").await;
    setting.subscribe(&bob, 1).await;
    setting.cluster.nodes[0].signal(Signal::STOP);
    setting.say(&ada, 2, "hello").await;
    setting.cluster.nodes[0].kill().await;
    assert_eq!(setting.next(), push("bob", "hello", 1));
    assert!(setting.nodes()[1].log().contains("this node pushes for all"));
    setting.say(&ada, 2, "once").await;
    assert_eq!(setting.next(), push("bob", "once", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_node_that_pushes_lives_and_cannot_write_another_does() {
    let Some(setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[1], "ada").await;
    let bob = Client::register(&setting.nodes()[1], "bob").await;
    setting.subscribe(&bob, 1).await;
    setting.cluster.are_equal().await;
    // As with a full disk: no transaction of its own succeeds.
    let database = setting.nodes()[0].database();
    database.execute_batch("BEGIN IMMEDIATE").expect("the only one who writes");
    setting.say(&ada, 2, "hello").await;
    assert_eq!(setting.next(), push("bob", "hello", 1));
    assert!(setting.nodes()[1].log().contains("this node pushes for all"));
    setting.nodes()[0].logged("this node does not push any more").await;
    database.execute_batch("ROLLBACK").expect("an end");
    // It is well again, and its place is its own.
    setting.nodes()[1].logged("this node does not push any more").await;
    setting.say(&ada, 2, "once").await;
    assert_eq!(setting.next(), push("bob", "once", 2));
    setting.cluster.are_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_pushed_is_not_pushed_again_by_the_one_that_takes_its_place() {
    let Some(mut setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[1], "ada").await;
    let bob = Client::register(&setting.nodes()[1], "bob").await;
    setting.subscribe(&bob, 1).await;
    let mut told = setting.cluster.engine.nats().await;
    told.subscribe("chinwag.told").await;
    let first = setting.say(&ada, 1, "first").await;
    assert_eq!(setting.next(), push("bob", "first", 1));
    let word: Value = serde_json::from_slice(&told.next().await).expect("JSON");
    assert_eq!((int(&word["up_to"]), int(&word["room"])), (first, 1));
    setting.cluster.nodes[0].stop().await;
    setting.nodes()[1].logged("this node pushes for all").await;
    setting.say(&ada, 1, "second").await;
    assert_eq!(setting.next(), push("bob", "second", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_its_push_service_does_not_know_ends_on_every_node() {
    let Some(setting) = Setting::new().await else { return };
    let ada = Client::register(&setting.nodes()[1], "ada").await;
    let bob = Client::register(&setting.nodes()[1], "bob").await;
    setting.subscribe(&bob, 1).await;
    setting.service.answer(&[Answer::Status(410, "")]);
    setting.say(&ada, 1, "hello").await;
    setting.service.next();
    within("the end of the subscription", async {
        for node in setting.nodes() {
            while node.number("SELECT count(*) FROM push_subscriptions") > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
    setting.cluster.are_equal().await;
}
