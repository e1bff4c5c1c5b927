//! The exercise: how often somebody has logged in.

mod common;

use common::{Client, PASSWORD, TestServer, chinwag, chinwag_reading};
use serde_json::json;

const LOGINS: &str = "SELECT logins FROM users WHERE name = 'ada'";

#[tokio::test]
async fn each_login_is_counted_and_an_attempt_is_not() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    assert_eq!(server.number(LOGINS), 1, "registering here logs in once");
    for (password, logins) in [("not hers at all", 1), (PASSWORD, 2)] {
        server.post("/login").json(&json!({"username": "ada", "password": password})).send().await;
        assert_eq!(server.number(LOGINS), logins, "{password}");
    }
}

#[tokio::test]
async fn a_user_of_the_version_before_has_not_been_counted() {
    let before = std::fs::read_to_string("tests/schema/3.sql").expect("the old version is kept");
    let mut server = TestServer::start();
    server.stop().await;
    std::fs::remove_file(server.database_path()).expect("the new database is not needed");
    server.database().execute_batch(&before).expect("the old version is sound");
    server.restart();
    assert_eq!(server.number(LOGINS), 0);
}

#[tokio::test]
async fn logins_are_exported_and_a_number_below_zero_is_not_believed() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    assert!(exported.contains(r#""logins":1"#), "{exported}");
    let elsewhere = server.directory().join("elsewhere.db");
    chinwag_reading(&elsewhere, &["import"], &exported.replace(r#""logins":1"#, r#""logins":-1"#)).failed();
    chinwag_reading(&elsewhere, &["import"], &exported).ok();
    assert_eq!(chinwag(&elsewhere, &["export"]).ok(), exported);
}

#[tokio::test]
async fn an_export_of_the_version_before_is_imported() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let exported = chinwag(&server.database_path(), &["export"]).ok().replace(r#","logins":1"#, "");
    chinwag_reading(&server.directory().join("elsewhere.db"), &["import"], &exported).ok();
}

#[tokio::test]
async fn nothing_is_left_of_how_often_a_deleted_user_logged_in() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    chinwag(&server.database_path(), &["user", "delete", "ada"]).ok();
    assert_eq!(server.number("SELECT sum(logins) FROM users"), 0);
}
