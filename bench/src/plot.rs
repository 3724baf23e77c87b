//! Two kinds of plots as SVG: latencies up to the slowest of ten thousand, and CPU time as bars. Their colours follow the reader's
//! scheme, light or dark.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 58.0;
/// Okabe and Ito's, which people tell apart who see few colours; their yellow is too pale for a light page.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6bd0", "#56b4e9", "#a0792c"];
const STYLE: &str = "<style>\
    .page{fill:#ffffff}.ink{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d1d9e0}\
    text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif}.title{font-size:16px;font-weight:600}\
    @media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#f0f6fc}.faint{fill:#9198a1}.grid{stroke:#3d444d}}\
    </style>";

/// A name, and its points: share of the messages from 0 to 1, and microseconds.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Shares that the axis names.
const SHARES: [(f64, &str); 6] =
    [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn begin(height: f64, title: &str, faint: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\
         <title>{title}</title>{STYLE}<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\
         <text class=\"ink title\" x=\"{LEFT}\" y=\"24\">{title}</text><text class=\"faint\" x=\"{LEFT}\" y=\"43\">{faint}</text>\n",
        title = escape(title),
        faint = escape(faint),
    )
}

fn text(svg: &mut String, class: &str, anchor: &str, x: f64, y: f64, what: &str) {
    // Writing to a String cannot fail.
    let what = escape(what);
    let _ = writeln!(svg, "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{what}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// Microseconds, as people say them.
fn time(us: f64) -> String {
    match us {
        0.0..1e3 => format!("{us:.0} µs"),
        1e3..1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.0} s", us / 1e6),
    }
}

/// Latency over the share of messages that were not slower: each step to the right, from 90 to 99 % and so on, is as wide as the one
/// before, so that the slowest can be seen. None where there is nothing to draw.
pub(crate) fn latencies(title: &str, curves: &[Curve]) -> Option<String> {
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|(_, us)| *us).filter(|us| *us > 0.0);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    if most <= 0.0 {
        return None;
    }
    let (bottom, top) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let (right, floor) = (WIDTH - RIGHT - 150.0, HEIGHT - BOTTOM);
    // 99.99 % are four tenfold steps.
    let x = |share: f64| LEFT + (right - LEFT) * (-(1.0 - share).max(1e-4).log10() / 4.0);
    let y = |us: f64| floor - (floor - TOP) * (us.max(1e-3).log10() - bottom) / (top - bottom);
    let mut svg = begin(HEIGHT, title, "latency; so many messages were not slower");
    let mut decade = bottom;
    while decade <= top {
        let us = 10_f64.powf(decade);
        line(&mut svg, (LEFT, y(us)), (right, y(us)));
        text(&mut svg, "faint", "end", LEFT - 8.0, y(us) + 4.0, &time(us));
        decade += 1.0;
    }
    for (share, name) in SHARES {
        line(&mut svg, (x(share), TOP), (x(share), floor));
        text(&mut svg, "faint", "middle", x(share), floor + 20.0, name);
    }
    for (number, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points: Vec<_> = curve.points.iter().map(|(share, us)| format!("{:.1},{:.1}", x(*share), y(*us))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\" points=\"{}\"/>",
            points.join(" ")
        );
        let at = TOP + 10.0 + 22.0 * number as f64;
        let _ = writeln!(
            svg,
            "<rect fill=\"{colour}\" x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\"/>",
            right + 18.0,
            at - 6.0
        );
        text(&mut svg, "ink", "start", right + 38.0, at, &curve.name);
    }
    Some(svg + "</svg>\n")
}

/// A group of bars: what they are about, and each with its name and its value.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<(String, f64)>,
}

/// Values side by side, each group on its own scale: what is compared stands together.
pub(crate) fn bars(title: &str, unit: &str, groups: &[Group]) -> Option<String> {
    const BAR: f64 = 19.0;
    let rows: usize = groups.iter().map(|group| group.bars.len() + 2).sum();
    if groups.iter().all(|group| group.bars.is_empty()) {
        return None;
    }
    let height = TOP + rows as f64 * BAR + 8.0;
    let mut svg = begin(height, title, &format!("{unit}; each group has its own scale, shorter is better"));
    let mut names: Vec<&str> = Vec::new();
    let (from, room) = (LEFT + 140.0, WIDTH - LEFT - 140.0 - RIGHT - 60.0);
    let mut y = TOP + BAR;
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        text(&mut svg, "ink", "start", LEFT, y, &group.name);
        y += 7.0;
        let most = group.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (name, value) in &group.bars {
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            let colour = COLOURS[at % COLOURS.len()];
            let length = (room * value / most).max(1.0);
            let _ = writeln!(
                svg,
                "<rect fill=\"{colour}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" rx=\"2\"/>",
                BAR - 5.0
            );
            text(&mut svg, "faint", "end", from - 10.0, y + 11.5, name);
            text(&mut svg, "ink", "start", from + length + 7.0, y + 11.5, &crate::report::digits(*value));
            y += BAR;
        }
        y += 2.0 * BAR - 7.0;
    }
    Some(svg + "</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_drawn_up_to_four_nines() {
        let points = vec![(0.0, 40.0), (0.5, 80.0), (0.99, 300.0), (0.99999, 9_000.0)];
        let curve = Curve { name: "a < b".to_owned(), points };
        let svg = latencies("Echo & more", &[curve]).unwrap();
        for part in ["99.99 %", "10 µs", "10 ms", "a &lt; b", "Echo &amp; more", "prefers-color-scheme:dark"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        // Nothing leaves the frame: what is beyond the last share ends on it.
        let right = WIDTH - RIGHT - 150.0;
        assert!(svg.contains(&format!("{right:.1},")), "{svg}");
        assert!(latencies("nothing", &[]).is_none());
    }

    #[test]
    fn the_longest_bar_fills_its_group() {
        let bar = |name: &str, value| (name.to_owned(), value);
        let groups = [Group { name: "one".to_owned(), bars: vec![bar("x", 2.0), bar("y", 4.0)] }];
        let svg = bars("CPU", "µs", &groups).unwrap();
        assert!(svg.contains("width=\"562.0\"") && svg.contains("width=\"281.0\"") && svg.contains("4.00"), "{svg}");
        assert!(bars("CPU", "µs", &[]).is_none());
    }
}
