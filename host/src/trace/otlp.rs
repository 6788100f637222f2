//! Spans as OTLP has them (opentelemetry-proto 1.x, `ExportTraceServiceRequest`),
//! in protobuf and in JSON.
//!
//! Two dozen fields are written here; a protobuf library and its generated types
//! would weigh more than all of the exporter.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::export::Span;

/// `SPAN_KIND_SERVER`.
const SERVER: u64 = 2;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// The instrumentation scope's name.
const SCOPE: &str = "wharf-host";

/// A value of an attribute.
enum Attribute<'a> {
    Text(Cow<'a, str>),
    Number(i64),
}

impl Span {
    /// By OpenTelemetry's conventions for HTTP servers.
    fn name(&self) -> String {
        match self.route() {
            Some(route) => format!("{} {route}", self.method()),
            None => self.method().to_owned(),
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute<'_>)> {
        let text = |text: &'static str| Attribute::Text(text.into());
        let mut all = vec![
            ("http.request.method", Attribute::Text(self.method().into())),
            ("http.response.status_code", Attribute::Number(self.status.into())),
            ("http.response.body.size", Attribute::Number(i64::try_from(self.bytes).unwrap_or(i64::MAX))),
            ("url.path", Attribute::Text(self.path.as_str().into())),
            ("url.scheme", text(self.scheme)),
            ("network.protocol.name", text("http")),
            ("network.protocol.version", text(self.version)),
            ("wharf.request.id", Attribute::Text(self.request_id.as_str().into())),
        ];
        if let Some(address) = self.client {
            all.push(("client.address", Attribute::Text(address.to_string().into())));
        }
        if let Some(agent) = &self.user_agent {
            all.push(("user_agent.original", Attribute::Text(agent.as_str().into())));
        }
        if let Some(route) = self.route() {
            all.push(("http.route", Attribute::Text(route.into())));
        }
        if self.status >= 500 {
            all.push(("error.type", Attribute::Text(self.status.to_string().into())));
        }
        all
    }
}

/// Protobuf's wire format: what is needed of it.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn attribute(&mut self, field: u64, key: &str, value: &Attribute<'_>) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| match value {
                Attribute::Text(text) => any.bytes(1, text.as_bytes()),
                Attribute::Number(number) => any.number(3, *number as u64),
            });
        });
    }
}

/// An export in protobuf.
pub(super) fn protobuf(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| {
            for (key, value) in resource {
                message.attribute(1, key, &Attribute::Text(value.as_str().into()));
            }
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.bytes(1, SCOPE.as_bytes());
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for span in spans {
                scope_spans.message(2, |message| write_span(message, span));
            }
        });
    });
    request.0
}

fn write_span(message: &mut Message, span: &Span) {
    message.bytes(1, &span.context.trace.to_be_bytes());
    message.bytes(2, &span.context.span.to_be_bytes());
    if let Some(state) = &span.state {
        message.bytes(3, state.as_bytes());
    }
    if let Some(parent) = span.context.parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.bytes(5, span.name().as_bytes());
    message.number(6, SERVER);
    message.fixed64(7, span.start());
    message.fixed64(8, span.end());
    for (key, value) in span.attributes() {
        message.attribute(9, key, &value);
    }
    if span.status >= 500 {
        message.message(15, |status| status.number(3, ERROR));
    }
    message.fixed32(16, span.context.flags.into());
}

/// An export in JSON: camel case, ids in hex, 64-bit numbers as text.
pub(super) fn json(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let resource: Vec<Value> = resource.iter().map(|(key, value)| text(key, value)).collect();
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| {
            let attributes = span.attributes().into_iter().map(|(key, value)| match value {
                Attribute::Text(value) => text(key, &value),
                Attribute::Number(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
            });
            let mut value = json!({
                "traceId": format!("{:032x}", span.context.trace),
                "spanId": format!("{:016x}", span.context.span),
                "name": span.name(),
                "kind": SERVER,
                "startTimeUnixNano": span.start().to_string(),
                "endTimeUnixNano": span.end().to_string(),
                "attributes": attributes.collect::<Vec<_>>(),
                "status": if span.status >= 500 { json!({"code": ERROR}) } else { json!({}) },
                "flags": span.context.flags,
            });
            if let Some(parent) = span.context.parent {
                value["parentSpanId"] = format!("{parent:016x}").into();
            }
            if let Some(state) = &span.state {
                value["traceState"] = state.as_str().into();
            }
            value
        })
        .collect();
    let scope = json!({"name": SCOPE, "version": env!("CARGO_PKG_VERSION")});
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]});
    request.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
