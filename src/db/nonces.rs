//! The nonces that are remembered (promise 5): in a large table, and recent ones of many people in a small one.
//!
//! A nonce is looked up by its user, so in a table of all of them those of a thousand people lie on a thousand pages, and
//! when these people write at once, a commit writes each of the pages for one nonce. So the nonces of such a commit are
//! kept in a table of a hundred pages or two. When there are [`RECENT_NONCES`] in it, some hundreds are moved to the large
//! one, those of one user after those of another: a page that is written then gets several. The nonces of a small
//! commit go straight to the large table, which is the least work, and such a commit also moves some of those left in
//! the small one.
//!
//! Nearly every nonce is new. So that a thousand of them are not looked up on a thousand pages only to find nothing, a
//! filter of each day knows most of those that are not there.

use std::hash::{BuildHasher as _, RandomState};

use rusqlite::Connection;

use super::nonce_days::NonceDays;
use super::sql::{self, NonceStatements};
use crate::limits::{COMMANDS_OF_MANY, FILTERED_NONCES, NONCES_MOVED_AT_ONCE, RECENT_NONCES};
use crate::model::{MessageId, Nonce, UserId};

/// What the writer knows of the tables of nonces.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    /// Whether this commit has so many commands that it counts as one of many people.
    is_of_many: bool,
    /// Whether some are still to be moved in this commit.
    is_to_move: bool,
    /// How many are in the small table; `None`: it has to be looked up, and so have the days.
    recent: Option<u32>,
    /// The nonce that was moved last.
    last_moved: (UserId, sql::NonceText),
    /// The days of the large table that are remembered.
    days: Vec<Day>,
    hasher: RandomState,
}

/// A day of the large table.
#[derive(Debug)]
struct Day {
    day: i64,
    filter: DayFilter,
}

#[derive(Debug)]
enum DayFilter {
    NotNeededYet,
    Of(Filter),
    /// There were too many nonces to read them all, so each is looked up.
    None,
}

/// A nonce and who sent it.
pub(super) type Claimed<'a> = (UserId, &'a Nonce);

impl Nonces {
    /// Called when a transaction begins that applies so many commands.
    pub(super) fn begin(&mut self, commands: usize) {
        self.is_of_many = commands >= COMMANDS_OF_MANY;
        self.is_to_move = !self.is_of_many;
    }

    /// Called after a transaction has failed, whether or not it reached the disk, and after rows were removed.
    pub(super) fn look_again(&mut self) {
        self.recent = None;
    }

    /// The event of a user's nonce, if it is remembered.
    pub(super) fn find(
        &mut self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        self.look(statements.connection(), days)?;
        match self.find_recent(statements, claimed, days)? {
            None => self.find_of_days(statements, claimed, &days.all()),
            found => Ok(found),
        }
    }

    /// Keeps a user's nonce with its event. If it is remembered already, returns the event that it was kept with.
    pub(super) fn claim(
        &mut self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        id: MessageId,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        self.look(statements.connection(), days)?;
        // Before it is looked for: it may be among those that are moved.
        let is_to_move = std::mem::take(&mut self.is_to_move) && self.recent > Some(0);
        if is_to_move || self.recent >= Some(RECENT_NONCES) {
            self.move_some(statements.connection(), days)?;
        }
        if self.is_of_many {
            self.claim_recent(statements, claimed, id, days)
        } else {
            self.claim_today(statements, claimed, id, days)
        }
    }

    fn claim_recent(
        &mut self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        id: MessageId,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        if let Some(first) = self.find_of_days(statements, claimed, &days.all())? {
            return Ok(Some(first));
        }
        if statements.keep_recent(claimed, id, days)? {
            self.recent = self.recent.map(|count| count + 1);
            return Ok(None);
        }
        self.find_recent(statements, claimed, days)
    }

    fn claim_today(
        &mut self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        id: MessageId,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        if let Some(first) = self.find_recent(statements, claimed, days)? {
            return Ok(Some(first));
        }
        if let Some(first) = self.find_of_days(statements, claimed, &days.before)? {
            return Ok(Some(first));
        }
        if statements.keep(claimed, id, days.today)? {
            self.note((days.today, claimed.0, claimed.1.as_str().as_bytes()), days);
            return Ok(None);
        }
        statements.find(claimed, days.today)
    }

    fn find_recent(
        &self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        days: &NonceDays,
    ) -> rusqlite::Result<Option<MessageId>> {
        if self.recent == Some(0) { Ok(None) } else { statements.find_recent(claimed, days.first()) }
    }

    /// The event of a nonce that is in the large table under one of these days.
    fn find_of_days(
        &mut self,
        statements: &mut NonceStatements<'_>,
        claimed: Claimed<'_>,
        days: &[Option<i64>],
    ) -> rusqlite::Result<Option<MessageId>> {
        for day in days.iter().copied().flatten() {
            let Some(known) = self.days.iter_mut().find(|known| known.day == day) else { continue };
            if self.is_of_many && matches!(known.filter, DayFilter::NotNeededYet) {
                known.filter = DayFilter::read(statements.connection(), day, &self.hasher)?;
            }
            let may_be_there = match &known.filter {
                DayFilter::Of(filter) => filter.may_have(hash(&self.hasher, claimed.0, claimed.1.as_str().as_bytes())),
                DayFilter::NotNeededYet | DayFilter::None => true,
            };
            if may_be_there && let Some(first) = statements.find(claimed, day)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Notes that a nonce is in the large table, if its day is remembered.
    fn note(&mut self, (day, user, nonce): (i64, UserId, &[u8]), days: &NonceDays) {
        match self.days.iter_mut().find(|known| known.day == day) {
            Some(Day { filter: DayFilter::Of(filter), .. }) => filter.add(hash(&self.hasher, user, nonce)),
            None if days.has(day) => self.days.push(Day { day, filter: DayFilter::NotNeededYet }),
            Some(_) | None => {}
        }
    }

    /// Reads what is not known of the tables.
    fn look(&mut self, connection: &Connection, days: &NonceDays) -> rusqlite::Result<()> {
        if self.recent.is_none() {
            let mut known = std::mem::take(&mut self.days);
            for day in days.all().into_iter().flatten() {
                if sql::has_nonces_of(connection, day)? {
                    // A filter may hold more than was committed: then a nonce is looked up in vain.
                    let at = known.iter().position(|known| known.day == day);
                    self.days.push(at.map_or(Day { day, filter: DayFilter::NotNeededYet }, |at| known.swap_remove(at)));
                }
            }
            self.recent = Some(sql::count_recent_nonces(connection)?);
        }
        Ok(())
    }

    /// Moves some of the recent nonces: those of the users whose turn it is.
    fn move_some(&mut self, connection: &Connection, days: &NonceDays) -> rusqlite::Result<()> {
        let mut moved = sql::move_recent_nonces(connection, &self.last_moved, NONCES_MOVED_AT_ONCE)?;
        let count = |moved: &[_]| u32::try_from(moved.len()).unwrap_or(u32::MAX);
        if count(&moved) < NONCES_MOVED_AT_ONCE {
            // Start again from the beginning.
            let rows = NONCES_MOVED_AT_ONCE - count(&moved);
            moved.extend(sql::move_recent_nonces(connection, &Default::default(), rows)?);
        }
        for (day, user, nonce) in &moved {
            self.note((*day, *user, &nonce.0), days);
        }
        let is_all = count(&moved) < NONCES_MOVED_AT_ONCE;
        self.recent = self.recent.map(|recent| if is_all { 0 } else { recent.saturating_sub(count(&moved)) });
        self.last_moved = moved.pop().map(|(_, user, nonce)| (user, nonce)).unwrap_or_default();
        Ok(())
    }

    /// Removes at most `rows` nonces of each table, of days that are no longer remembered. Returns the larger of
    /// the two counts.
    pub(super) fn sweep(&mut self, connection: &Connection, days: &NonceDays, rows: u32) -> rusqlite::Result<usize> {
        self.look_again();
        sql::delete_old_nonces(connection, days, rows)
    }
}

/// What a filter knows of a nonce.
fn hash(hasher: &RandomState, user: UserId, nonce: &[u8]) -> u64 {
    hasher.hash_one((user.0, nonce))
}

impl DayFilter {
    fn read(connection: &Connection, day: i64, hasher: &RandomState) -> rusqlite::Result<Self> {
        let mut filter = Filter::new();
        let add = |user: UserId, nonce: &[u8]| filter.add(hash(hasher, user, nonce));
        let is_whole = sql::nonces_of_day(connection, day, FILTERED_NONCES, add)?;
        Ok(if is_whole { Self::Of(filter) } else { Self::None })
    }
}

/// A Bloom filter of the nonces of a day: each sets two bits. With 100,000 of them, one in thirty that are not there
/// seems to be; with a million, three in four.
#[derive(Debug)]
struct Filter(Box<[u64]>);

impl Filter {
    /// 128 KiB.
    const WORDS: usize = 1 << 14;

    fn new() -> Self {
        Self(vec![0; Self::WORDS].into())
    }

    /// The word and the bit in it of each half of a nonce's hash.
    fn places(hash: u64) -> [(usize, u64); 2] {
        [hash >> 32, hash & u64::from(u32::MAX)].map(|half| {
            let word = usize::try_from(half / 64).unwrap_or_default() % Self::WORDS;
            (word, 1 << (half % 64))
        })
    }

    fn add(&mut self, hash: u64) {
        for (word, bit) in Self::places(hash) {
            self.0[word] |= bit;
        }
    }

    fn may_have(&self, hash: u64) -> bool {
        Self::places(hash).into_iter().all(|(word, bit)| self.0[word] & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Claim(UserId, &'static str),
        /// The next commit is one of so many commands.
        Begin(usize),
        /// It comes early, so that the day before yesterday is remembered too.
        NextDay {
            is_early: bool,
        },
        Sweep(u32),
        Restart,
        /// What the next so many steps do is undone.
        Fail(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..3_i64, select(vec!["a", "b", "c", "d"])).prop_map(|(user, nonce)| Step::Claim(UserId(user), nonce)),
            4 => select(vec![1, COMMANDS_OF_MANY]).prop_map(Step::Begin),
            2 => any::<bool>().prop_map(|is_early| Step::NextDay { is_early }),
            1 => select(vec![1, 100]).prop_map(Step::Sweep),
            1 => Just(Step::Restart),
            1 => (1..8_usize).prop_map(Step::Fail),
        ]
    }

    /// The tables, and what they should know.
    struct Fixture {
        connection: Connection,
        nonces: Nonces,
        days: NonceDays,
        known: HashMap<(UserId, &'static str), (i64, MessageId)>,
        last_id: MessageId,
    }

    impl Fixture {
        fn new() -> Self {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(include_str!("../../schema.sql")).unwrap();
            let days = NonceDays { today: 1, before: [None; 2] };
            let (nonces, known) = (Nonces::default(), HashMap::new());
            Self { connection, nonces, days, known, last_id: MessageId::default() }
        }

        /// The event of this nonce by the tables, once it is claimed for the next one; and by the model.
        fn claim(&mut self, user: UserId, text: &'static str) -> [Option<MessageId>; 2] {
            let (id, nonce) = (self.last_id.next(), Nonce::parse(text).unwrap());
            let remembered = self.known.get(&(user, text)).filter(|(day, _)| *day >= self.days.first());
            let expected = remembered.map(|(_, event)| *event);
            let mut statements = NonceStatements::prepare(&self.connection).unwrap();
            let found = self.nonces.find(&mut statements, (user, &nonce), &self.days).unwrap();
            let claimed = self.nonces.claim(&mut statements, (user, &nonce), id, &self.days).unwrap();
            assert_eq!(found, claimed, "to find a nonce says the same as to claim it");
            if expected.is_none() {
                self.known.insert((user, text), (self.days.today, id));
                self.last_id = id;
            }
            [claimed, expected]
        }

        fn sweep(&mut self, rows: u32) {
            self.nonces.sweep(&self.connection, &self.days, rows).unwrap();
        }

        fn count(&self, table: &str) -> i64 {
            self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_nonce_is_remembered_as_long_as_its_day(steps in prop::collection::vec(step(), 0..80)) {
            let mut fixture = Fixture::new();
            let mut steps = steps.into_iter();
            while let Some(step) = steps.next() {
                match step {
                    Step::Claim(user, nonce) => {
                        let [claimed, expected] = fixture.claim(user, nonce);
                        prop_assert_eq!(claimed, expected);
                    }
                    Step::Begin(commands) => fixture.nonces.begin(commands),
                    Step::NextDay { is_early } => {
                        let NonceDays { today: yesterday, before: [earlier, _] } = fixture.days;
                        let before = [Some(yesterday), earlier.filter(|_| is_early)];
                        fixture.days = NonceDays { today: yesterday + 1, before };
                    }
                    Step::Sweep(rows) => fixture.sweep(rows),
                    Step::Restart => fixture.nonces = Nonces::default(),
                    Step::Fail(count) => {
                        let before = (fixture.known.clone(), fixture.last_id);
                        fixture.connection.execute_batch("BEGIN").unwrap();
                        for step in steps.by_ref().take(count) {
                            match step {
                                Step::Claim(user, nonce) => {
                                    let [claimed, expected] = fixture.claim(user, nonce);
                                    prop_assert_eq!(claimed, expected);
                                }
                                Step::Begin(commands) => fixture.nonces.begin(commands),
                                Step::Sweep(rows) => fixture.sweep(rows),
                                // Not within a transaction.
                                Step::NextDay { .. } | Step::Restart | Step::Fail(_) => {}
                            }
                        }
                        fixture.connection.execute_batch("ROLLBACK").unwrap();
                        (fixture.known, fixture.last_id) = before;
                        fixture.nonces.look_again();
                    }
                }
                prop_assert!(fixture.count("recent_nonces") <= i64::from(RECENT_NONCES));
            }
            while fixture.nonces.sweep(&fixture.connection, &fixture.days, 3).unwrap() == 3 {}
            let remembered = fixture.known.values().filter(|(day, _)| *day >= fixture.days.first()).count();
            prop_assert_eq!(fixture.count("recent_nonces") + fixture.count("nonces"), i64::try_from(remembered).unwrap());
        }
    }

    #[test]
    fn a_filter_that_is_far_from_full_knows_nearly_all_nonces_that_are_not_there() {
        let (mut filter, hasher) = (Filter::new(), RandomState::new());
        let hash = |number: u32| hasher.hash_one(number);
        (0..50_000).for_each(|number| filter.add(hash(number)));
        assert!((0..50_000).all(|number| filter.may_have(hash(number))), "all that are there");
        // 0.8 % by arithmetic.
        let mistaken = (50_000..100_000).filter(|number| filter.may_have(hash(*number))).count();
        assert!(mistaken < 1_000, "{mistaken} of 50,000");
    }
}
