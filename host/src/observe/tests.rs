use std::sync::atomic::Ordering;

use http::HeaderValue;
use wharf_app::{Manifest, Site};

use super::*;
use crate::health::Health;
use crate::metrics::{Layout, Metrics};

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn metrics() -> Metrics {
    Metrics::of_one_process(Layout::new(&Manifest::new("test".into(), Site::default()), 1))
}

/// What a guest is told of a request with these headers.
fn told(trace: impl Fn(&HeaderMap) -> Option<TraceContext>, pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut request = Request::new(());
    for (name, value) in pairs {
        request.headers_mut().append(*name, HeaderValue::try_from(*value).unwrap());
    }
    let peer = Peer::Tcp("192.0.2.1:80".parse().unwrap());
    let client =
        TrustedProxies::default().client(ForwardedBy::XForwarded, peer, Secure::Tls, request.headers());
    let context = RequestContext {
        client,
        request_id: RequestId::new(),
        trace: trace(request.headers()),
        route: AtomicU32::new(0),
        counters: metrics().process(0),
    };
    context.tell(&mut request);
    assert_eq!(request.extensions().get::<Client>(), Some(context.client()));
    assert_eq!(request.headers()["x-request-id"], context.request_id().as_str());
    request.into_parts().0.headers
}

#[test]
fn a_guest_is_told_who_asks_whatever_the_client_says() {
    let headers = told(
        |_| None,
        &[("x-forwarded-for", "6.6.6.6"), ("x-request-id", "x"), ("forwarded", "for=6.6.6.6")],
    );
    assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert!(!headers.contains_key("forwarded"));
}

#[test]
fn without_an_exporter_a_callers_trace_goes_on_as_it_is() {
    let headers = told(|_| None, &[("traceparent", GIVEN), ("tracestate", "a=b")]);
    assert_eq!(
        (&headers["traceparent"], &headers["tracestate"]),
        (&HeaderValue::from_static(GIVEN), &HeaderValue::from_static("a=b"))
    );
}

#[test]
fn with_an_exporter_the_hosts_span_is_the_guests_parent() {
    let headers =
        told(|headers| Some(TraceContext::of(headers)), &[("traceparent", GIVEN), ("tracestate", "a=b")]);
    let parent = headers["traceparent"].to_str().unwrap();
    assert!(parent.starts_with(&GIVEN[..36]) && parent[36..52] != GIVEN[36..52], "{parent}");
    assert_eq!(headers["tracestate"], "a=b");
}

#[test]
fn a_malformed_trace_is_replaced_and_its_state_goes() {
    for trace in [(|_: &HeaderMap| None) as fn(&HeaderMap) -> _, |headers| Some(TraceContext::of(headers))] {
        let headers = told(trace, &[("traceparent", "00-xyz"), ("tracestate", "a=b")]);
        assert_eq!(headers["traceparent"].len(), 55);
        assert!(!headers.contains_key("tracestate"));
    }
}

#[test]
fn failures_are_counted_where_they_happened_and_a_page_of_ours_names_the_request() {
    let metrics = metrics();
    let context = RequestContext {
        client: TrustedProxies::default().client(
            ForwardedBy::XForwarded,
            Peer::Unix,
            Secure::Plain,
            &HeaderMap::new(),
        ),
        request_id: RequestId::new(),
        trace: None,
        route: AtomicU32::new(0),
        counters: metrics.process(0),
    };
    context.routed(Route::Static);
    assert_eq!(context.route.load(Ordering::Relaxed), Route::Static.number());
    context.became(&Outcome::WorkerFailed);
    context.became(&Outcome::NotFound);
    let text = metrics.to_text(&Health::default());
    let expected = "wharf_request_failures_total{route=\"static\",kind=\"static\",reason=\"trap\"} 1\n";
    assert!(text.contains(expected), "{text}");

    let mut page = Outcome::WorkerFailed.into_response(None, false);
    context.sign(&mut page);
    let length = http_body::Body::size_hint(page.body()).exact();
    assert_eq!(length, Some("500 Internal Server Error\nrequest \n".len() as u64 + 32));
}
