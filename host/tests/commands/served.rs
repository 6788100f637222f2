//! A server of a project, and a client that shows what came over the wire.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wharf_app::{BuiltApp, Project, Workshop};
use wharf_host::{App, AppSource, CodeCache, Compiler, CompilerTarget, Runtime, Server};

/// Time in which what is expected happens, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of a project, until it is dropped.
pub(crate) struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    /// Builds, compiles and serves a project with these files.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("project");
        for (path, content) in files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("none"));
        let app = BuiltApp::build(&Project::open(&dir).unwrap(), &workshop, &|_| {}).unwrap();
        let compiler = Compiler::new(CompilerTarget::Native).unwrap();
        let code = CodeCache::new(folder.path().join("code"));
        for (component, wasm) in app.manifest.components.iter().zip(&app.components) {
            code.ensure(&compiler, &component.sha256, wasm).unwrap();
        }
        let source = AppSource::live(dir.clone(), app.manifest, app.assets, code.code_dir(&compiler));
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
                let app = App::load(&Runtime::new().unwrap(), source).unwrap();
                let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
                sender.send(server.address()).unwrap();
                server.serve(Arc::new(app), async { _ = stopped.await }).await;
            });
        });
        let address = receiver.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    pub(crate) fn send(&self, request: &str) -> Connection {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        Connection(BufReader::new(stream))
    }

    /// The whole answer to a `GET`.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n"))
    }

    /// The whole answer to a request.
    pub(crate) fn request(&self, request: &str) -> Response {
        self.send(request).response()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A connection on which a request was sent.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Sends more of the request.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The head of the response: status and header lines.
    pub(crate) fn head(&mut self) -> (u16, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "closed within the head: {lines:?}");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.remove(0).split(' ').nth(1).unwrap().parse().unwrap();
        (status, lines)
    }

    /// The next chunk of a body that comes in chunks; none at its end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.0.read_line(&mut size).ok().filter(|read| *read > 0)?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// All that is left of the response.
    pub(crate) fn response(mut self) -> Response {
        let (status, headers) = self.head();
        let has = |field: &str| headers.iter().any(|line| line.eq_ignore_ascii_case(field));
        let mut body = Vec::new();
        let mut whole = true;
        if has("transfer-encoding: chunked") {
            loop {
                match self.chunk() {
                    Some(chunk) if chunk.is_empty() => break,
                    Some(chunk) => body.extend(chunk),
                    None => {
                        whole = false;
                        break;
                    }
                }
            }
        } else {
            // A connection that was reset has nothing more to say, too.
            let _ = self.0.read_to_end(&mut body);
            let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
            whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
        }
        Response { status, headers, body, whole }
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// Whether all bytes that were announced came, or the last chunk.
    pub(crate) whole: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter().filter_map(|line| line.split_once(": "));
        fields.find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
