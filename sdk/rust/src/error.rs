//! How a plugin says no to the gateway, and the gateway to a plugin.

use std::fmt;

/// What hooks return. `?` turns every error that can be displayed into an [`Error`].
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why an event failed: a sentence for the log and the operator, never for the client. None of the event's effects is
/// applied.
///
/// Anything that can be displayed becomes one with `?` or `.into()`, so it does not implement `Display` itself:
///
/// ```
/// # use tidegate_sdk::Result;
/// fn number(text: &str) -> Result<u32> {
///     if text.is_empty() {
///         return Err("no number".into());
///     }
///     Ok(text.parse()?)
/// }
/// assert_eq!(number("").unwrap_err().message(), "no number");
/// assert!(number("x").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error of this sentence.
    pub fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_message(self) -> String {
        self.0
    }
}

impl<E: fmt::Display> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// The sentence, so that a failed test that returns a [`Result`] is readable.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Say where an error came from: `keys.parse().context("config `keys`")?` reads "config `keys`: …".
pub trait Context<T> {
    /// Put a few words before the error's own.
    ///
    /// # Errors
    /// The error that it is called on, with the words before it.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {error}")))
    }
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {}", error.0)))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::new(what))
    }
}

/// Why the gateway did not accept a request: what a client's data can cause, so that the plugin can tell the client.
/// That effect is not in the buffer; the event goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Not a well-formed name or value.
    Invalid,
    /// This plugin has no grant for it.
    Denied,
    /// Over a size limit.
    TooLarge,
    /// Over a number limit: topics of a session, keys, a rate.
    TooMany,
    /// Not configured: no history or presence on this topic, no such upstream.
    Unsupported,
    /// Not now: the broker or the store does not answer, or too late. May be tried again.
    Unavailable,
}

impl Refusal {
    /// Called by the generated bindings.
    ///
    /// # Safety
    /// None is needed: a number without a meaning, which the gateway cannot send, counts as `Unavailable`.
    #[doc(hidden)]
    #[allow(unsafe_code, reason = "the bindings call it as unsafe")]
    pub unsafe fn _lift(value: u8) -> Self {
        match value {
            0 => Self::Invalid,
            1 => Self::Denied,
            2 => Self::TooLarge,
            3 => Self::TooMany,
            4 => Self::Unsupported,
            _ => Self::Unavailable,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid: not a well-formed name or value",
            Self::Denied => "denied: the plugin's `grants` do not name it",
            Self::TooLarge => "too large: over a size limit",
            Self::TooMany => "too many: over a number limit",
            Self::Unsupported => {
                "unsupported: no history or presence is configured for this topic, or no such upstream"
            }
            Self::Unavailable => "unavailable: the broker or the store does not answer now",
        })
    }
}

impl std::error::Error for Refusal {}
