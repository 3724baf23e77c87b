//! What the suite says of each case, counted by group and behaviour.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::suite::Suite;
use crate::process;

/// Behaviours that are as the RFC wants them, or about which it says nothing. All others are failures, also
/// UNIMPLEMENTED: each case asks for what the gateway does.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

/// The report is JSON, which the suite's own Python reads; this is what it prints of it.
const PRINT: &str = "
import json, sys
for cases in json.load(open(sys.argv[1])).values():
    for name, case in cases.items():
        print('\\t'.join([name, case['behavior'], case['behaviorClose'], str(case['remoteCloseCode'])]))
";

#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    behaviour: String,
    closing: String,
    code: String,
}

impl Case {
    /// The numbers of its name, `9.3.12`, which it is sorted by.
    fn numbers(&self) -> Vec<u32> {
        self.name.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect()
    }

    fn failed(&self) -> bool {
        [&self.behaviour, &self.closing].iter().any(|behaviour| !GOOD.contains(&behaviour.as_str()))
    }
}

#[derive(Debug)]
pub(super) struct Verdicts(Vec<Case>);

impl Verdicts {
    pub(super) fn read(suite: &Suite, index: &Path) -> Result<Self> {
        let mut python = suite.python();
        Self::parse(&process::answer(python.args(["-c", PRINT]).arg(index)).context("there is no report of the suite")?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut cases = Vec::new();
        for line in text.lines() {
            let [name, behaviour, closing, code] = line.split('\t').collect::<Vec<_>>()[..] else {
                bail!("the suite's report says something else than a case: {line:?}");
            };
            let [name, behaviour, closing, code] = [name, behaviour, closing, code].map(str::to_owned);
            cases.push(Case { name, behaviour, closing, code });
        }
        cases.sort_by_key(Case::numbers);
        Ok(Self(cases))
    }

    /// Cases of each group by behaviour, and of all.
    pub(super) fn table(&self) -> String {
        let mut groups: BTreeMap<u32, BTreeMap<&str, usize>> = BTreeMap::new();
        for case in &self.0 {
            let group = case.numbers()[0];
            *groups.entry(group).or_default().entry(case.behaviour.as_str()).or_default() += 1;
        }
        let behaviours: BTreeSet<_> = groups.values().flat_map(BTreeMap::keys).copied().collect();
        let good = GOOD.into_iter().filter(|good| behaviours.contains(good));
        let behaviours: Vec<_> = good.chain(behaviours.iter().copied().filter(|one| !GOOD.contains(one))).collect();
        let mut table = format!("{:18}", "group");
        let row = |table: &mut String, head: &str, count: &dyn Fn(&str) -> usize| {
            let cells: Vec<_> = behaviours.iter().map(|behaviour| format!("{:>16}", count(behaviour))).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{head:18}{}", cells.concat());
        };
        let heads: Vec<_> = behaviours.iter().map(|behaviour| format!("{behaviour:>16}")).collect();
        let _ = writeln!(table, "{}", heads.concat());
        for (group, counts) in &groups {
            let head = format!("{group} {}", told(*group));
            row(&mut table, head.trim_end(), &|behaviour| counts.get(behaviour).copied().unwrap_or_default());
        }
        row(&mut table, "all", &|behaviour| self.0.iter().filter(|case| case.behaviour == behaviour).count());
        table
    }

    /// An error that names what has failed.
    pub(super) fn judge(&self, expected: usize) -> Result<()> {
        let failed: Vec<_> = self.0.iter().filter(|case| case.failed()).collect();
        for Case { name, behaviour, closing, code } in &failed {
            println!("FAILED   case {name}: {behaviour}, closing: {closing} (code {code})");
        }
        if !failed.is_empty() {
            let names: Vec<_> = failed.iter().map(|case| case.name.as_str()).collect();
            bail!("{} of {} cases failed: {}", failed.len(), self.0.len(), names.join(", "));
        }
        if self.0.len() != expected {
            bail!("{} cases were asked, and {expected} should have been", self.0.len());
        }
        Ok(())
    }
}

fn told(group: u32) -> &'static str {
    match group {
        1 => "framing",
        2 => "pings and pongs",
        3 => "reserved bits",
        4 => "opcodes",
        5 => "fragments",
        6 => "UTF-8",
        7 => "closing",
        9 => "limits",
        10 => "chops",
        12 => "compression",
        13 => "its parameters",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_by_group_and_behaviour() {
        let text = "10.1.1\tOK\tOK\t1000\n9.2.1\tOK\tOK\t1000\n6.4.1\tNON-STRICT\tOK\t1007\n6.1.1\tOK\tOK\t1000";
        let verdicts = Verdicts::parse(text).unwrap();
        let table: Vec<Vec<_>> =
            verdicts.table().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        assert_eq!(table[0], ["group", "OK", "NON-STRICT"]);
        assert_eq!(table[1], ["6", "UTF-8", "1", "1"]);
        assert_eq!(table[2], ["9", "limits", "1", "0"]);
        assert_eq!(table[3], ["10", "chops", "1", "0"]);
        assert_eq!(table[4], ["all", "3", "1"]);
        verdicts.judge(4).unwrap();
        let error = verdicts.judge(5).unwrap_err().to_string();
        assert!(error.contains("4 cases were asked, and 5"), "{error}");
    }

    #[test]
    fn what_is_not_good_fails_and_is_named() {
        for bad in ["FAILED", "UNIMPLEMENTED", "WRONG CODE", "SOMETHING NEW"] {
            let text = format!("1.1.1\tOK\tOK\t1000\n12.1.1\t{bad}\tOK\tNone\n7.1.1\tOK\t{bad}\t1006");
            let error = Verdicts::parse(&text).unwrap().judge(3).unwrap_err().to_string();
            assert_eq!(error, "2 of 3 cases failed: 7.1.1, 12.1.1");
        }
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(Verdicts::parse("Traceback (most recent call last):").is_err());
        assert!(Verdicts::parse("").unwrap().judge(255).is_err());
    }
}
