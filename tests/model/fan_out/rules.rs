//! The rules of the hand-over, each of which can be left out.

/// What the code does so that a promise holds. Each can be left out, to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// The writer commits, then publishes.
    CommitBeforePublish,
    /// `Subscriber::deliver` writes only while the shard is the write owner.
    DeliverChecksOwner,
    /// `FrameBatch::continuity` sees a gap.
    GapIsSeen,
    /// `FrameBatch::continuity` sees an overlap, of which `Delivery::rest_for` leaves out what the connection has.
    RepeatIsLeftOut,
    /// `after_partial_write` keeps what is left of a frame that was cut.
    TailIsKept,
    /// `after_partial_write` counts a frame that was begun as given.
    BegunFrameCounts,
    /// A cut makes the task the write owner.
    CutMakesTaskOwner,
    /// `catch_up` writes the tail before anything else.
    CatchUpWritesTail,
    /// `answer` writes the tail before the answer.
    AnswerWritesTail,
    /// `try_answer` writes only while the shard is the write owner.
    AnswerChecksOwner,
    /// `pass_to` wakes the task.
    PassToWakes,
    /// `poll_woken` looks who is the write owner and leaves its waker under one lock.
    WaitsUnderTheLock,
    /// `Shard::join` compares the position with the gate's.
    JoinComparesPositions,
    /// `Subscriber::join` and the gate are one step.
    JoinIsOneStep,
    /// `Subscriber::join` leaves a connection that is to be closed as it is.
    JoinRespectsClosing,
    /// `claim_writes` leaves a connection that is to be closed as it is.
    ClaimRespectsClosing,
    /// `start_closing` makes the task the write owner.
    CloseMakesTaskOwner,
    /// `start_closing` takes the tail.
    CloseWritesTail,
    /// `write` gives what is left of a frame to the close.
    WriteHandsOverRest,
    /// The gate's position is raised before a batch is delivered.
    GateBeforeDelivery,
    /// `deliver` lists new subscribers when it raises the gate.
    DeliverAdoptsNew,
    /// A revocation lists new subscribers before it closes.
    RevokedAdoptsNew,
    /// A shutdown lists new subscribers before it closes.
    ShutdownAdoptsNew,
    /// A shutdown shuts the gate.
    ShutdownShutsGate,
    /// A shutdown is published again until everybody is gone.
    ShutdownIsRepeated,
    /// A revocation is counted at the gate.
    RevocationIsCounted,
    /// `authenticate` reads that count before it looks at the session.
    CountBeforeSession,
    /// `catch_up` looks at the session again when the count has risen.
    CatchUpChecksSession,
    /// `lagged` raises the gate to what was published.
    LagRaisesGate,
    /// `lagged` counts as a revocation.
    LagCountsAsRevocation,
    /// `lagged` gives every connection to its task.
    LagMakesTasksOwners,
    /// `lagged` counts as a change of rooms.
    LagCountsAsRoomsChange,
    /// Who reads other rooms now is published before the frames of the same transaction.
    RoomsChangedBeforeFrames,
    /// A change of rooms is counted at the gate.
    RoomsChangeIsCounted,
    /// A change of rooms lists new subscribers before it makes their tasks the write owners.
    RoomsChangedAdoptsNew,
    /// A change of rooms gives the connections that it concerns to their tasks.
    RoomsChangeMakesTasksOwners,
    /// `catch_up` reads the rooms again when the count has risen, and the first time.
    CatchUpReadsRooms,
    /// `catch_up` reads rooms and events in one transaction.
    OneReadTransaction,
    /// `replay` counts a change of rooms as told when it has come to its end, and not with a part.
    ToldAtTheEnd,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) left_out: &'static [Rule],
}

impl Rules {
    pub(super) fn keep(self, rule: Rule) -> bool {
        !self.left_out.contains(&rule)
    }
}
