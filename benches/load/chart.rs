//! Latency against load, drawn: one panel a workload, both axes logarithmic.

use std::fmt::Write;

use super::{flags::Workload, outcome::Outcome};

/// The lines of a panel: quantile, name, colour. The colours can be told apart by everybody.
const LINES: [(f64, &str, &str); 3] = [
    (0.5, "p50", "#0072b2"),
    (0.99, "p99", "#e69f00"),
    (0.999, "p99.9", "#d55e00"),
];

const PANEL_WIDTH: f64 = 380.0;
const PANEL_HEIGHT: f64 = 300.0;
const GAP: f64 = 36.0;
const LEFT: f64 = 74.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 64.0;
const RIGHT: f64 = 28.0;

/// How late deliveries were at each load of one workload.
#[derive(Debug)]
pub(crate) struct Curve {
    workload: Workload,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    /// Deliveries a second.
    offered: f64,
    delivered: f64,
    /// In milliseconds, in the order of [`LINES`].
    latency: [f64; 3],
}

impl Curve {
    pub(crate) fn new(workload: Workload) -> Self {
        Self {
            workload,
            points: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, offered: f64, outcome: &Outcome) {
        self.points.push(Point {
            offered,
            delivered: outcome.deliveries_a_second,
            latency: LINES.map(|(quantile, ..)| outcome.quantile(quantile)),
        });
    }

    fn title(&self) -> (&'static str, &'static str) {
        match self.workload {
            Workload::FanoutSmall => ("fanout-small", "200 rooms × 10 members, 1 speaks"),
            Workload::FanoutLarge => ("fanout-large", "5 rooms × 400 members, 1 speaks"),
            Workload::Meeting => ("meeting", "500 rooms × 4 members, all speak"),
            other => (other.name(), ""),
        }
    }
}

/// A logarithmic axis: from a power of ten to a power of ten.
#[derive(Clone, Copy, Debug)]
struct Axis {
    low: i32,
    high: i32,
    begin: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, begin: f64, end: f64) -> Self {
        let positive = values.filter(|value| *value > 0.0 && value.is_finite());
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(f64::MIN_POSITIVE, f64::max);
        let low = if low.is_finite() { low } else { 1.0 };
        let low = low.log10().floor() as i32;
        Self {
            low,
            high: (high.log10().ceil() as i32).max(low + 1),
            begin,
            end,
        }
    }

    fn at(self, value: f64) -> f64 {
        let floor = 10f64.powi(self.low);
        let part =
            (value.max(floor).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.begin + part * (self.end - self.begin)
    }

    /// Where a line is, and whether it is a power of ten.
    fn lines(self) -> impl Iterator<Item = (f64, bool)> {
        let within =
            move |power: i32| (1..10).map(move |n| (f64::from(n) * 10f64.powi(power), n == 1));
        let last = (10f64.powi(self.high), true);
        (self.low..self.high).flat_map(within).chain([last])
    }
}

/// The chart as SVG; `machine` says how it was measured.
pub(crate) fn draw(curves: &[Curve], machine: &str) -> String {
    let panels = curves.len().max(1) as f64;
    let width = LEFT + panels * PANEL_WIDTH + (panels - 1.0) * GAP + RIGHT;
    let height = TOP + PANEL_HEIGHT + BOTTOM;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let latencies = points().flat_map(|point| point.latency);
    let y = Axis::over(latencies, TOP + PANEL_HEIGHT, TOP);
    let mut svg = Svg(String::new());
    svg.put(format_args!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="Inter, 'Helvetica Neue', Arial, sans-serif" font-size="12" fill="#374151">
<rect width="100%" height="100%" fill="#fcfcfb"/>"##
    ));
    svg.text(
        LEFT,
        34.0,
        "start",
        r##"font-size="18" font-weight="600" fill="#111827""##,
        "How late events are delivered",
    );
    svg.text(
        LEFT,
        54.0,
        "start",
        r##"fill="#6b7280""##,
        &format!("from when a broadcast was due to its receipt by another member; {machine}"),
    );
    legend(&mut svg, width - RIGHT);
    let middle = TOP + PANEL_HEIGHT / 2.0;
    let turned = format!(r#"transform="rotate(-90 22 {middle})""#);
    svg.text(22.0, middle, "middle", &turned, "latency");
    for (n, curve) in curves.iter().enumerate() {
        let left = LEFT + n as f64 * (PANEL_WIDTH + GAP);
        let offered = points().map(|point| point.offered);
        let x = Axis::over(offered, left, left + PANEL_WIDTH);
        panel(&mut svg, curve, x, y, n == 0);
    }
    svg.put(format_args!("</svg>"));
    svg.0
}

fn legend(svg: &mut Svg, right: f64) {
    for (n, (_, name, colour)) in LINES.iter().enumerate() {
        let x = right - 210.0 + 72.0 * n as f64;
        svg.put(format_args!(
            r#"<path d="M{x} 30h22" stroke="{colour}" stroke-width="2.5" stroke-linecap="round"/><circle cx="{}" cy="30" r="3.5" fill="{colour}"/>"#,
            x + 11.0
        ));
        svg.text(x + 28.0, 34.0, "start", "", name);
    }
}

fn panel(svg: &mut Svg, curve: &Curve, x: Axis, y: Axis, is_first: bool) {
    let (title, explanation) = curve.title();
    svg.text(
        x.begin,
        TOP - 26.0,
        "start",
        r##"font-size="14" font-weight="600" fill="#111827""##,
        title,
    );
    svg.text(
        x.begin,
        TOP - 10.0,
        "start",
        r##"fill="#6b7280""##,
        explanation,
    );
    grid(svg, x, y, is_first);
    let is_full = |point: &Point| point.delivered < point.offered * super::FULL;
    if curve.points.iter().any(is_full) {
        let delivered = curve.points.iter().map(|point| point.delivered);
        let most = delivered.fold(0.0, f64::max);
        let (from, width) = (x.at(most), x.end - x.at(most));
        svg.put(format_args!(
            r##"<rect x="{from:.1}" y="{TOP}" width="{width:.1}" height="{PANEL_HEIGHT}" fill="#9ca3af" fill-opacity="0.16"/>"##
        ));
        let text = format!("full: {} delivered", short(most));
        let attributes = r##"fill="#6b7280" font-size="11""##;
        let below = TOP + PANEL_HEIGHT - 9.0;
        svg.text(x.end - 8.0, below, "end", attributes, &text);
    }
    // The slowest on top of the others, where they meet.
    for (n, (_, _, colour)) in LINES.iter().enumerate() {
        let at = curve
            .points
            .iter()
            .map(|p| (x.at(p.offered), y.at(p.latency[n])));
        let path: Vec<_> = at.clone().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        svg.put(format_args!(
            r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round" stroke-linecap="round"/>"#,
            path.join("L")
        ));
        for (x, y) in at {
            svg.put(format_args!(
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}" stroke="#fcfcfb" stroke-width="1.2"/>"##
            ));
        }
    }
    let below = TOP + PANEL_HEIGHT + 44.0;
    svg.text(
        (x.begin + x.end) / 2.0,
        below,
        "middle",
        "",
        "offered load, deliveries a second",
    );
}

fn grid(svg: &mut Svg, x: Axis, y: Axis, is_first: bool) {
    let stroke = |is_power| if is_power { "#d1d5db" } else { "#eef0f2" };
    for (value, is_power) in y.lines() {
        let (at, colour) = (y.at(value), stroke(is_power));
        svg.put(format_args!(
            r#"<path d="M{:.1} {at:.1}H{:.1}" stroke="{colour}"/>"#,
            x.begin, x.end
        ));
        if is_power && is_first {
            svg.text(x.begin - 10.0, at + 4.0, "end", "", &millis(value));
        }
    }
    for (value, is_power) in x.lines() {
        let (at, colour) = (x.at(value), stroke(is_power));
        svg.put(format_args!(
            r#"<path d="M{at:.1} {TOP}V{:.1}" stroke="{colour}"/>"#,
            TOP + PANEL_HEIGHT
        ));
        if is_power {
            svg.text(at, TOP + PANEL_HEIGHT + 20.0, "middle", "", &short(value));
        }
    }
    svg.put(format_args!(
        r##"<rect x="{:.1}" y="{TOP}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="none" stroke="#9ca3af"/>"##,
        x.begin
    ));
}

/// Milliseconds, in the unit that fits.
fn millis(value: f64) -> String {
    match value {
        ..0.999 => format!("{:.0} µs", value * 1e3),
        0.999..999.0 => format!("{value:.0} ms"),
        _ => format!("{:.0} s", value / 1e3),
    }
}

fn short(value: f64) -> String {
    match value {
        ..999.0 => format!("{value:.0}"),
        999.0..999_500.0 => format!("{:.0}k", value / 1e3),
        _ => format!("{}M", value / 1e6),
    }
}

struct Svg(String);

impl Svg {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.0, "{element}");
    }

    /// None of the texts has anything that would need escaping.
    fn text(&mut self, x: f64, y: f64, anchor: &str, attributes: &str, text: &str) {
        self.put(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {attributes}>{text}</text>"#
        ));
    }
}
