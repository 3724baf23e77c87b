//! `metrics`: what a plugin counts for itself.

use wasmtime::Result;

use super::{State, wit};

impl State {
    fn measured(&mut self, series: &str, value: crate::metrics::Measured) -> Result<()> {
        self.enter()?;
        if self.context.shadow {
            return Ok(());
        }
        self.context.node.metrics.own.note(&self.context.name, series, value);
        Ok(())
    }
}

impl wit::metrics::Host for State {
    fn count(&mut self, series: String, by: u64) -> Result<()> {
        self.measured(&series, crate::metrics::Measured::Count(by))
    }

    fn gauge(&mut self, series: String, value: f64) -> Result<()> {
        self.measured(&series, crate::metrics::Measured::Gauge(value))
    }

    fn observe(&mut self, series: String, value: f64) -> Result<()> {
        self.measured(&series, crate::metrics::Measured::Observe(value))
    }
}
