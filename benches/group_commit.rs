//! How many messages a second can be stored durably, each alone in its transaction, against all that wait in one?
//!
//! Both go through the same handle, the same thread and the same `fsync`; the difference is how many senders wait at
//! once. Left out: sockets, JSON and fan-out. The disk decides the figures: compare the ratios, on your own disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chinwag::db::{Db, NewMessage, Options, Sender, Threads, Write};
use chinwag::model::{Content, UserId, Username};
use chinwag::secret::Token;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

fn open(folder: &Path, runtime: &Runtime) -> (Db, Threads, Sender) {
    let (db, threads) =
        Db::open(&folder.join("bench.db"), Options::default(), Box::new(|_| {})).expect("the database opens");
    let name = Username::parse("bench").expect("a name");
    let session = runtime.block_on(async {
        db.register_user(name.clone(), "no password".into(), None).await.expect("the user is new");
        db.login_user(UserId(1), "no password".into(), Token::random().digest(), String::new())
            .await
            .expect("the database works")
    });
    let sender =
        Sender { session: session.expect("the user may log in"), user: UserId(1), username: name, is_bot: false };
    (db, threads, sender)
}

fn message() -> Write {
    let content = Content::parse("a message of about the length that people write").expect("a text");
    Write::Message(NewMessage::plain(content, None))
}

/// Stores `count` messages from `senders` tasks, each of which waits for one before it sends the next.
async fn store(db: &Db, sender: &Sender, senders: u64, count: u64) -> Duration {
    let started = Instant::now();
    let senders: Vec<_> = (0..senders)
        .map(|number| {
            let (db, sender) = (db.clone(), sender.clone());
            let mine = count / senders + u64::from(number < count % senders);
            tokio::spawn(async move {
                for _ in 0..mine {
                    db.write(sender.clone(), vec![message()]).await.expect("the database works");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender does not panic");
    }
    started.elapsed()
}

fn group_commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk of the project");
    let (db, threads, sender) = open(folder.path(), &runtime);
    let db = Arc::new(db);

    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(1));
    // One sender that waits for each of its messages is each message alone in its transaction.
    for senders in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("senders", senders), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(store(&db, &sender, senders, count)));
        });
    }
    group.finish();

    runtime.block_on(db.stop());
    threads.join().expect("the threads end");
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
