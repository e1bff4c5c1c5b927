//! The exercise: applause for the lobby.

mod common;

use common::{Client, TestServer};
use serde_json::json;

#[tokio::test]
async fn a_clap_is_told_to_everybody_also_to_who_claps() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await.settled().await;
    let mut bob = Client::register(&server, "bob").await.connect_with(json!({"rooms": true})).await.settled().await;
    ada.send(&json!({"type": "clap"})).await;
    for connection in [&mut ada, &mut bob] {
        assert_eq!(connection.next_of("clap").await, json!({"type": "clap", "username": "ada"}));
    }
}

#[tokio::test]
async fn a_clap_is_not_stored() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut connection = ada.connect().await.settled().await;
    let before = connection.store("one", "watch this").await;
    connection.send(&json!({"type": "clap"})).await;
    connection.next_of("clap").await;
    let last = connection.store("two", "again?").await;
    let mut late = bob.connect_with(json!({"last_id": before - 1, "epoch": connection.welcome["epoch"]})).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|frame: &serde_json::Value| frame["id"] != last) {
        told.push(late.next().await);
    }
    assert!(told.iter().all(|frame| frame["type"] != "clap"), "{told:?}");
}
