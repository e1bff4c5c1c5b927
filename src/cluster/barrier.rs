//! The barrier: how a node that may be behind makes sure before it says no.
//!
//! A node applies what others wrote a moment later than they did. Before it says that a session, a password or a
//! message is not there, it publishes an empty entry and waits for it: what was acknowledged anywhere before is applied
//! here then. All who wait at once share one entry.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::db::Db;

/// Time between two entries that are published for this, since strangers can ask for them without end.
const PACE: Duration = Duration::from_millis(20);

/// Passes barriers, for good.
pub(super) async fn pass(db: Db, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
        // Callers who asked before this entry is published is served by it.
        while let Ok(one_more) = asked.try_recv() {
            waiting.push(one_more);
        }
        let is_passed = db.pass_barrier().await.is_ok();
        for passed in waiting.drain(..).filter(|_| is_passed) {
            // Fails if the caller has gone.
            passed.send(()).ok();
        }
        tokio::time::sleep(PACE).await;
    }
}
