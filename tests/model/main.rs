//! The hand-over of a connection between its task and its shard, checked in every order in which things can happen.
//!
//! The model ([`fan_out`]) is written by hand after the code; that it checks something is shown by leaving out one of
//! the code's rules at a time, each of which breaks a promise. To change who may write to a socket, or from where,
//! change the model first.

mod explore;
mod fan_out;

use explore::{Found, explore};
use fan_out::Commit::{Message, Remove, Revoke, RoomMessage};
use fan_out::{Rule, Scenario, World};

const QUIET: Scenario = Scenario {
    transactions: &[],
    last_id: None,
    presence: 0,
    asks: 0,
    pings: 0,
    stops: false,
    leaves: false,
    slow: false,
    capacity: 8,
    chunk: 8,
};

/// Messages and other people's coming and going, for a socket that takes what it likes.
const SLOW: Scenario =
    Scenario { transactions: &[&[Message], &[Message]], presence: 1, slow: true, last_id: Some(0), ..QUIET };
/// The same through a channel that holds one event.
const LAG: Scenario =
    Scenario { transactions: &[&[Message], &[Message], &[Message]], presence: 1, capacity: 1, ..QUIET };
const ASKS: Scenario = Scenario { transactions: &[&[Message], &[Message]], asks: 2, pings: 1, slow: true, ..QUIET };
const LOGOUT: Scenario = Scenario { transactions: &[&[Message], &[Revoke], &[Message]], slow: true, asks: 1, ..QUIET };
const LOGOUT_AND_LAG: Scenario =
    Scenario { transactions: &[&[Revoke], &[Message], &[Message]], capacity: 1, last_id: Some(0), ..QUIET };
const GOODBYE: Scenario = Scenario { transactions: &[&[Message], &[Message]], leaves: true, slow: true, ..QUIET };
const STOP: Scenario =
    Scenario { transactions: &[&[Message], &[Message]], stops: true, slow: true, asks: 1, capacity: 1, ..QUIET };
/// From a private room.
const REMOVAL: Scenario = Scenario {
    transactions: &[&[RoomMessage], &[Remove, RoomMessage], &[Message]],
    slow: true,
    last_id: Some(0),
    ..QUIET
};
const REMOVAL_AND_LAG: Scenario =
    Scenario { transactions: &[&[RoomMessage], &[Remove, RoomMessage]], presence: 1, capacity: 1, ..QUIET };
/// Brought up an event at a time, from before the removal.
const REMOVAL_IN_PARTS: Scenario = Scenario {
    transactions: &[&[Message, Message], &[Remove, RoomMessage], &[Message]],
    slow: true,
    last_id: Some(0),
    chunk: 1,
    ..QUIET
};
/// While a client comes that has everything.
const REMOVAL_AT_THE_DOOR: Scenario = Scenario { last_id: None, ..REMOVAL };

/// Every order of things keeps every promise, without some of the rules.
fn holds_without(scenario: Scenario, left_out: &'static [Rule]) {
    if let Err(Found { broken, steps }) = explore(World::new(scenario, left_out)) {
        panic!("{broken}:\n  {}", steps.join("\n  "));
    }
}

macro_rules! scenarios {
    ($($test:ident: $scenario:ident;)*) => {
        $(#[test]
        fn $test() {
            holds_without($scenario, &[]);
        })*
    };
}

scenarios! {
    a_slow_socket_gets_everything_once_and_in_order: SLOW;
    a_shard_that_lags_loses_nothing: LAG;
    answers_and_pings_do_not_get_into_other_frames: ASKS;
    a_logout_closes_the_connection_wherever_it_is: LOGOUT;
    a_logout_closes_the_connection_even_if_its_event_is_lost: LOGOUT_AND_LAG;
    nothing_follows_the_close_frame: GOODBYE;
    a_stop_closes_every_connection: STOP;
    a_removed_member_gets_nothing_of_the_room: REMOVAL;
    a_removed_member_gets_nothing_of_the_room_whatever_is_lost: REMOVAL_AND_LAG;
    a_removed_member_is_told_in_however_many_parts: REMOVAL_IN_PARTS;
    a_removed_member_is_told_who_has_just_come: REMOVAL_AT_THE_DOOR;
}

/// Leaves out rules, which must break `promise`.
fn breaks(scenario: Scenario, left_out: &'static [Rule], promise: &str) {
    let Err(found) = explore(World::new(scenario, left_out)) else { panic!("without {left_out:?} all goes well") };
    assert_eq!(found.broken, promise, "{found:#?}");
}

/// A test for each rule: without it the scenario ends badly.
macro_rules! without {
    ($($test:ident: $rule:ident in $scenario:ident, $broken:literal;)*) => {
        $(#[test]
        fn $test() {
            breaks($scenario, &[Rule::$rule], $broken);
        })*
    };
}

without! {
    messages_are_published_after_the_commit: CommitBeforePublish in SLOW, "a message is shown before it is stored";
    the_shard_writes_only_as_the_owner: DeliverChecksOwner in SLOW, "a frame is written into another";
    the_shard_leaves_out_what_was_given: RepeatIsLeftOut in ASKS, "a message is repeated";
    the_shard_keeps_the_tail_of_a_cut_frame: TailIsKept in SLOW, "a frame is written into another";
    a_frame_that_was_begun_counts_as_given: BegunFrameCounts in SLOW, "a message is repeated";
    a_cut_makes_the_task_the_owner: CutMakesTaskOwner in SLOW, "a frame is written into another";
    a_catch_up_begins_with_the_tail: CatchUpWritesTail in SLOW, "a frame is written into another";
    an_answer_comes_behind_the_tail: AnswerWritesTail in ASKS, "a frame is written into another";
    the_task_answers_only_while_the_shard_is_the_owner: AnswerChecksOwner in ASKS, "a frame is written into another";
    becoming_the_owner_wakes: PassToWakes in SLOW, "nobody writes to the connection any more";
    the_waker_is_left_under_the_lock: WaitsUnderTheLock in SLOW, "nobody writes to the connection any more";
    a_join_compares_positions: JoinComparesPositions in SLOW, "a message never comes";
    a_join_is_one_step: JoinIsOneStep in SLOW, "a message never comes";
    a_join_keeps_a_closing_connection_closing: JoinRespectsClosing in STOP, "a connection outlives the stop";
    a_claim_keeps_a_closing_connection_closing: ClaimRespectsClosing in STOP, "a connection outlives the stop";
    a_close_makes_the_task_the_owner: CloseMakesTaskOwner in GOODBYE, "a frame is written into another";
    a_close_comes_behind_the_tail: CloseWritesTail in LOGOUT, "a frame is written into another";
    a_close_comes_behind_what_was_being_written: WriteHandsOverRest in LOGOUT, "a frame is written into another";
    the_gate_is_raised_before_the_delivery: GateBeforeDelivery in SLOW, "a change of presence never comes";
    a_delivery_lists_new_subscribers: DeliverAdoptsNew in SLOW, "a message never comes";
    a_revocation_lists_new_subscribers: RevokedAdoptsNew in LOGOUT, "a connection outlives its session";
    a_revocation_is_counted_at_the_gate: RevocationIsCounted in LOGOUT, "a connection outlives its session";
    the_count_is_read_before_the_session: CountBeforeSession in LOGOUT, "a connection outlives its session";
    a_catch_up_looks_at_the_session: CatchUpChecksSession in LOGOUT, "a connection outlives its session";
    a_shutdown_lists_new_subscribers: ShutdownAdoptsNew in STOP, "a connection outlives the stop";
    a_shutdown_shuts_the_gate: ShutdownShutsGate in STOP, "a connection outlives the stop";
    a_shutdown_is_repeated: ShutdownIsRepeated in STOP, "a connection outlives the stop";
    a_lag_raises_the_gate: LagRaisesGate in LAG, "a change of presence never comes";
    a_lag_counts_as_a_revocation: LagCountsAsRevocation in LOGOUT_AND_LAG, "a connection outlives its session";
    a_lag_makes_the_tasks_the_owners: LagMakesTasksOwners in LOGOUT_AND_LAG, "a connection outlives its session";
    a_lag_counts_as_a_change_of_rooms:
        LagCountsAsRoomsChange in REMOVAL_AND_LAG, "somebody is not told that they were removed";
    a_change_of_rooms_is_published_before_the_frames:
        RoomsChangedBeforeFrames in REMOVAL, "somebody is not told that they were removed";
    a_change_of_rooms_is_counted_at_the_gate:
        RoomsChangeIsCounted in REMOVAL, "somebody is not told that they were removed";
    a_change_of_rooms_lists_new_subscribers:
        RoomsChangedAdoptsNew in REMOVAL, "somebody is not told that they were removed";
    a_change_of_rooms_makes_the_tasks_the_owners:
        RoomsChangeMakesTasksOwners in REMOVAL, "somebody is not told that they were removed";
    a_catch_up_reads_the_rooms:
        CatchUpReadsRooms in REMOVAL, "somebody is not told that they were removed";
    a_backlog_is_read_with_the_rooms:
        OneReadTransaction in REMOVAL, "a message of a room is shown to somebody who was removed from it";
    a_change_of_rooms_is_told_when_a_replay_comes_to_its_end:
        ToldAtTheEnd in REMOVAL_IN_PARTS, "somebody is not told that they were removed";
}

/// A second line: since a lag makes the tasks the owners, no gap reaches a connection whose owner is the shard.
#[test]
fn a_gap_is_seen_where_a_lag_is_not() {
    holds_without(LAG, &[Rule::GapIsSeen]);
    breaks(LAG, &[Rule::GapIsSeen, Rule::LagMakesTasksOwners], "a message is skipped");
    breaks(LAG, &[Rule::LagMakesTasksOwners], "a change of presence never comes");
}
