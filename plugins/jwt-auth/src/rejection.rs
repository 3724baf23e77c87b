//! Why a token is not accepted: in terms that help its bearer and tell an attacker nothing about the keys.

/// Every reason, in the order in which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// More than one token came with the request, so that it is not clear whom the client speaks for.
    SeveralTokens,
    TooLong,
    Malformed(&'static str),
    /// A `crit` header: an extension that must be understood, and none is.
    Extension,
    /// A `typ` header of another kind of token.
    Type,
    /// Not an algorithm of this plugin, not an allowed one, or not the one that the named key is for.
    Algorithm,
    UnknownKey,
    /// No `kid`, and more keys of the algorithm than it is reasonable to try.
    UnnamedKey,
    Signature,
    NoExpiry,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    User,
    Attribute,
}

impl Rejection {
    /// A sentence for the client. It goes into a quoted header parameter too, so it holds neither quotes nor
    /// backslashes (RFC 6750, section 3).
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::SeveralTokens => "More than one token was sent; send one, in one place",
            Self::TooLong => "The token is longer than 8 KiB",
            Self::Malformed(what) => what,
            Self::Extension => "The token asks for an extension (crit) that is not supported",
            Self::Type => "The token is of another type (typ) than is accepted here",
            Self::Algorithm => "The token's algorithm (alg) is not accepted",
            Self::UnknownKey => "The token names a key (kid) that is not known here",
            Self::UnnamedKey => "The token does not name its key (kid)",
            Self::Signature => "The token's signature is not valid",
            Self::NoExpiry => "The token has no expiry time (exp)",
            Self::Expired => "The token has expired",
            Self::NotYetValid => "The token is not yet valid (nbf)",
            Self::Issuer => "The token's issuer (iss) is not accepted",
            Self::Audience => "The token is meant for another audience (aud)",
            Self::User => "The token does not name a user of 1 to 255 bytes",
            Self::Attribute => "A claim of the token is longer than 4 KiB",
        }
    }

    /// The HTTP status and the error code of RFC 6750, section 3.1.
    pub(crate) fn answer(self) -> (u16, &'static str) {
        match self {
            Self::SeveralTokens => (400, "invalid_request"),
            _ => (401, "invalid_token"),
        }
    }
}
