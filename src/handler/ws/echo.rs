//! The connection code with an echo where the chat would be: the same upgrade, limits, reader, finished frames and
//! close, so that a conformance suite can be pointed at them. Nothing in the program uses it; `examples/echo.rs` does.

use std::convert::Infallible;
use std::io;

use bytes::BytesMut;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use tokio::net::{TcpListener, TcpStream};

use super::socket::{self, Close, Reader, Received};
use crate::http_stream::HttpStream;
use crate::protocol::{FIN_BINARY, FIN_TEXT, put_frame};
use crate::response::{error_response, instead_of_hypers};
use crate::stream::Stream;

/// Echoes on every connection of `listener`, messages of up to `max_bytes`, for good.
pub async fn serve(listener: TcpListener, max_bytes: usize) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_http(stream, max_bytes));
    }
}

async fn serve_http(stream: TcpStream, max_bytes: usize) {
    let Ok(stream) = Stream::from_tcp(stream) else { return };
    let service = service_fn(|mut request: Request<Incoming>| {
        let response = super::agree(&request).unwrap_or_else(|error| error_response(&error));
        // Resolves to an error if the answer was none of 101.
        tokio::spawn(echo(hyper::upgrade::on(&mut request), max_bytes));
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(HttpStream::new(stream, instead_of_hypers), service);
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn echo(upgrade: OnUpgrade, max_bytes: usize) {
    let Some((stream, early)) = super::take_over(upgrade).await else { return };
    let mut reader = Reader::new(&early, max_bytes);
    let close = loop {
        if let Err(close) = answer_one(&stream, &mut reader).await {
            break close;
        }
    };
    socket::close(&stream, close, &[]).await;
}

/// Reads what is next and answers it, or says how the connection ends.
async fn answer_one(stream: &Stream, reader: &mut Reader) -> Result<(), Close> {
    reader.begin_burst();
    let received = reader.next(stream);
    let mut answer = BytesMut::new();
    reader.take_replies(&mut answer);
    match &received {
        Received::Text(text) => put_frame(&mut answer, FIN_TEXT, text.as_bytes()),
        Received::Binary(bytes) => put_frame(&mut answer, FIN_BINARY, bytes),
        Received::Control | Received::Nothing | Received::Enough | Received::End(_) => {}
    }
    socket::write(stream, &mut &answer[..]).await?;
    match received {
        Received::End(close) => Err(close),
        Received::Nothing => stream.readable().await.map_err(|_| Close::GONE),
        _ => Ok(()),
    }
}
