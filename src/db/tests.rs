//! What only the inside of the process can bring about: a writer that stands still, and a reader that has much to do.

use std::future::Future;
use std::sync::mpsc as blocking;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::apply::{Effects, Transaction};
use super::change::{Done, Moment, Sweep, Swept};
use super::data::Prune;
use super::nonce_days::NonceDays;
use super::nonces::Nonces;
use super::*;
use crate::config::Durability;
use crate::limits::{
    CHUNK_MAX_BYTES, CLEAN_IMAGES, CLEAN_ROWS, ERASE_ROWS, PRUNE_ROWS, REPLAY_MAX_MESSAGES, USER_SESSIONS_MAX,
};
use crate::model::{CONTENT_MAX_CHARS, Content};
use crate::secret::Token;

/// A database whose commits can be held up after they are made, and which notes the sessions that end.
struct Held {
    db: Db,
    ada: Sender,
    token: Token,
    ended: Arc<Mutex<Vec<SessionId>>>,
    /// How many events each commit had.
    commits: Arc<Mutex<Vec<usize>>>,
    /// Each commit takes one to go on; all go on when it is dropped.
    go_on: blocking::Sender<()>,
    /// Says that a commit waits to go on.
    waits: blocking::Receiver<()>,
    _threads: Threads,
    directory: TempDir,
}

impl Held {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (go_on, gone_on) = blocking::channel();
        let (waiting, waits) = blocking::channel();
        let ended = Arc::new(Mutex::new(Vec::new()));
        let commits = Arc::new(Mutex::new(Vec::new()));
        let (noted, counted) = (Arc::clone(&ended), Arc::clone(&commits));
        let on_commit = move |committed: Committed<'_>| match committed {
            Committed::SessionsEnded(sessions) => noted.lock().unwrap_or_else(PoisonError::into_inner).extend(sessions),
            Committed::Stored(commit) => {
                counted.lock().unwrap_or_else(PoisonError::into_inner).push(commit.events.len());
                if !commit.events.is_empty() {
                    waiting.send(()).ok();
                    gone_on.recv().ok();
                }
            }
            Committed::Membership(_) | Committed::TurnedUp(_) => {}
        };
        let path = directory.path().join("chinwag.db");
        let (db, threads) = Db::open(&path, Options::default(), Box::new(on_commit)).unwrap();
        let username = Username::parse("ada").unwrap();
        db.register_user(username.clone(), String::new(), None).await.unwrap();
        let user = db.credentials(username.clone()).await.unwrap().unwrap().user;
        let token = Token::random();
        let session = db.login_user(user, String::new(), token.digest(), String::new()).await.unwrap().unwrap();
        let ada = Sender { session, user, username, is_bot: false };
        Self { db, ada, token, ended, commits, go_on, waits, _threads: threads, directory }
    }

    /// Stores a message, whose commit then stands still.
    async fn stand_still(&self) {
        self.store("first").await.unwrap();
        self.waits.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    fn store(
        &self,
        content: &str,
    ) -> impl Future<Output = Result<Vec<Result<WriteOutcome, WriteError>>, Error>> + use<> {
        self.store_content(Content::parse(content).unwrap())
    }

    fn store_content(
        &self,
        content: Content,
    ) -> impl Future<Output = Result<Vec<Result<WriteOutcome, WriteError>>, Error>> + use<> {
        let writes = vec![Write::Message(NewMessage::plain(content, None))];
        let (db, sender) = (self.db.clone(), self.ada.clone());
        async move { db.write(sender, writes).await }
    }
}

/// Begins all of `futures`, and says which of them are refused at once.
async fn begin<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
) -> (Vec<tokio::task::JoinHandle<Result<T, Error>>>, usize) {
    let (mut begun, mut refused) = (Vec::new(), 0);
    for future in futures {
        let mut task = tokio::spawn(future);
        tokio::task::yield_now().await;
        if task.is_finished() {
            refused += usize::from((&mut task).await.unwrap().is_err());
        } else {
            begun.push(task);
        }
    }
    (begun, refused)
}

#[tokio::test]
async fn senders_are_answered_before_the_shards_are_waited_for() {
    let held = Held::open().await;
    // The hook stands still, as it does while it waits for shards that are behind, and nobody lets it go on.
    assert_eq!(held.store("first").await, Ok(vec![Ok(WriteOutcome { event: MessageId::new(1), is_repeat: false })]));
    held.waits.recv_timeout(Duration::from_secs(30)).expect("the message is being published");
}

#[tokio::test]
async fn a_message_waits_for_one_picture_at_most() {
    let held = Held::open().await;
    held.stand_still().await;
    let before = held.commits.lock().unwrap().len();
    let store_image = || {
        let (db, Sender { session, user, .. }) = (held.db.clone(), held.ada.clone());
        let image = NewImage { subtype: "png".into(), width: 1, height: 1, bytes: vec![0; 1_000] };
        async move { db.store_image(session, user, image).await.map_err(|_| Error::Unavailable) }
    };
    let (pictures, _) = begin((0..3).map(|_| store_image())).await;
    let (messages, _) = begin(std::iter::once(held.store("behind three pictures"))).await;
    drop(held.go_on);
    for picture in pictures {
        picture.await.unwrap().unwrap();
    }
    for message in messages {
        message.await.unwrap().unwrap();
    }
    let commits = held.commits.lock().unwrap()[before..].to_vec();
    assert!(commits.iter().position(|events| *events == 1) <= Some(1), "{commits:?}");
    assert_eq!(commits.iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn of_one_batch_the_command_that_fails_by_itself_fails_alone() {
    let held = Held::open().await;
    held.stand_still().await;
    let database = rusqlite::Connection::open(held.directory.path().join("chinwag.db")).unwrap();
    let none_left = "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'sessions'";
    database.execute(none_left, []).unwrap();
    let (db, user) = (held.db.clone(), held.ada.user);
    let login = async move { db.login_user(user, String::new(), Token::random().digest(), String::new()).await };
    let (before, _) = begin(std::iter::once(held.store("before"))).await;
    let (login, _) = begin(std::iter::once(login)).await;
    let (after, _) = begin(std::iter::once(held.store("after"))).await;
    drop(held.go_on);
    for message in before.into_iter().chain(after) {
        message.await.unwrap().expect("it is stored");
    }
    for login in login {
        assert_eq!(login.await.unwrap(), Err(Error::Unavailable));
    }
}

#[tokio::test]
async fn messages_that_wait_take_a_bounded_number_of_bytes() {
    let held = Held::open().await;
    held.stand_still().await;
    // Once, since all of them are to be there before the first has waited for too long.
    let content = Content::parse(&"\u{1f642}".repeat(4_000)).unwrap();
    // More than fit, and fewer than there are places.
    let (waiting, refused) = begin((0..2_000).map(|_| held.store_content(content.clone()))).await;
    assert!(waiting.len() * 16_000 <= WRITE_QUEUE_BYTES, "{} wait", waiting.len());
    assert!(waiting.len() * 17_000 > WRITE_QUEUE_BYTES, "{} wait", waiting.len());
    assert_eq!(waiting.len() + refused, 2_000);
    drop(held.go_on);
    for stored in waiting {
        stored.await.unwrap().unwrap();
    }
    let (db, sender) = (held.db.clone(), held.ada.clone());
    let message = NewMessage::plain(Content::parse("there is room again").unwrap(), None);
    db.write(sender, vec![Write::Message(message)]).await.unwrap();
}

#[tokio::test]
async fn strangers_leave_room_for_messages_while_the_writer_stands_still() {
    let held = Held::open().await;
    held.stand_still().await;
    let logout = || {
        let db = held.db.clone();
        async move { db.end_session(Token::random().digest()).await }
    };
    let (logouts, refused) = begin((0..WRITE_QUEUE).map(|_| logout())).await;
    assert!(refused > 0, "they are bounded");
    let health = held.db.clone();
    assert_eq!(health.check().await, Err(Error::Unavailable), "nor do health checks fill what is left");
    let (stored, refused) = begin((0..100).map(|_| held.store("there is room"))).await;
    assert_eq!(refused, 0);
    drop(held.go_on);
    for message in stored {
        message.await.unwrap().unwrap();
    }
    for logout in logouts {
        assert!(!logout.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn nothing_is_stored_once_the_session_has_ended() {
    let held = Held::open().await;
    assert!(held.db.end_session(held.token.digest()).await.unwrap());
    assert_eq!(held.store("too late").await, Err(Error::SessionEnded));
    assert_eq!(held.db.last_id(), MessageId::default());
    assert_eq!(*held.ended.lock().unwrap(), [held.ada.session]);
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_logins_and_the_oldest_ends() {
    let held = Held::open().await;
    for _ in 1..USER_SESSIONS_MAX {
        held.db
            .login_user(held.ada.user, String::new(), Token::random().digest(), String::new())
            .await
            .unwrap()
            .unwrap();
    }
    assert!(held.db.session_lives(held.ada.session).await.unwrap());
    held.db.login_user(held.ada.user, String::new(), Token::random().digest(), String::new()).await.unwrap().unwrap();
    assert!(!held.db.session_lives(held.ada.session).await.unwrap());
    assert_eq!(*held.ended.lock().unwrap(), [held.ada.session]);
}

#[tokio::test]
async fn what_was_missed_is_read_in_pieces_that_are_bounded_in_bytes() {
    let mut held = Held::open().await;
    // No commit is held up.
    held.go_on = blocking::channel().0;
    let content = "x".repeat(CONTENT_MAX_CHARS);
    for _ in 0..2 * CHUNK_MAX_BYTES / CONTENT_MAX_CHARS {
        held.store(&content).await.unwrap();
    }
    let beginning = MessageId::default();
    let seen = held.db.last_id();
    let query = |after| BacklogQuery { user: held.ada.user, all_rooms: true, after, origin: beginning, seen };
    let first = held.db.backlog(query(beginning), REPLAY_MAX_MESSAGES).await.unwrap();
    let missed = first.missed.unwrap();
    // One more than fit, since the last of them is seen to be too much when it has been read.
    let fit = CHUNK_MAX_BYTES / CONTENT_MAX_CHARS;
    assert!((fit / 2..=fit + 1).contains(&missed.len()), "{} of {seen:?}", missed.len());
    assert_eq!(first.up_to, missed.last().unwrap().id());
    let rest = held.db.backlog(query(first.up_to), REPLAY_MAX_MESSAGES).await.unwrap();
    assert_eq!(rest.missed.unwrap()[0].id(), first.up_to.next());
    let range = IdRange { first: beginning.next(), last: seen };
    let page = held.db.messages_in(held.ada.user, RoomId::LOBBY, range).await.unwrap();
    assert!((fit / 2..=fit + 1).contains(&page.len()), "{} of {seen:?}", page.len());
}

/// A database with nothing in it, as the writer has it open.
fn empty() -> (TempDir, rusqlite::Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chinwag.db");
    files::create_private(&path).unwrap();
    let connection = open::open_writer(&path, Durability::Normal).unwrap();
    (directory, connection)
}

#[tokio::test]
async fn a_name_is_only_said_to_be_taken_if_it_is() {
    let held = Held::open().await;
    let other = open::open_writer(&held.directory.path().join("chinwag.db"), Durability::Normal).unwrap();
    other.execute_batch("CREATE TRIGGER fail BEFORE INSERT ON users BEGIN SELECT no_such_function(); END").unwrap();
    let username = Username::parse("bob").unwrap();
    let registered = held.db.register_user(username.clone(), String::new(), None).await;
    assert_eq!(registered, Err(Error::Unavailable));
    let added = held.db.administer(AdminCommand::AddUser { username, password_hash: String::new() }).await;
    assert_eq!(added.unwrap_err(), AdminError::Unavailable);
}

/// What a sweep says once `statements` have run: whether to come back soon, and the oldest use of a session.
fn swept_after(statements: &str) -> (bool, Option<UnixMillis>) {
    let (_directory, connection) = empty();
    let user = "INSERT INTO users (id, name, password_hash, created_at) VALUES (1, 'ada', '', 1);";
    connection.execute_batch(&[user, statements].concat()).unwrap();
    let (mut last_id, mut nonces, mut effects) = (MessageId::default(), Nonces::default(), Effects::default());
    let mut transaction =
        Transaction { connection: &connection, last_id: &mut last_id, nonces: &mut nonces, effects: &mut effects };
    let now = UnixMillis(10);
    let nonce_days = NonceDays { today: 1, before: [None, None] };
    let sweep = Sweep {
        rows: 2,
        emptied_until: now,
        unnamed_until: now,
        images_until: None,
        images: CLEAN_IMAGES,
        prune: None,
    };
    let moment = Moment { now, expiry: now, expired_at: UnixMillis(5), nonce_days };
    match transaction.at(moment).run(&Change::Sweep(sweep)).unwrap() {
        Done::Swept(Swept { more_expired, oldest_use, .. }) => (more_expired, oldest_use),
        done => panic!("{done:?}"),
    }
}

#[test]
fn a_sweep_comes_back_soon_if_it_may_have_left_something() {
    let sessions = |used: &[i64]| -> String {
        let insert = |(at, used): (usize, &i64)| {
            format!(
                "INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (zeroblob({at}), 1, 1, {used});"
            )
        };
        used.iter().enumerate().map(insert).collect()
    };
    let nonces = |users| format!("INSERT INTO nonces (day, user_id, nonce, message_id) VALUES {users};");
    assert_eq!(swept_after(""), (false, None));
    assert_eq!(swept_after(&sessions(&[1, 7, 6])), (false, Some(UnixMillis(6))));
    assert_eq!(swept_after(&sessions(&[1, 2, 8])), (true, Some(UnixMillis(8))));
    assert_eq!(swept_after(&nonces("(0, 1, '', 1)")), (false, None));
    assert_eq!(swept_after(&nonces("(0, 1, '', 1), (0, 2, '', 2)")), (true, None));
    let picture = "INSERT INTO images (id, user_id, subtype, width, height, created_at, bytes)
        VALUES (1, 1, 'gif', 1, 1, 1, x'');";
    assert_eq!(swept_after(picture), (true, None));
    let room = "INSERT INTO rooms (id, kind, name, emptied_at, created_at, changed) VALUES (3, 2, 'Plans', 1, 1, 1);";
    assert_eq!(swept_after(room), (true, None));
}

#[test]
fn a_room_that_was_left_is_removed_in_steps_that_are_bounded_in_bytes() {
    let (_directory, connection) = empty();
    let pictures = "
        INSERT INTO users (id, name, password_hash, created_at) VALUES (1, 'ada', '', 1);
        INSERT INTO rooms (id, kind, name, emptied_at, created_at, changed) VALUES (3, 2, 'Plans', 1, 1, 1);
        INSERT INTO images (id, user_id, message_id, subtype, width, height, created_at, bytes)
            VALUES (1, 1, 1, 'gif', 1, 1, 1, zeroblob(524288)), (2, 1, 2, 'gif', 1, 1, 1, zeroblob(524288));
        INSERT INTO messages (id, user_id, content, created_at, room_id, image_id)
            VALUES (1, 1, '', 1, 3, 1), (2, 1, '', 1, 3, 2);";
    connection.execute_batch(pictures).unwrap();
    let left = || -> (i64, i64) {
        let counts = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM rooms WHERE id = 3)";
        connection.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for expected in [(1, 1), (0, 1), (0, 0)] {
        assert!(sql::remove_emptied(&connection, UnixMillis(2), CLEAN_ROWS).unwrap());
        assert_eq!(left(), expected);
    }
    assert!(!sql::remove_emptied(&connection, UnixMillis(2), CLEAN_ROWS).unwrap());
}

#[test]
fn of_the_rooms_that_somebody_was_in_and_that_are_no_more_as_many_are_known_as_are_told_of() {
    let (_directory, connection) = empty();
    let members = "
        INSERT INTO rooms (id, kind, name, created_at, changed) VALUES (2, 2, 'Plans', 1, 1), (3, 2, 'More', 1, 1);
        WITH RECURSIVE n (id) AS (VALUES (10) UNION ALL SELECT id + 1 FROM n WHERE id < 2000)
            INSERT INTO members SELECT id, 1, id, 0 FROM n UNION ALL SELECT id, 2, id, 0 FROM n WHERE id < 20;
        INSERT INTO members VALUES (2, 1, 5, 0), (3, 1, 6, 1);";
    connection.execute_batch(members).unwrap();
    sql::set_member(&connection, RoomId(3), UserId(1), MessageId::new(3_000), false).unwrap();
    let gone = sql::gone_after(&connection, UserId(1), MessageId::default()).unwrap();
    assert_eq!(gone.len(), REPLAY_MAX_MESSAGES as usize + 1 + 2, "and those that are there");
    assert_eq!(gone.iter().filter(|(event, _)| event.get() < 1_000).count(), 1, "the last ones");
    assert_eq!(sql::gone_after(&connection, UserId(2), MessageId::default()).unwrap().len(), 10, "another's");
}

#[test]
fn pictures_are_removed_in_steps_that_are_bounded_in_bytes() {
    let (_directory, connection) = empty();
    let pictures = "
        WITH n (id, bytes) AS (VALUES (1, 524288), (2, 200000), (3, 50000), (4, 50000), (5, 524288), (6, 1), (7, 1))
            INSERT INTO images (id, user_id, message_id, subtype, width, height, created_at, bytes)
            SELECT id, 1, nullif(id > 4, 0), 'gif', 1, 1, 1, zeroblob(bytes) FROM n;";
    connection.execute_batch(pictures).unwrap();
    let step = || sql::delete_images(&connection, UnixMillis(2), Some(UnixMillis(2)), CLEAN_IMAGES).unwrap();
    assert_eq!([(); 6].map(|()| step()), [1, 2, 1, 1, 2, 0]);
}

#[test]
fn old_messages_and_those_of_a_user_are_removed_in_steps_that_are_bounded_in_bytes() {
    const LONGEST: usize = 16_000;
    let (_directory, connection) = empty();
    let messages = "
        INSERT INTO users (id, name, password_hash, created_at) VALUES (1, 'ada', '', 1);
        WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < 500)
            INSERT INTO messages (id, user_id, content, created_at, room_id)
            SELECT id, 1, hex(zeroblob(8000)), 1, 1 FROM n;";
    connection.execute_batch(messages).unwrap();
    // Those of a user are taken away by steps of more rows.
    let last = sql::step(&connection, MessageId::default(), ERASE_ROWS).unwrap().unwrap();
    assert!(usize::try_from(last.get()).unwrap() * LONGEST <= 1024 * 1024 + LONGEST, "up to {last:?}");
    let (mut after, mut steps) = (MessageId::default(), Vec::new());
    loop {
        let prune = Prune { after, until: MessageId::default(), before: UnixMillis(2), rows: PRUNE_ROWS };
        let pruned = sql::prune_messages(&connection, prune).unwrap();
        let Some(next) = pruned.next else { break };
        steps.push(pruned.removed);
        after = next;
    }
    assert_eq!(steps.iter().sum::<usize>(), 500);
    let largest = steps.iter().max().unwrap() * LONGEST;
    assert!(largest <= 256 * 1024 + LONGEST, "{largest} bytes at once, {steps:?}");
}

/// Every string of the sources below a directory that has a `LIMIT`, in one line.
fn limited(directory: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            limited(&path, found);
        } else {
            let source = std::fs::read_to_string(&path).unwrap();
            found.extend(source.split('"').filter(|text| text.contains(" LIMIT ?")).map(ToOwned::to_owned));
        }
    }
}

#[test]
fn where_a_statement_takes_some_of_the_rows_it_says_which() {
    let mut statements = Vec::new();
    limited(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/db/sql"), &mut statements);
    assert!(statements.len() > 20, "{statements:#?}");
    // Without an order it is the planner's choice, which another node, or another version of SQLite, may make otherwise.
    // Only how many there are does not depend on it.
    let is_ordered = |statement: &&String| {
        statement.contains("count(*)") || statement.matches("ORDER BY").count() == statement.matches("LIMIT").count()
    };
    assert_eq!(statements.iter().find(|statement| !is_ordered(statement)), None);
}
