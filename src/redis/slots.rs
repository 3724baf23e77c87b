//! Hash slots of a Redis Cluster: which one a key is in, and who owns which, as the Cluster's nodes tell it.

use std::fmt;

use redis::Value;

/// How many there are.
pub const SLOTS: u16 = 16_384;

/// CRC-16/XMODEM, as the Cluster specification wants it.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key or channel: of what stands between its first braces, if something does, and of the whole otherwise.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    let crc = |crc: u16, byte: &u8| crc << 8 ^ CRC[usize::from((crc >> 8) as u8 ^ byte)];
    tag.unwrap_or(key).iter().fold(0, crc) % SLOTS
}

/// Where a server of a Cluster is, by its own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Of a redirection, `HOST:PORT`. A server that does not know its own name leaves it out.
    pub fn parse(text: &str, asked: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: named(host, asked)?.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What one server knows of its Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Grows with every failover and every slot that has moved: the server that says the highest knows most.
    pub epoch: u64,
    /// First slot, last slot and owner, in the order of slots. What nobody owns is left out.
    pub ranges: Vec<(u16, u16, Address)>,
    /// Who follows the owners.
    pub replicas: Vec<Address>,
}

impl Topology {
    /// Reads the answers to `CLUSTER SLOTS` and `CLUSTER INFO` of the server at `asked`.
    pub fn read(slots: &Value, info: &Value, asked: &str) -> Option<Self> {
        let info = text_of(info)?;
        let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"))?.trim().parse().ok()?;
        let mut found = Self { epoch, ..Self::default() };
        let Value::Array(ranges) = slots else { return None };
        for range in ranges {
            let Value::Array(range) = range else { continue };
            let [Value::Int(first), Value::Int(last), owner, replicas @ ..] = &range[..] else { continue };
            let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
            let (Some(first), Some(last)) = (slot(*first), slot(*last)) else { continue };
            found.replicas.extend(replicas.iter().filter_map(|replica| address(replica, asked)));
            if let Some(owner) = address(owner, asked) {
                found.ranges.push((first, last, owner));
            }
        }
        found.ranges.sort();
        found.replicas.sort();
        found.replicas.dedup();
        Some(found)
    }

    /// The owners, each once.
    pub fn masters(&self) -> Vec<&Address> {
        let mut masters: Vec<_> = self.ranges.iter().map(|(.., owner)| owner).collect();
        masters.sort();
        masters.dedup();
        masters
    }
}

fn address(server: &Value, asked: &str) -> Option<Address> {
    let Value::Array(server) = server else { return None };
    let [host, Value::Int(port), ..] = &server[..] else { return None };
    let host = match host {
        Value::Nil => asked.to_owned(),
        host => named(&text_of(host)?, asked)?.to_owned(),
    };
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

/// No name means that of the server that was asked, and `?` that nobody knows it.
fn named<'a>(host: &'a str, asked: &'a str) -> Option<&'a str> {
    match host {
        "?" => None,
        "" | "0.0.0.0" | "::" => Some(asked),
        host => Some(host),
    }
}

pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!((slot_of(b"{foo}bar"), slot_of(b"a{foo}{x}")), (12_182, 12_182));
        assert_ne!(slot_of(b"foo{}bar"), slot_of(b""), "empty braces are no tag");
        for key in ["", "}", "{", "{}", "a{b", "tidegate:{chat}:m", "\u{2603}"] {
            let theirs = redis::cluster_routing::Slot::for_key(key);
            assert_eq!(redis::cluster_routing::Slot::new(slot_of(key.as_bytes())), Some(theirs), "{key}");
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn server(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("0123456789abcdef")])
    }

    #[test]
    fn what_a_server_says_of_its_cluster_is_read() {
        let range = |first, last, servers: Vec<Value>| {
            Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(servers).collect())
        };
        let slots = Value::Array(vec![
            range(8_192, 16_383, vec![server(text("b"), 2), server(text("r"), 4)]),
            range(0, 100, vec![server(Value::Nil, 1), server(text(""), 3)]),
            range(101, 101, vec![server(text("?"), 1)]),
            range(5, 70_000, vec![server(text("x"), 1)]),
        ]);
        let info = text("cluster_state:ok\r\ncluster_current_epoch:7\r\ncluster_my_epoch:3\r\n");
        let found = Topology::read(&slots, &info, "me").unwrap();
        let at = |host: &str, port| Address { host: host.to_owned(), port };
        assert_eq!(found.epoch, 7);
        assert_eq!(found.ranges, [(0, 100, at("me", 1)), (8_192, 16_383, at("b", 2))]);
        assert_eq!(found.replicas, [at("me", 3), at("r", 4)]);
        assert_eq!(found.masters(), [&at("b", 2), &at("me", 1)]);
        assert_eq!(Topology::read(&slots, &text("ERR"), "me"), None);
        assert_eq!(Address::parse(":7000", "me"), Some(at("me", 7_000)));
        assert_eq!(Address::parse("::1:7000", "me").unwrap().to_string(), "[::1]:7000");
        assert_eq!(Address::parse("?:7000", "me"), None);
    }
}
