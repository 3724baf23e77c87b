//! Sizes, durations and spans as people write them in a configuration file.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes: `65536`, `"64KiB"`, `"1 MB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Size(pub usize);

/// A duration: `"250ms"`, `"25s"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Span(pub Duration);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = bytesize::ByteSize(self.0 as u64).display().iec().to_string();
        f.write_str(&shown.replace(' ', "").replace(".0", ""))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl serde::Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl Visitor<'_> for Sizes {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size in bytes such as 65536 or \"64KiB\"")
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                usize::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                usize::try_from(bytes).map(Size).map_err(|_| E::custom("the size is too large"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let bytes: bytesize::ByteSize =
                    text.parse().map_err(|_| E::custom(format!("{text:?} is not a size such as \"64KiB\"")))?;
                usize::try_from(bytes.as_u64()).map(Size).map_err(|_| E::custom("the size is too large"))
            }
        }
        deserializer.deserialize_any(Sizes)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spans;
        impl Visitor<'_> for Spans {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"25s\" or \"250ms\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let duration = humantime::parse_duration(text)
                    .map_err(|_| E::custom(format!("{text:?} is not a duration such as \"25s\" or \"250ms\"")))?;
                Ok(Span(duration))
            }
        }
        deserializer.deserialize_str(Spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Both {
        size: Size,
        span: Span,
    }

    #[test]
    fn people_write_units() {
        let both: Both = toml::from_str("size = \"64KiB\"\nspan = \"1h 30m\"").unwrap();
        assert_eq!((both.size.0, both.span.0), (65536, Duration::from_secs(5400)));
        assert_eq!((both.size.to_string(), both.span.to_string()), ("64KiB".into(), "1h 30m".into()));
        for bad in ["size = -1\nspan = \"1s\"", "size = \"much\"\nspan = \"1s\"", "size = 1\nspan = 25"] {
            assert!(toml::from_str::<Both>(bad).is_err(), "{bad}");
        }
    }
}
