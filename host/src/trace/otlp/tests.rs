use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use super::*;
use crate::trace::{RequestId, TraceContext};

fn span() -> Span {
    Span {
        context: TraceContext { trace: 0x0102, parent: Some(0x0304), span: 0x0506, flags: 1 },
        state: Some("a=b".into()),
        method: Method::POST,
        route: Some("/api/[id]".into()),
        path: "/api/7".into(),
        scheme: "https",
        version: "2",
        status: 503,
        bytes: 300,
        client: Some("192.0.2.1".parse().unwrap()),
        user_agent: None,
        request_id: RequestId::new(),
        ended: UNIX_EPOCH + Duration::from_secs(10),
        duration: Duration::from_secs(1),
    }
}

/// A message's fields as the wire format has them, by number.
#[derive(Debug, Default)]
struct Fields<'a> {
    bytes: BTreeMap<u64, Vec<&'a [u8]>>,
    numbers: BTreeMap<u64, u64>,
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return number;
        }
    }
}

fn fields(mut bytes: &[u8]) -> Fields<'_> {
    let mut fields = Fields::default();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => _ = fields.numbers.insert(tag >> 3, varint(&mut bytes)),
            1 => {
                fields.numbers.insert(tag >> 3, u64::from_le_bytes(bytes[..8].try_into().unwrap()));
                bytes = &bytes[8..];
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                fields.bytes.entry(tag >> 3).or_default().push(&bytes[..length]);
                bytes = &bytes[length..];
            }
            5 => {
                fields.numbers.insert(tag >> 3, u32::from_le_bytes(bytes[..4].try_into().unwrap()).into());
                bytes = &bytes[4..];
            }
            other => panic!("wire type {other}"),
        }
    }
    fields
}

#[test]
fn protobuf_has_the_fields_of_the_standard() {
    let resource = [("service.name".to_owned(), "app".to_owned())];
    let request = protobuf(&resource, &[span(), span()]);
    let request = fields(&request);
    let resource_spans = fields(request.bytes[&1][0]);
    let attribute = fields(fields(resource_spans.bytes[&1][0]).bytes[&1][0]);
    assert_eq!(
        (attribute.bytes[&1][0], fields(attribute.bytes[&2][0]).bytes[&1][0]),
        (&b"service.name"[..], &b"app"[..])
    );
    let scope_spans = fields(resource_spans.bytes[&2][0]);
    assert_eq!(scope_spans.bytes[&2].len(), 2);
    let span = fields(scope_spans.bytes[&2][0]);
    assert_eq!(span.bytes[&1][0], 0x0102_u128.to_be_bytes());
    assert_eq!(span.bytes[&2][0], 0x0506_u64.to_be_bytes());
    assert_eq!(span.bytes[&3][0], b"a=b");
    assert_eq!(span.bytes[&4][0], 0x0304_u64.to_be_bytes());
    assert_eq!(span.bytes[&5][0], b"POST /api/[id]");
    assert_eq!((span.numbers[&6], span.numbers[&7], span.numbers[&8]), (2, 9_000_000_000, 10_000_000_000));
    assert_eq!(span.numbers[&16], 1);
    assert_eq!(fields(span.bytes[&15][0]).numbers[&3], 2);
    let attributes: Vec<_> = span.bytes[&9].iter().map(|bytes| fields(bytes)).collect();
    let value = |key: &[u8]| {
        let attribute = attributes.iter().find(|attribute| attribute.bytes[&1][0] == key).unwrap();
        fields(attribute.bytes[&2][0])
    };
    assert_eq!(value(b"http.response.status_code").numbers[&3], 503);
    assert_eq!(value(b"http.response.body.size").numbers[&3], 300);
    assert_eq!(value(b"error.type").bytes[&1][0], b"503");
    assert_eq!(value(b"client.address").bytes[&1][0], b"192.0.2.1");
}

#[test]
fn json_has_ids_in_hex_and_long_numbers_as_text() {
    let request: Value = serde_json::from_slice(&json(&[], &[span()])).unwrap();
    let span = &request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "00000000000000000000000000000102");
    assert_eq!(
        (&span["spanId"], &span["parentSpanId"]),
        (&"0000000000000506".into(), &"0000000000000304".into())
    );
    assert_eq!(span["startTimeUnixNano"], "9000000000");
    assert_eq!((&span["kind"], &span["status"]["code"]), (&2.into(), &2.into()));
    let status = json!({"key": "http.response.status_code", "value": {"intValue": "503"}});
    assert!(span["attributes"].as_array().unwrap().contains(&status));
}
