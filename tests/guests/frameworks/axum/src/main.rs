use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Value, json};

#[wstd_axum::http_server]
fn main() -> Router {
    let app = Router::new()
        .route("/hello/{name}", get(hello))
        .route("/json", post(echo))
        .route("/stream", get(parts))
        .route("/fail", get(fail));
    Router::new().nest("/axum", app)
}

async fn hello(Path(name): Path<String>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    Json(json!({ "hello": name, "q": query.get("q") }))
}

async fn echo(Json(body): Json<Value>) -> impl IntoResponse {
    (StatusCode::CREATED, Json(body))
}

async fn parts() -> Body {
    Body::from_stream(stream::iter((0..3).map(|i| Ok::<_, Infallible>(format!("{i};")))))
}

async fn fail() {
    panic!("asked to");
}
