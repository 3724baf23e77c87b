//! What waits for a client that does not keep up.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Default)]
pub(super) struct Queue {
    pub waiting: VecDeque<Waiting>,
    pub bytes: usize,
    /// Deliveries wait here until the event that subscribed has written its own messages.
    pub held: Option<Vec<Waiting>>,
    /// How many want that.
    pub holds: u32,
}

pub(super) struct Waiting {
    pub frames: Bytes,
    pub messages: u32,
    /// The first of these frames is partly written already: dropping it would break the stream.
    pub begun: bool,
    /// The session's own event wrote it, not somebody else's publication.
    pub own: bool,
}

impl Queue {
    /// So many bytes have been written.
    pub fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(front) = self.waiting.front_mut() {
            if sent < front.frames.len() {
                if sent > 0 {
                    let _ = front.frames.split_to(sent);
                    front.begun = true;
                }
                return;
            }
            sent -= front.frames.len();
            self.waiting.pop_front();
        }
    }
}
