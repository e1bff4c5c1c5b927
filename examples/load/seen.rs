//! Which ids a connection saw: what was lost, repeated or out of order follows from it.

/// How an id arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    InOrder,
    /// After a later one.
    Late,
    Repeated,
}

/// The ids one connection saw, as what it did not see: for a server that keeps its promises that is nothing.
pub(crate) struct Seen {
    last_id: u64,
    /// Ids passed over, as ranges with both ends, ascending.
    gaps: Vec<(u64, u64)>,
}

impl Seen {
    /// Delivery begins with the first id past this one.
    pub(crate) fn after(id: u64) -> Self {
        Self { last_id: id, gaps: Vec::new() }
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(crate) fn take(&mut self, id: u64) -> Arrival {
        if id > self.last_id {
            self.pass_over(id - 1);
            self.last_id = id;
            return Arrival::InOrder;
        }
        let at = self.gaps.partition_point(|gap| gap.1 < id);
        let Some(&(from, to)) = self.gaps.get(at).filter(|gap| gap.0 <= id) else { return Arrival::Repeated };
        let parts = [(from, id - 1), (id + 1, to)];
        self.gaps.splice(at..=at, parts.into_iter().filter(|part| part.0 <= part.1));
        Arrival::Late
    }

    /// Goes on past `id` without having seen what lies before it.
    pub(crate) fn pass_over(&mut self, id: u64) {
        if id > self.last_id {
            self.gaps.push((self.last_id + 1, id));
            self.last_id = id;
        }
    }

    /// How many of `stored`, ascending, should have arrived and did not. An id passed over that was never stored is a
    /// hole, which the contract allows.
    pub(crate) fn lost(&self, stored: &[u64]) -> u64 {
        let up_to = |id: u64| stored.partition_point(|stored| *stored <= id);
        let in_gaps: usize = self.gaps.iter().map(|gap| up_to(gap.1) - up_to(gap.0 - 1)).sum();
        let missing_at_the_end = stored.len() - up_to(self.last_id);
        (in_gaps + missing_at_the_end) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Seen};

    #[test]
    fn a_hole_is_no_loss_but_a_stored_message_passed_over_is() {
        let mut seen = Seen::after(10);
        assert_eq!([11, 12, 15].map(|id| seen.take(id)), [Arrival::InOrder, Arrival::InOrder, Arrival::InOrder]);
        assert_eq!(seen.lost(&[9, 10, 11, 12, 15]), 0);
        assert_eq!(seen.lost(&[11, 12, 13, 15]), 1);
        assert_eq!(seen.lost(&[11, 12, 13, 14, 15, 16, 17]), 4);
    }

    #[test]
    fn a_late_id_is_not_lost_and_a_second_one_is_a_repeat() {
        let mut seen = Seen::after(0);
        assert_eq!(seen.take(5), Arrival::InOrder);
        assert_eq!(
            [3, 3, 1, 5].map(|id| seen.take(id)),
            [Arrival::Late, Arrival::Repeated, Arrival::Late, Arrival::Repeated]
        );
        assert_eq!(seen.lost(&[1, 2, 3, 4, 5]), 2);
        assert_eq!([2, 4].map(|id| seen.take(id)), [Arrival::Late, Arrival::Late]);
        assert_eq!(seen.lost(&[1, 2, 3, 4, 5]), 0);
    }

    #[test]
    fn what_a_resync_skips_is_missing_until_it_is_read() {
        let mut seen = Seen::after(100);
        seen.pass_over(102);
        assert_eq!(seen.last_id(), 102);
        assert_eq!(seen.take(103), Arrival::InOrder);
        assert_eq!(seen.lost(&[101, 102, 103]), 2);
        assert_eq!([101, 102].map(|id| seen.take(id)), [Arrival::Late, Arrival::Late]);
        assert_eq!(seen.lost(&[101, 102, 103]), 0);
    }
}
