//! Who is there: joins and leaves, promise 6 about the dead, and the counting of crowds.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{
    Client, Connection, Dice, FIN, PING, PONG, RawClient, TEXT, TestServer, frame, gather, int, raise_descriptor_limit,
    text, unix_millis, wait_while, within,
};
use serde_json::{Value, json};

/// For crowds that are not read for as long as a busy machine takes, and so answer no ping.
const UNPINGED: &[&str] = &["--ping-interval", "3600"];

fn names(users: &Value) -> Vec<&str> {
    users.as_array().expect("a list").iter().map(text).collect()
}

/// The next join or leave.
async fn next_change(connection: &mut Connection) -> (String, String) {
    loop {
        let frame = connection.next().await;
        let kind = text(&frame["type"]);
        if kind == "user_join" || kind == "user_leave" {
            return (kind.to_owned(), text(&frame["username"]).to_owned());
        }
    }
}

fn change(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_user_who_joins_is_counted_listed_and_told_like_everyone() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "Bob").await;
    let mut first = ada.connect().await.settled().await;
    assert_eq!(first.welcome["online"], 1);
    assert_eq!(first.welcome["users"], json!(["ada"]));
    assert_eq!(next_change(&mut first).await, change("user_join", "ada"), "the joiner too");
    let mut second = bob.connect().await;
    assert_eq!(second.welcome["online"], 2);
    assert_eq!(names(&second.welcome["users"]).len(), 2);
    assert_eq!(next_change(&mut second).await, change("user_join", "Bob"));
    assert_eq!(next_change(&mut first).await, change("user_join", "Bob"));
}

#[tokio::test]
async fn a_user_in_three_tabs_joins_once_and_leaves_once() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    assert_eq!(next_change(&mut bob).await, change("user_join", "bob"));
    for _ in 0..3 {
        let tabs = [ada.connect().await, ada.connect().await, ada.connect().await];
        assert_eq!(tabs[2].welcome["online"], 2, "people are counted, not tabs");
        let [first, second, third] = tabs;
        first.close().await;
        second.reset();
        third.close().await;
        assert_eq!(next_change(&mut bob).await, change("user_join", "ada"));
        assert_eq!(next_change(&mut bob).await, change("user_leave", "ada"));
    }
    bob.say("the end").await;
    loop {
        let frame = bob.next().await;
        if frame["type"] == "message" {
            break;
        }
        assert!(!text(&frame["type"]).starts_with("user_"), "one join and one leave a time: {frame}");
    }
}

#[tokio::test]
async fn a_connection_that_does_not_authenticate_is_nobody() {
    let server = TestServer::start();
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    assert_eq!(next_change(&mut bob).await, change("user_join", "bob"));
    let mut nobody = Connection::open(&server).await;
    nobody.send(&json!({"type": "auth", "token": "nonsense"})).await;
    assert_eq!(nobody.close_code().await, 1008);
    Connection::open(&server).await.reset();
    let ada = Client::register(&server, "ada").await.connect().await;
    assert_eq!(ada.welcome["online"], 2);
    assert_eq!(next_change(&mut bob).await, change("user_join", "ada"), "nothing else was told");
}

#[tokio::test]
async fn logging_out_is_leaving() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    let _tab = ada.connect().await;
    let _other_tab = ada.connect().await;
    ada.logout().await;
    assert_eq!(next_change(&mut bob).await, change("user_join", "bob"));
    assert_eq!(next_change(&mut bob).await, change("user_join", "ada"));
    assert_eq!(next_change(&mut bob).await, change("user_leave", "ada"));
}

#[tokio::test]
async fn dead_peers_leave_and_the_living_stay() {
    let server = TestServer::with(&["--ping-interval", "2"]);
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let carol = Client::register(&server, "carol").await;
    let dave = Client::register(&server, "dave").await;
    // ada's machine is gone without a word. carol's answers each ping. bob's library answers while he reads.
    let started = Instant::now();
    let mut dead = RawClient::authenticated(&server, &ada).await;
    let mut living = RawClient::authenticated(&server, &carol).await;
    let answering = tokio::spawn(async move {
        loop {
            let received = living.frame().await;
            if received.first == FIN | PING {
                living.send(&frame(FIN | PONG, &received.payload)).await;
            }
        }
    });
    let mut bob = bob.connect().await.settled().await;
    assert_eq!(bob.next_of("user_leave").await["username"], "ada");
    assert!(started.elapsed().as_secs() >= 5, "silence is 2.5 intervals");
    // Another round of pings: a client that answers is still there.
    let mut dave = RawClient::authenticated(&server, &dave).await;
    assert_eq!(bob.next_of("user_leave").await["username"], "dave");
    assert!(!answering.is_finished());
    answering.abort();
    // Both were closed, not just forgotten.
    within("the close", async { while dead.try_frame().await.is_some() {} }).await;
    within("the close", async { while dave.try_frame().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_ping_comes_every_interval_and_silence_ends_after_two_and_a_half() {
    let server = TestServer::with(&["--ping-interval", "2"]);
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    // He answers his own pings by reading.
    let leaving = tokio::spawn(async move { (bob.next_of("user_leave").await, Instant::now()) });
    let started = Instant::now();
    let mut raw = RawClient::authenticated(&server, &ada).await;
    let (mut answered, mut silent) = (0, started);
    while answered < 3 {
        let received = raw.frame().await;
        if received.first == FIN | PING {
            silent = Instant::now();
            raw.send(&frame(FIN | PONG, &received.payload)).await;
            answered += 1;
        }
    }
    let took = started.elapsed().as_secs_f64();
    assert!((5.9..20.0).contains(&took), "three pings in {took} s");
    assert_eq!(raw.close_code().await, 1001);
    let (left, at) = leaving.await.expect("no panic");
    assert_eq!(left["username"], "ada");
    let after = at.duration_since(silent).as_secs_f64();
    assert!((4.9..20.0).contains(&after), "silent for {after} s");
}

#[tokio::test]
async fn any_frame_is_a_sign_of_life() {
    let server = TestServer::with(&["--ping-interval", "2"]);
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let mut bob = bob.connect().await.settled().await;
    let mut page = RawClient::authenticated(&server, &ada).await;
    // ada's page never answers a ping, but asks now and then whether the server is there.
    let asking = tokio::spawn(async move {
        let started = Instant::now();
        while started.elapsed().as_secs() < 7 {
            page.send(&frame(FIN | TEXT, br#"{"type":"ping"}"#)).await;
            page.next_of("pong").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    assert_eq!(next_change(&mut bob).await, change("user_join", "bob"));
    assert_eq!(next_change(&mut bob).await, change("user_join", "ada"));
    assert_eq!(next_change(&mut bob).await, change("user_leave", "ada"));
    assert!(asking.is_finished(), "she left when she went, and not before");
    asking.await.expect("no panic");
}

#[tokio::test]
async fn joins_and_leaves_add_up_over_many_comings_and_goings() {
    const PEOPLE: usize = 12;
    let server = TestServer::start();
    let people = server.seed_people(PEOPLE + 1).await;
    let (watcher, people) = people.split_last().expect("there are people");
    let mut watcher = watcher.connect().await.settled().await;
    let mut there: BTreeSet<String> = names(&watcher.welcome["users"]).into_iter().map(str::to_owned).collect();
    let restless: Vec<_> = people
        .iter()
        .cloned()
        .zip(0..)
        .map(|(person, seed)| {
            tokio::spawn(async move {
                let mut dice = Dice::new(seed);
                let mut tabs = Vec::new();
                for _ in 0..30 {
                    if tabs.is_empty() || dice.below(2) == 0 {
                        tabs.push(person.connect().await);
                    } else {
                        let tab: Connection = tabs.swap_remove(dice.below(tabs.len()));
                        if dice.below(2) == 0 { tab.close().await } else { tab.reset() }
                    }
                }
                tabs
            })
        })
        .collect();
    let mut tabs = Vec::new();
    for person in restless {
        tabs.push(person.await.expect("no panic"));
    }
    let mut expected = BTreeSet::from([text(&watcher.welcome["username"]).to_owned()]);
    expected.extend(tabs.iter().flatten().map(|tab| text(&tab.welcome["username"]).to_owned()));
    assert_eq!(next_change(&mut watcher).await.1, text(&watcher.welcome["username"]));
    while there != expected {
        let (kind, name) = next_change(&mut watcher).await;
        let is_change = if kind == "user_join" { there.insert(name.clone()) } else { there.remove(&name) };
        assert!(is_change, "a {kind} of {name} who had done so");
    }
}

#[tokio::test]
async fn over_1000_people_are_counted_and_under_900_they_are_named_again() {
    const CROWD: usize = 1_010;
    const EVERYONE: i64 = 1_011;
    raise_descriptor_limit();
    let server = TestServer::with(UNPINGED);
    let people = server.seed_people(CROWD + 1).await;
    let (watcher, people) = people.split_last().expect("there are people");
    let mut watcher = watcher.connect().await.settled().await;
    let watching = tokio::spawn(async move {
        // Joins name people until there are too many of them; then their number comes.
        let mut joins = 0;
        let online = loop {
            let frame = watcher.next().await;
            match text(&frame["type"]) {
                "user_join" => joins += 1,
                "presence" => break int(&frame["online"]),
                other => panic!("no {other} yet"),
            }
        };
        (watcher, joins, online)
    });

    let started = Instant::now();
    let mut crowd = gather(people).await;
    let last = &crowd[CROWD - 1].welcome;
    assert_eq!(names(&last["users"]).len(), 200, "a long list is cut");
    assert!(names(&last["users"]).is_sorted());
    let (mut watcher, joins, online) = watching.await.expect("no panic");
    assert_eq!(joins, 1_000, "as many as are not too many");
    assert!(online > 1_000, "{online} are too many to name");

    // The count settles on the truth, and comes once a second at most (and once at the switch).
    let mut counts = 1;
    let mut online = online;
    while online != EVERYONE {
        let frame = watcher.next().await;
        assert_eq!(frame["type"], "presence", "nobody is named: {frame}");
        online = int(&frame["online"]);
        counts += 1;
    }
    assert!(counts <= 2 + started.elapsed().as_secs(), "{counts} in {:?}", started.elapsed());

    // Down to 898: until they are under 900 nobody is named; then comes a list to go on from, and leaves are told.
    let mut staying = crowd.split_off(CROWD - 897);
    drop(crowd);
    let switch = loop {
        let frame = watcher.next().await;
        assert_eq!(frame["type"], "presence", "nobody is named while {online} are there: {frame}");
        online = int(&frame["online"]);
        if !frame["users"].is_null() {
            break frame;
        }
        assert!(online >= 900, "{online} people are few enough to be named");
    };
    assert_eq!(online, 899);
    assert_eq!(names(&switch["users"]).len(), 200);
    assert!(names(&switch["users"]).is_sorted());
    while online != 898 {
        let frame = watcher.next().await;
        assert_eq!(frame["type"], "user_leave", "{frame}");
        online -= 1;
    }
    let gone = staying.pop().expect("someone is there");
    let name = text(&gone.welcome["username"]).to_owned();
    gone.close().await;
    assert_eq!(watcher.next_of("user_leave").await["username"], name.as_str());
}

#[tokio::test]
async fn while_people_are_only_counted_nobody_is_told_who_types() {
    const CROWD: usize = 1_001;
    raise_descriptor_limit();
    let server = TestServer::with(UNPINGED);
    let people = server.seed_people(CROWD).await;
    let mut crowd = gather(&people).await;
    let (mut typist, mut watcher) = (crowd.pop().expect("a crowd"), crowd.pop().expect("a crowd"));
    typist.send(&json!({"type": "typing"})).await;
    typist.say("hello").await;
    loop {
        let frame = watcher.next().await;
        assert_ne!(frame["type"], "typing");
        if frame["type"] == "message" {
            break;
        }
    }
}

#[tokio::test]
async fn a_bot_is_heard_and_not_counted_as_present() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    ada.expect("user_join").await;
    let mut ada = ada.settled().await;
    let path = server.database_path();
    let added = tokio::task::spawn_blocking(move || common::chinwag(&path, &["bot", "add", "ci"]));
    let token = added.await.expect("no panic").ok();
    let mut bot = Client::known(&server, "ci", token.trim()).connect().await.settled().await;
    assert_eq!((int(&bot.welcome["online"]), names(&bot.welcome["users"])), (1, vec!["ada"]));
    bot.say("the build is done").await;
    let heard = ada.next().await;
    assert_eq!((text(&heard["type"]), &heard["bot"]), ("message", &json!(true)), "no join before it: {heard}");
    bot.close().await;
    ada.send(&json!({"type": "ping"})).await;
    assert_eq!(ada.next().await["type"], "pong");
}

#[tokio::test]
async fn names_are_sorted_without_regard_to_case() {
    let server = TestServer::start();
    let mut last = None;
    for name in ["Zoe", "bob", "ada"] {
        last = Some(Client::register(&server, name).await.connect().await);
    }
    assert_eq!(last.expect("ada's").welcome["users"], json!(["ada", "bob"]));
}

#[tokio::test]
async fn somebody_who_leaves_was_last_seen_then() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let connection = ada.connect().await;
    let last_seen = async || {
        let found = server.get("/users?prefix=%61da").by(&bob).send().await.json();
        found["users"][0]["last_seen"].as_i64()
    };
    assert!(last_seen().await.is_some(), "she has logged in");
    let left_at = unix_millis();
    connection.close().await;
    wait_while("her leave to be stored", async || last_seen().await < Some(left_at)).await;
}
