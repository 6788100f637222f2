//! A guestbook: a `wasi:http` worker whose state is in a `wasi:keyvalue` store.

mod entry;
mod store;

use serde::Serialize;
use serde_json::json;
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

use crate::entry::{Draft, Entry};
use crate::store::Store;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (request, mut body) = request.into_parts();
    let path: Vec<&str> = request.uri.path().split('/').skip(1).collect();
    let store = Store::open()?;
    // The host leaves the body of an answer to HEAD away.
    match (path.as_slice(), &request.method) {
        (["entries"], &Method::GET | &Method::HEAD) => page(&store.entries()?),
        (["entries"], &Method::POST) => match Draft::from_form(body.contents().await?) {
            Ok(draft) => {
                store.add(draft)?;
                let response = Response::builder().status(StatusCode::SEE_OTHER);
                Ok(response.header("location", "/entries").body(Body::empty())?)
            }
            Err(invalid) => text(StatusCode::BAD_REQUEST, invalid.to_string()),
        },

        (["api", "entries"], &Method::GET | &Method::HEAD) => json(StatusCode::OK, &store.entries()?),
        (["api", "entries"], &Method::POST) => match Draft::from_json(body.contents().await?) {
            Ok(draft) => {
                let entry = store.add(draft)?;
                let mut response = json(StatusCode::CREATED, &entry)?;
                response.headers_mut().insert("location", format!("/api/entries/{}", entry.id).parse()?);
                Ok(response)
            }
            Err(invalid) => json(StatusCode::BAD_REQUEST, &json!({ "error": invalid.to_string() })),
        },
        (["api", "entries", id], &Method::GET | &Method::HEAD) => {
            let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
            let id = id.parse().ok().filter(|_| is_number);
            match id.map(|id| store.entry(id)).transpose()?.flatten() {
                Some(entry) => json(StatusCode::OK, &entry),
                None => json(StatusCode::NOT_FOUND, &json!({ "error": "no such entry" })),
            }
        }

        (["visits"], &Method::GET | &Method::HEAD) => text(StatusCode::OK, store.visits()?.to_string()),
        (["visits"], &Method::POST) => text(StatusCode::OK, store.visit()?.to_string()),

        (["files", name], &Method::GET | &Method::HEAD) => {
            let content = if is_file_name(name) { store.file(name)? } else { None };
            match content {
                Some(content) => file(content),
                None => text(StatusCode::NOT_FOUND, "no such file\n"),
            }
        }
        (["files", name], &Method::PUT) => {
            if !is_file_name(name) {
                let expected = "name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front";
                return text(StatusCode::BAD_REQUEST, expected);
            }
            store.put_file(name, body.contents().await?)?;
            Ok(Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty())?)
        }

        (["entries" | "visits"] | ["api", "entries"], _) => not_allowed("GET, HEAD, POST"),
        (["api", "entries", _], _) => not_allowed("GET, HEAD"),
        (["files", _], _) => not_allowed("GET, HEAD, PUT"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn page(entries: &[Entry]) -> Result<Response<Body>, Error> {
    let items: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
    let page = format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Guestbook</title>
<h1>Guestbook</h1>
<ul>
{items}</ul>
<p><a href="/">Sign it</a></p>
</html>
"#
    );
    Ok(Response::builder().header("content-type", "text/html; charset=utf-8").body(page.into())?)
}

fn file(content: Vec<u8>) -> Result<Response<Body>, Error> {
    let response = Response::builder()
        .header("content-type", "application/octet-stream")
        // Whatever it says it is: no browser shows it as a page of this site.
        .header("x-content-type-options", "nosniff");
    Ok(response.body(content.into())?)
}

fn text(status: StatusCode, text: impl Into<Body>) -> Result<Response<Body>, Error> {
    let response = Response::builder().status(status);
    Ok(response.header("content-type", "text/plain; charset=utf-8").body(text.into())?)
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>, Error> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(serde_json::to_vec(value)?.into())?)
}

fn not_allowed(allow: &str) -> Result<Response<Body>, Error> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n")?;
    response.headers_mut().insert("allow", allow.parse()?);
    Ok(response)
}

/// Whether a file can have that name: none that is hidden, or a path.
fn is_file_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}
