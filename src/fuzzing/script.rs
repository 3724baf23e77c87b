//! Scripts of host calls, out of an input's decisions: sensible enough to get far, and odd enough to be worth it.

use super::boundary::of_session;
use super::guest::{ANSWER, HostFunction, LAST_EFFECT, MEMORY, PAIRS, RESULT, SCRIPT_MAX, STRINGS};
use super::guest::{Slot, Special, TEXTS, functions, places};
use super::input::Input;
use crate::plugin::Hook;

/// How odd a call's arguments are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Oddness {
    /// So that the call is accepted.
    Accepted,
    /// So many in 256.
    Times(u8),
}

/// Writes scripts for a guest.
pub struct Author {
    pub functions: Vec<HostFunction>,
    places: Vec<(u32, u32)>,
}

impl Author {
    /// For the guest that imports what waits, or for the one that does not.
    pub fn new(waits: bool) -> Self {
        Self { functions: functions(waits), places: places() }
    }

    /// Operations that are mostly sensible, with arguments that often are not.
    pub fn script(&self, input: &mut Input<'_>, hook: Hook, session: u64) -> Vec<u8> {
        let mut script = Vec::new();
        // So many arguments in 256 are odd.
        let odd = input.pick(&[0, 0, 0, 0, 1, 4, 20, 100]);
        let specials = input.pick(&[0, 4, 20, 60]);
        let most = input.pick(&[3, 6, 12, 100]);
        for _ in 0..most {
            if input.is_empty() || script.len() > SCRIPT_MAX - 512 {
                break;
            }
            if !input.often(specials) {
                let mut number = input.below(self.functions.len());
                for _ in 0..8 {
                    if input.often(odd) || suits(&self.functions[number], hook) {
                        break;
                    }
                    number = input.below(self.functions.len());
                }
                let function = &self.functions[number];
                if function.slots.contains(&Slot::Effect) && input.often(230) {
                    // An option wants an effect of its interface.
                    let makes = |other: &HostFunction| {
                        other.interface == function.interface
                            && matches!(other.name.as_str(), "publish" | "subscribe" | "request")
                    };
                    if let Some(maker) = self.functions.iter().position(makes) {
                        self.call(maker, session, Oddness::Accepted, input, &mut script);
                    }
                }
                self.call(number, session, Oddness::Times(odd), input, &mut script);
                continue;
            }
            let place = match input.byte() {
                0..60 => 0,
                60..130 => 1,
                130..190 => 2,
                190..240 => 3,
                240..242 => 4,
                242..249 => 5,
                _ => 6,
            };
            script.extend(((self.functions.len() + place) as u16).to_le_bytes());
            let mut number = |number: u32| script.extend(number.to_le_bytes());
            match Special::ALL[place] {
                Special::Realloc => {
                    number(u32::from(input.byte() % 8));
                    number(address(input));
                }
                Special::Poke => {
                    // The hook's answer and the list of pairs, mostly.
                    let near = input.pick(&[RESULT, RESULT + 8, PAIRS, PAIRS + 8]);
                    number(if input.often(200) { near } else { address(input) });
                    number(if input.often(128) { u32::from(input.byte() % 4) } else { address(input) });
                    number(address(input));
                }
                Special::Return => {
                    number(if input.often(200) { RESULT } else { address(input) });
                }
                Special::Grow => number(input.pick(&[0, 1, 13, 14, 15, 1000, 65_536, u32::MAX])),
                Special::Spin | Special::Recurse | Special::Unreachable => {}
            }
        }
        script
    }

    fn call(&self, number: usize, session: u64, odd: Oddness, input: &mut Input<'_>, script: &mut Vec<u8>) {
        script.extend((number as u16).to_le_bytes());
        for slot in &self.functions[number].slots {
            self.argument(*slot, session, odd, input, script);
        }
    }

    fn argument(&self, slot: Slot, session: u64, odd: Oddness, input: &mut Input<'_>, script: &mut Vec<u8>) {
        let sane = odd == Oddness::Accepted;
        let odd = matches!(odd, Oddness::Times(times) if input.often(times));
        let mut number = |number: u32| script.extend(number.to_le_bytes());
        match slot {
            Slot::Text if odd => {
                number(address(input));
                number(length(input));
            }
            Slot::Text if sane => {
                number(self.places[0].0);
                number(self.places[0].1);
            }
            Slot::Text if input.often(30) => {
                // Zeros.
                number(24_576);
                number(input.pick(&[0, 1, 63, 64, 65, 123, 124, 255, 256, 1024, 1025, 4096, 4097, 16_384, 40_000]));
            }
            Slot::Text => {
                let (at, length) = self.places[input.below(self.places.len() - usize::from(!odd))];
                number(at);
                number(length);
            }
            Slot::Pairs => {
                number(if odd { address(input) } else { PAIRS });
                number(if odd { length(input) } else { input.pick(&[0, 1, 2, 5, (TEXTS.len() / 2) as u32]) });
            }
            Slot::Session => {
                let handle = if odd { input.pick(&[0, 1, 2, u64::MAX, session ^ 1]) } else { session };
                script.extend(handle.to_le_bytes());
            }
            Slot::Publication => {
                let handle = if odd { input.u64() } else { 1 };
                script.extend(handle.to_le_bytes());
            }
            Slot::Effect if odd => number(input.pick(&[u32::MAX, 1 << 31, 1000, 12])),
            Slot::Effect => number(LAST_EFFECT),
            Slot::Code if odd => number(input.u32()),
            Slot::Code => number(input.pick(&[1000, 1001, 1003, 1011, 3000, 3999, 4000, 4999])),
            Slot::Case(_) if odd => number(input.pick(&[u32::MAX, 256, 9, 6, 3])),
            Slot::Case(count) => number(u32::from(input.byte()) % count),
            Slot::Number if odd => number(input.u32()),
            Slot::Number => number(input.pick(&[0, 1, 2, 1000, 1001, 10_001, 65_536])),
            Slot::Long | Slot::Float => {
                let long = match input.often(128) {
                    true => input.pick(&[0, 1, 1000, 1 << 63, u64::MAX, i64::MAX as u64, 0x7ff8_0000_0000_0000]),
                    false => input.u64(),
                };
                script.extend(long.to_le_bytes());
            }
            Slot::Answer => number(if odd { address(input) } else { ANSWER }),
        }
    }
}

/// Whether a hook may make this call without a trap.
fn suits(function: &HostFunction, hook: Hook) -> bool {
    let is = |interface: &str, names: &[&str]| function.interface == interface && names.contains(&&*function.name);
    let of_response = is("handshake", &["select-subprotocol", "add-header", "set-body"]);
    let opens = is("session", &["subscribe", "with-presence", "with-recovery"]);
    let reads_publication = function.interface == "publication";
    if of_response {
        return hook == Hook::Authenticate;
    }
    if opens {
        return of_session(hook) && !matches!(hook, Hook::Authenticate | Hook::Closed | Hook::Outbound);
    }
    if reads_publication {
        return matches!(hook, Hook::Publication | Hook::Broadcast | Hook::Outbound);
    }
    if is("session", &["send", "send-if-refused", "unsubscribe"]) {
        return of_session(hook) && hook != Hook::Outbound;
    }
    if function.interface == "upstream" {
        return of_session(hook) && !matches!(hook, Hook::Authenticate | Hook::Outbound);
    }
    let acts = matches!(&*function.interface, "topics" | "users" | "sessions");
    if acts && hook == Hook::Outbound {
        return false;
    }
    (hook.may_act() || !acts) && (of_session(hook) || !function.slots.contains(&Slot::Session))
}

/// An address that is likely to be wrong in an interesting way.
fn address(input: &mut Input<'_>) -> u32 {
    let near = input.pick(&[0, 4, RESULT, ANSWER, STRINGS, PAIRS, MEMORY, u32::MAX, 1 << 31, 1 << 20]);
    match input.byte() {
        0..100 => near,
        100..200 => near.wrapping_add(u32::from(input.byte() as i8 as u8)).wrapping_sub(16),
        _ => input.u32(),
    }
}

fn length(input: &mut Input<'_>) -> u32 {
    match input.often(160) {
        true => input.pick(&[0, 1, 5, 64, 1000, 65_536, MEMORY, MEMORY + 1, 1 << 28, 1 << 29, 1 << 31, u32::MAX]),
        false => input.u32(),
    }
}
