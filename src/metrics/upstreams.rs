//! What is done about upstreams that fail: known where it is done, and shown here.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::UpstreamFigures;
use super::catalogue::Families;

/// By route.
pub(super) struct Upstreams(Mutex<Vec<Series>>);

struct Series {
    budget: IntGauge,
    breaker_open: IntGauge,
    breaker_opened: IntCounter,
    in_flight: IntGauge,
}

impl Upstreams {
    pub(super) fn new(families: &Families, routes: &[&str]) -> prometheus::Result<Self> {
        let series = routes.iter().map(|route| {
            Ok(Series {
                budget: families.budget.get_metric_with_label_values(&[*route])?,
                breaker_open: families.breaker_open.get_metric_with_label_values(&[*route])?,
                breaker_opened: families.breaker_opened.get_metric_with_label_values(&[*route])?,
                in_flight: families.upstream_in_flight.get_metric_with_label_values(&[*route])?,
            })
        });
        Ok(Self(Mutex::new(series.collect::<prometheus::Result<_>>()?)))
    }

    pub(super) fn set(&self, figures: &[UpstreamFigures]) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        // One at a time: a counter can only be told by how much it is behind.
        for (series, figures) in self.0.lock().iter().zip(figures) {
            series.budget.set(figures.budget_remaining.map_or(-1, gauge));
            series.breaker_open.set(i64::from(figures.breaker_open));
            series.breaker_opened.inc_by(figures.breaker_opened.saturating_sub(series.breaker_opened.get()));
            series.in_flight.set(gauge(figures.in_flight));
        }
    }
}
