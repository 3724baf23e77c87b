//! Headers, as the standard's `fields`.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use wasmtime::component::Resource;
use wasmtime::{Error, Result};

use super::wit::types::{HeaderError, HostFields};
use super::{Quota, State};

/// Bytes of one set of headers, with some for each entry.
const FIELDS: usize = 32 << 10;
const ENTRY: usize = 32;

/// Headers; those of a request or a response cannot be changed any more.
pub struct Fields {
    map: Arc<HeaderMap>,
    bytes: usize,
    mutable: bool,
}

/// What belongs to a connection, which is the gateway's, and `Host`, which is the authority.
fn is_forbidden(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 6] = [
        header::CONNECTION,
        header::HOST,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    NAMES.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Takes out what a plugin neither sees nor sets.
pub fn strip(mut map: HeaderMap) -> HeaderMap {
    let forbidden: Vec<_> = map.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in forbidden {
        map.remove(name);
    }
    map
}

impl Fields {
    pub fn immutable(map: Arc<HeaderMap>) -> Self {
        Self { map, bytes: 0, mutable: false }
    }

    pub fn into_map(self) -> Arc<HeaderMap> {
        self.map
    }

    fn mutable(map: Arc<HeaderMap>) -> Self {
        let bytes = map.iter().map(|(name, value)| name.as_str().len() + value.len() + ENTRY).sum();
        Self { map, bytes, mutable: true }
    }

    fn name(&self, name: &str) -> Result<HeaderName, HeaderError> {
        if !self.mutable {
            return Err(HeaderError::Immutable);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::InvalidSyntax)?;
        if is_forbidden(&name) { Err(HeaderError::Forbidden) } else { Ok(name) }
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<Result<(), HeaderError>> {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(error) => return Ok(Err(error)),
        };
        let Ok(value) = HeaderValue::from_bytes(value) else { return Ok(Err(HeaderError::InvalidSyntax)) };
        self.bytes += name.as_str().len() + value.len() + ENTRY;
        let room = self.bytes <= FIELDS;
        // Fails beyond 32,768 entries, more than have room.
        if !room || Arc::make_mut(&mut self.map).try_append(name, value).is_err() {
            return Err(Error::new(Quota::Fixed("headers, 32 KiB")));
        }
        Ok(Ok(()))
    }

    fn delete(&mut self, name: &str) -> Result<(), HeaderError> {
        let name = self.name(name)?;
        let map = Arc::make_mut(&mut self.map);
        let gone: usize = map.get_all(&name).iter().map(|value| name.as_str().len() + value.len() + ENTRY).sum();
        map.remove(&name);
        self.bytes -= gone;
        Ok(())
    }
}

impl HostFields for State {
    fn new(&mut self) -> Result<Resource<Fields>> {
        self.enter()?;
        Ok(self.table.push(Fields::mutable(Arc::default()))?)
    }

    fn from_list(&mut self, entries: Vec<(String, Vec<u8>)>) -> Result<Result<Resource<Fields>, HeaderError>> {
        self.enter()?;
        let mut fields = Fields::mutable(Arc::default());
        for (name, value) in entries {
            if let Err(error) = fields.append(&name, &value)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(self.table.push(fields)?))
    }

    fn get(&mut self, fields: Resource<Fields>, name: String) -> Result<Vec<Vec<u8>>> {
        self.enter()?;
        let fields = self.table.get(&fields)?;
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Ok(Vec::new()) };
        Ok(fields.map.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect())
    }

    fn has(&mut self, fields: Resource<Fields>, name: String) -> Result<bool> {
        self.enter()?;
        let fields = self.table.get(&fields)?;
        Ok(HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| fields.map.contains_key(name)))
    }

    fn set(&mut self, fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> Result<Result<(), HeaderError>> {
        self.enter()?;
        let fields = self.table.get_mut(&fields)?;
        // All or nothing: what is wrong must leave what was there.
        if values.iter().any(|value| HeaderValue::from_bytes(value).is_err()) {
            return Ok(Err(HeaderError::InvalidSyntax));
        }
        if let Err(error) = fields.delete(&name) {
            return Ok(Err(error));
        }
        for value in values {
            if let Err(error) = fields.append(&name, &value)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn delete(&mut self, fields: Resource<Fields>, name: String) -> Result<Result<(), HeaderError>> {
        self.enter()?;
        Ok(self.table.get_mut(&fields)?.delete(&name))
    }

    fn append(&mut self, fields: Resource<Fields>, name: String, value: Vec<u8>) -> Result<Result<(), HeaderError>> {
        self.enter()?;
        self.table.get_mut(&fields)?.append(&name, &value)
    }

    fn entries(&mut self, fields: Resource<Fields>) -> Result<Vec<(String, Vec<u8>)>> {
        self.enter()?;
        let map = &self.table.get(&fields)?.map;
        Ok(map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn clone(&mut self, fields: Resource<Fields>) -> Result<Resource<Fields>> {
        self.enter()?;
        let map = self.table.get(&fields)?.map.clone();
        Ok(self.table.push(Fields::mutable(map))?)
    }

    fn drop(&mut self, fields: Resource<Fields>) -> Result<()> {
        self.table.delete(fields)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_rules_and_their_limit() {
        let mut fields = Fields::mutable(Arc::default());
        assert!(matches!(fields.append("x", b"1"), Ok(Ok(()))));
        assert!(matches!(fields.append("X", b"2"), Ok(Ok(()))));
        assert_eq!(fields.map.get_all("x").iter().count(), 2);
        assert!(matches!(fields.append("a b", b"1"), Ok(Err(HeaderError::InvalidSyntax))));
        assert!(matches!(fields.append("x", b"1\r\ny: 2"), Ok(Err(HeaderError::InvalidSyntax))));
        assert!(matches!(fields.append("Transfer-Encoding", b"chunked"), Ok(Err(HeaderError::Forbidden))));
        assert!(matches!(fields.delete("x"), Ok(())));
        assert_eq!((fields.map.len(), fields.bytes), (0, 0));
        let over = (0..).find_map(|_| fields.append("x", &[b'a'; 1000]).err()).unwrap();
        assert!(over.downcast_ref::<Quota>().is_some());
        assert!(fields.map.len() > 30 && fields.bytes < FIELDS + 2000);
        let mut fixed = Fields::immutable(Arc::default());
        assert!(matches!(fixed.append("x", b"1"), Ok(Err(HeaderError::Immutable))));
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_seen() {
        let mut map = HeaderMap::new();
        for name in ["host", "connection", "keep-alive", "accept"] {
            map.insert(name, HeaderValue::from_static("x"));
        }
        assert_eq!(strip(map).keys().collect::<Vec<_>>(), ["accept"]);
    }
}
