//! The exercise: a die for the room.

mod common;

use common::{Client, TestServer, int};

#[tokio::test]
async fn a_roll_is_between_one_and_the_sides() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for sides in [2, 6, 1_000] {
        let response = server.get(&format!("/roll?sides={sides}")).by(&ada).send().await;
        assert_eq!(response.status, 200);
        assert!((1..=sides).contains(&int(&response.json()["rolled"])), "{}", response.text());
    }
}

#[tokio::test]
async fn a_die_without_a_number_of_sides_in_bounds_is_refused() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for bad in ["", "?sides=", "?sides=1", "?sides=1001", "?sides=six", "?sides=6&sides=6"] {
        let response = server.get(&format!("/roll{bad}")).by(&ada).send().await;
        assert_eq!(response.error(), (400, "invalid_request".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn a_die_is_rolled_by_people_who_are_logged_in() {
    let server = TestServer::start();
    assert_eq!(server.get("/roll?sides=6").send().await.error(), (401, "unauthorized".to_owned()));
}

#[tokio::test]
async fn a_roll_is_read_and_not_posted() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let response = server.post("/roll").by(&ada).send().await;
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}
