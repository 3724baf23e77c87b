//! Where in a handshake the token is.
//!
//! A client sends one token in one place (RFC 6750, section 2). Two that differ are refused rather than ranked: somebody
//! may have added one to a link or planted it in a cookie.

use crate::rejection::Rejection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `Authorization: Bearer TOKEN`
    Header,
    /// `?token=TOKEN`
    Query,
    /// `Cookie: token=TOKEN`
    Cookie,
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`: what a browser's WebSocket can send and no log keeps.
    Subprotocol,
}

impl Source {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name {
            "header" => Some(Self::Header),
            "query" => Some(Self::Query),
            "cookie" => Some(Self::Cookie),
            "subprotocol" => Some(Self::Subprotocol),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) allowed: Vec<Source>,
    pub(crate) query_parameter: String,
    pub(crate) cookie: String,
    pub(crate) subprotocol: String,
}

/// What a handshake offers. Asked for only as far as the sources are allowed.
pub(crate) trait Request {
    fn header(&self, name: &str) -> Option<String>;
    fn raw_query(&self) -> String;
    fn subprotocols(&self) -> Vec<String>;
}

impl Sources {
    /// The token and where it was. None: there is none.
    pub(crate) fn find(&self, request: &impl Request) -> Result<Option<(Source, String)>, Rejection> {
        let mut found: Option<(Source, String)> = None;
        for &source in &self.allowed {
            for token in self.tokens(source, request) {
                match &found {
                    None => found = Some((source, token)),
                    Some((_, first)) if *first == token => {}
                    Some(_) => return Err(Rejection::SeveralTokens),
                }
            }
        }
        Ok(found)
    }

    fn tokens(&self, source: Source, request: &impl Request) -> Vec<String> {
        match source {
            Source::Header => {
                let header = request.header("authorization");
                header.as_deref().and_then(bearer).map(str::to_owned).into_iter().collect()
            }
            Source::Query => form_urlencoded::parse(request.raw_query().as_bytes())
                .filter(|(name, _)| *name == self.query_parameter)
                .map(|(_, token)| token.into_owned())
                .collect(),
            Source::Cookie => cookies(&request.header("cookie").unwrap_or_default())
                .filter(|(name, _)| *name == self.cookie)
                .map(|(_, token)| token.to_owned())
                .collect(),
            Source::Subprotocol => {
                let mut offered = request.subprotocols().into_iter();
                match offered.any(|name| name == self.subprotocol) {
                    true => vec![offered.next().unwrap_or_default()],
                    false => Vec::new(),
                }
            }
        }
    }
}

/// Credentials of another scheme are none of ours: a proxy in front may have asked for them.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ').unwrap_or((authorization.trim(), ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The pairs of a `Cookie` header. Several such headers are joined with `; ` or, by an older client, with a comma.
fn cookies(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.split([';', ',']).filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}
