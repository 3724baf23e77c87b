//! The plugin's tests: vectors of the standards, attacks, dates, keys, configuration, and the hook itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod claims;
mod config;
mod hook;
mod keys;
mod support;
mod vectors;
