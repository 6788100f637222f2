//! A worker with a PostgreSQL database, by tokio-postgres.
//!
//! `GET` answers the notes, `POST` adds one, and `GET` below `/error` tells of a
//! statement that PostgreSQL refuses. Where the database is say `PGHOST`, `PGPORT`,
//! `PGUSER`, `PGPASSWORD` and `PGDATABASE`.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls};
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

struct Worker;

wasip2::http::proxy::export!(Worker);

type Answer = Result<(u16, Value), Box<dyn Error>>;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let (status, body) = answer(&request).unwrap_or_else(|error| {
            // Of a chain the last one says most: "permission denied", where the first
            // says "error connecting".
            let mut cause = error.as_ref();
            while let Some(source) = cause.source() {
                cause = source;
            }
            (502, json!({ "error": cause.to_string() }))
        });
        respond(out, status, &body.to_string());
    }
}

fn answer(request: &IncomingRequest) -> Answer {
    let target = request.path_with_query().unwrap_or_default();
    let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = connect().await?;
        match request.method() {
            Method::Post => add(&database, &text_of(request)?).await,
            _ if path.ends_with("/error") => refused(&database).await,
            _ => notes(&database).await,
        }
    })
}

async fn connect() -> Result<Client, Box<dyn Error>> {
    let variable = |name| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let port: u16 = variable("PGPORT")?.parse()?;
    // Here, not by tokio: that takes a thread, which there is none of.
    let addresses: Vec<SocketAddr> = (variable("PGHOST")?, port).to_socket_addrs()?.collect();
    let stream = TcpStream::connect(&*addresses).await?;
    let mut config = Config::new();
    config.user(variable("PGUSER")?).password(variable("PGPASSWORD")?).dbname(variable("PGDATABASE")?);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn notes(database: &Client) -> Answer {
    let rows = database.query("select id, text from notes order by id", &[]).await?;
    let note =
        |row: &tokio_postgres::Row| json!({ "id": row.get::<_, i64>(0), "text": row.get::<_, &str>(1) });
    Ok((200, rows.iter().map(note).collect()))
}

async fn add(database: &Client, text: &str) -> Answer {
    let statement = database.prepare("insert into notes (text) values ($1) returning id").await?;
    let row = database.query_one(&statement, &[&text]).await?;
    Ok((201, json!({ "id": row.get::<_, i64>(0) })))
}

async fn refused(database: &Client) -> Answer {
    let error = database.query("select * from nowhere", &[]).await.err().ok_or("there is such a table")?;
    let refusal = error.as_db_error().ok_or("it is no error of the database")?;
    let still: String = database.query_one("select 'here'", &[]).await?.get(0);
    let body = json!({ "code": refusal.code().code(), "message": refusal.message(), "still": still });
    Ok((400, body))
}

fn text_of(request: &IncomingRequest) -> Result<String, Box<dyn Error>> {
    let body = request.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(65536) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(io::Error::other(error.to_debug_string()).into());
            }
        }
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    Ok(String::from_utf8(bytes)?)
}

fn respond(out: ResponseOutparam, status: u16, body: &str) {
    let fields = Fields::from_list(&[("content-type".into(), b"application/json".into())]);
    let response = OutgoingResponse::new(fields.expect("the header is valid"));
    response.set_status_code(status).expect("the status is valid");
    let outgoing = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = outgoing.write().expect("the stream is taken once");
    // What blocking-write-and-flush takes at once. A client that went away is no error
    // of the worker.
    if body.as_bytes().chunks(4096).all(|part| stream.blocking_write_and_flush(part).is_ok()) {
        drop(stream);
        let _ = OutgoingBody::finish(outgoing, None);
    }
}
