//! What was measured: histograms, a table for people, JSON for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// What every scenario's first CPU figure begins with.
const CPU: &str = "CPU";

/// Figures that say something went wrong.
pub(crate) const FAULTS: [&str; 5] = ["lost deliveries", "repeated", "out of order", "refused", "never settled"];

/// Each power of two is cut into this many buckets, so that a quantile is off by at most 1.6 %.
const STEPS: u64 = 64;

/// Durations in buckets that grow with their size: a hundred million of them in a few kilobytes.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, us: u64) {
        let bucket = Self::bucket(us);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The duration that `fraction` of all are not above, in ms.
    pub(crate) fn quantile_ms(&self, fraction: f64) -> f64 {
        let wanted = ((self.count as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Self::lower_bound(bucket as u64) as f64 / 1e3;
            }
        }
        f64::NAN
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max_ms(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.max_us as f64 / 1e3 }
    }

    fn bucket(us: u64) -> usize {
        if us < STEPS {
            return us as usize;
        }
        let shift = us.ilog2() - STEPS.ilog2();
        (u64::from(shift) * STEPS + (us >> shift)) as usize
    }

    fn lower_bound(bucket: u64) -> u64 {
        if bucket < 2 * STEPS {
            return bucket;
        }
        let shift = bucket / STEPS - 1;
        (bucket - shift * STEPS) << shift
    }
}

/// One figure. `ratio` says whether dividing it by the bare loop's means anything.
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    ratio: bool,
}

/// What one server showed in one run.
#[derive(Default)]
pub(crate) struct Column {
    pub(crate) server: String,
    pub(crate) figures: Vec<Figure>,
}

impl Column {
    /// A figure of its own; not a number when it could not be measured.
    pub(crate) fn put(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value, ratio: false });
    }

    /// A figure that is also shown as a multiple of the bare loop's.
    pub(crate) fn put_compared(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value, ratio: true });
    }

    pub(crate) fn put_latency(&mut self, names: [&'static str; 3], histogram: &Histogram) {
        self.put(names[0], histogram.quantile_ms(0.50));
        self.put(names[1], histogram.quantile_ms(0.99));
        self.put(names[2], histogram.max_ms());
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Keeps the round that cost less CPU, and of the faults the worse.
    pub(crate) fn merge(&mut self, mut other: Self) {
        let cpu =
            |column: &Self| column.figures.iter().find(|figure| figure.name.starts_with(CPU)).map(|cpu| cpu.value);
        if cpu(&other) < cpu(self) {
            std::mem::swap(self, &mut other);
        }
        for figure in self.figures.iter_mut().filter(|figure| FAULTS.contains(&figure.name)) {
            figure.value = figure.value.max(other.value(figure.name).unwrap_or(0.0));
        }
    }

    fn is_bare(&self) -> bool {
        self.server == super::BARE
    }
}

/// All servers in one scenario.
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) columns: Vec<Column>,
}

impl Report {
    pub(crate) fn to_json(&self) -> Value {
        let servers = self.columns.iter().map(|column| {
            let figures = column.figures.iter().map(|figure| (figure.name.to_owned(), json!(figure.value)));
            (column.server.clone(), Value::Object(figures.collect::<Map<_, _>>()))
        });
        json!({ "scenario": self.scenario, "servers": Value::Object(servers.collect()) })
    }

    /// A row for each figure, a column for each server, and beside each server its multiple of the bare loop.
    pub(crate) fn to_table(&self) -> String {
        let bare = self.columns.iter().find(|column| column.is_bare());
        let mut names: Vec<&'static str> = Vec::new();
        for figure in self.columns.iter().flat_map(|column| &column.figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let compared = |column: &Column| bare.filter(|_| !column.is_bare());
        let heads = self.columns.iter().map(|column| {
            let ratio = compared(column).map_or(String::new(), |_| format!("{:>9}", "× bare"));
            format!("{:>13}{ratio}", column.server)
        });
        let mut lines = vec![format!("{}\n{:<38}{}", self.scenario, "", heads.collect::<String>())];
        for name in names {
            let cells = self.columns.iter().map(|column| {
                let figure = column.figures.iter().find(|figure| figure.name == name);
                let value = figure.map_or(String::new(), |figure| readable(figure.value));
                let ratio = compared(column).map_or(String::new(), |bare| {
                    let ratio = figure.filter(|figure| figure.ratio).map(|figure| figure.value);
                    let ratio = ratio.zip(bare.value(name)).map(|(value, bare)| value / bare);
                    format!("{:>9}", ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")))
                });
                format!("{value:>13}{ratio}")
            });
            lines.push(format!("  {name:<36}{}", cells.collect::<String>()));
        }
        lines.join("\n") + "\n"
    }
}

/// Three digits that count, and thousands kept apart.
fn readable(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let decimals = match value.abs() {
        0.0 => 0,
        magnitude if magnitude < 1.0 => 3,
        magnitude if magnitude < 10.0 => 2,
        magnitude if magnitude < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::{Histogram, readable};

    #[test]
    fn a_quantile_is_right_within_two_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|us| histogram.record(us));
        for fraction in [0.01, 0.5, 0.99, 1.0] {
            let (measured, exact) = (histogram.quantile_ms(fraction), 100.0 * fraction);
            assert!((measured / exact - 1.0).abs() < 0.02, "{fraction}: {measured} instead of {exact}");
        }
    }

    #[test]
    fn figures_show_the_digits_that_count() {
        let shown = [0.0, 0.0301, 8.73, 37.42, 104_725.3, 1_000_000.0, -1234.5, f64::NAN].map(readable);
        assert_eq!(shown, ["0", "0.030", "8.73", "37.4", "104,725", "1,000,000", "-1,234", "-"]);
    }
}
