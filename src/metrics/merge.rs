//! The families of several registries as one.

use std::collections::BTreeMap;

use prometheus::Registry;
use prometheus::proto::{Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

/// What the registries have gathered, in the order in which one registry gathers. What several of them have is added up.
///
/// Registries of one family must have the same children of it, or none: a registry gives its children in the order of
/// their labels.
pub(super) fn gather<'a>(registries: impl IntoIterator<Item = &'a Registry>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for family in registries.into_iter().flat_map(Registry::gather) {
        match merged.get_mut(family.name()) {
            Some(sum) => add(sum, &family),
            None => _ = merged.insert(family.name().to_owned(), family),
        }
    }
    merged.into_values().collect()
}

fn add(sum: &mut MetricFamily, more: &MetricFamily) {
    let kind = sum.get_field_type();
    debug_assert_eq!(sum.get_metric().len(), more.get_metric().len(), "{}", more.name());
    for (sum, more) in sum.mut_metric().iter_mut().zip(more.get_metric()) {
        debug_assert_eq!(sum.get_label(), more.get_label());
        add_child(kind, sum, more);
    }
}

fn add_child(kind: MetricType, sum: &mut Metric, more: &Metric) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + more.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => sum.set_histogram(both(sum.get_histogram(), more.get_histogram())),
        MetricType::SUMMARY | MetricType::UNTYPED => debug_assert!(false, "nothing is of the type {kind:?}"),
    }
}

fn both(one: &Histogram, other: &Histogram) -> Histogram {
    let mut buckets = one.get_bucket().to_vec();
    for (sum, more) in buckets.iter_mut().zip(other.get_bucket()) {
        sum.set_cumulative_count(sum.cumulative_count() + more.cumulative_count());
    }
    let mut both = Histogram::default();
    both.set_bucket(buckets);
    both.set_sample_count(one.get_sample_count() + other.get_sample_count());
    both.set_sample_sum(one.get_sample_sum() + other.get_sample_sum());
    both
}
