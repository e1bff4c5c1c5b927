//! A model of the hand-over: the writer, the hub, one shard, one connection with its task, and what its client is sent.
//!
//! States and steps have the names of the code they stand for (`src/fan_out`, `src/ws`, `src/db/writer.rs`). A step is
//! what happens without anybody else coming between: under a lock, between two awaits of which another thread sees
//! nothing, one transaction. The socket takes as much as it likes. The client checks what it gets as it gets it.
//!
//! Not in it: a second connection (connections of a shard meet nowhere but at its gate), a socket that fails, silence.

mod client;
mod rules;
mod shard;
mod task;

use std::hash::{Hash, Hasher};

use super::explore::Model;
use client::{Client, NOT_TOLD};
pub(crate) use rules::Rule;
use rules::Rules;
use shard::ShardAt;
use task::TaskAt;

/// Something that the writer stores. All except `Revoke` are events and have an id, the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Commit {
    /// A message that everybody may read.
    Message,
    /// A message of a private room that the client is a member of, until `Remove`.
    RoomMessage,
    /// The client is no member any more, and told so: by its task, since the event is a frame of nobody's else.
    Remove,
    /// The client's session ends.
    Revoke,
}

/// What happens around a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What is committed, transaction by transaction.
    pub(crate) transactions: &'static [&'static [Commit]],
    /// The last id the client has, if it resumes.
    pub(crate) last_id: Option<u8>,
    /// How often other people come and go.
    pub(crate) presence: u8,
    /// How often the client asks for something.
    pub(crate) asks: u8,
    pub(crate) pings: u8,
    pub(crate) stops: bool,
    /// Whether the client closes at some time.
    pub(crate) leaves: bool,
    /// Whether the socket may take less than it is given.
    pub(crate) slow: bool,
    /// `HUB_CAPACITY`.
    pub(crate) capacity: usize,
    /// `CHUNK_MAX_MESSAGES`: what is read of a backlog at once.
    pub(crate) chunk: usize,
}

impl Scenario {
    /// The first `count` commits.
    fn commits(&self, count: u8) -> impl Iterator<Item = Commit> {
        self.transactions.iter().copied().flatten().copied().take(usize::from(count))
    }

    /// How many commits there are when the next transaction after `count` of them is done; none if that was the last.
    fn next(&self, count: u8) -> Option<u8> {
        let ends = self.transactions.iter().scan(0, |end, transaction| {
            *end += u8::try_from(transaction.len()).expect("a scenario is short");
            Some(*end)
        });
        ends.into_iter().find(|end| *end > count)
    }

    /// The frames of the first `count` commits, in the order of their ids.
    fn frames(&self, count: u8) -> impl Iterator<Item = Frame> {
        self.commits(count).filter(|commit| *commit != Commit::Revoke).zip(1..).map(|(commit, id)| match commit {
            Commit::RoomMessage => Frame::RoomMessage(id),
            Commit::Remove => Frame::RoomGone(id),
            _ => Frame::Message(id),
        })
    }

    /// The frames past `id` of the first `count` commits.
    fn frames_after(&self, id: u8, count: u8) -> impl Iterator<Item = Frame> {
        self.frames(count).filter(move |frame| frame.id() > Some(id))
    }

    /// The last id when `count` commits are done.
    fn id_after(&self, count: u8) -> u8 {
        self.frames(count).last().and_then(Frame::id).unwrap_or(0)
    }

    fn happened(&self, commit: Commit, count: u8) -> bool {
        self.commits(count).any(|other| other == commit)
    }

    /// What is published of the transaction that follows `count` commits: who is to look again comes first.
    fn publication(&self, count: u8, rules: Rules) -> Vec<Event> {
        let end = self.next(count).unwrap_or(count);
        let changes = self.commits(end).skip(usize::from(count)).filter_map(|commit| match commit {
            Commit::Revoke => Some(Event::Revoked),
            Commit::Remove => Some(Event::RoomsChanged),
            _ => None,
        });
        let frames = self.frames_after(self.id_after(count), end).map(Event::Frame);
        if rules.keep(Rule::RoomsChangedBeforeFrames) {
            changes.chain(frames).collect()
        } else {
            frames.chain(changes).collect()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Frame {
    Message(u8),
    RoomMessage(u8),
    RoomGone(u8),
    /// The next change of who is online.
    Presence(u8),
    /// Who is online after so many changes.
    Snapshot(u8),
    Answer,
    Ping,
    Close,
}

impl Frame {
    fn id(self) -> Option<u8> {
        match self {
            Frame::Message(id) | Frame::RoomMessage(id) | Frame::RoomGone(id) => Some(id),
            _ => None,
        }
    }
}

/// Bytes on the wire: a frame, or one of its halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Whole(Frame),
    Head(Frame),
    Tail(Frame),
}

/// What travels the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Frame(Frame),
    Revoked,
    RoomsChanged,
    Shutdown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Position {
    message: u8,
    presence: u8,
    revocation: u8,
    membership: u8,
}

impl Position {
    fn covers(self, other: Position) -> bool {
        self.message >= other.message
            && self.presence >= other.presence
            && self.revocation >= other.revocation
            && self.membership >= other.membership
    }

    fn advance(&mut self, frames: &[Frame]) {
        for frame in frames {
            match frame {
                Frame::Presence(seq) => self.presence = self.presence.max(*seq),
                other => self.message = self.message.max(other.id().unwrap_or(0)),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriteOwner {
    Shard,
    Task,
    Closing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subscriber {
    owner: WriteOwner,
    position: Position,
    frame_tail: Option<Frame>,
    is_member: bool,
    /// Whether the task left its waker.
    waits: bool,
}

impl Subscriber {
    fn pass_to(&mut self, owner: WriteOwner, rules: Rules) {
        self.owner = owner;
        if rules.keep(Rule::PassToWakes) {
            self.waits = false;
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct JoinGate {
    position: Position,
    new: bool,
    shut: bool,
}

/// What is the same in all states of a world, and not looked at when they are told apart.
#[derive(Clone, Copy, Debug)]
struct Setting {
    scenario: Scenario,
    rules: Rules,
}

impl PartialEq for Setting {
    fn eq(&self, _: &Setting) -> bool {
        true
    }
}

impl Eq for Setting {}

impl Hash for Setting {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    setting: Setting,
    /// Commits on disk, and those of which all is published.
    committed: u8,
    published: u8,
    /// The last id noted as published, and how much of the next transaction is sent.
    noted: u8,
    sent: u8,
    presence: u8,
    stops: u8,
    pings: u8,
    asks: u8,
    channel: Vec<Event>,
    /// Whether the channel lost events that the shard had not taken.
    overrun: bool,
    gate: JoinGate,
    shard: ShardAt,
    /// Whether the shard has the subscriber on its list.
    listed: bool,
    subscriber: Subscriber,
    task: TaskAt,
    client: Client,
}

type Step = (&'static str, Result<World, &'static str>);

impl World {
    pub(crate) fn new(scenario: Scenario, left_out: &'static [Rule]) -> World {
        World {
            setting: Setting { scenario, rules: Rules { left_out } },
            committed: 0,
            published: 0,
            noted: 0,
            sent: 0,
            presence: 0,
            stops: 0,
            pings: scenario.pings,
            asks: scenario.asks,
            channel: Vec::new(),
            overrun: false,
            // Ahead by one, so that each newcomer looks which rooms it reads.
            gate: JoinGate { position: Position { membership: 1, ..Position::default() }, ..JoinGate::default() },
            shard: ShardAt::Receive,
            listed: false,
            subscriber: Subscriber {
                owner: WriteOwner::Task,
                position: Position::default(),
                frame_tail: None,
                is_member: false,
                waits: false,
            },
            task: if left_out.contains(&Rule::CountBeforeSession) {
                TaskAt::ValidateSession { revocation: 0 }
            } else {
                TaskAt::CountRevocations
            },
            client: Client::default(),
        }
    }

    fn keep(&self, rule: Rule) -> bool {
        self.setting.rules.keep(rule)
    }

    /// This world after `change`.
    fn after(&self, change: impl FnOnce(&mut World)) -> World {
        let mut world = self.clone();
        change(&mut world);
        world
    }

    fn with_task(&self, task: TaskAt) -> World {
        self.after(|world| world.task = task)
    }

    fn session_lives(&self) -> bool {
        !self.setting.scenario.happened(Commit::Revoke, self.committed)
    }

    fn is_member(&self) -> bool {
        !self.setting.scenario.happened(Commit::Remove, self.committed)
    }

    // The writer thread, the hub, presence and the stop.

    fn publish(&mut self, event: Event) {
        if self.channel.len() == self.setting.scenario.capacity {
            self.channel.remove(0);
            self.overrun = true;
        }
        self.channel.push(event);
    }

    fn writer_steps(&self, steps: &mut Vec<Step>) {
        let (may_commit, may_publish) = if self.keep(Rule::CommitBeforePublish) {
            (self.committed == self.published, self.published < self.committed)
        } else {
            (self.committed < self.published, self.published == self.committed)
        };
        if may_commit && let Some(next) = self.setting.scenario.next(self.committed) {
            steps.push(("Writer: commit", Ok(self.after(|world| world.committed = next))));
        }
        if may_publish && let Some(next) = self.setting.scenario.next(self.published) {
            self.publish_steps(next, steps);
        }
    }

    /// Publishes the next event of the transaction that ends with the commit number `next`.
    fn publish_steps(&self, next: u8, steps: &mut Vec<Step>) {
        let publication = self.setting.scenario.publication(self.published, self.setting.rules);
        let last_id = self.setting.scenario.id_after(next);
        let event = publication[usize::from(self.sent)];
        if matches!(event, Event::Frame(_)) && self.noted < last_id {
            steps.push(("Hub: note as published", Ok(self.after(|world| world.noted = last_id))));
            return;
        }
        let publish = |world: &mut World| {
            world.publish(event);
            world.sent += 1;
            if usize::from(world.sent) == publication.len() {
                (world.sent, world.published) = (0, next);
            }
        };
        steps.push(("Hub: publish", Ok(self.after(publish))));
    }

    fn presence_steps(&self, steps: &mut Vec<Step>) {
        if self.presence < self.setting.scenario.presence {
            let announce = |world: &mut World| {
                world.presence += 1;
                world.publish(Event::Frame(Frame::Presence(world.presence)));
            };
            steps.push(("Presence: announce", Ok(self.after(announce))));
        }
    }

    /// Once at any time, and again when all is quiet and somebody is still there.
    fn stop_steps(&self, steps: &mut Vec<Step>) {
        if !self.setting.scenario.stops {
            return;
        }
        let is_quiet = self.shard == ShardAt::Receive && self.channel.is_empty();
        let may_repeat = self.stops == 1
            && self.keep(Rule::ShutdownIsRepeated)
            && is_quiet
            && self.setting.scenario.next(self.published).is_none()
            && self.presence == self.setting.scenario.presence
            && self.task != TaskAt::Ended;
        if self.stops == 0 || may_repeat {
            let stop = |world: &mut World| {
                world.stops += 1;
                world.publish(Event::Shutdown);
            };
            steps.push(("Server: publish the shutdown", Ok(self.after(stop))));
        }
    }
}

impl Model for World {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.writer_steps(&mut steps);
        self.presence_steps(&mut steps);
        self.stop_steps(&mut steps);
        self.shard_steps(&mut steps);
        self.task_steps(&mut steps);
        steps
    }

    fn wrong_at_the_end(&self) -> Option<&'static str> {
        let is_over = !self.session_lives() || self.stops > 0 || self.setting.scenario.leaves;
        match (&self.task, is_over) {
            (TaskAt::Ended, true) => self.client.half.map(|_| "the last frame stays half"),
            (TaskAt::Ended, false) => Some("a connection is closed for no reason"),
            (_, true) if self.stops > 0 => Some("a connection outlives the stop"),
            (_, true) => Some("a connection outlives its session"),
            (_, false) if self.subscriber.owner != WriteOwner::Shard => {
                Some("nobody writes to the connection any more")
            }
            (_, false) if self.client.half.is_some() => Some("a frame stays half"),
            (_, false) => match self.must_get(self.client.message) {
                Some(Frame::RoomGone(_)) => Some(NOT_TOLD),
                Some(_) => Some("a message never comes"),
                None => (self.client.presence != self.presence).then_some("a change of presence never comes"),
            },
        }
    }
}
