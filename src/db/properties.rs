//! Properties of applying changes that hold for any sequence of them: the same changes give the same database, whenever
//! and in whatever batches they are applied, and none of them fails a transaction.

#[cfg(feature = "cluster")]
mod entries;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::change::{Moment, Step, Sweep};
use super::data::Prune;
use super::nonce_days::NonceDays;
#[cfg(any(feature = "push", feature = "cluster"))]
use super::push::PushChange;
use super::writer::Writer;
use super::*;
use crate::config::{Durability, Retention};
use crate::model::{Content, ID_MAX, Nonce};
use crate::room::{AltText, Emoji, ImageId, NotifyAbout, REACTIONS, RoomName, Topic};

const CASES: u32 = 48;
const CHANGES: usize = 40;

/// A writer without its thread, and the database it writes.
struct Fixture {
    writer: Writer,
    shared: Arc<Shared>,
    reading: Connection,
    path: PathBuf,
    _directory: TempDir,
}

impl Fixture {
    /// A database that has given ids up to `last_id` already.
    fn new(last_id: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        files::create_private(&path).unwrap();
        let connection = open::open_writer(&path, Durability::Normal).unwrap();
        sql::raise_high_water(&connection, MessageId::new(last_id)).unwrap();
        let shared = Shared::new(&connection, &path, Lock::take(&path).unwrap(), Retention::default()).unwrap();
        let shared = Arc::new(shared);
        let writer = Writer::new(connection, &path, Arc::clone(&shared), Box::new(|_| {})).unwrap();
        Self { writer, shared, reading: sql::open_reader(&path).unwrap(), path, _directory: directory }
    }

    /// Applies a batch; whether it was committed.
    fn commit(&mut self, batch: &[(Moment, Change)]) -> bool {
        let step =
            |(moment, change): &(Moment, Change)| Step { moment: *moment, change: change.clone(), reply: Reply::None };
        self.writer.commit(batch.iter().map(step).collect(), || 0);
        !self.shared.failing.load(Ordering::Relaxed)
    }

    /// Every row there is, except the name of the history, which is random by design. In which table a nonce is depends on
    /// who else wrote in its commit.
    fn rows(&self) -> Vec<(String, Vec<Value>)> {
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let mut names = self.reading.prepare(names).unwrap();
        let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut all: Vec<(String, Vec<Value>)> = Vec::new();
        for name in names {
            let from = match name.as_str() {
                "recent_nonces" => continue,
                "nonces" => "(SELECT * FROM nonces UNION SELECT day, user_id, nonce, message_id FROM recent_nonces)",
                name => name,
            };
            let mut rows = self.reading.prepare(&format!("SELECT * FROM {from} ORDER BY 1, 2")).unwrap();
            let columns = rows.column_count();
            let read = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
            all.extend(rows.query_map([], read).unwrap().map(|row| (name.clone(), row.unwrap())));
        }
        all.retain(|(_, row)| row[0] != Value::Text("epoch".into()));
        all
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..5_i64, 1 => select(vec![i64::MIN, -1, ID_MAX, i64::MAX])]
}

fn rows() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 3, u32::MAX])
}

fn id() -> impl Strategy<Value = MessageId> {
    number().prop_map(MessageId::new)
}

fn millis() -> impl Strategy<Value = UnixMillis> {
    number().prop_map(UnixMillis)
}

fn username() -> impl Strategy<Value = Username> {
    select(vec!["ada", "ADA", "bob", "eve"]).prop_map(|name| Username::parse(name).unwrap())
}

/// A password hash: so few that logins find theirs.
fn hash() -> impl Strategy<Value = String> {
    select(vec!["", "hash"]).prop_map(str::to_owned)
}

/// So few that they meet again.
fn digest() -> impl Strategy<Value = Digest> {
    (0..4).prop_map(|number| Digest::from_hex(&format!("{number:064x}")).unwrap())
}

fn nonce() -> impl Strategy<Value = Option<Nonce>> {
    prop::option::of(select(vec!["a", "b"]).prop_map(|nonce| Nonce::parse(nonce).unwrap()))
}

fn content() -> impl Strategy<Value = Content> {
    let texts = vec!["hello", "\u{1f642}", "@ada. @all", "@bob@eve"];
    select(texts).prop_map(|text| Content::parse(text).unwrap())
}

fn room() -> impl Strategy<Value = RoomId> {
    (1..5_i64).prop_map(RoomId)
}

fn write() -> impl Strategy<Value = Write> {
    let message = (room(), content(), prop::option::of(id()), prop::option::of(number()), nonce());
    let message = message.prop_map(|(room, content, reply_to, image, nonce)| {
        let image = image.map(|image| (ImageId(image), AltText::default()));
        Write::Message(NewMessage { room, content, reply_to, image, nonce })
    });
    let emoji = select(REACTIONS.to_vec()).prop_map(|emoji| Emoji::parse(emoji).unwrap());
    prop_oneof![
        2 => message,
        2 => (content(), nonce()).prop_map(|(content, nonce)| Write::Message(NewMessage::plain(content, nonce))),
        1 => (id(), content(), nonce()).prop_map(|(message, content, nonce)| Write::Edit { message, content, nonce }),
        1 => (id(), nonce()).prop_map(|(message, nonce)| Write::Delete { message, nonce }),
        1 => (id(), emoji, any::<bool>(), nonce())
            .prop_map(|(message, emoji, on, nonce)| Write::React { message, emoji, on, nonce }),
    ]
}

fn room_command() -> impl Strategy<Value = RoomCommand> {
    let name = || select(vec!["Lobby", "KITCHEN", "kitchen"]).prop_map(|name| RoomName::parse(name).unwrap());
    let members = prop::collection::vec(username(), 0..3);
    let create = (name(), any::<bool>(), members, any::<bool>()).prop_map(|(name, is_open, members, by_moderators)| {
        RoomCommand::Create { name, is_open, emoji: None, topic: Topic::default(), members, by_moderators }
    });
    let change = (prop::option::of(name()), prop::option::of(any::<bool>()));
    let change = change.prop_map(|(name, archived)| RoomChange { name, archived, ..RoomChange::default() });
    prop_oneof![
        create,
        (username(), any::<bool>()).prop_map(|(username, make)| RoomCommand::OpenDirect { username, make }),
        (room(), change).prop_map(|(room, change)| RoomCommand::Change { room, change }),
        (room(), username()).prop_map(|(room, username)| RoomCommand::AddMember { room, username }),
        (room(), username()).prop_map(|(room, username)| RoomCommand::RemoveMember { room, username }),
        room().prop_map(|room| RoomCommand::Notify { room, about: NotifyAbout::Mentions }),
    ]
}

fn account_command() -> impl Strategy<Value = AccountCommand> {
    prop_oneof![
        (hash(), hash()).prop_map(|(verified, password_hash)| AccountCommand::SetPassword { verified, password_hash }),
        number().prop_map(|ended| AccountCommand::EndSession { ended: SessionId(ended) }),
        Just(AccountCommand::EndOtherSessions),
        hash().prop_map(|verified| AccountCommand::Delete { verified, messages: false }),
        (digest(), millis(), any::<bool>()).prop_map(|(digest, expires_at, by_moderators)| {
            AccountCommand::CreateInvite { digest, uses: NonZeroU32::MIN, expires_at, at_most: 2, by_moderators }
        }),
        number().prop_map(|invite| AccountCommand::DeleteInvite { invite }),
        username().prop_map(|username| AccountCommand::Ban { username }),
        username().prop_map(|username| AccountCommand::Unban { username }),
    ]
}

fn rules() -> WriteRules {
    WriteRules { edit_within_ms: 1, image_wait_ms: 1 }
}

fn sender() -> impl Strategy<Value = Sender> {
    (number(), number(), username()).prop_map(|(session, user, username)| Sender {
        session: SessionId(session),
        user: UserId(user),
        username,
        is_bot: false,
    })
}

fn admin_command() -> impl Strategy<Value = AdminCommand> {
    prop_oneof![
        (username(), hash()).prop_map(|(username, password_hash)| AdminCommand::AddUser { username, password_hash }),
        (username(), hash())
            .prop_map(|(username, password_hash)| AdminCommand::SetPassword { username, password_hash }),
        username().prop_map(|username| AdminCommand::DisableUser { username }),
        username().prop_map(|username| AdminCommand::EnableUser { username }),
        username().prop_map(|username| AdminCommand::DeleteUser { username }),
        (prop_oneof![username(), Just(Username::deleted(UserId(1)))], id())
            .prop_map(|(username, after)| AdminCommand::EraseMessages { username, after, by: None }),
        (username(), any::<bool>())
            .prop_map(|(username, is_moderator)| AdminCommand::SetRole { username, is_moderator }),
        (username(), digest()).prop_map(|(username, digest)| AdminCommand::AddBot { username, digest }),
        (username(), digest()).prop_map(|(username, digest)| AdminCommand::RotateBot { username, digest }),
        number().prop_map(|session| AdminCommand::RevokeSession { session: SessionId(session) }),
        username().prop_map(|username| AdminCommand::RevokeSessions { username }),
        (digest(), select(vec![1, 2, u32::MAX]), millis()).prop_map(|(digest, uses, expires_at)| {
            AdminCommand::CreateInvite { digest, uses: NonZeroU32::new(uses).unwrap(), expires_at }
        }),
        (millis(), id()).prop_map(|(before, after)| AdminCommand::Prune { before, after }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let prune =
        (id(), id(), millis(), rows()).prop_map(|(after, until, before, rows)| Prune { after, until, before, rows });
    prop_oneof![
        4 => (username(), hash(), prop::option::of(digest())).prop_map(|(username, password_hash, invite)| {
            Change::RegisterUser { username, password_hash, invite }
        }),
        8 => (1..3_i64, hash(), digest(), rows()).prop_map(|(user, password_hash, digest, keep)| {
            Change::LoginUser { user: UserId(user), password_hash, digest, client: String::new(), keep }
        }),
        1 => number().prop_map(|session| Change::TouchSession { session: SessionId(session) }),
        1 => digest().prop_map(|digest| Change::EndSession { digest }),
        8 => (sender(), prop::collection::vec(write(), 0..4))
            .prop_map(|(sender, writes)| Change::Write { sender, writes, rules: rules() }),
        4 => (number(), number(), room_command()).prop_map(|(session, by, command)| {
            Change::Room { session: SessionId(session), by: UserId(by), command }
        }),
        4 => (number(), number(), account_command()).prop_map(|(session, by, command)| {
            Change::Account { session: SessionId(session), by: UserId(by), command }
        }),
        4 => (admin_command(), rows()).prop_map(|(command, rows)| Change::Administer { command, rows }),
        2 => (rows(), millis(), prop::option::of(millis()), prop::option::of(prune))
            .prop_map(|(rows, emptied_until, images_until, prune)| {
                let unnamed_until = emptied_until;
                Change::Sweep(Sweep { rows, emptied_until, unnamed_until, images_until, images: rows, prune })
            }),
        1 => (number(), number()).prop_map(|(session, owner)| {
            let image = NewImage { subtype: "png".into(), width: 1, height: 1, bytes: b"png".to_vec() };
            Change::StoreImage { session: SessionId(session), owner: UserId(owner), image, at_most: 2 }
        }),
        2 => push_or_check(),
    ]
}

#[cfg(any(feature = "push", feature = "cluster"))]
fn push_or_check() -> impl Strategy<Value = Change> {
    prop_oneof![2 => push_change().prop_map(Change::Push), 1 => Just(Change::Check)]
}

#[cfg(not(any(feature = "push", feature = "cluster")))]
fn push_or_check() -> impl Strategy<Value = Change> {
    Just(Change::Check)
}

#[cfg(any(feature = "push", feature = "cluster"))]
fn push_change() -> impl Strategy<Value = PushChange> {
    let endpoint = || select(vec!["https://a.example/1", "https://a.example/2"]).prop_map(ToOwned::to_owned);
    prop_oneof![
        Just(PushChange::KeepKey { key: vec![7; 32] }),
        (sender(), endpoint(), any::<bool>(), rows(), millis()).prop_map(
            |(sender, endpoint, hides_text, keep, UnixMillis(lifetime))| {
                let subscription =
                    Subscription { endpoint, keys: vec![4; 81], about: NotifyAbout::Mentions, hides_text };
                PushChange::Subscribe { sender, subscription, keep, lifetime }
            }
        ),
        (number(), endpoint()).prop_map(|(user, endpoint)| PushChange::Unsubscribe { user: UserId(user), endpoint }),
        number().prop_map(|device| PushChange::Forget { device: DeviceId(device) }),
    ]
}

fn moment() -> impl Strategy<Value = Moment> {
    (millis(), millis(), number(), prop::option::of(0..3_i64)).prop_map(|(now, expired_at, today, before)| Moment {
        expiry: now,
        now,
        expired_at,
        nonce_days: NonceDays { today, before: [before, None] },
    })
}

/// The last id that was given before, and what is applied then.
fn history() -> impl Strategy<Value = (i64, Vec<(Moment, Change)>)> {
    let last_id = select(vec![0, 0, ID_MAX - 2, i64::MAX]);
    (last_id, prop::collection::vec((moment(), change()), 0..CHANGES))
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_change_fails_its_transaction((last_id, history) in history()) {
        let mut fixture = Fixture::new(last_id);
        for step in &history {
            prop_assert!(fixture.commit(std::slice::from_ref(step)), "{:?}", step);
        }
        prop_assert!(sql::last_id(&fixture.reading).unwrap().get() <= ID_MAX.max(last_id));
    }

    #[test]
    fn the_same_changes_at_another_time_give_the_same_database((last_id, history) in history()) {
        let (mut now, mut later) = (Fixture::new(last_id), Fixture::new(last_id));
        prop_assert!(now.commit(&history));
        std::thread::sleep(Duration::from_millis(3));
        prop_assert!(later.commit(&history));
        prop_assert_eq!(now.rows(), later.rows());
    }

    #[test]
    fn however_changes_are_batched_they_give_the_same_database(
        (last_id, history) in history(), sizes in prop::collection::vec(1..5_usize, CHANGES)
    ) {
        let (mut whole, mut parts) = (Fixture::new(last_id), Fixture::new(last_id));
        prop_assert!(whole.commit(&history));
        let mut rest = &history[..];
        for size in sizes {
            let (batch, others) = rest.split_at(size.min(rest.len()));
            prop_assert!(parts.commit(batch));
            rest = others;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(whole.rows(), parts.rows());
    }
}

fn register(username: Username) -> Change {
    Change::RegisterUser { username, password_hash: String::new(), invite: None }
}

#[test]
fn a_second_session_or_invitation_with_a_digest_is_refused_alone() {
    let mut fixture = Fixture::new(0);
    let moment = Moment {
        expiry: UnixMillis(0),
        now: UnixMillis(2),
        expired_at: UnixMillis(1),
        nonce_days: NonceDays { today: 0, before: [None, None] },
    };
    let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
    let login =
        Change::LoginUser { user: UserId(1), password_hash: String::new(), digest, client: String::new(), keep: 9 };
    let command = AdminCommand::CreateInvite { digest, uses: NonZeroU32::MIN, expires_at: UnixMillis(3) };
    let invite = Change::Administer { command, rows: 0 };
    let [ada, bob] = ["ada", "bob"].map(|name| register(Username::parse(name).unwrap()));
    let changes = [ada, login.clone(), login, invite.clone(), invite, bob];
    assert!(fixture.commit(&changes.map(|change| (moment, change))));
    let rows = |table| fixture.rows().iter().filter(|(name, _)| name == table).count();
    assert_eq!(["users", "sessions", "invites"].map(rows), [2, 1, 1]);
}

#[test]
fn a_failed_transaction_gives_its_ids_back() {
    let mut fixture = Fixture::new(0);
    let moment = Moment {
        expiry: UnixMillis(0),
        now: UnixMillis(2),
        expired_at: UnixMillis(1),
        nonce_days: NonceDays { today: 0, before: [None, None] },
    };
    let (username, digest) = (Username::parse("ada").unwrap(), Digest::from_hex(&"0".repeat(64)).unwrap());
    let sender = Sender { session: SessionId(1), user: UserId(1), username: username.clone(), is_bot: false };
    let message = |text| Write::Message(NewMessage::plain(Content::parse(text).unwrap(), None));
    let store = |text| Change::Write { sender: sender.clone(), writes: vec![message(text)], rules: rules() };
    let begin = [
        Change::RegisterUser { username, password_hash: String::new(), invite: None },
        Change::LoginUser { user: UserId(1), password_hash: String::new(), digest, client: String::new(), keep: 1 },
    ];
    assert!(fixture.commit(&begin.map(|change| (moment, change))));
    let other = open::open_writer(&fixture.path, Durability::Normal).unwrap();
    other.execute_batch("CREATE TRIGGER fail BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, ''); END").unwrap();
    let fails = Change::TouchSession { session: SessionId(1) };
    // The command that fails takes the first try of the other with it.
    assert!(fixture.commit(&[(moment, store("first")), (moment, fails.clone())]));
    assert_eq!(sql::last_id(&fixture.reading).unwrap(), MessageId::new(1));
    let many = vec![[(moment, store("one more")), (moment, fails)]; 12].concat();
    assert!(fixture.commit(&many));
    assert_eq!(sql::last_id(&fixture.reading).unwrap(), MessageId::new(13), "however many fail, the others do not");
}
