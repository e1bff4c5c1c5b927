//! The connection's task: `authenticate`, `Connection::run`, `catch_up`, `answer` and `close`.

use super::client::Client;
use super::rules::{Rule, Rules};
use super::{Frame, Piece, Position, Step, World, WriteOwner};

/// Where the connection's task is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TaskAt {
    /// `authenticate`: the shard's count of revocations.
    CountRevocations,
    ValidateSession {
        revocation: u8,
    },
    TakeLastId {
        revocation: u8,
    },
    Register,
    /// `catch_up`, from its beginning.
    ClaimWrites,
    CatchUp,
    RecheckSession {
        revocation: u8,
    },
    Replay {
        target: Position,
    },
    /// Only where membership is read by itself.
    ReplayAs {
        target: Position,
        is_member: bool,
    },
    WriteChunk {
        frames: Vec<Frame>,
        replay: Replay,
    },
    SetPosition {
        position: Position,
        is_member: bool,
    },
    Join,
    /// Only where it is not one step with the gate.
    Joined,
    PollWoken,
    /// Only where the waker is not left under the lock.
    LeaveWaker,
    Asleep,
    TryAnswer,
    ClaimForAnswer {
        left: Piece,
    },
    /// `write`, which ends early when the connection is to be closed.
    Write {
        left: Vec<Piece>,
        then: Box<TaskAt>,
    },
    StartClosing {
        pending: Vec<Piece>,
    },
    LastWords {
        left: Vec<Piece>,
    },
    Ended,
}

/// What one step of `replay` has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replay {
    position: Position,
    /// The gate's count of changes of rooms when it began.
    membership: u8,
    up_to: u8,
    last_id: u8,
    is_member: bool,
}

impl Replay {
    /// `replay`, from where the chunk is written.
    fn set_position(self, mut position: Position, rules: Rules) -> TaskAt {
        if position.message >= self.last_id || !rules.keep(Rule::ToldAtTheEnd) {
            position.membership = position.membership.max(self.membership);
        }
        TaskAt::SetPosition { position, is_member: self.is_member }
    }
}

impl World {
    pub(super) fn task_steps(&self, steps: &mut Vec<Step>) {
        match &self.task {
            TaskAt::CountRevocations | TaskAt::ValidateSession { .. } => self.authenticate_steps(steps),
            TaskAt::TakeLastId { revocation } => {
                steps.push(("Task: take the last id", Ok(self.take_last_id(*revocation))));
            }
            TaskAt::Register => steps.push(("Task: register", Ok(self.register()))),
            TaskAt::ClaimWrites | TaskAt::CatchUp | TaskAt::RecheckSession { .. } => self.catch_up_steps(steps),
            TaskAt::Replay { .. } | TaskAt::ReplayAs { .. } => self.replay_steps(steps),
            TaskAt::WriteChunk { frames, replay } => self.write_chunk_steps(frames, *replay, steps),
            TaskAt::SetPosition { .. } | TaskAt::Join | TaskAt::Joined => self.join_steps(steps),
            TaskAt::PollWoken | TaskAt::LeaveWaker | TaskAt::Asleep => self.run_steps(steps),
            TaskAt::TryAnswer | TaskAt::ClaimForAnswer { .. } => self.answer_steps(steps),
            TaskAt::Write { left, then } => self.write_steps(left, then, steps),
            TaskAt::StartClosing { pending } => steps.push(("Task: start closing", Ok(self.start_closing(pending)))),
            TaskAt::LastWords { left } => self.last_words_steps(left, steps),
            TaskAt::Ended => {}
        }
    }

    fn authenticate_steps(&self, steps: &mut Vec<Step>) {
        let counts_first = self.keep(Rule::CountBeforeSession);
        match self.task {
            TaskAt::CountRevocations => {
                let revocation = self.gate.position.revocation;
                let next = if counts_first {
                    TaskAt::ValidateSession { revocation }
                } else {
                    TaskAt::TakeLastId { revocation }
                };
                steps.push(("Task: take the count of revocations", Ok(self.with_task(next))));
            }
            TaskAt::ValidateSession { revocation } => {
                let next = match (self.session_lives(), counts_first) {
                    (false, _) => TaskAt::Ended,
                    (true, true) => TaskAt::TakeLastId { revocation },
                    (true, false) => TaskAt::CountRevocations,
                };
                steps.push(("Task: validate the session", Ok(self.with_task(next))));
            }
            _ => {}
        }
    }

    fn take_last_id(&self, revocation: u8) -> World {
        let last_id = self.setting.scenario.id_after(self.committed);
        let message = self.setting.scenario.last_id.map_or(last_id, |known| known.min(last_id));
        self.after(|world| {
            world.client = Client { message, presence: self.presence, ..Client::default() };
            world.subscriber.position = Position { message, presence: self.presence, revocation, membership: 0 };
            world.task = TaskAt::Register;
        })
    }

    /// `Connection::welcome` up to its first write.
    fn register(&self) -> World {
        self.after(|world| {
            if world.gate.shut {
                world.task = TaskAt::StartClosing { pending: Vec::new() };
            } else {
                world.gate.new = true;
                let then = Box::new(TaskAt::ClaimWrites);
                world.task = TaskAt::Write { left: vec![Piece::Whole(Frame::Answer)], then };
            }
        })
    }

    /// `claim_writes`; then `next`, unless the connection is to be closed.
    fn claim(&self, pending: Vec<Piece>, next: impl FnOnce(&mut World) -> TaskAt) -> World {
        self.after(|world| {
            if world.subscriber.owner == WriteOwner::Closing && world.keep(Rule::ClaimRespectsClosing) {
                world.task = TaskAt::StartClosing { pending };
            } else {
                world.subscriber.owner = WriteOwner::Task;
                world.task = next(world);
            }
        })
    }

    fn catch_up_steps(&self, steps: &mut Vec<Step>) {
        let target = self.gate.position;
        match self.task {
            TaskAt::ClaimWrites => {
                let claimed = self.claim(Vec::new(), |world| {
                    let writes_tail = world.keep(Rule::CatchUpWritesTail);
                    let tail = world.subscriber.frame_tail.take().filter(|_| writes_tail);
                    let left = tail.into_iter().map(Piece::Tail).collect();
                    TaskAt::Write { left, then: Box::new(TaskAt::CatchUp) }
                });
                steps.push(("Task: claim the writes", Ok(claimed)));
            }
            TaskAt::CatchUp => {
                let mut position = self.subscriber.position;
                if !self.keep(Rule::CatchUpReadsRooms) {
                    position.membership = target.membership;
                }
                let is_member = self.subscriber.is_member;
                let next = if position.revocation < target.revocation {
                    TaskAt::RecheckSession { revocation: target.revocation }
                } else if position.message < target.message || position.membership < target.membership {
                    TaskAt::Replay { target }
                } else if position.presence < target.presence {
                    let position = Position { presence: self.presence, ..position };
                    let then = Box::new(TaskAt::SetPosition { position, is_member });
                    TaskAt::Write { left: vec![Piece::Whole(Frame::Snapshot(self.presence))], then }
                } else {
                    TaskAt::SetPosition { position, is_member }
                };
                steps.push(("Task: compare with the gate", Ok(self.with_task(next))));
            }
            TaskAt::RecheckSession { revocation } => {
                let is_over = !self.session_lives() && self.keep(Rule::CatchUpChecksSession);
                let (position, is_member) = (self.subscriber.position, self.subscriber.is_member);
                let next = if is_over {
                    TaskAt::StartClosing { pending: Vec::new() }
                } else {
                    TaskAt::SetPosition { position: Position { revocation, ..position }, is_member }
                };
                steps.push(("Task: look at the session again", Ok(self.with_task(next))));
            }
            _ => {}
        }
    }

    fn replay_steps(&self, steps: &mut Vec<Step>) {
        let (target, is_member) = match self.task {
            TaskAt::Replay { target } if !self.keep(Rule::OneReadTransaction) => {
                let read = TaskAt::ReplayAs { target, is_member: self.is_member() };
                steps.push(("Task: read the rooms", Ok(self.with_task(read))));
                return;
            }
            TaskAt::Replay { target } => (target, self.is_member()),
            TaskAt::ReplayAs { target, is_member } => (target, is_member),
            _ => return,
        };
        let (scenario, mut position) = (self.setting.scenario, self.subscriber.position);
        let readable = |frame: &Frame| is_member || !matches!(frame, Frame::RoomMessage(_));
        let mut frames: Vec<Frame> = scenario.frames_after(position.message, self.committed).filter(readable).collect();
        let last_id = scenario.id_after(self.committed);
        let is_part = frames.len() > scenario.chunk;
        frames.truncate(scenario.chunk);
        let up_to = frames.last().filter(|_| is_part).and_then(|frame| frame.id()).unwrap_or(last_id);
        let replay = Replay { position, membership: target.membership, up_to, last_id, is_member };
        let next = if frames.is_empty() {
            position.message = target.message.max(up_to);
            replay.set_position(position, self.setting.rules)
        } else {
            TaskAt::WriteChunk { frames, replay }
        };
        steps.push(("Task: read the backlog", Ok(self.with_task(next))));
    }

    fn write_chunk_steps(&self, frames: &[Frame], replay: Replay, steps: &mut Vec<Step>) {
        let pieces: Vec<Piece> = frames.iter().copied().map(Piece::Whole).collect();
        let given = |count: usize| {
            let mut position = replay.position;
            position.advance(&frames[..count]);
            replay.set_position(position, self.setting.rules)
        };
        let whole = Position { message: replay.up_to, ..replay.position };
        let whole = self.with_task(replay.set_position(whole, self.setting.rules));
        steps.push(("Task: write the chunk", whole.sent(&pieces)));
        if !self.setting.scenario.slow {
            return;
        }
        // Of nothing written at all there is nothing to be seen.
        for written in 1..frames.len() {
            steps.push(("Task: write some of the chunk", self.with_task(given(written)).sent(&pieces[..written])));
        }
        for (written, frame) in frames.iter().enumerate() {
            let then = Box::new(given(written + 1));
            let cut = [&pieces[..written], &[Piece::Head(*frame)]].concat();
            let left = vec![Piece::Tail(*frame)];
            steps.push(("Task: write the chunk, cut", self.with_task(TaskAt::Write { left, then }).sent(&cut)));
        }
    }

    fn join_steps(&self, steps: &mut Vec<Step>) {
        match self.task {
            TaskAt::SetPosition { position, is_member } => {
                let set = self.after(|world| {
                    world.subscriber.position = position;
                    world.subscriber.is_member = is_member;
                    world.task = TaskAt::Join;
                });
                steps.push(("Task: set the position", Ok(set)));
            }
            TaskAt::Join => {
                let covers = self.subscriber.position.covers(self.gate.position);
                let joined = self.after(|world| {
                    if !covers && world.keep(Rule::JoinComparesPositions) {
                        world.task = TaskAt::CatchUp;
                    } else if world.keep(Rule::JoinIsOneStep) {
                        world.join();
                    } else {
                        world.task = TaskAt::Joined;
                    }
                });
                steps.push((if covers { "Task: join" } else { "Task: is behind" }, Ok(joined)));
            }
            _ => steps.push(("Task: join, late", Ok(self.after(World::join)))),
        }
    }

    fn join(&mut self) {
        if self.subscriber.owner == WriteOwner::Task || !self.keep(Rule::JoinRespectsClosing) {
            self.subscriber.owner = WriteOwner::Shard;
        }
        self.task = TaskAt::PollWoken;
    }

    /// `Connection::run`: woken, or with something from the client.
    fn run_steps(&self, steps: &mut Vec<Step>) {
        match (&self.task, self.subscriber.owner) {
            (TaskAt::PollWoken, WriteOwner::Task) => {
                steps.push(("Task: woken, behind", Ok(self.with_task(TaskAt::ClaimWrites))));
            }
            (TaskAt::PollWoken, WriteOwner::Closing) => {
                let closing = TaskAt::StartClosing { pending: Vec::new() };
                steps.push(("Task: woken, to close", Ok(self.with_task(closing))));
            }
            (TaskAt::PollWoken, WriteOwner::Shard) if !self.keep(Rule::WaitsUnderTheLock) => {
                steps.push(("Task: nothing to do", Ok(self.with_task(TaskAt::LeaveWaker))));
            }
            (TaskAt::PollWoken | TaskAt::LeaveWaker, _) => {
                let asleep = self.after(|world| {
                    world.subscriber.waits = true;
                    world.task = TaskAt::Asleep;
                });
                steps.push(("Task: wait", Ok(asleep)));
            }
            _ => {
                if !self.subscriber.waits {
                    steps.push(("Task: woken", Ok(self.with_task(TaskAt::PollWoken))));
                }
                if self.asks > 0 {
                    let asked = self.after(|world| {
                        world.asks -= 1;
                        world.task = TaskAt::TryAnswer;
                    });
                    steps.push(("Task: receive", Ok(asked)));
                }
                if self.setting.scenario.leaves {
                    let closing = TaskAt::StartClosing { pending: vec![Piece::Whole(Frame::Answer)] };
                    steps.push(("Task: receive a close", Ok(self.with_task(closing))));
                }
            }
        }
    }

    fn answer_steps(&self, steps: &mut Vec<Step>) {
        let (whole, head, tail) = (Piece::Whole(Frame::Answer), Piece::Head(Frame::Answer), Piece::Tail(Frame::Answer));
        match self.task {
            TaskAt::ClaimForAnswer { left } => {
                let claimed = self.claim(vec![left], |world| {
                    let writes_tail = world.keep(Rule::AnswerWritesTail);
                    let rest = world.subscriber.frame_tail.take().filter(|_| writes_tail).map(Piece::Tail);
                    let left = rest.into_iter().chain([left]).collect();
                    TaskAt::Write { left, then: Box::new(TaskAt::ClaimWrites) }
                });
                steps.push(("Task: claim the writes for the answer", Ok(claimed)));
            }
            _ if self.subscriber.owner == WriteOwner::Shard || !self.keep(Rule::AnswerChecksOwner) => {
                steps.push(("Task: answer", self.with_task(TaskAt::PollWoken).sent(&[whole])));
                if self.setting.scenario.slow {
                    let taken = self.after(|world| world.subscriber.owner = WriteOwner::Task);
                    let cut = taken.with_task(TaskAt::ClaimForAnswer { left: tail });
                    steps.push(("Task: answer, cut", cut.sent(&[head])));
                    let blocked = taken.with_task(TaskAt::ClaimForAnswer { left: whole });
                    steps.push(("Task: answer, blocked", Ok(blocked)));
                }
            }
            _ => {
                let claim = TaskAt::ClaimForAnswer { left: whole };
                steps.push(("Task: cannot answer yet", Ok(self.with_task(claim))));
            }
        }
    }

    fn write_steps(&self, left: &[Piece], then: &TaskAt, steps: &mut Vec<Step>) {
        let Some((first, rest)) = left.split_first() else {
            steps.push(("Task: written", Ok(self.with_task(then.clone()))));
            return;
        };
        if self.subscriber.owner == WriteOwner::Closing {
            let pending = if self.keep(Rule::WriteHandsOverRest) { left.to_vec() } else { Vec::new() };
            let closing = self.with_task(TaskAt::StartClosing { pending });
            steps.push(("Task: closing while it writes", Ok(closing)));
            return;
        }
        let write = |left: Vec<Piece>| TaskAt::Write { left, then: Box::new(then.clone()) };
        steps.push(("Task: write", self.with_task(write(rest.to_vec())).sent(&[*first])));
        if let Piece::Whole(frame) = first
            && self.setting.scenario.slow
        {
            let left = [&[Piece::Tail(*frame)], rest].concat();
            steps.push(("Task: write, cut", self.with_task(write(left)).sent(&[Piece::Head(*frame)])));
        }
    }

    fn start_closing(&self, pending: &[Piece]) -> World {
        self.after(|world| {
            if world.subscriber.owner == WriteOwner::Shard && world.keep(Rule::CloseMakesTaskOwner) {
                world.subscriber.owner = WriteOwner::Task;
            }
            let writes_tail = world.keep(Rule::CloseWritesTail);
            let rest = world.subscriber.frame_tail.take().filter(|_| writes_tail).map(Piece::Tail);
            let close = [Piece::Whole(Frame::Close)];
            let left = rest.into_iter().chain(pending.iter().copied()).chain(close).collect();
            world.task = TaskAt::LastWords { left };
        })
    }

    fn last_words_steps(&self, left: &[Piece], steps: &mut Vec<Step>) {
        match left.split_first() {
            Some((first, rest)) => {
                let said = self.with_task(TaskAt::LastWords { left: rest.to_vec() });
                steps.push(("Task: last words", said.sent(&[*first])));
            }
            None => steps.push(("Task: end", Ok(self.with_task(TaskAt::Ended)))),
        }
    }
}
