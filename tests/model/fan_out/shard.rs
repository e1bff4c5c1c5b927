//! `Shard::run`, and what a shard does to its subscriber.

use super::rules::Rule;
use super::task::TaskAt;
use super::{Event, Frame, Piece, Step, World, WriteOwner};

/// Where the shard's loop is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ShardAt {
    Receive,
    /// The gate is raised after a lag; what was gathered is still to be delivered.
    LagPasses(Vec<Frame>),
    Gather(Vec<Frame>),
    Gathered(Vec<Frame>),
    Deliver(Vec<Frame>),
    /// The gate knows of an event that is no frame; new subscribers are not listed yet.
    ListFor(Event),
    /// They are.
    ActOn(Event),
}

impl World {
    fn adopt_new(&mut self) {
        self.listed |= std::mem::take(&mut self.gate.new);
    }

    /// `Shard::lagged`, up to where it gives the gate's lock back.
    fn lagged(&mut self, gathered: Vec<Frame>) {
        self.overrun = false;
        if self.keep(Rule::LagRaisesGate) {
            self.gate.position.message = self.gate.position.message.max(self.noted);
            self.gate.position.presence = self.gate.position.presence.max(self.presence);
        }
        if self.keep(Rule::LagCountsAsRevocation) {
            self.gate.position.revocation += 1;
        }
        if self.keep(Rule::LagCountsAsRoomsChange) {
            self.gate.position.membership += 1;
        }
        self.adopt_new();
        self.shard = ShardAt::LagPasses(gathered);
    }

    /// The list is of weak references: a connection that has ended is not on it.
    fn is_listed(&self) -> bool {
        self.listed && self.task != TaskAt::Ended
    }

    /// `Subscriber::fall_behind`.
    fn fall_behind(&mut self) {
        if self.is_listed() && self.subscriber.owner == WriteOwner::Shard {
            self.subscriber.pass_to(WriteOwner::Task, self.setting.rules);
        }
    }

    /// What an event that is no frame does to the subscriber.
    fn act_on(&mut self, event: Event) {
        match event {
            Event::RoomsChanged if !self.keep(Rule::RoomsChangeMakesTasksOwners) => {}
            Event::RoomsChanged => self.fall_behind(),
            _ if self.is_listed() => self.subscriber.pass_to(WriteOwner::Closing, self.setting.rules),
            _ => {}
        }
        self.shard = ShardAt::Receive;
    }

    pub(super) fn shard_steps(&self, steps: &mut Vec<Step>) {
        match &self.shard {
            ShardAt::Receive if self.overrun => {
                steps.push(("Shard: lagged", Ok(self.after(|world| world.lagged(Vec::new())))));
            }
            ShardAt::Receive => self.receive_steps(steps),
            ShardAt::LagPasses(gathered) => {
                let pass = |world: &mut World| {
                    if world.keep(Rule::LagMakesTasksOwners) {
                        world.fall_behind();
                    }
                    let gathered = gathered.clone();
                    world.shard = if gathered.is_empty() { ShardAt::Receive } else { ShardAt::Gathered(gathered) };
                };
                steps.push(("Shard: fall behind", Ok(self.after(pass))));
            }
            ShardAt::Gather(gathered) => {
                self.gather_steps(gathered, steps);
                // Up to `WRITE_MAX_BYTES`, which may be reached at any time.
                steps.push(("Shard: raise the gate", Ok(self.raise_gate(gathered))));
            }
            ShardAt::Gathered(gathered) => steps.push(("Shard: raise the gate", Ok(self.raise_gate(gathered)))),
            ShardAt::Deliver(batch) => self.deliver_steps(batch, steps),
            ShardAt::ListFor(event) => {
                let rule = match event {
                    Event::Revoked => Rule::RevokedAdoptsNew,
                    Event::RoomsChanged => Rule::RoomsChangedAdoptsNew,
                    _ => Rule::ShutdownAdoptsNew,
                };
                let list = |world: &mut World| {
                    if world.keep(rule) {
                        world.adopt_new();
                    }
                    world.shard = ShardAt::ActOn(*event);
                };
                steps.push(("Shard: list new subscribers", Ok(self.after(list))));
            }
            ShardAt::ActOn(event) => {
                steps.push(("Shard: act on the event", Ok(self.after(|world| world.act_on(*event)))));
            }
        }
    }

    fn receive_steps(&self, steps: &mut Vec<Step>) {
        let receive = |world: &mut World| match world.channel.remove(0) {
            Event::Frame(frame) => world.shard = ShardAt::Gather(vec![frame]),
            event => {
                match event {
                    Event::Revoked if world.keep(Rule::RevocationIsCounted) => world.gate.position.revocation += 1,
                    Event::RoomsChanged if world.keep(Rule::RoomsChangeIsCounted) => {
                        world.gate.position.membership += 1;
                    }
                    Event::Shutdown => world.gate.shut |= world.keep(Rule::ShutdownShutsGate),
                    _ => {}
                }
                world.shard = ShardAt::ListFor(event);
            }
        };
        if !self.channel.is_empty() {
            steps.push(("Shard: receive", Ok(self.after(receive))));
        } else if self.pings > 0 && self.is_listed() && self.subscriber.owner == WriteOwner::Shard {
            self.ping_steps(steps);
        }
    }

    /// `Subscriber::heartbeat`.
    fn ping_steps(&self, steps: &mut Vec<Step>) {
        let pinged = self.after(|world| world.pings -= 1);
        steps.push(("Shard: ping", pinged.clone().sent(&[Piece::Whole(Frame::Ping)])));
        if self.setting.scenario.slow {
            let cut = pinged.after(|world| {
                world.subscriber.frame_tail = Some(Frame::Ping);
                world.subscriber.pass_to(WriteOwner::Task, world.setting.rules);
            });
            steps.push(("Shard: ping, cut", cut.sent(&[Piece::Head(Frame::Ping)])));
        }
    }

    fn gather_steps(&self, gathered: &[Frame], steps: &mut Vec<Step>) {
        if self.overrun {
            steps.push(("Shard: lagged while it gathers", Ok(self.after(|world| world.lagged(gathered.to_vec())))));
        } else if let Some(Event::Frame(frame)) = self.channel.first() {
            let more = self.after(|world| {
                world.channel.remove(0);
                world.shard = ShardAt::Gather([gathered, &[*frame]].concat());
            });
            steps.push(("Shard: gather", Ok(more)));
        }
    }

    /// The beginning of `Shard::deliver`.
    fn raise_gate(&self, batch: &[Frame]) -> World {
        self.after(|world| {
            if world.keep(Rule::DeliverAdoptsNew) {
                world.adopt_new();
            }
            if world.keep(Rule::GateBeforeDelivery) {
                world.gate.position.advance(batch);
            }
            world.shard = ShardAt::Deliver(batch.to_vec());
        })
    }

    /// `Subscriber::deliver`, for all that the socket may do.
    fn deliver_steps(&self, batch: &[Frame], steps: &mut Vec<Step>) {
        let done = self.after(|world| {
            if !world.keep(Rule::GateBeforeDelivery) {
                world.gate.position.advance(batch);
            }
            world.shard = ShardAt::Receive;
        });
        let is_shards = self.subscriber.owner == WriteOwner::Shard || !self.keep(Rule::DeliverChecksOwner);
        if !self.is_listed() || !is_shards {
            steps.push(("Shard: pass over", Ok(done)));
            return;
        }
        let Some(part) = self.continuity(batch) else {
            let behind = done.after(|world| world.subscriber.pass_to(WriteOwner::Task, world.setting.rules));
            steps.push(("Shard: see a gap", Ok(behind)));
            return;
        };
        let whole = done.after(|world| world.subscriber.position.advance(batch));
        let pieces: Vec<Piece> = part.iter().copied().map(Piece::Whole).collect();
        steps.push(("Shard: deliver", whole.sent(&pieces)));
        if !self.setting.scenario.slow {
            return;
        }
        for written in 0..part.len() {
            let between = done.after(|world| {
                world.subscriber.position.advance(&part[..written]);
                world.subscriber.pass_to(WriteOwner::Task, world.setting.rules);
            });
            steps.push(("Shard: deliver some", between.sent(&pieces[..written])));
            let inside = done.after(|world| {
                let begun = written + usize::from(world.keep(Rule::BegunFrameCounts));
                world.subscriber.position.advance(&part[..begun]);
                if world.keep(Rule::TailIsKept) {
                    world.subscriber.frame_tail = Some(part[written]);
                }
                if world.keep(Rule::CutMakesTaskOwner) {
                    world.subscriber.pass_to(WriteOwner::Task, world.setting.rules);
                }
            });
            let cut = [&pieces[..written], &[Piece::Head(part[written])]].concat();
            steps.push(("Shard: deliver, cut", inside.sent(&cut)));
        }
    }

    /// What of a batch is for the subscriber; none where something before it is missing.
    fn continuity(&self, batch: &[Frame]) -> Option<Vec<Frame>> {
        let position = self.subscriber.position;
        let message_after = batch.iter().find_map(|frame| frame.id()).map(|first| first - 1);
        let presence_after =
            batch.iter().find_map(|frame| if let Frame::Presence(seq) = frame { Some(seq - 1) } else { None });
        let is_gap = message_after.is_some_and(|after| after > position.message)
            || presence_after.is_some_and(|after| after > position.presence);
        if is_gap && self.keep(Rule::GapIsSeen) {
            return None;
        }
        let is_for_us = |frame: &Frame| {
            let is_new = match frame {
                Frame::Presence(seq) => *seq > position.presence,
                other => other.id() > Some(position.message),
            };
            let is_ours = match frame {
                Frame::RoomMessage(_) => self.subscriber.is_member,
                // Of these a batch covers the ids and has no frames.
                Frame::RoomGone(_) => false,
                _ => true,
            };
            (is_new || !self.keep(Rule::RepeatIsLeftOut)) && is_ours
        };
        Some(batch.iter().copied().filter(is_for_us).collect())
    }
}
