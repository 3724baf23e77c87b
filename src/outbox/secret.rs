//! What proves that a request is of the session's client: 128 random bits, and the mark by which the other nodes know without
//! asking that one of them has drawn these for this session.

use crate::message::SessionId;
use crate::redis::{Mark, Seal};
use crate::source::Random;

pub type Secret = [u8; DRAWN + size_of::<Mark>()];

/// Bytes that are random.
const DRAWN: usize = 16;

/// For a new session. Without a Redis no other node is ever asked, and nothing is marked.
pub fn draw(session: SessionId, random: &Random, seal: Option<&Seal>) -> Result<Secret, getrandom::Error> {
    let mut secret = Secret::default();
    let (drawn, mark) = secret.split_at_mut(DRAWN);
    random.fill(drawn)?;
    if let Some(seal) = seal {
        mark.copy_from_slice(&seal.mark(&marked(session, drawn)));
    }
    Ok(secret)
}

/// Whether some node has drawn it. Whether it is the session's, only the session's node knows.
pub fn was_drawn(session: SessionId, secret: &Secret, seal: &Seal) -> bool {
    let (drawn, mark) = secret.split_at(DRAWN);
    mark.try_into().is_ok_and(|mark| seal.is_marked(&marked(session, drawn), mark))
}

/// What the mark is of.
fn marked(session: SessionId, drawn: &[u8]) -> [u8; 16 + DRAWN] {
    let mut bytes = [0; 16 + DRAWN];
    bytes[..8].copy_from_slice(&session.node.to_le_bytes());
    bytes[8..16].copy_from_slice(&session.number.to_le_bytes());
    bytes[16..].copy_from_slice(drawn);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_drawn_for_one_session_and_any_change_shows() {
        let random = Random::default();
        let seal = Seal::new(&random).unwrap();
        let session = SessionId { node: 3, number: 4 };
        let secret = draw(session, &random, Some(&seal)).unwrap();
        assert!(was_drawn(session, &secret, &seal));
        assert!(!was_drawn(SessionId { node: 4, ..session }, &secret, &seal));
        assert!(!was_drawn(SessionId { number: 5, ..session }, &secret, &seal));
        for place in 0..secret.len() {
            let mut other = secret;
            other[place] ^= 1;
            assert!(!was_drawn(session, &other, &seal), "{place}");
        }
        assert!(!was_drawn(session, &draw(session, &random, None).unwrap(), &seal));
    }
}
