//! Finding what was said.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, ids, int, list, none};
use crate::suite::http::Call;
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// More steps than a search of a small server needs.
const STEPS_MAX: usize = 1_000;

pub(crate) const ROWS: &[Row] = table! {
    "search", "GET /search finds TEXT anywhere in a word, newest first, as MESSAGE" => search;
    "search-folded", "without regard to case" => search_folded;
    "search-plain", "as it stands: no operators, % and _ are plain" => search_plain;
    "search-pages", "limit at a time, on with before, which is null only at the end" => search_pages;
    "search-room", "in one room if it is named" => search_room;
    "search-from", "from=NAME finds that one's, from an unknown name nothing" => search_from;
    "search-own-rooms", "only in rooms that this user may read" => search_own_rooms;
    "search-hidden", "a room one may not read is not_found" => search_hidden;
    "search-query", "TEXT has 1 to 100 characters after trimming" => search_query;
    "search-limit", "limit is 1 to 100" => search_limit;
};

/// Everything that is found, in as many steps as it takes.
async fn find(w: &World, who: &Person, query: &str) -> Check<Vec<Value>> {
    let (mut found, mut before) = (Vec::new(), String::new());
    for _ in 0..STEPS_MAX {
        let step = w.get(who, &format!("/search?{query}{before}")).await?.ok(200)?;
        found.extend(list(&step, "messages")?.iter().cloned());
        match step["before"].as_i64() {
            Some(id) => before = format!("&before={id}"),
            None => {
                return expect(step.get("before") == Some(&Value::Null), "before: an id or null", &step)
                    .map(|()| found);
            }
        }
    }
    expect(false, "an end of the search", format!("none after {STEPS_MAX} steps")).map(|()| found)
}

async fn finds(w: &World, who: &Person, query: &str, expected: &[i64]) -> Check {
    let got = ids(&find(w, who, query).await?);
    expect(got == expected, format!("{expected:?} for {query}"), format!("{got:?}"))
}

async fn search(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let first = w.say(&ada, room, "the needlework").await?;
    w.say(&ada, room, "something else").await?;
    let second = w.say(&ada, room, "a needle").await?;
    finds(&w, &ada, &format!("q=eedl&room={room}"), &[second, first]).await?;
    let found = find(&w, &ada, &format!("q=needlework&room={room}")).await?;
    let expected = json!([{"id": first, "room": room, "username": ada.name, "content": "the needlework"}]);
    crate::suite::check::like(&Value::from(found), &expected)
}

async fn search_folded(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let id = w.say(&ada, room, "Ärger in ΟΔΟΣ").await?;
    // %C3%A4 is ä, and the Greek is "οδος" with the final sigma.
    finds(&w, &ada, &format!("q=%C3%A4RGER&room={room}"), &[id]).await?;
    finds(&w, &ada, &format!("q=%CE%BF%CE%B4%CE%BF%CF%82&room={room}"), &[id]).await
}

async fn search_plain(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let percent = w.say(&ada, room, "100% sure").await?;
    w.say(&ada, room, "100 or so").await?;
    let line = w.say(&ada, room, "snake_case").await?;
    w.say(&ada, room, "snake case").await?;
    let quoted = w.say(&ada, room, "\"exactly\" OR not").await?;
    finds(&w, &ada, &format!("q=0%25&room={room}"), &[percent]).await?;
    finds(&w, &ada, &format!("q=e_c&room={room}"), &[line]).await?;
    finds(&w, &ada, &format!("q=%22exactly%22%20OR&room={room}"), &[quoted]).await
}

async fn search_pages(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let room = w.private(&ada, &[]).await?;
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.insert(0, w.say(&ada, room, &format!("page {number}")).await?);
    }
    let step = w.get(&ada, &format!("/search?q=page&room={room}&limit=2")).await?.ok(200)?;
    expect(list(&step, "messages")?.len() <= 2, "two at most", &step)?;
    expect(step["before"].is_i64(), "before, since there is more", &step)?;
    finds(&w, &ada, &format!("q=page&room={room}&limit=2"), &expected).await
}

async fn search_room(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let (room, other) = (w.private(&ada, &[]).await?, w.private(&ada, &[]).await?);
    let word = w.unique("word");
    let here = w.say(&ada, room, &word).await?;
    let there = w.say(&ada, other, &word).await?;
    finds(&w, &ada, &format!("q={word}&room={room}"), &[here]).await?;
    finds(&w, &ada, &format!("q={word}"), &[there, here]).await
}

async fn search_from(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    w.say(&ada, room, "the word").await?;
    let his = w.say(&ben, room, "the word, too").await?;
    finds(&w, &ada, &format!("q=word&room={room}&from={}", ben.name), &[his]).await?;
    finds(&w, &ada, &format!("q=word&room={room}&from={}", w.unique("nobody")), &[]).await
}

async fn search_own_rooms(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    let word = w.unique("word");
    let hidden = w.say(&ada, room, &word).await?;
    let open = w.say(&ada, 1, &word).await?;
    let found = find(&w, &ben, &format!("q={word}")).await?;
    none(&found, &json!({"id": hidden}))?;
    let got = ids(&found);
    expect(got == [open], format!("only {open}"), format!("{got:?}"))
}

async fn search_hidden(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[]).await?;
    int(&json!({"id": room}), "id")?;
    w.hidden(
        Call::new("GET", format!("/search?q=x&room={room}")).by(&ben),
        Call::new("GET", format!("/search?q=x&room={}", 1_i64 << 52)).by(&ben),
    )
    .await
}

async fn search_query(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for query in ["", "q=", "q=%20%20", &format!("q={}", "x".repeat(101))] {
        w.get(&ada, &format!("/search?{query}")).await?.refused(400, "invalid_request")?;
    }
    w.get(&ada, &format!("/search?q=%20{}%20", "x".repeat(100))).await?.ok(200).map(|_| ())
}

async fn search_limit(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for limit in ["0", "101", "x"] {
        w.get(&ada, &format!("/search?q=x&limit={limit}")).await?.refused(400, "invalid_request")?;
    }
    w.get(&ada, "/search?q=x&limit=100").await?.ok(200).map(|_| ())
}
