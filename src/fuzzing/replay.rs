//! Lines that claim to be of a recording: anything, and real ones with something wrong in them, replayed on a plugin.

use serde_json::Value;

use super::input::Input;
use crate::config::{Config, RedactConfig, Redaction};
use crate::plugin::inside::Redactor;
use crate::plugin::{Hook, Line, Room, Trial, Tried};
use crate::source::{Clock, Random};

/// One line of each kind, and calls of every hook.
const LINES: &str = include_str!("recording.jsonl");

/// Replays what inputs have made of a recording's lines.
pub struct Replays {
    runtime: tokio::runtime::Runtime,
    trial: Trial,
    tried: Tried,
    lines: Vec<Vec<u8>>,
    names: Redaction,
    replayed: u64,
}

impl Replays {
    /// On a plugin's file.
    pub fn new(plugin: &[u8]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config::default();
        let node = {
            let _entered = runtime.enter();
            crate::node(&config, Clock::by_hand(0), Random::seeded(1), None).unwrap()
        };
        let trial = Trial::new(node, Room::of(&config)).unwrap();
        let build = trial.build(plugin).unwrap();
        let lines: Vec<_> = LINES.lines().map(|line| line.as_bytes().to_vec()).collect();
        let made = lines.iter().find_map(|line| match serde_json::from_slice(line).unwrap() {
            Line::Generation(made) => Some(made),
            _ => None,
        });
        let tried = runtime.block_on(trial.tried(&build, &made.unwrap())).unwrap();
        let names = Redaction::new(&RedactConfig::default());
        Self { runtime, trial, tried, lines, names, replayed: 0 }
    }

    /// How many calls were made.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    pub fn run(&mut self, input: &[u8]) {
        let mut input = Input::new(input);
        let line = self.changed(&mut input);
        self.redact(&String::from_utf8_lossy(&line));
        let Ok(Line::Call(recorded)) = serde_json::from_slice(&line) else { return };
        let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.name() == recorded.hook) else { return };
        match self.runtime.block_on(self.trial.call(&self.tried, hook, &recorded)) {
            Ok(again) => {
                self.replayed += 1;
                let shown = serde_json::to_string(&again.outcome).unwrap();
                assert!(shown.contains("answer") || shown.contains("failed"), "a call without an end: {shown}");
            }
            Err(why) => assert!(!why.is_empty(), "an error without a sentence"),
        }
    }

    /// A field that is named like a secret has no value any more, whatever stands around it.
    fn redact(&self, text: &str) {
        let mut value = Value::from(format!("{text} {{\"token\":\"correct-horse\"}}"));
        let mut redactor = Redactor::new(&self.names, &[]);
        redactor.by_name("message", &mut value);
        redactor.everywhere(&mut value);
        // Behind a quote that nobody has closed it is a part of a text.
        let quotes = text.matches('"').count() - text.matches("\\\"").count();
        if quotes.is_multiple_of(2) && !text.contains('\\') {
            assert!(!value.to_string().contains("correct-horse"), "{value}");
        }
    }

    fn changed(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut line = self.lines[input.below(self.lines.len())].clone();
        for _ in 0..input.below(4) {
            let at = input.below(line.len().max(1));
            if line.is_empty() {
                break;
            }
            match input.below(6) {
                0 => line[at] = input.pick(b"{}[]\",:0-9aZ\\\" "),
                1 => line[at] ^= 1 << (input.byte() % 8),
                2 => drop(line.drain(at..(at + input.below(20)).min(line.len()))),
                3 => line.insert(at, input.byte()),
                4 => digits(&mut line, at, input),
                _ => {
                    let other = &self.lines[input.below(self.lines.len())];
                    let from = input.below(other.len());
                    let part = other[from..(from + input.below(40)).min(other.len())].to_vec();
                    line.splice(at..at, part);
                }
            }
        }
        line
    }
}

/// Another number in the place of one.
fn digits(line: &mut Vec<u8>, at: usize, input: &mut Input<'_>) {
    let Some(start) = line[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let length = line[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = input.pick(&[0, 1, u64::from(u16::MAX) + 1, u64::from(u32::MAX) + 1, i64::MAX as u64 + 1, u64::MAX]);
    line.splice(start..start + length, number.to_string().into_bytes());
}
