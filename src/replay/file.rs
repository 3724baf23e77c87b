//! A recording's file, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::plugin::{Head, Line, VERSION};

/// A line's bytes, at most: twice what may wait to be written.
const LINE: u64 = 16 << 20;

/// A recording, a plugin or a configuration that no replay can be made with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// A recording that is being read.
pub struct Recording {
    file: PathBuf,
    reader: BufReader<File>,
    number: usize,
    /// Whether a line that was cut off is the end of it.
    partial: bool,
    pub head: Box<Head>,
}

impl Recording {
    pub fn open(file: &Path, partial: bool) -> Result<Self, Unusable> {
        let opened =
            File::open(file).map_err(|error| Unusable(format!("{} cannot be read: {error}", file.display())))?;
        let mut reader = BufReader::new(opened);
        let none = |why: &str| Unusable(format!("{} is no recording: {why}", file.display()));
        let line = match read(&mut reader) {
            Ok(Some(Read::Whole(line))) => line,
            Ok(None) => return Err(none("it is empty")),
            Ok(Some(Read::Cut)) => return Err(none("its first line does not end")),
            Err(why) => return Err(none(&why)),
        };
        let version = serde_json::from_slice::<serde_json::Value>(&line)
            .ok()
            .and_then(|line| line.get("tidegate-recording")?.get("version")?.as_u64());
        match version {
            None => return Err(none("its first line does not say `tidegate-recording`")),
            Some(version) if version != u64::from(VERSION) => {
                return Err(Unusable(format!(
                    "{}: the recording has the form {version}, and this gateway reads {VERSION}: use the gateway's \
                     version that made it",
                    file.display()
                )));
            }
            Some(_) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Head(head)) => Ok(Self { file: file.to_owned(), reader, number: 1, partial, head }),
            Ok(_) => Err(none("it does not begin with its first line")),
            Err(error) => Err(none(&format!("its first line: {error}"))),
        }
    }

    /// The next line with its number.
    pub fn next(&mut self) -> Result<Option<(usize, Line)>, Unusable> {
        self.number += 1;
        let line = match read(&mut self.reader) {
            Ok(None) => return Ok(None),
            Ok(Some(Read::Whole(line))) => line,
            Ok(Some(Read::Cut)) if self.partial => return Ok(None),
            Ok(Some(Read::Cut)) => {
                return Err(self.wrong(
                    "the file ends in the middle of this line: copy it again, or replay what there is with --partial",
                ));
            }
            Err(why) => return Err(self.wrong(&why)),
        };
        let line =
            serde_json::from_slice(&line).map_err(|error| self.wrong(&format!("no line of a recording: {error}")))?;
        if matches!(line, Line::Head(_)) {
            return Err(self.wrong("another recording begins here: keep each in a file of its own"));
        }
        Ok(Some((self.number, line)))
    }

    /// What is wrong with the line that was read last.
    pub fn wrong(&self, why: &str) -> Unusable {
        Unusable(format!("{}:{}: {why}", self.file.display(), self.number))
    }
}

enum Read {
    Whole(Vec<u8>),
    /// It has no end.
    Cut,
}

fn read(reader: &mut BufReader<File>) -> Result<Option<Read>, String> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Read::Whole(line))),
        Some(_) if line.len() as u64 + 1 >= LINE => Err(format!("a line with more than {LINE} bytes")),
        Some(_) => Ok(Some(Read::Cut)),
    }
}
