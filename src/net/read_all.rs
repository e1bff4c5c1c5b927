//! A read that tells the runtime when it has emptied the socket. Sockets are watched by edge-triggered epoll, where a
//! read that falls short of its buffer shows this (`epoll(7)`): the next read then costs no `recv` that would find
//! nothing.

use std::io;
use std::os::fd::AsFd;

/// Reads from a socket through its `try_io`. A read that does not fill `buf` has emptied the socket, and says so to the
/// runtime, so that the next read fails without a system call.
pub(super) fn read_all(
    socket: impl AsFd,
    buf: &mut [u8],
    try_io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<usize> {
    let mut read = 0;
    let tried = try_io(&mut || {
        read = rustix::io::read(&socket, &mut *buf)?;
        let emptied = 0 < read && read < buf.len();
        if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match tried {
        Err(error) if read == 0 => Err(error),
        _ => Ok(read),
    }
}
