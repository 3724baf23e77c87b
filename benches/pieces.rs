//! The hot pieces by themselves, with Criterion: `cargo xtask bench --pieces`. With `--once NAME RUNS` it runs one of them and
//! nothing else, for callgrind to count its instructions.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "whoever measures wants to know at once")]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput};
use tidegate::pieces::{Piece, all};

fn pieces() -> Vec<Piece> {
    let folder = std::env::var_os("TIDEGATE_PLUGINS").map_or_else(|| PathBuf::from("target/plugins"), PathBuf::from);
    let path = folder.join("echo.wasm");
    all(&std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask plugins` builds it", path.display())))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--names", ..] => pieces().iter().for_each(|piece| println!("{}\t{}", piece.units, piece.name)),
        ["--once", name, runs, ..] => {
            let mut piece = pieces().into_iter().find(|piece| piece.name == name).expect("a piece of this name");
            for _ in 0..runs.parse().expect("how many runs") {
                black_box(&mut piece).run();
            }
        }
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for mut piece in pieces() {
                let mut group = criterion.benchmark_group(piece.name);
                group.throughput(Throughput::Elements(piece.units));
                group.bench_function("run", |bencher| bencher.iter(|| piece.run()));
                group.finish();
            }
            criterion.final_summary();
        }
    }
}
