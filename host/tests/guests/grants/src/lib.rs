//! A worker for tests: each path tries one thing that needs a grant, and the
//! response says how it went. What was refused or failed has status 500.

mod outbound;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wit_bindgen::generate!({
    inline: "
        package wharf:test;
        world grants {
            import wasi:keyvalue/store@0.2.0-draft;
            import wasi:keyvalue/atomics@0.2.0-draft;
            import wasi:keyvalue/batch@0.2.0-draft;
            import wasi:config/store@0.2.0-rc.1;
        }
    ",
    path: ["../../../wit/keyvalue", "wit/config"],
    generate_all,
});

use wasi::config::store as config;
use wasi::keyvalue::{atomics, batch, store};

struct Worker;

wasip2::http::proxy::export!(Worker);

type Query = HashMap<String, String>;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let query: Query = query.map(|(key, value)| (key.to_owned(), decode(value))).collect();
        let (status, text) = match answer(path, &query) {
            Ok(text) => (200, text),
            Err(text) => (500, text),
        };
        let response = OutgoingResponse::new(Fields::new());
        response.set_status_code(status).expect("the status is valid");
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        for chunk in text.as_bytes().chunks(4096) {
            stream.blocking_write_and_flush(chunk).expect("the client reads");
        }
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body is whole");
    }
}

fn answer(path: &str, query: &Query) -> Result<String, String> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    match path {
        "/env" => Ok(lines(std::env::vars().map(|(key, value)| format!("{key}={value}")))),
        "/config" => said(config::get(get("key"))).map(|value| format!("{value:?}")),
        "/config/all" => {
            let all = said(config::get_all())?;
            Ok(lines(all.into_iter().map(|(key, value)| format!("{key}={value}"))))
        }
        "/read" => said(fs::read_to_string(get("path"))),
        "/write" => said(fs::write(get("path"), get("text"))).map(|()| "written".into()),
        "/remove" => said(fs::remove_file(get("path"))).map(|()| "removed".into()),
        "/list" => {
            let entries = said(fs::read_dir(get("path")))?;
            Ok(lines(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())))
        }
        "/tcp" => said(TcpStream::connect(get("address"))).map(|_| "connected".into()),
        "/listen" => said(TcpListener::bind("127.0.0.1:0")).map(|_| "listening".into()),
        "/udp" => {
            let socket = said(UdpSocket::bind("127.0.0.1:0"))?;
            said(socket.send_to(b"x", get("address"))).map(|_| "sent".into())
        }
        "/resolve" => {
            let addresses = said((get("name"), 80).to_socket_addrs())?;
            Ok(lines(addresses.map(|address| address.to_string())))
        }
        "/fetch" => outbound::fetch(get("method"), get("url"), get("body"), get("header")),
        _ => key_value(path, query),
    }
}

fn key_value(path: &str, query: &Query) -> Result<String, String> {
    let get = |key: &str| query.get(key).cloned().unwrap_or_default();
    let number = |key: &str| get(key).parse::<u64>().unwrap_or(1);
    let bucket = said(store::open(&get("store")))?;
    let key = get("key");
    match path {
        "/kv/open" => Ok("open".into()),
        "/kv/get" => said(bucket.get(&key)).map(|value| shown(value)),
        "/kv/set" => said(bucket.set(&key, get("value").as_bytes())).map(|()| "set".into()),
        "/kv/large" => {
            let value = vec![b'x'; number("length") as usize];
            said(bucket.set(&key, &value)).map(|()| "set".into())
        }
        "/kv/delete" => said(bucket.delete(&key)).map(|()| "deleted".into()),
        "/kv/exists" => said(bucket.exists(&key)).map(|exists| exists.to_string()),
        "/kv/increment" => {
            let mut sum = 0;
            for _ in 0..number("times") {
                sum = said(atomics::increment(&bucket, &key, number("delta")))?;
            }
            Ok(sum.to_string())
        }
        "/kv/fill" => {
            let entries: Vec<_> =
                (0..number("count")).map(|n| (format!("{key}{n}"), n.to_string().into_bytes())).collect();
            said(batch::set_many(&bucket, &entries)).map(|()| "set".into())
        }
        "/kv/many" => {
            let keys: Vec<String> = key.split(',').map(str::to_owned).collect();
            let found = said(batch::get_many(&bucket, &keys))?;
            Ok(lines(found.into_iter().map(|entry| match entry {
                Some((key, value)) => format!("{key}={}", shown(Some(value))),
                None => "none".into(),
            })))
        }
        "/kv/delete-many" => {
            let keys: Vec<String> = key.split(',').map(str::to_owned).collect();
            said(batch::delete_many(&bucket, &keys)).map(|()| "deleted".into())
        }
        "/kv/list" => {
            let (mut all, mut cursor) = (Vec::new(), None);
            loop {
                let page = said(bucket.list_keys(cursor))?;
                all.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(lines(all.into_iter()));
                }
            }
        }
        _ => Err(format!("unknown path {path}")),
    }
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or("none".into(), |value| String::from_utf8_lossy(&value).into_owned())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines.join("\n")
}

fn said<T, E: Debug>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{error:?}"))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16)).unwrap_or(0) as u8;
        bytes.push(if byte == b'%' { digit(rest.next()) << 4 | digit(rest.next()) } else { byte });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
