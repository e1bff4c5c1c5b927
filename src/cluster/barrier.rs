//! The barrier: how a node that may be behind makes sure before it answers that something does not exist.
//!
//! A node applies other nodes' writes a moment after they do. Before it answers that a session, a password or a message
//! does not exist, it publishes an empty entry and waits until that is applied: then everything that was acknowledged
//! anywhere before is applied here, too. Requests that wait at the same time share one entry.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::db::Db;

/// Time between two of these entries, since strangers can cause them without end.
const PACE: Duration = Duration::from_millis(20);

/// Serves barrier requests until all handles are gone.
pub(super) async fn pass(db: Db, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
        // This entry serves every request that came before it is published.
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
