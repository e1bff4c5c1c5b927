//! Sessions that were live a moment ago: a client is looked up about once an hour, and not for each request. (A page of
//! history reads the session in its own transaction.)
//!
//! Exact, because the writer thread removes here what each commit ends, before anybody is told that it has ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::data::Session;
use crate::limits::{SESSIONS_KEPT, SESSIONS_SOUGHT};
use crate::model::{SessionId, UnixMillis};
use crate::secret::Digest;

/// Live sessions by the digests of their tokens.
#[derive(Debug, Default)]
pub(super) struct LiveSessions(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    /// How often any were removed.
    removals: u64,
    by_digest: HashMap<Digest, Session>,
}

impl LiveSessions {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that is known to be live, and whose use need not be recorded now; otherwise a number to pass to
    /// [`keep`](Self::keep) once the session has been read.
    pub(super) fn find(&self, digest: &Digest, used_after: UnixMillis, now: UnixMillis) -> Result<Session, u64> {
        let live = self.lock();
        let known = live.by_digest.get(digest);
        let session = known.filter(|it| (it.is_bot || it.last_used_at > used_after) && !it.is_to_be_touched(now));
        session.cloned().ok_or(live.removals)
    }

    /// Keeps a session that was read after `removals` was returned, unless any were removed since: it could be one of
    /// them. With [`SESSIONS_KEPT`] kept, the others are forgotten.
    pub(super) fn keep(&self, removals: u64, digest: Digest, session: Session) {
        let mut live = self.lock();
        if live.removals == removals {
            if live.by_digest.len() >= SESSIONS_KEPT {
                live.by_digest.clear();
            }
            live.by_digest.insert(digest, session);
        }
    }

    /// Removes these, which have ended, or all, if something else about them may have changed. If many have ended, it
    /// removes all of them too, which takes less time than looking for those.
    pub(super) fn remove(&self, ended: &[SessionId], all: bool) {
        if all || !ended.is_empty() {
            let all = all || ended.len() > SESSIONS_SOUGHT;
            let mut live = self.lock();
            live.removals += 1;
            live.by_digest.retain(|_, session| !all && !ended.contains(&session.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{UserId, Username};
    use crate::secret::Token;

    const NEVER: UnixMillis = UnixMillis(i64::MIN);

    fn session(id: i64) -> Session {
        let username = Username::parse("ada").unwrap();
        let (is_bot, is_moderator, last_used_at) = (false, false, UnixMillis(1_000));
        Session { id: SessionId(id), user: UserId(1), username, is_bot, is_moderator, last_used_at }
    }

    /// Keeps a session under a token of its own, as one that was just read.
    fn keep(live: &LiveSessions, session: Session) -> Digest {
        let digest = Token::random().digest();
        let removals = live.find(&digest, NEVER, UnixMillis(1_000)).expect_err("it is new");
        live.keep(removals, digest, session);
        digest
    }

    fn is_known(live: &LiveSessions, digest: &Digest) -> bool {
        live.find(digest, NEVER, UnixMillis(1_000)).is_ok()
    }

    #[test]
    fn a_session_is_known_until_it_ends_or_all_are_looked_up_again() {
        let live = LiveSessions::default();
        let (one, other) = (keep(&live, session(1)), keep(&live, session(2)));
        assert!(is_known(&live, &one) && is_known(&live, &other));
        live.remove(&[], false);
        live.remove(&[SessionId(1)], false);
        assert!(!is_known(&live, &one) && is_known(&live, &other));
        live.remove(&[], true);
        assert!(!is_known(&live, &other));
        let third = keep(&live, session(3));
        live.remove(&[SessionId(4); SESSIONS_SOUGHT], false);
        assert!(is_known(&live, &third));
        live.remove(&[SessionId(4); SESSIONS_SOUGHT + 1], false);
        assert!(!is_known(&live, &third), "so many are not sought one by one");
    }

    #[test]
    fn a_session_that_ended_while_it_was_read_is_not_kept() {
        let live = LiveSessions::default();
        let digest = Token::random().digest();
        let removals = live.find(&digest, NEVER, UnixMillis(1_000)).unwrap_err();
        live.remove(&[SessionId(1)], false);
        live.keep(removals, digest, session(1));
        assert!(!is_known(&live, &digest));
    }

    #[test]
    fn a_session_is_looked_up_again_when_it_may_have_expired_or_its_use_is_to_be_recorded() {
        let live = LiveSessions::default();
        let digest = keep(&live, session(1));
        assert!(live.find(&digest, UnixMillis(999), UnixMillis(1_000)).is_ok());
        assert!(live.find(&digest, UnixMillis(1_000), UnixMillis(1_000)).is_err());
        let next_touch = UnixMillis(1_001 + i64::try_from(crate::limits::SESSION_TOUCH.as_millis()).unwrap());
        assert!(live.find(&digest, NEVER, next_touch).is_err());
        let bot = keep(&live, Session { is_bot: true, ..session(2) });
        assert!(live.find(&bot, UnixMillis(1_000), UnixMillis(1_000)).is_ok(), "a bot's does not expire");
    }

    #[test]
    fn past_the_bound_the_others_are_forgotten() {
        let live = LiveSessions::default();
        let all: Vec<_> = (0..SESSIONS_KEPT).map(|_| keep(&live, session(1))).collect();
        assert!(all.iter().all(|digest| is_known(&live, digest)));
        let last = keep(&live, session(1));
        assert!(is_known(&live, &last) && !all.iter().any(|digest| is_known(&live, digest)));
    }
}
