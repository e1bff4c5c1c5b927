//! The loop that pushes: what is new in a room, whom it concerns, and one push after another for each device.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Push;
use super::encrypt::Keys;
use super::endpoint::Endpoint;
use super::post::Outcome;
use super::queue::{Done, Job, Queue};
use super::text::PushText;
#[cfg(feature = "cluster")]
use crate::cluster::Duty;
use crate::db::{Db, DeviceId, News, Notice};
#[cfg(feature = "cluster")]
use crate::limits::push::PUSH_INTERVAL;
use crate::limits::push::{DEVICES_AT_ONCE, PUSHES_AT_ONCE};
use crate::metrics::Metrics;
use crate::model::{MessageId, UserId};

/// Time before a node is asked again who looks at its page, if it did not say.
#[cfg(feature = "cluster")]
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// What the loop works with.
#[derive(Debug, Clone)]
pub(crate) struct Pusher {
    pub(crate) push: Arc<Push>,
    pub(crate) db: Db,
    pub(crate) metrics: Arc<Metrics>,
    /// None if this is the only server.
    #[cfg(feature = "cluster")]
    pub(crate) duty: Option<Duty>,
}

/// That a node did not say who looks at its page.
#[cfg(feature = "cluster")]
struct Unknown;
#[cfg(not(feature = "cluster"))]
type Unknown = Infallible;

impl Pusher {
    /// Pushes for good.
    pub(crate) async fn run(self) -> Infallible {
        let (mut queue, mut sending, mut jobs) = (Queue::default(), JoinSet::new(), HashMap::new());
        loop {
            while let Some(news) = self.push.rooms.take(Instant::now()) {
                self.spread(&mut queue, news).await;
            }
            while sending.len() < PUSHES_AT_ONCE
                && let Some(job) = queue.take(Instant::now())
            {
                let pusher = self.clone();
                let task = sending.spawn(async move { pusher.do_if_it_is_ours(job).await });
                jobs.insert(task.id(), job);
            }
            self.metrics.pushes.dropped.add(queue.take_dropped());
            let next_push = if sending.len() < PUSHES_AT_ONCE { queue.next_due() } else { None };
            let due_at = [self.push.rooms.next_due(), next_push].into_iter().flatten().min();
            let until_due = async {
                match due_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.push.rooms.changed() => {}
                Some(told) = sending.join_next_with_id() => {
                    let (task, done) = told.unwrap_or_else(|error| {
                        tracing::error!(%error, "a push ended in a panic");
                        (error.id(), Done::Nothing)
                    });
                    if let Some(job) = jobs.remove(&task) {
                        queue.done(job, done, Instant::now());
                    }
                }
                () = until_due => {}
            }
        }
    }

    /// Has every device that news concern told of them.
    async fn spread(&self, queue: &mut Queue, news: News) {
        let mut last = DeviceId::default();
        loop {
            let Ok(devices) = self.db.concerned_devices(news, last).await else {
                tracing::warn!("the database is too busy to say whom to push to");
                return self.metrics.pushes.dropped.add(1);
            };
            let now = Instant::now();
            for &device in &devices {
                queue.add(device, news, now);
            }
            match devices.last() {
                Some(&device) if devices.len() >= DEVICES_AT_ONCE as usize => last = device,
                _ => return,
            }
        }
    }

    /// Of several nodes one tells, and the others keep what is to be told until they hear that it was.
    #[cfg_attr(not(feature = "cluster"), expect(unused_mut, reason = "the only one has told nothing yet"))]
    async fn do_if_it_is_ours(&self, mut job: Job) -> Done {
        #[cfg(feature = "cluster")]
        if let Some(duty) = &self.duty {
            let is_ours = duty.is_ours().await;
            let Some(news) = duty.untold(job.device, job.news) else { return Done::Nothing };
            if !is_ours {
                return Done::Wait(PUSH_INTERVAL);
            }
            job.news = news;
            let done = self.tell(job).await;
            if matches!(done, Done::Nothing | Done::Sent | Done::Ended) {
                duty.has_told(job.device, job.news);
            }
            return done;
        }
        self.tell(job).await
    }

    /// Tells a device of a room, if there still is something to tell.
    async fn tell(&self, job: Job) -> Done {
        let notice = match self.db.notice(job.device, job.news).await {
            Ok(Some(notice)) => notice,
            Ok(None) => return Done::Nothing,
            Err(_) => return Done::Later(Duration::ZERO),
        };
        match self.heard_at(notice.user, job.news.up_to).await {
            // They were there after it came: the page has shown it.
            Ok(Some(heard_at)) if heard_at >= job.came_at => return Done::Nothing,
            Ok(Some(heard_at)) => {
                // Perhaps they look, perhaps the phone has fallen asleep: soon one knows.
                let left = (heard_at + self.push.sight_life).saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Done::Wait(left);
                }
            }
            Ok(None) => {}
            #[cfg(feature = "cluster")]
            Err(Unknown) => return Done::Wait(ASK_PAUSE),
        }
        let outcome = self.send(job, notice).await;
        let pushes = &self.metrics.pushes;
        match outcome {
            Some(Outcome::Sent) => {
                pushes.sent.add(1);
                Done::Sent
            }
            Some(Outcome::Ended) => {
                pushes.ended.add(1);
                tracing::info!(device = job.device.0, "a push service has ended a subscription");
                if let Err(error) = self.db.forget_device(job.device).await {
                    tracing::warn!(%error, "cannot forget it now: the next push will be answered so again");
                }
                Done::Ended
            }
            Some(Outcome::Later(wait)) => {
                pushes.deferred.add(1);
                Done::Later(wait.unwrap_or_default())
            }
            Some(Outcome::Refused) | None => {
                pushes.refused.add(1);
                Done::Sent
            }
        }
    }

    /// When a page in sight of a user, which has shown messages up to one, was last heard from.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, unused_variables, reason = "nobody else is asked")
    )]
    async fn heard_at(&self, user: UserId, up_to: MessageId) -> Result<Option<Instant>, Unknown> {
        let here = self.push.sight.heard_at(user);
        #[cfg(feature = "cluster")]
        if let Some(duty) = &self.duty {
            let elsewhere = duty.heard_elsewhere(user, up_to).await.map_err(|error| {
                tracing::debug!(%error, "a node does not say who looks at its page");
                Unknown
            })?;
            return Ok(here.max(elsewhere));
        }
        Ok(here)
    }

    /// `None` if what is stored cannot be pushed to, since the operator has taken its host off the list.
    async fn send(&self, job: Job, notice: Notice) -> Option<Outcome> {
        let Push { client, hosts, .. } = &*self.push;
        let endpoint = Endpoint::parse(&notice.endpoint, hosts).ok()?;
        let keys = Keys::from_bytes(&notice.keys)?;
        let text = PushText {
            room: job.news.room.0,
            message: notice.message.get(),
            name: notice.name,
            from: notice.from.as_str().to_owned(),
            text: notice.text,
            count: notice.count,
        };
        let json = text.into_json().ok()?;
        Some(client.push(&endpoint, &keys, &keys.topic(job.news.room.0), json.as_bytes()).await)
    }
}
