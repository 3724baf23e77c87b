//! Listening sockets that come from another process and go to another one: systemd's, or the gateway of the version
//! before.
//!
//! There is one way for both, systemd's `LISTEN_FDS`: the sockets are descriptors from 3 on, named by `LISTEN_FDNAMES`. A
//! gateway that hands over adds a third one, by which its successor says that it serves, or why it does not.

mod successor;
pub mod systemd;
mod told;

use std::io::Write as _;
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use self::successor::hand_over;
pub use self::successor::{Program, Sockets};
pub use self::told::{Ask, Upgrade, until_told};

/// The names of descriptors, in `LISTEN_FDNAMES`.
const PUBLIC: &str = "public";
const TLS: &str = "tls";
const ADMIN: &str = "admin";
const PREDECESSOR: &str = "predecessor";
/// What a process says when it serves.
const READY: &str = "ready";

/// What this process was started with.
#[derive(Default)]
pub struct Inherited {
    pub public: Option<TcpListener>,
    /// For `tls.listen`.
    pub tls: Option<TcpListener>,
    pub admin: Option<TcpListener>,
    pub predecessor: Option<Arc<Predecessor>>,
}

/// The process whose sockets these are, until it knows that it can go.
pub struct Predecessor(UnixStream);

impl Inherited {
    /// Takes the descriptors that the environment names. Called before this process opens any of its own.
    pub fn take() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<_> = names.split(':').collect();
        let mut descriptors = ListenFd::from_env();
        let mut inherited = Self::default();
        let mut unnamed = Vec::new();
        for place in 0..descriptors.len() {
            let name = names.get(place).copied().unwrap_or_default();
            if name == PREDECESSOR {
                let stream = descriptors.take_unix_listener(place).context("the predecessor's descriptor")?;
                inherited.predecessor =
                    stream.map(|stream| Arc::new(Predecessor(UnixStream::from(OwnedFd::from(stream)))));
                continue;
            }
            let cannot = || format!("the inherited descriptor {} ({name:?}) cannot be listened to", place + 3);
            let Some(socket) = descriptors.take_tcp_listener(place).with_context(cannot)? else { continue };
            if !rustix::net::sockopt::socket_acceptconn(&socket).with_context(cannot)? {
                bail!("{}: it is no listening socket; systemd passes one with Accept=no", cannot());
            }
            match name {
                PUBLIC if inherited.public.is_none() => inherited.public = Some(socket),
                TLS if inherited.tls.is_none() => inherited.tls = Some(socket),
                ADMIN if inherited.admin.is_none() => inherited.admin = Some(socket),
                _ => unnamed.push(socket),
            }
        }
        // Nameless ones are taken in their order.
        for socket in unnamed {
            match &mut inherited {
                Self { public: public @ None, .. } => *public = Some(socket),
                Self { admin: admin @ None, .. } => *admin = Some(socket),
                _ => bail!(
                    "more sockets are inherited than there are to listen to: pass one with the name `public` and, if \
                     you like, one with the name `admin` (FileDescriptorName= of a socket unit)"
                ),
            }
        }
        Ok(inherited)
    }
}

impl Predecessor {
    /// This process serves.
    pub fn ready(&self) {
        self.say(READY);
    }

    /// This process will not serve. Nobody listens to that once it has said that it does.
    pub fn failed(&self, why: &str) {
        self.say(why);
    }

    fn say(&self, what: &str) {
        // One that has gone needs to know nothing.
        let _ = (&self.0).write_all(what.as_bytes()).and_then(|()| self.0.shutdown(Shutdown::Both));
    }
}
