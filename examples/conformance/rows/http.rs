//! What HTTP itself asks for, and how this contract refuses.

use std::time::Duration;

use serde_json::json;

use crate::suite::check::{Check, broken, expect, not_offered, text};
use crate::suite::http::Call;
use crate::suite::socket::upgrade;
use crate::suite::world::{PASSWORD, World};
use crate::suite::{Row, table};

/// The contract's: a body must be there by then.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// What a machine that is busy may need beyond a deadline.
const SLACK: Duration = Duration::from_secs(5);

pub(crate) const ROWS: &[Row] = table! {
    "healthz", "GET /healthz is 200 {\"status\":\"ok\"}" => healthz;
    "metrics-elsewhere", "GET /metrics is 404 here" => metrics;
    "web-client", "GET / is the web client" => web_client;
    "not-found", "an unknown path is 404 not_found" => not_found;
    "method-not-allowed", "another method is 405 with Allow" => method_not_allowed;
    "payload-too-large", "a body that is too large is 413" => payload_too_large;
    "media-type", "a body that is not application/json is 415" => media_type;
    "uri-too-long", "a path and query over 2 KiB are 414 invalid_request" => uri_too_long;
    "head-too-large", "a head that is too large is 431" => head_too_large;
    "no-http", "bytes that HTTP does not allow are 400" => no_http;
    "upgrade-required", "/ws without an upgrade is 426 invalid_request" => upgrade_required;
    "forbidden-origin", "a page of another site is refused: 403 forbidden_origin" => forbidden_origin;
    "own-origin", "a page of this host is not" => own_origin;
    "body-not-utf8", "a body that is not UTF-8 is invalid_request" => body_not_utf8;
    "unknown-fields", "unknown fields of a body are ignored" => unknown_fields;
};

pub(crate) const SLOW: &[Row] = table! {
    "slow-body", "a body that takes over 10 s is 408 invalid_request" => slow_body;
};

async fn healthz(w: World) -> Check {
    let health = w.ask(Call::new("GET", "/healthz")).await?.ok(200)?;
    expect(health["status"] == "ok", "{\"status\":\"ok\"}", &health)
}

async fn metrics(w: World) -> Check {
    w.ask(Call::new("GET", "/metrics")).await?.refused(404, "not_found")
}

async fn web_client(w: World) -> Check {
    let answer = w.ask(Call::new("GET", "/")).await?;
    if answer.status == 404 {
        return not_offered("no web client");
    }
    let media_type = answer.header("content-type").unwrap_or_default();
    expect(answer.status == 200 && media_type.starts_with("text/html"), "200 text/html", format!("{answer:?}"))
}

async fn not_found(w: World) -> Check {
    w.ask(Call::new("GET", "/no/such/thing")).await?.refused(404, "not_found")
}

async fn method_not_allowed(w: World) -> Check {
    for (method, path, right) in [("PUT", "/login", "POST"), ("DELETE", "/rooms", "GET")] {
        let answer = w.ask(Call::new(method, path)).await?;
        answer.refused(405, "method_not_allowed")?;
        let allow = answer.header("allow").unwrap_or_default();
        expect(allow.split(',').any(|method| method.trim() == right), format!("Allow with {right}"), allow)?;
    }
    Ok(())
}

async fn payload_too_large(w: World) -> Check {
    let account = json!({"username": "x", "password": "x".repeat(1 << 20)});
    // The answer may come before the body has been read, which ends the connection.
    let mut wire = w.wire().await?;
    let call = Call::new("POST", "/login").json(&account);
    w.step("POST /login with 1 MiB of body".into());
    let sent = wire.write(&call.bytes(&w.host())).await;
    match wire.answer().await {
        Ok(answer) => answer.refused(413, "payload_too_large"),
        Err(_) if sent.is_err() => Err(broken("413 payload_too_large", "the connection ended without an answer")),
        Err(failure) => Err(failure),
    }
}

async fn media_type(w: World) -> Check {
    let account = json!({"username": w.unique("x"), "password": PASSWORD}).to_string();
    for path in ["/login", "/register"] {
        let answer = w.ask(Call::new("POST", path).body("text/html", account.clone())).await?;
        answer.refused(415, "unsupported_media_type")?;
    }
    Ok(())
}

async fn uri_too_long(w: World) -> Check {
    let call = Call::new("GET", format!("/messages?x={}", "x".repeat(3 << 10)));
    w.ask(call).await?.refused(414, "invalid_request")
}

async fn head_too_large(w: World) -> Check {
    let answer = w.ask(Call::new("GET", "/healthz").header("X-Large", &"x".repeat(64 << 10))).await?;
    expect(answer.status == 431, "status 431", &answer)
}

async fn no_http(w: World) -> Check {
    let mut wire = w.wire().await?;
    w.step("sends bytes that are no HTTP".into());
    wire.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nno header at all\r\n\r\n").await?;
    let answer = wire.answer().await?;
    expect(answer.status == 400, "status 400", &answer)
}

async fn upgrade_required(w: World) -> Check {
    w.ask(Call::new("GET", "/ws")).await?.refused(426, "invalid_request")
}

async fn forbidden_origin(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let account = json!({"username": ada.name, "password": ada.password});
    let calls = [
        Call::new("POST", "/login").json(&account),
        Call::new("POST", "/register").json(&json!({"username": w.unique("x"), "password": PASSWORD})),
        Call::new("POST", "/logout").by(&ada),
        upgrade(),
    ];
    for call in calls {
        w.ask(call.header("Origin", "https://elsewhere.example")).await?.refused(403, "forbidden_origin")?;
    }
    Ok(())
}

async fn own_origin(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let account = json!({"username": ada.name, "password": ada.password});
    let origin = format!("http://{}", w.host());
    let answer = w.ask(Call::new("POST", "/login").json(&account).header("Origin", &origin)).await?.ok(200)?;
    text(&answer, "token").map(|_| ())
}

async fn body_not_utf8(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let call = Call::new("POST", "/messages").by(&ada).body("text/plain", b"\xff\xfe".to_vec());
    w.ask(call).await?.refused(400, "invalid_request")
}

async fn unknown_fields(w: World) -> Check {
    let name = w.unique("x");
    let account = json!({"username": name, "password": PASSWORD, "favourite": ["colour"]});
    w.register_as(account).await?.ok(201).map(|_| ())
}

async fn slow_body(w: World) -> Check {
    let mut wire = w.patient_wire(BODY_DEADLINE + SLACK).await?;
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        w.host()
    );
    w.step("sends the head of POST /login and one byte of its body".into());
    wire.write(head.as_bytes()).await?;
    wire.answer().await?.refused(408, "invalid_request")
}
