//! What client and route agree on before the first frame: Sec-WebSocket-Extensions (RFC 6455 section 9.1), of which
//! permessage-deflate (RFC 7692 section 7.1) is the one that is known here.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use super::Refused;
use crate::config::CompressionConfig;
use crate::wire::deflate::{Compression, WINDOWS};

const NAME: &str = "permessage-deflate";
const SERVER_ALONE: &str = "server_no_context_takeover";
const CLIENT_ALONE: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// How messages of a session are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub compression: Compression,
    /// Whether a message to the client may refer to those before it.
    pub server_takeover: bool,
    /// Whether a message of the client's may.
    pub client_takeover: bool,
    /// Whether the answer says how large the window is.
    names_window: bool,
}

/// The header is not as RFC 6455 section 9.1 has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        let why = "Sec-WebSocket-Extensions must be a list of extensions, each with its parameters";
        Self { status: StatusCode::BAD_REQUEST, why }
    }
}

/// An extension that is offered.
#[derive(Debug, PartialEq, Eq)]
struct Offer<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, Option<String>)>,
}

/// The first of the client's offers that can be accepted.
pub fn negotiate(headers: &HeaderMap, config: &CompressionConfig) -> Result<Option<Agreed>, Malformed> {
    let mut offers = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS) {
        parse(value.to_str().map_err(|_| Malformed)?, &mut offers)?;
    }
    Ok(offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| accept(offer, config)))
}

/// None declines: a parameter that is unknown, repeated, not as it should be, or asks for what is not there.
fn accept(offer: &Offer<'_>, config: &CompressionConfig) -> Option<Agreed> {
    let (mut server_alone, mut client_alone, mut server_window) = (false, false, None);
    for (index, (name, value)) in offer.parameters.iter().enumerate() {
        if offer.parameters[..index].iter().any(|(before, _)| before == name) {
            return None;
        }
        match (*name, value.as_deref()) {
            (SERVER_ALONE, None) => server_alone = true,
            (CLIENT_ALONE, None) => client_alone = true,
            (SERVER_WINDOW, Some(bits)) => server_window = Some(window(bits).filter(|bits| WINDOWS.contains(bits))?),
            // Whatever the client's window is, the one that it is read with is the largest.
            (CLIENT_WINDOW, None) => {}
            (CLIENT_WINDOW, Some(bits)) => drop(window(bits)?),
            _ => return None,
        }
    }
    let window = server_window.unwrap_or(config.window).min(config.window);
    Some(Agreed {
        compression: Compression { window, level: config.level, threshold: config.threshold.0 },
        server_takeover: config.context_takeover && !server_alone,
        client_takeover: config.context_takeover && !client_alone,
        names_window: server_window.is_some() || window < *WINDOWS.end(),
    })
}

/// 8 to 15, in decimal and without a leading zero (RFC 7692 section 7.1.2).
fn window(bits: &str) -> Option<u8> {
    let is_one = matches!(bits.as_bytes(), [b'8' | b'9'] | [b'1', b'0'..=b'5']);
    bits.parse().ok().filter(|_| is_one)
}

impl Agreed {
    /// The answer's Sec-WebSocket-Extensions.
    pub fn header(&self) -> String {
        let mut header = NAME.to_owned();
        if !self.server_takeover {
            header = header + "; " + SERVER_ALONE;
        }
        if !self.client_takeover {
            header = header + "; " + CLIENT_ALONE;
        }
        if self.names_window {
            header += &format!("; {SERVER_WINDOW}={}", self.compression.window);
        }
        header
    }
}

/// Reads one header's value. Elements of the list may be empty, as in every list of HTTP's (RFC 9110 section 5.6.1).
fn parse<'a>(value: &'a str, offers: &mut Vec<Offer<'a>>) -> Result<(), Malformed> {
    let mut rest = Rest(value);
    loop {
        rest.space();
        if rest.0.is_empty() {
            return Ok(());
        }
        if rest.takes(',') {
            continue;
        }
        let mut offer = Offer { name: rest.token()?, parameters: Vec::new() };
        while rest.takes(';') {
            let name = rest.token()?;
            let value = if rest.takes('=') { Some(rest.value()?) } else { None };
            offer.parameters.push((name, value));
        }
        offers.push(offer);
        if !rest.0.is_empty() && !rest.takes(',') {
            return Err(Malformed);
        }
    }
}

/// What is left to read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Whether the character comes next, with space before and behind it.
    fn takes(&mut self, what: char) -> bool {
        self.space();
        let Some(rest) = self.0.strip_prefix(what) else { return false };
        self.0 = rest;
        self.space();
        true
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        self.space();
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or a token in quotes.
    fn value(&mut self) -> Result<String, Malformed> {
        if !self.0.starts_with('"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            let character = match character {
                '"' if !value.is_empty() => {
                    self.0 = &self.0[at + 1..];
                    self.space();
                    return Ok(value);
                }
                '\\' => characters.next().ok_or(Malformed)?.1,
                other => other,
            };
            if !is_token(character) {
                return Err(Malformed);
            }
            value.push(character);
        }
        Err(Malformed)
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(config: CompressionConfig, values: &[&str]) -> Result<Option<String>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
        }
        Ok(negotiate(&headers, &config)?.map(|agreed| agreed.header()))
    }

    fn answered(value: &str) -> String {
        answer(CompressionConfig::default(), &[value]).unwrap().unwrap_or_default()
    }

    #[test]
    fn an_offer_is_accepted_without_takeover() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"1\\5\"; client_no_context_takeover",
            " ,, permessage-deflate ;\tserver_no_context_takeover , ",
            "x-webkit-deflate-frame; a=b; c, permessage-deflate",
        ] {
            assert_eq!(answered(offer), ALONE, "{offer}");
        }
        for bits in [9, 10, 11, 12, 13, 14, 15] {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            assert_eq!(answered(&offer), format!("{ALONE}; server_max_window_bits={bits}"));
        }
    }

    #[test]
    fn an_offer_that_cannot_be_accepted_is_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=1000",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=7",
            "client_max_window_bits=015",
            "client_max_window_bits; client_max_window_bits",
            "server_no_context_takeover=true",
            "client_no_context_takeover=15",
            "client_no_context_takeover; client_no_context_takeover",
            "unknown",
            "SERVER_NO_CONTEXT_TAKEOVER=1",
        ] {
            assert_eq!(answered(&format!("permessage-deflate; {parameters}")), "", "{parameters}");
            let fallback = format!("permessage-deflate; {parameters}, permessage-deflate; server_max_window_bits=10");
            assert_eq!(answered(&fallback), format!("{ALONE}; server_max_window_bits=10"), "{parameters}");
        }
        assert_eq!(answered("permessage-bzip2, deflate, permessage-deflated"), "");
        assert_eq!(answer(CompressionConfig::default(), &[]), Ok(None));
        let two = ["permessage-deflate; unknown", "permessage-deflate"];
        assert_eq!(answer(CompressionConfig::default(), &two), Ok(Some(ALONE.to_owned())), "a header may come twice");
    }

    #[test]
    fn takeover_is_each_sides_own_affair() {
        let config = CompressionConfig { context_takeover: true, window: 12, ..CompressionConfig::default() };
        for (offered, answered) in [
            ("", "; server_max_window_bits=12"),
            ("; server_no_context_takeover", "; server_no_context_takeover; server_max_window_bits=12"),
            ("; client_no_context_takeover", "; client_no_context_takeover; server_max_window_bits=12"),
            ("; server_max_window_bits=15", "; server_max_window_bits=12"),
            ("; server_max_window_bits=10", "; server_max_window_bits=10"),
        ] {
            let answer = answer(config, &[&format!("permessage-deflate{offered}")]);
            assert_eq!(answer, Ok(Some(format!("permessage-deflate{answered}"))), "{offered}");
        }
        let config = CompressionConfig { window: 15, ..config };
        assert_eq!(answer(config, &["permessage-deflate"]), Ok(Some("permessage-deflate".to_owned())));
    }

    #[test]
    fn what_is_no_list_of_extensions_is_told() {
        for value in [
            "permessage-deflate;",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"b",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"b\\",
            "permessage-deflate a",
            "permessage-deflate; a=b=c",
            "; a",
            "a/b",
        ] {
            assert_eq!(answer(CompressionConfig::default(), &[value]), Err(Malformed), "{value}");
        }
    }
}
