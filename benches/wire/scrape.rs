//! The server's own figures, from its /metrics.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::net::TcpStream;

/// Samples by name and labels, as they are written: `meeting_server_objects{kind="room"}`.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Asks the server at its `ops` address.
    pub async fn scrape(ops: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(ops).await?;
        // OpenMetrics ends with a mark, so that half a page is not taken for a whole one.
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {ops}\r\nAccept: application/openmetrics-text\r\n\
             Connection: close\r\n\r\n"
        );
        let mut unsent = request.as_bytes();
        while !unsent.is_empty() {
            stream.writable().await?;
            match stream.try_write(unsent) {
                Ok(n) => unsent = &unsent[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        let mut page = Vec::new();
        loop {
            stream.readable().await?;
            page.reserve(16 * 1024);
            match stream.try_read_buf(&mut page) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        let page = String::from_utf8_lossy(&page);
        if !page.starts_with("HTTP/1.1 200 ") || !page.contains("# EOF") {
            return Err(io::Error::other(format!("no figures: {page}")));
        }
        let samples = page
            .lines()
            .filter(|line| line.starts_with("meeting_server_"));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(Self(samples.filter_map(sample).collect()))
    }

    /// One of them, without the prefix that all have; `None`: it is not there.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(&format!("meeting_server_{series}")).copied()
    }

    /// All series of a family, by their labels.
    pub fn of(&self, family: &str) -> Vec<(&str, f64)> {
        let prefix = format!("meeting_server_{family}{{");
        let mut all = Vec::new();
        for (name, value) in &self.0 {
            let labels = name.strip_prefix(&prefix);
            all.extend(labels.map(|labels| (labels.trim_end_matches('}'), *value)));
        }
        all
    }

    /// The upper bound of the bucket in which a quantile of a histogram is.
    pub fn quantile(&self, family: &str, quantile: f64) -> f64 {
        let bound = |labels: &str| match labels.trim_start_matches("le=").trim_matches('"') {
            "+Inf" => Some(f64::INFINITY),
            bound => bound.parse().ok(),
        };
        let series = self.of(&format!("{family}_bucket"));
        let mut buckets: Vec<(f64, f64)> = series
            .into_iter()
            .filter_map(|(labels, count)| Some((bound(labels)?, count)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = buckets.last().map_or(0.0, |(_, count)| *count);
        let found = buckets.iter().find(|(_, count)| *count >= all * quantile);
        found.map_or(f64::NAN, |(bound, _)| *bound)
    }
}
