//! How what goes to one client is compressed.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::metrics::Metrics;
use crate::wire::deflate::{Compression, Context as Window, Sizes};

/// Compresses what goes to a client that has agreed on it.
pub struct Packer {
    pub(super) how: Compression,
    /// Where messages refer to those before them; locked while the outbox's state is, so that they are compressed in the
    /// order in which they are written.
    pub(super) window: Option<Mutex<Window>>,
    metrics: Arc<Metrics>,
    sessions: IntGauge,
}

impl Packer {
    /// `takeover`: messages refer to those before them. `sessions` counts this one as long as it lasts.
    pub fn new(how: Compression, takeover: bool, metrics: Arc<Metrics>, sessions: IntGauge) -> Self {
        sessions.inc();
        Self { how, window: takeover.then(Mutex::default), metrics, sessions }
    }

    pub(super) fn count(&self, sizes: Sizes) {
        let (plain, compressed) = &self.metrics.compressed;
        plain.inc_by(sizes.plain);
        compressed.inc_by(sizes.compressed);
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.sessions.dec();
    }
}
