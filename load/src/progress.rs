//! What is told while a run goes on.

use std::time::Duration;

/// Where a run is in its course.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Opening,
    Settling,
    WarmUp,
    Measuring,
    /// Nothing more is sent, and answers that are under way are awaited.
    Answers,
    /// Connections are closed.
    Ending,
}

#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: Stage,
    /// In this stage, and how long it lasts if that is known.
    pub elapsed: Duration,
    pub of: Option<Duration>,
    /// Connections that are ready, that could not be opened, and that were lost.
    pub ready: usize,
    pub failed: usize,
    pub lost: usize,
    pub wanted: usize,
    /// Answers or deliveries since the run began.
    pub messages: u64,
    /// The same in the last second or less.
    pub per_second: f64,
}
