//! Counters as Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use super::layout::{BUCKETS, CLASSES, Route};
use super::memory::Usage;
use super::{BOUNDS, Count, Failure, Metrics};
use crate::health::{Health, State};

/// Gauges of all processes together.
const GAUGES: [(Count, &str, &str); 3] = [
    (Count::Connections, "wharf_connections", "Connections open now."),
    (Count::Requests, "wharf_requests_in_flight", "Requests from their head to their response's last byte."),
    (Count::Instances, "wharf_instances", "Instances of workers now."),
];

/// Counters of all processes together that have no labels.
const COUNTERS: [(Count, &str, &str); 5] = [
    (Count::ConnectionsAccepted, "wharf_connections_accepted_total", "Connections accepted."),
    (Count::InstancesStarted, "wharf_instances_started_total", "Instances of workers started."),
    (
        Count::LogLinesDropped,
        "wharf_access_log_lines_dropped_total",
        "Access log lines that nobody read in time.",
    ),
    (Count::SpansExported, "wharf_spans_exported_total", "Spans that the collector took."),
    (Count::SpansDropped, "wharf_spans_dropped_total", "Spans that did not reach the collector."),
];

/// Why connections were refused or closed.
const CLOSED: [(Count, &str); 7] = [
    (Count::ConnectionLimit, "connections"),
    (Count::HandshakeFailed, "handshake_failed"),
    (Count::HandshakeTimeout, "handshake_timeout"),
    (Count::HeaderTimeout, "header_timeout"),
    (Count::IdleTimeout, "idle_timeout"),
    (Count::SendTimeout, "send_timeout"),
    (Count::HeaderSize, "header_size"),
];

/// Why requests failed.
const FAILED: [(Failure, &str); 6] = [
    (Failure::Trap, "trap"),
    (Failure::Timeout, "timeout"),
    (Failure::Busy, "busy"),
    (Failure::BodyTooLarge, "body_size"),
    (Failure::CutOff, "cut_off"),
    (Failure::ClientGone, "client_gone"),
];

/// The text, metric by metric.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.push(format_args!("{name} {value}\n"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}

pub(super) fn text(metrics: &Metrics, health: &Health) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    of_requests(metrics, &mut text);
    for (count, name, help) in GAUGES {
        text.single(name, "gauge", help, metrics.sum(count as usize));
    }
    for (count, name, help) in COUNTERS {
        text.single(name, "counter", help, metrics.sum(count as usize));
    }
    let name = "wharf_connections_closed_total";
    text.family(name, "counter", "Connections refused or closed by the host, by reason.");
    for (count, reason) in CLOSED {
        text.push(format_args!("{name}{{reason=\"{reason}\"}} {}\n", metrics.sum(count as usize)));
    }
    of_processes(metrics, health, &mut text);
    text.0
}

fn of_requests(metrics: &Metrics, text: &mut Text) {
    let routes: Vec<(String, Route)> = metrics
        .layout
        .routes()
        .map(|(route, name)| {
            // A worker's pattern begins with a slash, so no two have one name.
            (format!("route=\"{}\",kind=\"{}\"", label(name), route.kind()), route)
        })
        .collect();
    let sum = |route: Route, offset: usize| metrics.sum(route.base() + offset);

    let name = "wharf_requests_total";
    text.family(name, "counter", "Requests answered, by route and class of status.");
    for (labels, route) in &routes {
        for class in 0..CLASSES {
            let value = sum(*route, class);
            text.push(format_args!("{name}{{{labels},status=\"{}xx\"}} {value}\n", class + 1));
        }
    }
    let name = "wharf_request_duration_seconds";
    text.family(name, "histogram", "Time from a request's head to its response's last byte.");
    for (labels, route) in &routes {
        let mut below = 0;
        for (bucket, bound) in BOUNDS.iter().enumerate() {
            below += sum(*route, CLASSES + bucket);
            let bound = Seconds(*bound);
            text.push(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}\n"));
        }
        below += sum(*route, CLASSES + BUCKETS - 1);
        let total = Seconds(sum(*route, CLASSES + BUCKETS));
        text.push(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {below}\n"));
        text.push(format_args!("{name}_sum{{{labels}}} {total}\n{name}_count{{{labels}}} {below}\n"));
    }
    let name = "wharf_response_body_bytes_total";
    text.family(name, "counter", "Bytes of response bodies, as sent.");
    for (labels, route) in &routes {
        text.push(format_args!("{name}{{{labels}}} {}\n", sum(*route, CLASSES + BUCKETS + 1)));
    }
    let name = "wharf_request_failures_total";
    text.family(
        name,
        "counter",
        "Requests that failed, by route and reason: traps, limits, broken connections.",
    );
    for (labels, route) in &routes {
        for (failure, reason) in FAILED {
            let value = sum(*route, CLASSES + BUCKETS + 2 + failure as usize);
            text.push(format_args!("{name}{{{labels},reason=\"{reason}\"}} {value}\n"));
        }
    }
}

fn of_processes(metrics: &Metrics, health: &Health, text: &mut Text) {
    let ids = metrics.stripes().map(|stripe| stripe.word(Count::ProcessId as usize).load(Ordering::Relaxed));
    let ids: Vec<u64> = ids.filter(|id| *id != 0).collect();
    let usage = ids.iter().fold(Usage::default(), |sum, id| sum.plus(Usage::of(*id)));
    text.single("wharf_processes", "gauge", "Processes that serve.", ids.len());
    let ready = u8::from(health.state() == State::Ready);
    text.single("wharf_ready", "gauge", "1 while /readyz says so.", ready);
    let help = "Memory of all processes, shared pages counted by each of them.";
    text.single("process_resident_memory_bytes", "gauge", help, usage.resident);
    let help = "Memory of all processes, shared pages counted once.";
    text.single("wharf_proportional_memory_bytes", "gauge", help, usage.proportional);
    text.single("process_open_fds", "gauge", "Open file descriptors of all processes.", usage.descriptors);
    let cpu = Seconds(usage.ticks * 10_000);
    text.single("process_cpu_seconds_total", "counter", "CPU time of all processes.", cpu);
    let started = metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    text.single("process_start_time_seconds", "gauge", "Start, in seconds since 1970.", started);
    let name = "wharf_build_info";
    text.family(name, "gauge", "Always 1; what serves what.");
    let (version, app) = (env!("CARGO_PKG_VERSION"), label(metrics.layout.app()));
    text.push(format_args!("{name}{{version=\"{version}\",app=\"{app}\"}} 1\n"));
}

/// Microseconds, shown as seconds without what rounding would add.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A label's value, with what must be escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
