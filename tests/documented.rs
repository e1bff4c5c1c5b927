//! The documents for other programs, `docs/openapi.json` and `docs/asyncapi.json`, beside a running server.
//!
//! Every test checks what it reads against them ([`common::schema`]). Here it is shown that nothing in them goes
//! unseen, and that they ask for what the server asks for. That they name every route, frame and code is a matter of
//! the source, and tested there.

mod common;

use common::schema::{ASYNCAPI, OPENAPI, fault, seen};
use common::{Client, Connection, PASSWORD, TestServer, chinwag, int, text};
use serde_json::{Value, json};

/// What the walk below leaves out, since it needs a crowd, the feature `push` or another client. Other tests see them.
const LEFT_OUT: [&str; 5] = ["server.presence", "GET /push 200", "PUT /push 204", "DELETE /push 204", "GET /ws 101"];

/// Method, path, operation.
fn operations() -> impl Iterator<Item = (String, &'static str, &'static Value)> {
    let paths = OPENAPI["paths"].as_object().expect("the document has paths").iter();
    let all = paths.flat_map(|(path, item)| item.as_object().expect("methods").iter().map(move |entry| (path, entry)));
    all.filter(|(_, (method, _))| *method != "parameters")
        .map(|(path, (method, operation))| (method.to_uppercase(), path.as_str(), operation))
}

/// A path with something in the place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{id}", "1").replace("{name}", "bob")
}

fn is_of_push(path: &str) -> bool {
    path == "/push"
}

#[tokio::test]
async fn a_route_wants_a_session_if_the_document_says_so() {
    let server = TestServer::start();
    for (method, path, operation) in operations().filter(|(_, path, _)| !is_of_push(path)) {
        let response = server.request(&method, &filled(path)).send().await;
        assert_eq!(response.status == 401, operation["security"] != json!([]), "{method} {path}: {response:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_a_number_is_read_as_one() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut tried = 0;
    for (_, path, operation) in operations().filter(|(method, ..)| method == "GET") {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (text(&parameter["name"]), &parameter["schema"]);
            if fault(schema, &json!(1), true).is_none() {
                let refused = server.get(&format!("{path}?q=x&{name}=x")).by(&ada).send().await;
                assert_eq!(refused.error(), (400, "invalid_request".to_owned()), "{path} {name}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 8, "{tried}");
}

#[tokio::test]
async fn a_parameter_may_be_as_large_as_the_document_says_and_no_larger() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut tried = 0;
    for (_, path, operation) in operations().filter(|(method, ..)| method == "GET") {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            // No id is as large as an id may be.
            let Some(maximum) = parameter["schema"]["maximum"].as_i64() else { continue };
            for (value, status) in [(maximum, 200), (maximum + 1, 400)] {
                let target = format!("{path}?q=x&{}={value}", text(&parameter["name"]));
                assert_eq!(server.get(&target).by(&ada).send().await.status, status, "{target}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 2, "{tried}");
}

/// Something that `schema` allows.
fn sample(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match text(&schema["type"]) {
        "string" => json!("x"),
        "object" => {
            schema["required"].as_array().into_iter().flatten().map(text).fold(json!({}), |mut object, name| {
                object[name] = sample(&schema["properties"][name]);
                object
            })
        }
        other => panic!("no required field is {other}"),
    }
}

#[tokio::test]
async fn a_body_without_a_field_that_the_document_requires_is_no_body() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut tried = 0;
    for (method, path, operation) in operations().filter(|(_, path, _)| !is_of_push(path)) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for field in schema["required"].as_array().into_iter().flatten().map(text) {
            let mut body = sample(schema);
            body.as_object_mut().expect("a body is an object").remove(field);
            let refused = server.request(&method, &filled(path)).by(&ada).json(&body).send().await;
            assert_eq!(refused.error(), (400, "invalid_json".to_owned()), "{method} {path} without {field}");
            tried += 1;
        }
    }
    assert!(tried >= 10, "{tried}");
}

#[test]
fn a_value_that_differs_from_its_schema_in_one_thing_has_a_fault() {
    let message = json!({"id": 7, "room": 1, "username": "ada", "content": "", "created_at": 1, "mentions": ["bob"]});
    let schema = &OPENAPI["components"]["schemas"]["Message"];
    assert_eq!(fault(schema, &message, true), None);
    let changes = [
        ("id", json!("7"), "id: not type"),
        ("id", json!(-1), "id: not minimum"),
        ("id", json!(1_u64 << 53), "id: not maximum"),
        ("id", json!(1.5), "id: not type"),
        ("username", json!(""), "username: not minLength"),
        ("content", json!("x".repeat(4_001)), "content: not maxLength"),
        ("bot", json!(false), "bot: not const"),
        ("mentions", json!([7]), "mentions: not type"),
        ("mentions", json!(vec!["ada"; 17]), "mentions: not maxItems"),
        ("image", json!({"id": 1, "type": "image/tiff", "width": 1, "height": 1, "alt": ""}), "image: type: not enum"),
        ("reply_to", json!({}), "reply_to: not required"),
        ("other", json!(1), "the field other"),
    ];
    for (field, value, expected) in changes {
        let mut other = message.clone();
        other[field] = value;
        let found = fault(schema, &other, true).unwrap_or_default();
        assert!(found.starts_with(expected), "{field}: {found:?}, not {expected}");
    }
    let frame = &ASYNCAPI["components"]["messages"]["server.message"]["payload"];
    assert!(fault(frame, &message, true).is_some_and(|fault| fault.starts_with("not required")), "no type");
    let room = &OPENAPI["components"]["schemas"]["Room"]["properties"]["last"];
    assert_eq!((fault(room, &message, true), fault(room, &json!(null), true)), (None, None));
    assert!(fault(room, &json!({}), true).is_some(), "neither a message nor null");
}

/// Two people who do everything that there is to do.
struct Walk {
    server: TestServer,
    ada: Client,
    bob: Client,
}

impl Walk {
    async fn ask(&self, by: &Client, method: &str, target: &str, body: Value) -> Value {
        let request = self.server.request(method, target).by(by);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await;
        assert!(response.status < 300, "{method} {target}: {response:?}");
        if response.body.is_empty() || response.header("Content-Type") != Some("application/json") {
            return Value::Null;
        }
        response.json()
    }

    async fn messages_and_rooms(&self) {
        let (ada, bob) = (&self.ada, &self.bob);
        let pixel: &[u8] = include_bytes!("../public/icons/icon-192.png");
        let image = self.server.post("/images").by(ada).header("Content-Type", "image/png").body(pixel).send().await;
        let image = int(&image.json()["id"]);
        let den = json!({"name": "den", "kind": "private", "topic": "quiet", "emoji": "🦊"});
        let den = int(&self.ask(ada, "POST", "/rooms", den).await["id"]);
        let mut near = bob.connect_with(json!({"rooms": true})).await.settled().await;
        self.ask(ada, "PUT", &format!("/rooms/{den}/members/bob"), Value::Null).await;
        near.next_of("room").await;
        let picture = json!({"content": "@bob, look", "room": den, "image": image, "alt": "a dot", "nonce": "n1"});
        let first = int(&self.ask(ada, "POST", "/messages", picture).await["id"]);
        self.ask(bob, "GET", &format!("/images/{image}"), Value::Null).await;
        let reply = json!({"content": "a dot", "room": den, "reply_to": first});
        let second = int(&self.ask(bob, "POST", "/messages", reply).await["id"]);
        let mut far = ada.connect_with(json!({"rooms": true})).await.settled().await;
        far.send(&json!({"type": "react", "message": second, "emoji": "👍", "on": true, "nonce": "n2"})).await;
        far.next_of("ack").await;
        near.next_of("react").await;
        far.send(&json!({"type": "read", "room": den, "id": second})).await;
        far.next_of("read").await;
        far.send(&json!({"type": "typing", "room": den})).await;
        near.next_of("typing").await;
        let token = chinwag(&self.server.database_path(), &["bot", "add", "parrot"]).ok();
        let parrot = Client::known(&self.server, "parrot", token.trim());
        self.ask(&parrot, "POST", "/messages", json!({"content": "hello"})).await;
        self.ask(ada, "PATCH", &format!("/messages/{first}"), json!({"content": "@bob, look there"})).await;
        near.next_of("edit").await;
        for query in [format!("room={den}"), format!("room={den}&around={first}"), "limit=1".to_owned()] {
            self.ask(ada, "GET", &format!("/messages?{query}"), Value::Null).await;
        }
        for search in ["q=look", "q=look&limit=1&from=ada", "q=nowhere"] {
            self.ask(ada, "GET", &format!("/search?{search}"), Value::Null).await;
        }
        self.ask(ada, "DELETE", &format!("/messages/{first}"), Value::Null).await;
        near.next_of("delete").await;
        self.ask(ada, "PATCH", &format!("/rooms/{den}"), json!({"emoji": null, "topic": "quieter"})).await;
        self.ask(ada, "PUT", &format!("/rooms/{den}/notify"), json!({"what": "mentions"})).await;
        // Made once, found once.
        for _ in 0..2 {
            self.ask(ada, "POST", "/direct", json!({"username": "bob"})).await;
        }
        self.ask(ada, "GET", "/rooms", Value::Null).await;
        self.ask(ada, "GET", "/export", Value::Null).await;
        self.ask(ada, "DELETE", &format!("/rooms/{den}/members/bob"), Value::Null).await;
        near.next_of("room_gone").await;
        far.close().await;
        near.told_of_leave("ada").await;
    }

    async fn sockets(&self) {
        let mut stranger = Connection::open(&self.server).await;
        stranger.send(&json!({"type": "auth", "token": "none"})).await;
        stranger.next_of("auth_failed").await;
        let mut back = self.ada.connect_with(json!({"last_id": 1, "epoch": "another"})).await;
        back.next_of("resync").await;
        back.send(&json!({"type": "message", "content": " ", "nonce": "n3"})).await;
        back.next_of("error").await;
    }

    async fn accounts(&self) {
        let (ada, bob) = (&self.ada, &self.bob);
        self.ask(ada, "GET", "/about", Value::Null).await;
        self.ask(ada, "GET", "/healthz", Value::Null).await;
        self.ask(ada, "GET", "/users?prefix=b", Value::Null).await;
        let invited = self.ask(ada, "POST", "/invites", json!({"uses": 2})).await;
        self.ask(ada, "GET", "/invites", Value::Null).await;
        self.ask(ada, "DELETE", &format!("/invites/{}", invited["id"]), Value::Null).await;
        self.ask(ada, "POST", "/users/bob/ban", json!({"messages": false})).await;
        self.ask(ada, "POST", "/users/bob/unban", Value::Null).await;
        let bob = Client::login(&self.server, &bob.username).await;
        let other = Client::login(&self.server, "bob").await;
        let sessions = self.ask(&bob, "GET", "/sessions", Value::Null).await;
        let sessions = sessions["sessions"].as_array().expect("a list");
        let id = sessions.iter().find(|session| session["current"] == false).expect("the other's")["id"].clone();
        self.ask(&bob, "DELETE", &format!("/sessions/{id}"), Value::Null).await;
        self.ask(&bob, "DELETE", "/sessions", Value::Null).await;
        assert_eq!(self.server.get("/rooms").by(&other).send().await.status, 401);
        self.ask(&bob, "POST", "/password", json!({"password": PASSWORD, "new_password": PASSWORD})).await;
        self.ask(&bob, "DELETE", "/account", json!({"password": PASSWORD, "messages": true})).await;
        self.ask(ada, "POST", "/logout", Value::Null).await;
    }
}

#[tokio::test]
async fn every_answer_and_every_frame_of_the_documents_is_seen() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let walk = Walk { server, ada, bob };
    walk.messages_and_rooms().await;
    walk.sockets().await;
    walk.accounts().await;

    let answers = operations().flat_map(|(method, path, operation)| {
        let responses = operation["responses"].as_object().expect("responses").keys();
        responses.filter(|status| *status != "default").map(move |status| format!("{method} {path} {status}"))
    });
    let frames = ASYNCAPI["components"]["messages"].as_object().expect("messages").keys();
    let frames = frames.filter(|name| name.starts_with("server.")).cloned();
    let seen = seen();
    let unseen: Vec<_> =
        answers.chain(frames).filter(|name| !seen.contains(name) && !LEFT_OUT.contains(&name.as_str())).collect();
    assert!(unseen.is_empty(), "nothing checks what the documents say of {unseen:?}");
}
