//! The pushes that are still to be sent: the device, the room, and when.
//!
//! No text waits here. The text of a push is read when it is sent, so that nobody is notified of a message that was
//! deleted or read meanwhile, or that they may no longer read; and a place with its device costs under half a KiB. A
//! device has one push on its way at a time and the next one seconds later; news that come meanwhile join those that
//! wait.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::db::{DeviceId, News};
use crate::limits::push::{PUSH_BACKOFF_MAX, PUSH_BACKOFF_MIN, PUSH_INTERVAL, PUSH_QUEUE_MAX, PUSH_TTL};
use crate::room::RoomId;

/// A push that may be due: a device and a room's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) device: DeviceId,
    pub(super) news: News,
    /// When the last of its news came.
    pub(super) came_at: Instant,
    since: Since,
}

/// Since when a job waits; jobs are dropped in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Since {
    at: Instant,
    number: u64,
}

/// The outcome of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// There was nothing to push: no request was made, and the device need not rest.
    Nothing,
    /// A request was made, and accepted or rejected for good.
    Sent,
    /// Look at it again after this time.
    Wait(Duration),
    /// It failed: try again, but not before this time has passed.
    Later(Duration),
    /// The subscription has ended.
    Ended,
}

#[derive(Debug)]
struct Device {
    /// One for each room. They are few.
    waiting: Vec<Waiting>,
    /// A push is on its way.
    busy: bool,
    /// No push before this.
    ready_at: Instant,
    /// Pushes in a row that failed.
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    news: News,
    not_before: Instant,
    /// When the last of the news came.
    came_at: Instant,
    since: Since,
}

impl Waiting {
    /// New news join those that wait without delaying them: a room that never rests would delay them for ever.
    fn merge(self, new: Self) -> Self {
        let (after, up_to) = (self.news.after.min(new.news.after), self.news.up_to.max(new.news.up_to));
        Self {
            news: News { after, up_to, ..self.news },
            not_before: self.not_before.min(new.not_before),
            came_at: self.came_at.max(new.came_at),
            since: self.since.min(new.since),
        }
    }
}

impl Device {
    fn due_at(&self) -> Instant {
        let first = self.waiting.iter().map(|waiting| waiting.not_before).min();
        first.map_or(self.ready_at, |first| first.max(self.ready_at))
    }
}

/// Bounded: of [`PUSH_QUEUE_MAX`] jobs the oldest makes room for the next.
#[derive(Debug, Default)]
pub(super) struct Queue {
    devices: HashMap<DeviceId, Device>,
    /// Every device without a push on its way, by when it is next looked at.
    due: BTreeSet<(Instant, DeviceId)>,
    /// Every job that waits, the oldest first.
    ages: BTreeSet<(Since, DeviceId, RoomId)>,
    next_number: u64,
    dropped: u64,
}

impl Queue {
    /// Adds a push of a room's news to a device.
    pub(super) fn add(&mut self, device: DeviceId, news: News, now: Instant) {
        self.next_number += 1;
        let since = Since { at: now, number: self.next_number };
        self.insert(device, Waiting { news, not_before: now, came_at: now, since }, now);
    }

    fn insert(&mut self, id: DeviceId, new: Waiting, now: Instant) {
        let room = new.news.room;
        let device = self.devices.entry(id).or_insert_with(|| {
            self.due.insert((now, id));
            Device { waiting: Vec::new(), busy: false, ready_at: now, failures: 0 }
        });
        let was_due_at = device.due_at();
        let since = if let Some(old) = device.waiting.iter_mut().find(|waiting| waiting.news.room == room) {
            self.ages.remove(&(old.since, id, room));
            *old = old.merge(new);
            old.since
        } else {
            device.waiting.push(new);
            new.since
        };
        self.ages.insert((since, id, room));
        if !device.busy {
            self.due.remove(&(was_due_at, id));
            self.due.insert((device.due_at(), id));
        }
        while self.ages.len() > PUSH_QUEUE_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, id, room)) = self.ages.pop_first() else { return };
        self.dropped += 1;
        let Some(device) = self.devices.get_mut(&id) else { return };
        let was_due_at = device.due_at();
        device.waiting.retain(|waiting| waiting.news.room != room);
        if device.busy {
            return;
        }
        self.due.remove(&(was_due_at, id));
        if device.waiting.is_empty() {
            // Its back-off is forgotten with it: devices without waiting pushes are not kept.
            self.devices.remove(&id);
        } else {
            self.due.insert((device.due_at(), id));
        }
    }

    /// How many jobs were dropped since this was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// When [`Queue::take`] is next worth calling.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next job that is due. Its device has no other until [`Queue::done`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Job> {
        while self.next_due().is_some_and(|at| at <= now) {
            let (_, id) = self.due.pop_first()?;
            let device = self.devices.get_mut(&id)?;
            let first = device.waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.not_before);
            let Some((at, _)) = first else {
                self.devices.remove(&id);
                continue;
            };
            let Waiting { news, came_at, since, .. } = device.waiting.swap_remove(at);
            device.busy = true;
            self.ages.remove(&(since, id, news.room));
            return Some(Job { device: id, news, came_at, since });
        }
        None
    }

    /// Notes the outcome of a job that was taken.
    pub(super) fn done(&mut self, job: Job, done: Done, now: Instant) {
        let Some(device) = self.devices.get_mut(&job.device) else { return };
        device.busy = false;
        let again_at = match done {
            Done::Nothing => None,
            Done::Sent => {
                (device.failures, device.ready_at) = (0, now + PUSH_INTERVAL);
                None
            }
            Done::Wait(wait) => Some(now + wait),
            Done::Later(wait) => {
                device.failures = device.failures.saturating_add(1);
                device.ready_at = now + wait.max(backoff(device.failures)).min(PUSH_TTL);
                Some(now)
            }
            Done::Ended => {
                for waiting in &device.waiting {
                    self.ages.remove(&(waiting.since, job.device, waiting.news.room));
                }
                self.devices.remove(&job.device);
                return;
            }
        };
        self.due.insert((device.due_at(), job.device));
        match again_at {
            Some(not_before) if now.saturating_duration_since(job.came_at) < PUSH_TTL => {
                let Job { news, came_at, since, .. } = job;
                self.insert(job.device, Waiting { news, not_before, came_at, since }, now);
            }
            Some(_) => self.dropped += 1,
            None => {}
        }
    }
}

/// Twice as long after each failure.
fn backoff(failures: u32) -> Duration {
    PUSH_BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PUSH_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MessageId;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: DeviceId = DeviceId(1);
    const TWO: DeviceId = DeviceId(2);

    /// Message `id` of a room.
    fn news(room: i64, id: i64) -> News {
        News { room: RoomId(room), after: MessageId::new(id - 1), up_to: MessageId::new(id) }
    }

    fn taken(queue: &mut Queue, now: Instant) -> Vec<Job> {
        std::iter::from_fn(|| queue.take(now)).collect()
    }

    fn told(jobs: &[Job]) -> Vec<(DeviceId, News)> {
        jobs.iter().map(|job| (job.device, job.news)).collect()
    }

    #[test]
    fn a_job_comes_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        assert_eq!(queue.next_due(), Some(now));
        assert_eq!(told(&taken(&mut queue, now)), [(ONE, news(1, 7))]);
        assert_eq!(queue.next_due(), None, "while it is on its way nothing is due");
    }

    #[test]
    fn a_device_has_one_push_on_its_way_and_the_next_seconds_later() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        queue.add(TWO, news(1, 7), now);
        let first = taken(&mut queue, now);
        assert_eq!(told(&first), [(ONE, news(1, 7)), (TWO, news(1, 7))]);
        queue.add(ONE, news(2, 8), now);
        assert_eq!(taken(&mut queue, now + SECOND), []);
        queue.done(first[0], Done::Sent, now + SECOND);
        assert_eq!(taken(&mut queue, now + SECOND), []);
        assert_eq!(queue.next_due(), Some(now + SECOND + PUSH_INTERVAL));
        assert_eq!(told(&taken(&mut queue, now + SECOND + PUSH_INTERVAL)), [(ONE, news(2, 8))]);
    }

    #[test]
    fn what_comes_meanwhile_joins_what_waits_and_puts_nothing_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Sent, now);
        for id in 8..100 {
            queue.add(ONE, news(1, id), now + PUSH_INTERVAL / 5);
        }
        let joined = News { after: MessageId::new(7), ..news(1, 99) };
        assert_eq!(told(&taken(&mut queue, now + PUSH_INTERVAL)), [(ONE, joined)]);
    }

    #[test]
    fn where_there_was_nothing_to_tell_the_next_does_not_wait() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        queue.add(ONE, news(2, 8), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Nothing, now);
        assert_eq!(told(&taken(&mut queue, now)), [(ONE, news(2, 8))]);
    }

    #[test]
    fn what_is_to_be_looked_at_again_waits_and_keeps_its_moment() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Wait(30 * SECOND), now + SECOND);
        assert_eq!(taken(&mut queue, now + 30 * SECOND), []);
        let again = taken(&mut queue, now + 31 * SECOND);
        assert_eq!(told(&again), [(ONE, news(1, 7))]);
        assert_eq!(again[0].came_at, now);
    }

    #[test]
    fn a_job_is_of_the_moment_of_its_last_news_and_of_the_age_of_its_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        queue.add(ONE, news(1, 8), now + SECOND);
        let job = queue.take(now + SECOND).unwrap();
        assert_eq!((job.came_at, job.since.at), (now + SECOND, now));
        queue.add(ONE, news(1, 9), now + 2 * SECOND);
        queue.done(job, Done::Wait(30 * SECOND), now + 3 * SECOND);
        let job = queue.take(now + 33 * SECOND).unwrap();
        assert_eq!((job.came_at, job.since.at), (now + 2 * SECOND, now));
    }

    #[test]
    fn a_failed_push_is_tried_again_twice_as_late_each_time() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let job = queue.take(now).unwrap();
            queue.done(job, Done::Later(Duration::ZERO), now);
            let next = queue.next_due().unwrap();
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits[..3], [PUSH_BACKOFF_MIN, 2 * PUSH_BACKOFF_MIN, 4 * PUSH_BACKOFF_MIN]);
        assert_eq!(waits[11], PUSH_BACKOFF_MAX);
        assert_eq!(told(&taken(&mut queue, now)), [(ONE, news(1, 7))], "nothing is lost");
    }

    #[test]
    fn a_push_service_is_left_alone_as_long_as_it_says() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.add(ONE, news(1, 9), now);
        queue.done(job, Done::Later(4_000 * SECOND), now);
        assert_eq!(taken(&mut queue, now + 3_999 * SECOND), []);
        let with_what_came = News { after: MessageId::new(6), ..news(1, 9) };
        assert_eq!(told(&taken(&mut queue, now + 4_000 * SECOND)), [(ONE, with_what_came)]);
    }

    #[test]
    fn a_push_that_fails_for_a_day_is_given_up() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Later(Duration::ZERO), now + PUSH_TTL);
        assert_eq!(queue.take_dropped(), 1);
        assert_eq!(taken(&mut queue, now + 2 * PUSH_TTL), []);
        assert!(queue.devices.is_empty());
    }

    #[test]
    fn news_that_joined_a_failing_push_have_their_own_day() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Later(Duration::ZERO), now);
        let late = now + PUSH_TTL / 2;
        queue.add(ONE, news(1, 8), late);
        let job = queue.take(late).unwrap();
        queue.done(job, Done::Later(Duration::ZERO), now + PUSH_TTL);
        assert_eq!(queue.take_dropped(), 0);
        let both = News { after: MessageId::new(6), ..news(1, 8) };
        assert_eq!(told(&taken(&mut queue, now + 2 * PUSH_TTL)), [(ONE, both)]);
    }

    #[test]
    fn with_its_subscription_all_that_waits_for_a_device_goes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        queue.add(ONE, news(2, 8), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Ended, now);
        assert_eq!(taken(&mut queue, now + 60 * SECOND), []);
        assert!(queue.devices.is_empty() && queue.ages.is_empty() && queue.due.is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let most = i64::try_from(PUSH_QUEUE_MAX).unwrap();
        for device in 0..most + 10 {
            queue.add(DeviceId(device), news(1, 7), now);
        }
        assert_eq!(queue.take_dropped(), 10);
        let lengths = (queue.ages.len(), queue.devices.len(), queue.due.len());
        assert_eq!(lengths, (PUSH_QUEUE_MAX, PUSH_QUEUE_MAX, PUSH_QUEUE_MAX));
        let left = taken(&mut queue, now);
        assert!(left.iter().all(|job| job.device >= DeviceId(10)));
        assert_eq!(left.len(), PUSH_QUEUE_MAX);
    }

    #[test]
    fn a_device_that_nothing_waits_for_is_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(ONE, news(1, 7), now);
        let job = queue.take(now).unwrap();
        queue.done(job, Done::Sent, now);
        assert_eq!(taken(&mut queue, now + PUSH_INTERVAL), []);
        assert!(queue.devices.is_empty() && queue.due.is_empty());
    }
}
