//! What carries a session's bytes: a plain socket, a stream that only the session's task may touch, or somebody who fetches
//! them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;

use super::Mailbox;

/// A stream of bytes both ways that is no plain socket: TLS, or a stream of an HTTP/2 connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where frames go.
pub enum Line {
    /// Written to directly, by whoever has something for the client.
    Tcp(OwnedWriteHalf),
    /// What is written waits in the queue until the session's own task hands it on: a record of TLS, or a frame of HTTP/2,
    /// then holds all that came together.
    /// Boxed, so that plain sockets carry no room for it.
    Stream(Box<Mutex<Flushed>>),
    /// What is written waits in the queue until a request of the client's fetches it.
    Fetched(Box<Mailbox>),
}

/// A stream, and whether it has been flushed since the last write.
pub struct Flushed {
    stream: Box<dyn Stream>,
    dirty: bool,
}

impl Line {
    pub fn stream(stream: Box<dyn Stream>) -> Self {
        Self::Stream(Box::new(Mutex::new(Flushed { stream, dirty: false })))
    }

    /// What the kernel takes at once; nothing where the line is no plain socket.
    pub(super) fn try_write(&self, frames: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => none_if_blocked(socket.try_write(frames)),
            Self::Stream(_) | Self::Fetched(_) => Ok(0),
        }
    }

    /// The same for several pieces; pending is 0. A stream is handed them for as long as it takes any.
    pub(super) fn try_write_vectored(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => none_if_blocked(socket.try_write_vectored(slices)),
            Self::Stream(stream) => {
                let mut stream = stream.lock();
                stream.dirty = true;
                let written = match stream.stream.is_write_vectored() {
                    true => Pin::new(&mut stream.stream).poll_write_vectored(context, slices),
                    false => {
                        Pin::new(&mut stream.stream).poll_write(context, slices.first().map_or(&[], |first| first))
                    }
                };
                match written {
                    Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => written,
                    Poll::Pending => Ok(0),
                }
            }
            Self::Fetched(_) => Ok(0),
        }
    }

    /// Ready when another write makes sense. A stream has registered the waker when it took nothing.
    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.as_ref().poll_write_ready(context),
            Self::Stream(_) | Self::Fetched(_) => Poll::Pending,
        }
    }

    /// Nothing waits any more: what a stream has gathered goes out.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Stream(stream) = self {
            let mut stream = stream.lock();
            if stream.dirty {
                ready!(Pin::new(&mut stream.stream).poll_flush(context))?;
                stream.dirty = false;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes of the client, where this is a stream; pending for ever where it is not.
    pub(super) fn poll_read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(&mut stream.lock().stream).poll_read(context, buffer),
            Self::Tcp(_) | Self::Fetched(_) => Poll::Pending,
        }
    }

    /// Tells the client that nothing more will come.
    pub(super) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Poll::Ready(Ok(rustix::net::shutdown(socket.as_ref(), rustix::net::Shutdown::Write)?)),
            Self::Stream(stream) => Pin::new(&mut stream.lock().stream).poll_shutdown(context),
            Self::Fetched(_) => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Fetched(mailbox) => Some(mailbox),
            Self::Tcp(_) | Self::Stream(_) => None,
        }
    }

    /// Whoever fetches has something to do.
    pub(super) fn wake(&self) {
        if let Self::Fetched(mailbox) = self {
            mailbox.wake();
        }
    }

    /// Whom to wake when there is something to fetch. Called while the outbox's state is locked, so nothing is missed.
    pub(super) fn await_more(&self, context: &Context<'_>) {
        if let Self::Fetched(mailbox) = self {
            mailbox.await_more(context);
        }
    }
}

fn none_if_blocked(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
