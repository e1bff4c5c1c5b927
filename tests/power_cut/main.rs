//! Promises 1, 2 and 5 across a power cut: what was acknowledged is there, once, whatever the disk made of the rest.
//!
//! The real server runs with a library in front of libc that records every write, sync and `send` ([`record`]). Then,
//! for many points of that record, files are built that a disk may legally hold when the power goes there ([`disk`]),
//! opened as the server opens them, and compared with what anybody had been told by then ([`Told`]). `full` loses
//! nothing; `normal` may lose the last messages, but is whole up to the last that is there, and has what was synced.
//!
//! `CHINWAG_POWER_CUTS` says how many cuts each test tries, and `CHINWAG_POWER_CUT_SEED` where the dice begin. What a
//! cut left that was not put up with is kept, and the panic says where.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod record;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use chinwag::config::Durability;
use chinwag::db::{Db, NewMessage, Options, Sender, Write};
use chinwag::model::{Content, Epoch, Nonce};
use chinwag::secret::Token;
use common::{Client, Dice, TestServer, chinwag, skip, text};
use disk::{Disk, Files, Left};
use record::{Event, Recorder};
use serde_json::Value;
use tempfile::TempDir;

/// Who stays, and whose messages are removed while others write.
const STAYS: &str = "ada";
const REMOVED: &str = "carol";
/// What the test knows between two things that the server does.
const REMOVING: &str = "removing";
const REMOVED_ALL: &str = "removed";

/// What anybody had been told by some point.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Ids by nonce, which is also the first word of the message.
    acknowledged: HashMap<String, i64>,
    shown: BTreeMap<i64, String>,
    epoch: Option<String>,
    /// Messages of [`REMOVED`] may be gone.
    removing: bool,
    /// And must be.
    removed: bool,
    /// The last message, and whether the removal was over, when a sync began that has ended since; and of one that has
    /// not.
    certain: (i64, bool),
    syncing: (i64, bool),
}

impl Told {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Sent(frames) => self.hear(frames),
            Event::Mark(mark) if mark == REMOVING => self.removing = true,
            Event::Mark(mark) if mark == REMOVED_ALL => self.removed = true,
            Event::SyncBegun { .. } => {
                self.syncing = (self.acknowledged.values().copied().max().unwrap_or(0), self.removed);
            }
            _ => {}
        }
    }

    /// Takes note of the frames that begin in what was sent.
    fn hear(&mut self, sent: &str) {
        for (start, _) in sent.match_indices(r#"{"type":""#) {
            let Some(Ok(frame)) = serde_json::Deserializer::from_str(&sent[start..]).into_iter::<Value>().next() else {
                continue;
            };
            let id = frame["id"].as_i64();
            match (text(&frame["type"]), id) {
                ("ack", Some(id)) => drop(self.acknowledged.insert(text(&frame["nonce"]).to_owned(), id)),
                ("message", Some(id)) => drop(self.shown.insert(id, text(&frame["content"]).to_owned())),
                ("auth_success", _) => self.epoch = Some(text(&frame["epoch"]).to_owned()),
                _ => {}
            }
        }
    }

    /// The highest id that anybody knows.
    fn last_id(&self) -> i64 {
        let acknowledged = self.acknowledged.values().copied().max();
        acknowledged.max(self.shown.last_key_value().map(|(id, _)| *id)).unwrap_or(0)
    }

    fn may_be_gone(&self, content: &str) -> bool {
        self.removing && content.starts_with(REMOVED)
    }
}

/// A recorded life of a server.
struct Life {
    /// What was on the disk and known when it began.
    files: Files,
    told: Told,
    events: Vec<Event>,
    database: PathBuf,
    token: String,
}

fn flag(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    }
}

/// What all that somebody says is made of. (Their nonces stay when their messages go.)
fn words_of(name: &str) -> String {
    format!("words of {name} ")
}

/// Texts that begin with the nonce [`common::Connection::store_all`] gives them, short ones and some that fill pages.
fn texts(prefix: &str, count: usize, dice: &mut Dice) -> Vec<String> {
    let words = words_of(prefix.split('-').next().expect("a name"));
    let text = |number| {
        let length = if dice.below(8) == 0 { 1_000 + dice.below(2_500) } else { 20 + dice.below(200) };
        format!("{prefix}-{number} {}", words.repeat(length / words.len())).trim_end().to_owned()
    };
    (0..count).map(text).collect()
}

/// Stores `count` messages, each when the one before is acknowledged.
async fn store_one_by_one(client: &Client, prefix: &str, count: usize, dice: &mut Dice) {
    let mut connection = client.connect().await;
    for (number, text) in texts(prefix, count, dice).iter().enumerate() {
        connection.store(&format!("{prefix}-{number}"), text).await;
    }
}

async fn store_at_once(client: &Client, prefix: &str, count: usize, dice: &mut Dice) {
    client.connect().await.store_all(prefix, &texts(prefix, count, dice)).await;
}

impl Life {
    /// Starts, stops, crashes, bursts, single messages and a removal, on an empty disk.
    fn whole(recorder: &Recorder, durability: Durability, dice: &mut Dice) -> Life {
        let (database, token) = block_on(live(recorder, durability, dice));
        Life { files: Files::new(), told: Told::default(), events: recorder.events(), database, token }
    }

    /// A start on what a cut left, and one message more.
    fn recovery(recorder: &Recorder, cut: &Cut, durability: Durability, token: &str) -> Life {
        let database = block_on(async {
            let mut server = TestServer::with(&["--durability", flag(durability)]);
            server.kill().await;
            for file in std::fs::read_dir(server.directory()).expect("the directory is there") {
                std::fs::remove_file(file.expect("a file").path()).expect("it can be removed");
            }
            cut.write_to(server.directory());
            server.restart_with_environment(&recorder.environment());
            let nonce = format!("{STAYS}-recovered-{}", cut.told.last_id());
            Client::known(&server, STAYS, token).connect().await.store(&nonce, &nonce).await;
            server.kill().await;
            server.database_path()
        });
        let (files, told) = (cut.files.clone(), cut.told.clone());
        Life { files, told, events: recorder.events(), database, token: token.to_owned() }
    }

    /// Points of the record to cut at, in order: half of them where something had just been said, some while the first
    /// files are made.
    fn points(&self, count: usize, dice: &mut Dice) -> Vec<usize> {
        let said: Vec<usize> =
            (1..=self.events.len()).filter(|end| matches!(self.events[end - 1], Event::Sent(_))).collect();
        let point = |number: usize| match number % 8 {
            0 => dice.below(self.events.len().min(150)),
            1..4 => dice.below(self.events.len() + 1),
            _ => said[dice.below(said.len())],
        };
        let mut points: Vec<usize> = (0..count).map(point).collect();
        points.sort_unstable();
        points
    }

    /// Cuts the power at each of `points`, and hands what is left and what was told to `look`.
    fn cut(&self, points: &[usize], dice: &mut Dice, mut look: impl FnMut(&Cut, &mut Dice)) {
        let mut disk = Disk::new(&self.database, self.files.clone());
        let mut told = self.told.clone();
        let mut done = 0;
        for point in points {
            for event in &self.events[done..*point] {
                told.apply(event);
                if disk.apply(event) {
                    told.certain = told.syncing;
                }
            }
            done = *point;
            let left = Left::any(dice);
            let files = disk.after_a_cut(left, dice);
            look(
                &Cut { files, told: &told, what: format!("at event {point} of {}, {left:?}", self.events.len()) },
                dice,
            );
        }
    }
}

/// What a power cut left.
struct Cut<'a> {
    files: Files,
    told: &'a Told,
    what: String,
}

async fn live(recorder: &Recorder, durability: Durability, dice: &mut Dice) -> (PathBuf, String) {
    let mut server = TestServer::with_environment(&["--durability", flag(durability)], &recorder.environment());
    let ada = Client::register(&server, STAYS).await;
    let carol = Client::register(&server, REMOVED).await;
    let mut reader = ada.connect().await;
    tokio::spawn(async move { while reader.receive().await.is_ok() {} });

    store_one_by_one(&ada, "ada-a", 150, dice).await;
    store_at_once(&ada, "ada-b", 500, dice).await;
    store_one_by_one(&ada, "ada-c", 100, dice).await;
    store_at_once(&carol, "carol-a", 150, dice).await;
    recorder.mark(REMOVING);
    chinwag(&server.database_path(), &["user", "delete", "--messages", REMOVED]).ok();
    recorder.mark(REMOVED_ALL);
    store_one_by_one(&ada, "ada-d", 50, dice).await;
    server.stop().await;

    server.restart_with_environment(&recorder.environment());
    store_one_by_one(&ada, "ada-e", 50, dice).await;
    store_at_once(&ada, "ada-f", 500, dice).await;
    server.kill().await;

    server.restart_with_environment(&recorder.environment());
    store_one_by_one(&ada, "ada-g", 100, dice).await;
    server.kill().await;
    (server.database_path(), ada.token)
}

/// The message whose text is `content` is called this.
fn nonce_of(content: &str) -> &str {
    content.split(' ').next().expect("a first part")
}

impl Cut<'_> {
    fn write_to(&self, folder: &Path) {
        for (suffix, bytes) in &self.files {
            std::fs::write(folder.join(format!("chinwag.db{suffix}")), bytes).expect("a file is written");
        }
    }

    /// Opens what is left and compares it with what was told.
    fn judge(&self, durability: Durability, token: &str, dice: &mut Dice) -> Result<(), String> {
        // In memory, where there is such a place: a real sync for each would take minutes.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder");
        self.write_to(folder.path());
        let path = folder.path().join("chinwag.db");
        if dice.below(4) == 0 {
            // The index of the log is not to be believed after a crash.
            std::fs::write(folder.path().join("chinwag.db-shm"), vec![0x5A; 32 << 10]).expect("a file is written");
        }
        if dice.below(50) == 0 && self.told.certain.0 > 0 {
            chinwag(&path, &["check"]).ok();
        }
        let options = Options { durability, ..Options::default() };
        let (db, threads) =
            Db::open(&path, options, Box::new(|_| {})).map_err(|error| format!("it does not open: {error}"))?;
        let stored = stored(&path).map_err(|error| format!("it cannot be read: {error}"))?;
        let verdict = self
            .compare(&stored, durability)
            .and_then(|()| block_on(self.go_on(&db, &stored, token, dice)))
            .and_then(|id| self.compare_id(id, db.epoch()));
        block_on(db.stop());
        threads.join().expect("no thread panicked");
        verdict?;
        self.look_for_removed_text(&path, durability)
    }

    /// The messages that are there against those of which somebody knows.
    fn compare(&self, stored: &BTreeMap<i64, String>, durability: Durability) -> Result<(), String> {
        let told = self.told;
        let once: HashSet<&str> = stored.values().map(|content| nonce_of(content)).collect();
        if once.len() != stored.len() {
            return Err("a message is there twice".into());
        }
        for (id, content) in stored {
            let acknowledged = told.acknowledged.get(nonce_of(content)).unwrap_or(id);
            let shown = told.shown.get(id).unwrap_or(content);
            if acknowledged != id || shown != content {
                return Err(format!("message {id} is another one than was told"));
            }
        }
        let is_removed = if durability == Durability::Full { told.removed } else { told.certain.1 };
        if is_removed && stored.values().any(|content| content.starts_with(REMOVED)) {
            return Err("what was removed is back".into());
        }
        let last = stored.keys().last().copied().unwrap_or(0);
        let whole_to = if durability == Durability::Full { i64::MAX } else { last.max(told.certain.0) };
        let acknowledged = told.acknowledged.iter().map(|(nonce, id)| (*id, nonce.as_str()));
        let shown = told.shown.iter().map(|(id, content)| (*id, nonce_of(content)));
        for (id, nonce) in acknowledged.chain(shown) {
            if id <= whole_to && !stored.contains_key(&id) && !told.may_be_gone(nonce) {
                return Err(format!("message {id}, {nonce}, was told and is not there"));
            }
        }
        Ok(())
    }

    /// Goes on with the conversation: what was sent before gets its first id. The id of what is new, if the sender's
    /// session was there.
    async fn go_on(
        &self,
        db: &Db,
        stored: &BTreeMap<i64, String>,
        token: &str,
        dice: &mut Dice,
    ) -> Result<Option<i64>, String> {
        let digest = Token::parse(token).expect("a token").digest();
        let session = db.validate_session(digest).await.map_err(|error| error.to_string())?;
        let Some(session) = session else {
            let lost = self.told.certain.0 > 0;
            return if lost { Err("the session is gone".into()) } else { Ok(None) };
        };
        let sender = Sender { session: session.id, user: session.user, username: session.username, is_bot: false };
        let store = async |nonce: &str, content: &str| {
            let content = Content::parse(content).expect("a text");
            let message = Write::Message(NewMessage::plain(content, Nonce::parse(nonce)));
            let stored = db.write(sender.clone(), vec![message]).await;
            stored
                .map(|stored| stored[0].expect("a plain message is not refused").event.get())
                .map_err(|error| format!("nothing can be stored: {error}"))
        };
        let of_ada: Vec<_> = stored.iter().filter(|(_, content)| content.starts_with(STAYS)).collect();
        if !of_ada.is_empty() {
            let (id, content) = of_ada[dice.below(of_ada.len())];
            let again = store(nonce_of(content), content).await?;
            if again != *id {
                return Err(format!("message {id}, sent again, is stored again as {again}"));
            }
        }
        store("after the cut", "after the cut").await.map(Some)
    }

    /// Whether an id that was given after the cut is one that nobody knew, or belongs to another history.
    fn compare_id(&self, id: Option<i64>, epoch: &Epoch) -> Result<(), String> {
        let is_same_history = self.told.epoch.as_deref() == Some(epoch.as_str());
        match id {
            Some(id) if is_same_history && id <= self.told.last_id() => {
                Err(format!("id {id} is given again; {} was known", self.told.last_id()))
            }
            _ => Ok(()),
        }
    }

    /// Promise 9 in the file that a clean stop leaves.
    fn look_for_removed_text(&self, path: &Path, durability: Durability) -> Result<(), String> {
        if path.with_extension("db-wal").exists() {
            return Err("a clean stop leaves the log".into());
        }
        let is_removed = if durability == Durability::Full { self.told.removed } else { self.told.certain.1 };
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let needle = words_of(REMOVED);
        let is_there = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        if is_removed && is_there { Err("text that was removed is still in the file".into()) } else { Ok(()) }
    }

    /// Keeps what is left where somebody can look at it, and fails.
    fn condemn(&self, why: &str, seed: u64) -> ! {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-cut-{seed}"));
        std::fs::create_dir_all(&kept).expect("a folder");
        self.write_to(&kept);
        panic!("{why}: the cut {}, seed {seed}; the files are in {}", self.what, kept.display());
    }
}

/// All messages of the database at `path`, which must be sound.
fn stored(path: &Path) -> rusqlite::Result<BTreeMap<i64, String>> {
    let database = rusqlite::Connection::open(path)?;
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(sound, "ok");
    let mut statement = database.prepare("SELECT id, content FROM messages")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The seed, the dice that begin with it, a folder and a recorder; none, with a word, where nothing can be recorded.
fn prepare() -> Option<(u64, Dice, TempDir, Recorder)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(recorder) = Recorder::compile(folder.path()) else {
        skip("this needs a C compiler");
        return None;
    };
    let seed = variable("CHINWAG_POWER_CUT_SEED", 1);
    Some((seed, Dice::new(seed), folder, recorder))
}

/// How often the power is cut.
fn cuts() -> usize {
    usize::try_from(variable("CHINWAG_POWER_CUTS", 1_000)).expect("a number of cuts")
}

/// Records a life and cuts the power over and over; what is objected to fails the test.
fn cut_the_power(durability: Durability) {
    let Some((seed, mut dice, _folder, recorder)) = prepare() else { return };
    let life = Life::whole(&recorder, durability, &mut dice);
    let points = life.points(cuts(), &mut dice);
    life.cut(&points, &mut dice, |cut, dice| {
        cut.judge(durability, &life.token, dice).unwrap_or_else(|why| cut.condemn(&why, seed));
    });
}

#[test]
fn under_full_a_power_cut_loses_nothing_that_was_told_and_brings_nothing_back() {
    cut_the_power(Durability::Full);
}

#[test]
fn under_normal_a_power_cut_takes_the_last_messages_no_others_and_no_ids() {
    cut_the_power(Durability::Normal);
}

#[test]
fn a_power_cut_while_the_server_comes_back_from_one_loses_nothing_either() {
    let Some((seed, mut dice, _folder, recorder)) = prepare() else { return };
    let durability = Durability::Full;
    let life = Life::whole(&recorder, durability, &mut dice);
    let points = life.points(cuts() / 50, &mut dice);
    life.cut(&points, &mut dice, |first, dice| {
        if first.told.acknowledged.is_empty() {
            return;
        }
        let recovery = Life::recovery(&recorder.anew(), first, durability, &life.token);
        let points = recovery.points(25, dice);
        recovery.cut(&points, dice, |second, dice| {
            second.judge(durability, &life.token, dice).unwrap_or_else(|why| second.condemn(&why, seed));
        });
    });
}

#[test]
fn what_normal_loses_would_not_pass_under_full() {
    let Some((_, mut dice, _folder, recorder)) = prepare() else { return };
    let life = Life::whole(&recorder, Durability::Normal, &mut dice);
    let mut objections = 0;
    let points = life.points(100, &mut dice);
    life.cut(&points, &mut dice, |cut, dice| {
        objections += usize::from(cut.judge(Durability::Full, &life.token, dice).is_err());
    });
    assert!(objections > 10, "the judge notices what a server that does not sync loses, {objections} times of 100");
}
