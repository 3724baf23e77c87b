//! A client's socket, with TLS or without; nothing here waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mio::event::Source as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// One of these stands in the table for each connection, so the large kind is boxed.
pub enum Socket {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

pub struct Secure {
    stream: TcpStream,
    tls: ClientConnection,
}

impl Socket {
    pub fn secure(stream: TcpStream, config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<Self, String> {
        let tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(|error| error.to_string())?;
        Ok(Self::Secure(Box::new(Secure { stream, tls })))
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Once and for all: edges come for both directions, and an idle connection costs no further call.
        self.stream_mut().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn stream_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(secure) => &mut secure.stream,
        }
    }

    /// Whether the connection stands; an error if it never will.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        let stream = self.stream_mut();
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes read, and whether there may be more: if not, the next edge tells of it.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        loop {
            let read = match self {
                Self::Plain(stream) => stream.read(buffer).map(|count| (count, count == buffer.len())),
                Self::Secure(secure) => secure.read(buffer).map(|count| (count, true)),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self {
                Self::Plain(stream) => stream.write(bytes),
                Self::Secure(secure) => secure.write(bytes),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    /// Sends what TLS has ready.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => secure.push(),
        }
    }
}

impl Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Without the close that TLS wants: it makes no difference here, WebSocket has its own.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            let taken = self.tls.process_new_packets();
            // The handshake's next step, or an alert.
            let pushed = self.push();
            taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            pushed?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.push()?;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// An address that connections come from, and its ports. The kernel looks long for a free port where there are few, so
/// they are counted up here.
pub struct Origin {
    address: IpAddr,
    next: AtomicU32,
    ports: (u32, u32),
}

/// Ports that are tried before an address counts as used up.
const TRIED: u32 = 2_000;

impl Origin {
    pub fn new(address: IpAddr) -> Self {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ports = range.split_whitespace().filter_map(|port| port.parse().ok());
        let ports = match (ports.next(), ports.next()) {
            (Some(first), Some(last)) if first < last && last < 65_536 => (first, last),
            _ => (32_768, 60_999),
        };
        // Several processes on one address do not begin at the same port.
        let begin = std::process::id().wrapping_mul(7_919) % (ports.1 - ports.0);
        Self { address, next: AtomicU32::new(begin), ports }
    }

    fn port(&self) -> u16 {
        let (first, last) = self.ports;
        (first + self.next.fetch_add(1, Ordering::Relaxed) % (last - first + 1)) as u16
    }
}

/// Begins to connect.
pub fn begin(to: SocketAddr, from: Option<&Origin>) -> io::Result<TcpStream> {
    let tried = if from.is_some() { TRIED } else { 1 };
    for _ in 0..tried {
        let socket = new(to)?;
        if let Some(from) = from {
            // With this a port may serve connections to several addresses, and one of a run that is just over.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            match bind(&socket, &SocketAddr::new(from.address, from.port())) {
                Err(Errno::ADDRINUSE) => continue,
                bound => bound?,
            }
        }
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => return Ok(TcpStream::from_std(socket.into())),
            Err(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ADDRNOTAVAIL.into())
}

fn new(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}
