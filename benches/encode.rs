//! What does a delivery cost before the socket: encoded once for all, against once for each receiver?
//!
//! `once` is what the server does: the messages of a commit become finished frames, whose bytes all sockets share.
//! `each` is the plain way: a frame built for every receiver. Left out: the sockets, which cost many times as much.

use std::hint::black_box;

use chinwag::model::{Content, Message, MessageId, UnixMillis, Username};
use chinwag::protocol::{Encoder, ServerFrame};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECEIVERS: u64 = 1_000;

fn messages(count: i64) -> Vec<Message> {
    let message = |id| {
        let username = Username::parse("bench").expect("a name");
        let content = Content::parse("a message of about the length that people write").expect("a text");
        Message::plain(MessageId::new(id), username, content, UnixMillis(1_700_000_000_000))
    };
    (1..=count).map(message).collect()
}

fn frames(messages: &[Message]) -> bytes::Bytes {
    let mut encoder = Encoder::default();
    for message in messages {
        encoder.push(&ServerFrame::message(message));
    }
    encoder.take().freeze()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for count in [1, 100] {
        let messages = messages(count);
        group.throughput(Throughput::Elements(RECEIVERS * count.unsigned_abs()));
        group.bench_function(BenchmarkId::new("once", count), |bencher| {
            bencher.iter(|| {
                let shared = frames(&messages);
                for _ in 0..RECEIVERS {
                    black_box(&shared);
                }
            });
        });
        group.bench_function(BenchmarkId::new("each", count), |bencher| {
            bencher.iter(|| {
                for _ in 0..RECEIVERS {
                    black_box(frames(&messages));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
