//! The OpenMetrics text format, read strictly: whatever is not exactly so fails the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use super::{PATIENCE, http};

/// What the suffixes of a type's samples are.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "gauge" => &[""],
        "counter" => &["_total"],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("a type of metric that is not used: {other}"),
    }
}

/// A page of figures.
#[derive(Debug, Default)]
pub struct Figures {
    /// The families by name: their types.
    pub types: BTreeMap<String, String>,
    /// Which labels occur in a family's samples.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// Samples by name and labels, as they are written.
    samples: BTreeMap<String, f64>,
}

impl Figures {
    pub fn scrape(addr: SocketAddr) -> Self {
        let accept = "Accept: application/openmetrics-text;version=1.0.0\r\n";
        let page = http::get_with(addr, "/metrics", accept);
        assert_eq!(page.status, 200);
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(
            page.head.to_ascii_lowercase().contains(kind),
            "{}",
            page.head
        );
        Self::parse(&page.body)
    }

    /// Scrapes until `found`: what it counts may be on its way.
    pub fn when(addr: SocketAddr, found: impl Fn(&Self) -> bool) -> Self {
        let begun = Instant::now();
        loop {
            let figures = Self::scrape(addr);
            if found(&figures) {
                return figures;
            }
            assert!(begun.elapsed() < PATIENCE, "it never is so: {figures:#?}");
        }
    }

    pub fn parse(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("ends with # EOF");
        let mut figures = Self::default();
        let mut family: Option<(String, bool)> = None;
        for line in text.split_terminator('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty(), "{line}");
                family = Some((name.to_owned(), false));
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                let (described, typed) = family.as_mut().expect("HELP comes first");
                assert!(described == name && !*typed, "{line}");
                *typed = true;
                suffixes(kind);
                let before = figures.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "a family stands together: {line}");
            } else {
                let (name, typed) = family.as_ref().expect("a sample has a family");
                assert!(typed, "{line}");
                figures.sample(name, line);
            }
        }
        figures.check_histograms();
        figures
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        let suffix = name.strip_prefix(family).expect(line);
        let kind = &self.types[family];
        assert!(is_name(name) && suffixes(kind).contains(&suffix), "{line}");
        let known = self.labels.entry(family.to_owned()).or_default();
        for label in labels.split_terminator(',') {
            let (name, value) = label.split_once('=').expect(line);
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = value.expect(line);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
            assert!(is_name(name) && value.bytes().all(plain), "{line}");
            known.insert(name.to_owned());
        }
        let value: f64 = value.parse().expect(line);
        assert!(
            value.is_finite() && (kind == "gauge" || value >= 0.0),
            "{line}"
        );
        let before = self.samples.insert(series.to_owned(), value);
        assert_eq!(before, None, "twice: {line}");
    }

    /// Buckets are cumulative, and the last one has them all.
    fn check_histograms(&self) {
        for (family, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let prefix = format!("{family}_bucket{{le=\"");
            let mut buckets: Vec<(f64, f64)> = self
                .samples
                .iter()
                .filter_map(|(series, count)| {
                    let bound = series.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                    let bound = match bound {
                        "+Inf" => f64::INFINITY,
                        bound => bound.parse().unwrap(),
                    };
                    Some((bound, *count))
                })
                .collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
            let all = self[&format!("{family}_count")];
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, all)), "{family}");
        }
    }

    /// The value of a series, if it is there.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// All series of a family that are not 0.
    pub fn of(&self, family: &str) -> BTreeMap<&str, f64> {
        self.samples
            .iter()
            .filter(|(_, value)| **value != 0.0)
            .filter_map(|(series, value)| {
                let name = series.split('{').next()?;
                let suffix = name.strip_prefix(family)?;
                let kind = self.types.get(family)?;
                suffixes(kind)
                    .contains(&suffix)
                    .then_some((series.strip_prefix(name)?, *value))
            })
            .collect()
    }
}

impl std::ops::Index<&String> for Figures {
    type Output = f64;

    fn index(&self, series: &String) -> &f64 {
        &self[series.as_str()]
    }
}

impl std::ops::Index<&str> for Figures {
    type Output = f64;

    fn index(&self, series: &str) -> &f64 {
        let sample = self.samples.get(series);
        sample.unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}
