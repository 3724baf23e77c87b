//! What the gateway checks before it takes an effect.

use crate::Refusal;

/// A topic's name: 1 to 255 bytes without control characters.
pub(crate) fn topic(name: &str) -> Result<(), Refusal> {
    match (1..=255).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Refusal::Invalid),
    }
}

/// A user's or a session's id, or a key of the plugin's store.
pub(crate) fn id(id: &str) -> Result<(), Refusal> {
    match (1..=255).contains(&id.len()) {
        true => Ok(()),
        false => Err(Refusal::Invalid),
    }
}

/// A name or key of up to 64 bytes.
pub(crate) fn name(name: &str) -> Result<(), Refusal> {
    match name.len() {
        0 => Err(Refusal::Invalid),
        1..=64 => Ok(()),
        _ => Err(Refusal::TooLarge),
    }
}

/// A header's name and value.
pub(crate) fn header(header: &str, value: &str) -> Result<(), Refusal> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    name(header)?;
    match header.bytes().all(token) && !value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        true => Ok(()),
        false => Err(Refusal::Invalid),
    }
}

/// A close code that may be sent, or a trap.
pub(crate) fn close_code(code: u16) {
    let may = matches!(code, 1000 | 1001 | 1003 | 1007..=1009 | 1011..=1014 | 3000..=4999);
    assert!(may, "trap: the close code {code} may not be sent");
}

/// A grant, or `Denied`.
pub(crate) fn granted(granted: bool) -> Result<(), Refusal> {
    if granted { Ok(()) } else { Err(Refusal::Denied) }
}
