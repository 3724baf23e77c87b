//! What a service manager is told (`Type=notify`). Where there is none, these do nothing.

use sd_notify::NotifyState;

/// Clients are served from now on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; `ready` says that this is over.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process is the service from now on, and serves.
pub fn replaced_by(process: u32) {
    tell(&[NotifyState::MainPid(process), NotifyState::Ready]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how this process is");
    }
}
