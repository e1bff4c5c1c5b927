//! Every row, by what it is about.

mod accounts;
mod changes;
mod http;
mod mentions;
mod people;
mod pictures;
mod push;
mod read;
mod replay;
mod resume;
mod rooms;
mod search;
mod session;
mod socket;
mod stop;
mod talk;

use super::Row;

/// In the order in which they are run, one after the other.
pub(super) const USUAL: &[&[Row]] = &[
    http::ROWS,
    accounts::ROWS,
    session::ROWS,
    socket::ROWS,
    talk::ROWS,
    resume::ROWS,
    rooms::ROWS,
    changes::ROWS,
    mentions::ROWS,
    read::ROWS,
    search::ROWS,
    replay::ROWS,
    people::ROWS,
    pictures::ROWS,
    push::ROWS,
];

/// Those that wait for a deadline of the contract.
pub(super) const SLOW: &[&[Row]] = &[socket::SLOW, http::SLOW];

/// Those after which others would fail.
pub(super) const LAST: &[&[Row]] = &[stop::LAST];

pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    [USUAL, SLOW, LAST].into_iter().flatten().copied().flatten()
}
