use std::io::Read;

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};

use super::*;

const TEXT: &[(&str, &str)] = &[("content-type", "text/plain; charset=utf-8")];

fn response(headers: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    for (name, value) in headers {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

fn terms(method: Method, accept: &str) -> Terms {
    Terms::of(&Request::builder().method(method).header("accept-encoding", accept).body(()).unwrap())
}

fn get(accept: &str) -> Terms {
    terms(Method::GET, accept)
}

fn content() -> Vec<u8> {
    (0..40_000_u32).flat_map(|n| n.to_string().into_bytes()).collect()
}

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut decoded).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut decoded).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut decoded).unwrap(),
        other => panic!("{other}"),
    };
    decoded
}

fn collect(body: Body) -> http_body_util::Collected<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(body.collect()).unwrap()
}

#[test]
fn text_is_encoded_as_the_client_prefers_and_decodes_to_what_it_was() {
    for (accept, coding) in [("gzip, br, zstd", "zstd"), ("gzip, br", "br"), ("gzip", "gzip")] {
        let headers = [TEXT[0], ("content-length", "1"), ("etag", "\"a\""), ("accept-ranges", "bytes")];
        let response = compress(response(&headers, Body::Whole(content().into())), get(accept));
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers["content-encoding"], coding);
        assert_eq!(parts.headers["vary"], "accept-encoding");
        assert_eq!(parts.headers["etag"], "W/\"a\"");
        assert!(
            !parts.headers.contains_key("content-length") && !parts.headers.contains_key("accept-ranges")
        );
        let encoded = collect(body).to_bytes();
        assert!(encoded.len() < content().len() / 2, "{coding}: {}", encoded.len());
        assert!(decoded(coding, &encoded) == content(), "{coding}");
    }
}

#[test]
fn what_need_not_or_must_not_be_encoded_is_sent_as_it_is() {
    let unchanged = |headers: &[(&'static str, &'static str)], status: u16, length: usize| {
        let mut response = response(headers, Body::Whole(vec![b'a'; length].into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let response = compress(response, get("gzip, br, zstd"));
        assert!(!response.headers().contains_key("vary"), "{headers:?}");
        response.headers().get("content-encoding").is_none_or(|coding| coding == "gzip")
            && collect(response.into_body()).to_bytes().len() == length
    };
    assert!(unchanged(TEXT, 200, 1023));
    assert!(unchanged(TEXT, 206, 5000));
    assert!(unchanged(TEXT, 204, 0));
    assert!(unchanged(&[], 200, 5000));
    assert!(unchanged(&[("content-type", "image/png")], 200, 5000));
    assert!(unchanged(&[("content-type", "application/zip")], 200, 5000));
    for header in [
        ("content-encoding", "gzip"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "max-age=1, No-Transform"),
        ("content-digest", "sha-256=:x:"),
    ] {
        assert!(unchanged(&[TEXT[0], header], 200, 5000), "{header:?}");
    }
}

#[test]
fn who_accepts_no_coding_gets_the_content_as_it_is_with_a_word_to_caches() {
    for terms in [get("identity"), get("gzip;q=0"), terms(Method::HEAD, "identity")] {
        let headers = [TEXT[0], ("etag", "\"a\""), ("vary", "Cookie")];
        let response = compress(response(&headers, Body::Whole(content().into())), terms);
        assert!(!response.headers().contains_key("content-encoding"));
        assert_eq!(response.headers()["etag"], "\"a\"");
        let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
        assert_eq!(vary, ["Cookie", "accept-encoding"]);
    }
    let headers = [TEXT[0], ("vary", "x, Accept-Encoding")];
    let response = compress(response(&headers, Body::Whole(content().into())), get("gzip"));
    assert_eq!(response.headers().get_all("vary").iter().count(), 1);
}

#[test]
fn head_is_told_what_get_would_be_and_no_length() {
    let headers = [TEXT[0], ("content-length", "188890"), ("etag", "\"a\""), ("accept-ranges", "bytes")];
    // From a worker that leaves the content to the host, and from one that does not make it.
    for body in [content(), Vec::new()] {
        let answer = compress(response(&headers, Body::Whole(body.into())), terms(Method::HEAD, "gzip, br"));
        let expected = compress(response(&headers, Body::Whole(content().into())), get("gzip, br"));
        assert_eq!(answer.headers(), expected.headers());
        assert_eq!(answer.headers()["content-encoding"], "br");
        assert!(!answer.headers().contains_key("content-length"));
        // hyper makes a Content-Length of a size that it knows.
        assert_eq!(answer.body().size_hint().exact(), None);
        assert!(collect(answer.into_body()).to_bytes().is_empty());
    }
    let short = [TEXT[0], ("content-length", "1023"), ("etag", "\"a\"")];
    let answer = compress(response(&short, Body::Whole(Bytes::new())), terms(Method::HEAD, "gzip"));
    assert_eq!(answer.headers(), response(&short, Body::Whole(Bytes::new())).headers());
}

#[test]
fn types_of_text_are_known_in_any_case_and_with_parameters() {
    for text in
        ["TEXT/event-stream", "application/JSON; charset=utf-8", "image/svg+xml", "application/ld+json"]
    {
        assert!(is_compressible(&HeaderValue::from_static(text)), "{text}");
    }
    for text in ["", "image/jpeg", "application/octet-stream", "application/gzip", "video/mp4"] {
        assert!(!is_compressible(&HeaderValue::from_static(text)), "{text}");
    }
}

#[test]
fn an_event_can_be_decoded_before_the_next_one_is_there() {
    for coding in ["br", "zstd", "gzip"] {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = stream::unfold(receiver, |mut receiver| async {
            let data = receiver.recv().await?;
            Some((Ok::<_, io::Error>(Frame::data(data)), receiver))
        });
        let response =
            response(&[("content-type", "text/event-stream")], Body::pieces(StreamBody::new(frames)));
        let mut body = compress(response, get(coding)).into_body().into_data_stream();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut received, mut expected) = (Vec::new(), Vec::new());
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            sender.send(event.into()).unwrap();
            expected.extend_from_slice(event.as_bytes());
            received.extend_from_slice(&runtime.block_on(body.next()).unwrap().unwrap());
            // All that was sent until now, of a stream that isn't at its end.
            let mut so_far = vec![0; expected.len()];
            match coding {
                "br" => brotli::Decompressor::new(&received[..], 4096).read_exact(&mut so_far).unwrap(),
                "zstd" => {
                    zstd::stream::read::Decoder::new(&received[..]).unwrap().read_exact(&mut so_far).unwrap();
                }
                _ => flate2::read::GzDecoder::new(&received[..]).read_exact(&mut so_far).unwrap(),
            }
            assert_eq!(so_far, expected, "{coding}");
        }
        drop(sender);
        while let Some(frame) = runtime.block_on(body.next()) {
            received.extend_from_slice(&frame.unwrap());
        }
        assert_eq!(decoded(coding, &received), expected);
    }
}

#[test]
fn trailers_follow_the_content_and_an_error_is_no_end() {
    let trailers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"t\""))]);
    let frames = [Ok(Frame::data(Bytes::from(content()))), Ok(Frame::trailers(trailers.clone()))];
    let body = Body::pieces(StreamBody::new(stream::iter(frames)));
    let collected = collect(compress(response(TEXT, body), get("gzip")).into_body());
    assert_eq!(collected.trailers(), Some(&trailers));
    assert!(decoded("gzip", &collected.to_bytes()) == content());

    let frames = [Ok(Frame::data(Bytes::from(content()))), Err(io::Error::other("worker ended"))];
    let body = Body::pieces(StreamBody::new(stream::iter(frames)));
    let body = compress(response(TEXT, body), get("gzip")).into_body();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(body.collect()).is_err());
}
