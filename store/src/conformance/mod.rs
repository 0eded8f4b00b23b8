//! One suite for every message store: the contract of [`crate::contract`] and [`crate::row`], as named checks.
//!
//! A store brings a [`Subject`]: how it is crashed and restarted; [`crate::conformance_tests!`] then makes one test per check from
//! a function that opens an empty store with [`script::ScriptFold`]. [`run`] runs all of them in a row, for stores that
//! live outside this crate (feature `conformance`). [`random`] compares a store with the memory model on random
//! schedules; a failing seed is printed and repeated by setting `STORE_SEED`.
//!
//! What the contract leaves open is decided here, by the checks, and the memory model is the reference:
//! * Everything that touches an inbox gives it the lsn of the record as position. An event touches the members before ∪
//!   after it; a read mark (moving or not) only its reader's inbox; pairs, id blocks and erasures touch nothing.
//! * A member joins with the read mark just before the joining event: seq − 1 and the ordinal there. Joining again
//!   begins anew. A join of somebody present changes the role only; a leave of somebody absent changes nothing.
//! * A mark of somebody who never was in the channel changes nothing; a former member's mark still moves.
//! * Key lookups know messages for 7 days of the channel's own time (newest event − message, both `created_ms`); a key
//!   used again after that names the newer message.
//! * A page's `bytes` counts bodies as they are stored now: an erased one has 20.
#![allow(clippy::unwrap_used)] // the suite is a test: a failed unwrap is a failed check

pub mod checks;
pub mod compare;
pub mod random;
pub mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::MessageStore;

/// A store under test, with its files.
pub trait Subject: Send + Sized + 'static {
    /// The opened store.
    fn store(&self) -> Arc<dyn MessageStore>;

    /// Ends the store as a kill would, with nothing flushed or settled, and opens what it left. The suite has dropped
    /// its own handles and answers before it asks.
    fn crash(self) -> impl Future<Output = Self> + Send;

    /// Moves what is in memory into the index, if the store has one. Random schedules ask for it at random, so that
    /// answers come from both.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Closes the store and opens it again.
    fn restart(self) -> impl Future<Output = Self> + Send {
        async move {
            self.store().close().await;
            self.crash().await
        }
    }
}

/// Calls another macro with the names of all checks.
#[macro_export]
macro_rules! for_each_store_check {
    ($then:path => { $($input:tt)* }) => {
        $then! { $($input)*;
            durability::what_an_append_resolved_is_visible,
            durability::records_have_dense_positions_from_one,
            durability::batches_become_durable_in_the_order_of_their_calls,
            durability::a_dropped_append_is_stored_all_the_same,
            durability::a_crash_loses_nothing_acknowledged,
            durability::a_restart_loses_nothing_acknowledged,
            durability::positions_go_on_after_a_crash,
            durability::several_crashes_in_a_row_change_nothing,
            durability::facts_of_the_store_survive_and_the_epoch_rises,
            durability::closing_settles_what_was_taken_and_takes_no_more,
            durability::concurrent_writers_all_get_their_own_places,
            durability::an_empty_store_answers_emptily,
            events::an_event_comes_back_whole,
            events::pages_are_ascending_and_bounded,
            events::a_page_holds_at_least_one_event,
            events::pages_cross_buckets,
            events::large_bodies_come_back,
            events::channels_do_not_mix,
            events::an_erasure_leaves_the_header_for_good,
            events::an_erasure_of_nothing_changes_nothing,
            channels::a_snapshot_holds_what_was_asked_for,
            channels::the_window_of_keys_holds_messages_only,
            channels::a_rename_shows_everywhere,
            channels::unknown_kinds_change_nothing_else,
            channels::pairs_belong_to_the_first,
            channels::id_blocks_take_the_maximum,
            members::founders_see_everything,
            members::joining_starts_at_its_own_event,
            members::leaving_keeps_the_row,
            members::joining_again_begins_anew,
            members::joining_twice_changes_the_role_only,
            members::leaving_without_being_there_changes_nothing,
            members::changes_of_one_event_apply_in_order,
            members::a_message_moves_its_authors_mark,
            members::only_messages_of_present_members_move_marks,
            members::a_mark_takes_the_maximum,
            members::a_mark_of_a_stranger_changes_nothing,
            keys::a_key_is_found_by_channel_and_sender,
            keys::only_messages_have_keys,
            keys::a_key_is_known_for_seven_days,
            keys::an_old_key_may_name_a_new_message,
            keys::keys_survive_a_crash_and_a_long_channel,
            inbox::an_event_touches_all_present_members,
            inbox::a_mark_touches_its_readers_inbox_only,
            inbox::other_records_touch_nothing,
            inbox::positions_are_those_of_the_records,
            inbox::changes_are_listed_ascending,
            inbox::a_listing_goes_newest_first,
            inbox::pages_continue_where_they_ended,
            inbox::rows_read_follow_the_changes,
            inbox::leaving_is_the_last_touch_and_clips_the_head,
            inbox::joining_again_brings_the_channel_back,
            inbox::direct_channels_name_the_peer,
            inbox::the_inbox_survives_a_crash,
        }
    };
}

/// One test per check and the random comparison, for `$open`: an `async fn() -> impl Subject` that opens an empty store.
#[macro_export]
macro_rules! conformance_tests {
    ($open:path) => {
        $crate::for_each_store_check! { $crate::conformance_tests => { @each $open } }

        #[tokio::test]
        async fn random_schedules_agree_with_the_model() {
            $crate::conformance::random::random_schedules_agree_with_the_model($open).await;
        }
    };
    (@each $open:path; $($file:ident :: $check:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $check() {
            $crate::conformance::checks::$file::$check($open).await;
        })+
    };
}

macro_rules! run_each {
    ($open:expr; $($file:ident :: $check:ident),+ $(,)?) => {
        $(Box::pin(checks::$file::$check($open)).await;)+
    };
}

/// Runs the whole suite. Panics at the first sentence of the contract that does not hold.
pub async fn run<S: Subject>(open: impl AsyncFn() -> S) {
    for_each_store_check! { run_each => { &open } }
    random::random_schedules_agree_with_the_model(&open).await;
}
