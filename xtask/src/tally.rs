//! Counts tests in what `cargo test` prints.

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: Vec<String>,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Takes one line of output into account.
    pub(crate) fn see(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(skipped) = line.strip_prefix("SKIPPED ") {
            self.ignored.push(skipped.to_owned());
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.failures.push(name.to_owned());
            } else if let Some((name, _)) = test.split_once(" ... ignored") {
                self.ignored.push(name.to_owned());
            }
        }
    }
}

/// The number before a word: `ok. 12 passed; 0 failed; 1 ignored; …`.
fn count(counts: &str, word: &str) -> usize {
    let mut words = counts.split([' ', ';']).filter(|part| !part.is_empty());
    let mut before = "";
    words
        .find_map(|part| {
            if part == word {
                before.parse().ok()
            } else {
                before = part;
                None
            }
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_binaries_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test outbox::tests::drops_the_oldest ... ok",
            "test hub::tests::orders ... FAILED",
            "test slow ... ignored, takes an hour",
            "SKIPPED a peer: npm install ws",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        ] {
            tally.see(line);
        }
        assert_eq!((tally.passed, tally.failed), (41, 1));
        assert_eq!(tally.failures, ["hub::tests::orders"]);
        assert_eq!(tally.ignored, ["slow", "a peer: npm install ws"]);
    }
}
