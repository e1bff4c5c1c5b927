//! Who is named in a message.

use serde_json::{Value, json};

use crate::suite::check::{Check, expect, is_like, like, one};
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// So many names count in one message.
const MENTIONS_MAX: usize = 16;

pub(crate) const ROWS: &[Row] = table! {
    "mention", "@name is a mention, in the spelling registered, live and in a page" => mention;
    "mention-start", "only at a word's start, not behind a letter, digit, dot, slash or @" => mention_start;
    "mention-end", "what ends in . _ - is cut off one by one until somebody has that name" => mention_end;
    "mention-readers", "only of somebody who may read the room" => mention_readers;
    "mention-max", "at most 16" => mention_max;
    "mention-all", "@all counts from a moderator, and from anybody in a private room" => mention_all;
    "mention-edit", "an edit resolves none again: the frame repeats the first ones" => mention_edit;
    "mentioned", "ROOM counts the unread messages that name the reader" => mentioned;
};

/// The mentions of `content`, said by `who` in `room`.
async fn named(w: &World, who: &Person, room: i64, content: &str) -> Check<Vec<String>> {
    let id = w.say(who, room, content).await?;
    let shown = w.message(who, room, id).await?;
    let names = shown["mentions"].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).map(ToOwned::to_owned).collect())
}

async fn names(w: &World, who: &Person, room: i64, content: &str, expected: &[&str]) -> Check {
    let got = named(w, who, room, content).await?;
    expect(got == expected, format!("mentions {expected:?} in {content:?}"), format!("{got:?}"))
}

async fn mention(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let mut socket = w.connect(&ben).await?;
    let id = w.say(&ada, 1, &format!("@{}, are you there?", ben.name.to_uppercase())).await?;
    let expected = json!({"id": id, "mentions": [ben.name]});
    one(&socket.until(id).await?, &expected)?;
    like(&w.message(&ada, 1, id).await?, &expected)?;
    names(&w, &ada, 1, "nobody", &[]).await
}

async fn mention_start(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let name = &ben.name;
    for before in ["x", "7", ".", "/", "@", "ü"] {
        names(&w, &ada, 1, &format!("{before}@{name}"), &[]).await?;
    }
    for before in ["", "(", "\"", "\n", "-"] {
        names(&w, &ada, 1, &format!("{before}@{name}"), &[name]).await?;
    }
    Ok(())
}

async fn mention_end(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let name = &ben.name;
    for after in [".", "...", "-", "_.", ", and", "!"] {
        names(&w, &ada, 1, &format!("@{name}{after}"), &[name]).await?;
    }
    names(&w, &ada, 1, &format!("@{name}x"), &[]).await
}

async fn mention_readers(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben]).await?;
    names(&w, &ada, room, &format!("@{} and @{}", cy.name, ben.name), &[&ben.name]).await
}

async fn mention_max(w: World) -> Check {
    let (zed, mut others) = (w.cast("ada").await?, Vec::new());
    for _ in 0..=MENTIONS_MAX {
        others.push(w.account("other").await?.name);
    }
    let content: Vec<_> = others.iter().map(|name| format!("@{name}")).collect();
    let expected: Vec<_> = others[..MENTIONS_MAX].iter().map(String::as_str).collect();
    names(&w, &zed, 1, &content.join(" "), &expected).await
}

async fn mention_all(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let said = w.say(&ada, room, "dinner, @all!").await?;
    let shown = w.room(&ben, room).await?;
    like(&shown, &json!({"last": {"id": said}, "mentioned": 1}))?;
    let open = w.open_room().await?;
    for (who, counts) in [(&ada, 0), (&w.moderator().await?, 1)] {
        w.say(who, open, "hello @ALL").await?;
        let shown = w.room(&ben, open).await?;
        like(&shown, &json!({"mentioned": counts}))?;
    }
    Ok(())
}

async fn mention_edit(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let message = w.say(&ada, 1, &format!("@{}", ben.name)).await?;
    let mut socket = w.connect(&ben).await?;
    let id = w.edit(&ada, message, &format!("@{}", cy.name)).await?;
    one(&socket.until(id).await?, &json!({"type": "edit", "id": id, "mentions": [ben.name]}))?;
    like(&w.message(&ada, 1, message).await?, &json!({"mentions": [ben.name]}))
}

async fn mentioned(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben, &cy]).await?;
    w.say(&ada, room, &format!("@{} and", ben.name)).await?;
    w.say(&ada, room, &format!("again @{}", ben.name)).await?;
    w.say(&ada, room, "nobody").await?;
    for (reader, count) in [(&ben, 2), (&cy, 0)] {
        let shown = w.room(reader, room).await?;
        expect(
            is_like(&shown, &json!({"mentioned": count, "unread": 3})),
            format!("3 unread, {count} naming them"),
            &shown,
        )?;
    }
    Ok(())
}
