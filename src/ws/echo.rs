//! An echo server on the connection code: the same upgrade, limits, reader, encoded frames and close, for conformance
//! suites. Only `examples/echo.rs` uses it.

use std::convert::Infallible;
use std::io;

use bytes::BytesMut;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use tokio::net::{TcpListener, TcpStream};

use super::frames::{self, Close, Reader, Received};
use super::upgrade::{agree, take_over};
use crate::http::{HttpStream, error_response, override_hyper_error};
use crate::net::Stream;
use crate::protocol::{FIN_BINARY, FIN_TEXT, put_frame};

/// Echoes messages of up to `max_bytes` on every connection of `listener`, forever.
pub async fn serve(listener: TcpListener, max_bytes: usize) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_http(stream, max_bytes));
    }
}

async fn serve_http(stream: TcpStream, max_bytes: usize) {
    let Ok(stream) = Stream::from_tcp(stream) else { return };
    let service = service_fn(|mut request: Request<Incoming>| {
        let response = agree(&request).unwrap_or_else(|error| error_response(&error));
        // Resolves to an error if the answer was not 101.
        tokio::spawn(echo(hyper::upgrade::on(&mut request), max_bytes));
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(HttpStream::new(stream, override_hyper_error), service);
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn echo(upgrade: OnUpgrade, max_bytes: usize) {
    let Some((stream, early)) = take_over(upgrade).await else { return };
    let mut reader = Reader::new(&early, max_bytes);
    let close = loop {
        if let Err(close) = answer_one(&stream, &mut reader).await {
            break close;
        }
    };
    frames::close(&stream, close, &[]).await;
}

/// Reads and answers one message, or returns how the connection ends.
async fn answer_one(stream: &Stream, reader: &mut Reader) -> Result<(), Close> {
    reader.begin_read();
    let received = reader.next(stream);
    let mut answer = BytesMut::new();
    reader.take_replies(&mut answer);
    match &received {
        Received::Text(text) => put_frame(&mut answer, FIN_TEXT, text.as_bytes()),
        Received::Binary(bytes) => put_frame(&mut answer, FIN_BINARY, bytes),
        Received::Control | Received::Nothing | Received::BudgetSpent | Received::Closed(_) => {}
    }
    frames::write(stream, &mut &answer[..]).await?;
    match received {
        Received::Closed(close) => Err(close),
        Received::Nothing => stream.readable().await.map_err(|_| Close::GONE),
        _ => Ok(()),
    }
}
