//! What `cargo xtask bench` runs: the goals' rows, measured in rounds beside baselines that are measured in the same rounds. Its
//! other two commands are those baselines.

mod bare;
mod floor;
mod goals;
mod measure;
mod noise;
mod plan;
mod plot;
mod report;
mod rows;
mod server;
mod stalled;
mod tls;

use std::{
    env, fs,
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use plan::Options;
use plot::{Curve, Group};
use report::{Measured, Report};
use rows::{Metric, Sample, Work};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    let first = arguments.peek().and_then(|word| word.to_str()).unwrap_or_default();
    let done = match first {
        "floor" => listen(arguments.skip(1)).and_then(floor::serve),
        "bare" => listen(arguments.skip(1)).and_then(bare::serve),
        _ => match plan::parse(lexopt::Parser::from_env()) {
            Ok(options) => run(&options),
            Err(error) => Err(error.into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--listen ADDRESS`, and nothing else.
fn listen(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<SocketAddr> {
    ensure!(arguments.next().is_some_and(|word| word == "--listen"), "--listen ADDRESS is missing");
    let address = arguments.next().context("--listen needs an address")?;
    address.to_string_lossy().parse().context("--listen: no address")
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&stop)).context("signals cannot be watched")?;
    }
    fs::create_dir_all(&options.folder).with_context(|| format!("{} cannot be made", options.folder.display()))?;
    let absolute = |path: &std::path::Path, what: &str| {
        fs::canonicalize(path).with_context(|| format!("{what} {}", path.display()))
    };
    let mut place = server::Place {
        gateway: absolute(&options.gateway, "the gateway")?,
        plugins: absolute(&options.plugins, "the plugins")?,
        folder: absolute(&options.folder, "the folder")?,
        processor: None,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    place.take_apart()?;
    if place.processor.is_none() {
        println!("servers and clients share the processors: there is one, or no `taskset`");
    }
    let mut measured: Vec<Measured> = rows::rows(options)
        .into_iter()
        .map(|row| {
            let by = row.who.iter().map(|who| (who.clone(), Vec::new())).collect();
            Measured { row, by }
        })
        .collect();
    let mut bench = measure::Bench::start(options, &place)?;
    for round in 1..=options.rounds {
        for Measured { row, by } in &mut measured {
            for (who, samples) in by {
                ensure!(!stop.load(Ordering::Relaxed), "told to end; everything that was started has ended");
                let sample = match bench.measure(row, who) {
                    Ok(sample) => sample,
                    Err(error) => bail!("row `{}`, {who}: {error:#}", row.name),
                };
                println!("round {round}/{}  {:<14} {who:<16} {}", options.rounds, row.name, told(row, &sample));
                samples.push(sample);
            }
        }
    }
    drop(bench);
    let report =
        Report { measured, load_average: noise::load_average(), processors, pinned: place.processor.is_some() };
    let plots = draw(&report, &place.folder)?;
    let text = report.markdown(&plots);
    fs::write(place.folder.join("report.md"), &text)?;
    fs::write(place.folder.join("report.json"), format!("{:#}\n", report.json()))?;
    print!("\n{text}");
    println!(
        "\nIn {:.0} s. This report, its plots and report.json: {}",
        begun.elapsed().as_secs_f64(),
        place.folder.display()
    );
    Ok(())
}

/// One sample in a line.
fn told(row: &rows::Row, sample: &Sample) -> String {
    let metrics = row.metrics().iter().filter_map(|metric| Some((metric, sample.values.get(metric)?)));
    let mut parts: Vec<_> =
        metrics.map(|(metric, value)| format!("{} {}", report::digits(*value), metric.name())).collect();
    if sample.others.are_audible() {
        parts.push(format!("NOISY: others took {:.2} CPU", sample.others.processors));
    }
    parts.extend(sample.trouble.clone());
    parts.join("   ")
}

/// Writes the plots, and says what they are called.
fn draw(report: &Report, folder: &std::path::Path) -> Result<Vec<String>> {
    let mut plots = Vec::new();
    let mut write = |name: String, svg: Option<String>| {
        if let Some(svg) = svg {
            fs::write(folder.join(&name), svg).with_context(|| format!("{name} cannot be written"))?;
            plots.push(name);
        }
        anyhow::Ok(())
    };
    let mut groups = Vec::new();
    for measured in &report.measured {
        let curve = |(who, _): &(String, Vec<Sample>)| {
            let histogram = measured.latency(who)?;
            let points =
                histogram.iter_quantiles(4).map(|step| (step.quantile(), step.value_iterated_to() as f64 / 1e3));
            Some(Curve { name: who.clone(), points: points.filter(|(share, _)| *share <= 0.9999).collect() })
        };
        let curves: Vec<_> = measured.by.iter().filter_map(curve).collect();
        write(format!("latency-{}.svg", measured.row.name), plot::latencies(&measured.row.title(), &curves))?;
        if matches!(measured.row.work, Work::Echo { .. } | Work::Fanout { .. }) {
            let bar = |(who, _): &(String, Vec<Sample>)| Some((who.clone(), measured.median(who, Metric::Cpu)?));
            groups.push(Group { name: measured.row.title(), bars: measured.by.iter().filter_map(bar).collect() });
        }
    }
    write(
        "cpu.svg".to_owned(),
        plot::bars("Server CPU time", "µs for a message and its answer, or for a delivery", &groups),
    )?;
    Ok(plots)
}
