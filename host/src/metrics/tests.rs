use std::collections::{BTreeMap, HashSet};

use wharf_app::{Limits, Manifest, Site, Worker};

use super::*;

fn layout(patterns: &[&str], processes: usize) -> Layout {
    let mut manifest = Manifest::new("a \"quoted\" app".into(), Site::default());
    for pattern in patterns {
        let mut worker: Worker =
            serde_json::from_str(r#"{"name": "w", "pattern": "", "source": "w.wasm", "component": 0}"#)
                .unwrap();
        worker.pattern = (*pattern).to_owned();
        worker.env = BTreeMap::new();
        worker.limits = Limits::default();
        manifest.workers.push(worker);
    }
    Layout::new(&manifest, processes)
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn what_all_processes_counted_is_added_up() {
    let metrics = Metrics::of_one_process(layout(&["/a", "/b"], 3));
    for (index, times) in [(0, 1), (1, 2), (2, 4)] {
        for _ in 0..times {
            let counters = metrics.process(index);
            counters.request(Route::Worker(1), 200, Duration::from_millis(3), 10);
            counters.failure(Route::Worker(1), Failure::Trap);
        }
    }
    let text = metrics.to_text(&Health::default());
    let labels = r#"route="/b",kind="worker""#;
    assert_eq!(value(&text, &format!("wharf_requests_total{{{labels},status=\"2xx\"}}")), 7.0);
    assert_eq!(value(&text, &format!("wharf_response_body_bytes_total{{{labels}}}")), 70.0);
    assert_eq!(value(&text, &format!("wharf_request_failures_total{{{labels},reason=\"trap\"}}")), 7.0);
    assert_eq!(value(&text, &format!("wharf_request_duration_seconds_sum{{{labels}}}")), 0.021);
    assert_eq!(value(&text, r#"wharf_requests_total{route="/a",kind="worker",status="2xx"}"#), 0.0);
    assert_eq!(value(&text, "wharf_processes"), 3.0);
    assert!(text.contains(r#"app="a \"quoted\" app""#), "{text}");
}

#[test]
fn no_two_counts_share_a_word() {
    let layout = layout(&["/a", "/b", "/c"], 2);
    let (stripe, words) = (layout.stripe(), layout.words());
    let metrics = Metrics::of_one_process(layout);
    let routes: Vec<Route> = metrics.layout.routes().map(|(route, _)| route).collect();
    let mut seen = HashSet::new();
    for (route, expected) in routes.iter().zip(0..) {
        assert_eq!(route.number(), expected);
        assert_eq!(Route::numbered(expected), *route);
        let end = route.base() + CLASSES + BUCKETS + 2 + FAILURES;
        assert!(end <= stripe && route.base() > Count::SpansDropped as usize);
        assert!((route.base()..end).all(|word| seen.insert(word)), "{route:?}");
    }
    assert_eq!(words, 2 * stripe);
    // The last word of the last stripe is there.
    metrics.process(1).failure(Route::Worker(2), Failure::ClientGone);
}

#[test]
fn histogram_buckets_hold_all_up_to_their_bound() {
    let metrics = Metrics::of_one_process(layout(&[], 1));
    let counters = metrics.process(0);
    for micros in [0, 100, 101, 1_000_000, 3_600_000_000] {
        counters.request(Route::Static, 304, Duration::from_micros(micros), 0);
    }
    let text = metrics.to_text(&Health::default());
    let bucket = |le: &str| {
        let labels = format!("route=\"static\",kind=\"static\",le=\"{le}\"");
        value(&text, &format!("wharf_request_duration_seconds_bucket{{{labels}}}"))
    };
    let seen = ["0.0001", "0.00025", "0.5", "1", "30", "+Inf"].map(bucket);
    assert_eq!(seen, [2.0, 3.0, 3.0, 4.0, 4.0, 5.0]);
}

#[test]
fn what_is_held_goes_with_its_holder_or_with_its_process() {
    let metrics = Metrics::of_one_process(layout(&[], 2));
    let held = metrics.process(0).hold(Count::Connections);
    std::mem::forget(metrics.process(1).hold(Count::Connections));
    assert_eq!(metrics.connections(), 2);
    drop(held);
    assert_eq!(metrics.connections(), 1);
    metrics.process_ended(1);
    assert_eq!(metrics.connections(), 0);
    assert_eq!(value(&metrics.to_text(&Health::default()), "wharf_processes"), 1.0);
}

#[test]
fn every_line_is_a_comment_or_a_name_with_a_number_and_no_series_is_twice() {
    let metrics = Metrics::of_one_process(layout(&["/x\\\"\n", "/y"], 1));
    let text = metrics.to_text(&Health::default());
    let mut seen = HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (series, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series), "{line}");
    }
    assert!(seen.len() > 150, "{}", seen.len());
}
