//! The web client as it leaves the server: types, validators, compression, one version at a time.

mod common;

use common::{Response, TestServer, text};
use serde_json::Value;

/// The paths that `/version.js` names: all the page is made of.
async fn files(server: &TestServer) -> Vec<String> {
    let module = server.get("/version.js").send().await;
    assert_eq!(module.status, 200);
    let list = constant(&module, "FILES");
    let list: Value = serde_json::from_str(&list).expect("a list of strings is JSON too");
    let files: Vec<String> = list.as_array().expect("a list").iter().map(|file| text(file).to_owned()).collect();
    assert!(files.contains(&"/".to_owned()) && files.contains(&"/app.js".to_owned()), "{files:?}");
    files
}

/// The literal that a module gives to `name`.
fn constant(module: &Response, name: &str) -> String {
    let start = format!("export const {name} = ");
    let line = module.text().lines().find_map(|line| line.strip_prefix(&start));
    line.expect("the constant is exported").trim_end_matches(';').to_owned()
}

#[tokio::test]
async fn every_file_has_its_type() {
    let server = TestServer::start();
    for path in files(&server).await {
        let response = server.get(&path).send().await;
        assert_eq!(response.status, 200, "{path}");
        let extension = if path == "/" { "html" } else { path.rsplit('.').next().expect("an extension") };
        let expected = match extension {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            "png" => "image/png",
            "ico" => "image/x-icon",
            "webmanifest" => "application/manifest+json",
            other => panic!("what is a {other}?"),
        };
        assert_eq!(response.header("Content-Type"), Some(expected), "{path}");
        assert!(!response.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn every_file_is_validated_and_carries_the_same_version() {
    let server = TestServer::start();
    let module = server.get("/version.js").send().await;
    let version = constant(&module, "VERSION");
    assert_eq!(version.len(), 18, "16 digits in quotes");
    for path in files(&server).await {
        let response = server.get(&path).send().await;
        let etag = response.header("ETag").expect("a validator");
        assert!(etag.starts_with(version.trim_end_matches('"')), "{path}: {etag}");
        assert_eq!(response.header("Cache-Control"), Some("no-cache"), "{path}");

        for known in [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let unchanged = server.get(&path).header("If-None-Match", &known).send().await;
            assert_eq!(unchanged.status, 304, "{path} {known}");
            assert!(unchanged.body.is_empty(), "{path}");
            assert_eq!(unchanged.header("ETag"), Some(etag), "{path}");
        }
        let changed = server.get(&path).header("If-None-Match", "\"other\"").send().await;
        assert_eq!(changed.status, 200, "{path}");
    }
}

#[tokio::test]
async fn text_comes_compressed_to_clients_that_accept_it() {
    let server = TestServer::start();
    let plain = server.get("/app.js").send().await;
    assert_eq!(plain.header("Content-Encoding"), None);
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", Some("gzip")),
        ("br;q=0, gzip", Some("gzip")),
        ("identity", None),
        ("gzip;q=0", None),
    ] {
        let response = server.get("/app.js").header("Accept-Encoding", accepted).send().await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Content-Encoding"), coding, "{accepted}");
        assert_eq!(response.header("Vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
        if coding.is_some() {
            assert!(response.body.len() < plain.body.len(), "{accepted}");
            assert_ne!(response.header("ETag"), plain.header("ETag"), "other bytes, another validator");
        }
    }
}

#[tokio::test]
async fn a_query_does_not_hide_a_file() {
    let server = TestServer::start();
    assert_eq!(server.get("/?from=homescreen").send().await.status, 200);
    assert_eq!(server.get("/app.js?x=1").send().await.status, 200);
}

#[tokio::test]
async fn the_page_may_load_only_what_is_its_own() {
    let server = TestServer::start();
    let response = server.get("/").send().await;
    let policy = response.header("Content-Security-Policy").expect("a policy");
    let directive = |name: &str| {
        let found = policy.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {policy}"))
    };
    assert!(matches!(directive("default-src"), "'none'" | "'self'"), "{policy}");
    for name in ["base-uri", "frame-ancestors"] {
        assert_eq!(directive(name), "'none'", "{policy}");
    }
    assert_eq!(directive("form-action"), "'self'", "{policy}");
    for forbidden in ["unsafe-", "http:", "https:", "data:", "*"] {
        assert!(!policy.contains(forbidden), "{forbidden} in {policy}");
    }
    // Pictures only: they are fetched with the session, which an address cannot carry.
    assert_eq!(policy.matches("blob:").count(), 1, "{policy}");
    assert_eq!(directive("img-src"), "'self' blob:", "{policy}");
}

#[tokio::test]
async fn the_page_has_nothing_inline() {
    let server = TestServer::start();
    let response = server.get("/").send().await;
    let page = response.text();
    for script in page.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').expect("the tag ends");
        assert!(tag.contains("src=") && rest.starts_with("</script>"), "an inline script: {tag}");
    }
    assert!(!page.contains("<style"));
    for attribute in [" style=", " onclick=", " onload=", " onsubmit=", "javascript:"] {
        assert!(!page.contains(attribute), "{attribute}");
    }
}
