//! Where a session reads from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use crate::outbox::Outbox;

pub(super) enum Reader {
    Tcp(OwnedReadHalf),
    /// The line of the outbox goes both ways.
    Line,
}

impl Reader {
    pub fn poll_read(
        &mut self,
        outbox: &Outbox,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(reader) => Pin::new(reader).poll_read(context, buffer),
            Self::Line => outbox.poll_read(context, buffer),
        }
    }

    /// Whether something has arrived that nobody has read. Of what is no plain socket this cannot be told.
    pub fn has_unread(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Tcp(reader) => {
                let mut byte = [0];
                matches!(reader.poll_peek(context, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(1)))
            }
            Self::Line => false,
        }
    }

    /// Throws away what arrives, until the client has nothing more to say.
    pub async fn discard(&mut self, outbox: &Outbox) {
        let mut room = vec![0; 4 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            let read = std::future::poll_fn(|context| self.poll_read(outbox, context, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
        }
    }
}
