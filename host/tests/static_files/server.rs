//! A server of a site, and a client that leaves nothing out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wharf_app::{Asset, Coding, Encoding, Manifest, Sha256, Site, media_type};
use wharf_host::{App, AppSource, CodeDir, HostCode, Runtime, Server};

/// A server of a site with these files, until it is dropped.
pub(crate) struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()))
    }
}

pub(crate) fn asset(path: &str, content: &[u8]) -> Asset {
    Asset {
        path: path.into(),
        size: content.len() as u64,
        sha256: Sha256::of(content),
        media_type: media_type::of(path),
        encodings: Vec::new(),
    }
}

/// What stands for `content` in a coding: the host sends it as it finds it.
pub(crate) fn encoded(coding: Coding, content: &[u8]) -> Vec<u8> {
    let mark = format!("<{}>", coding.name());
    // Brotli's is the shortest but for zstd's, as of a large file.
    let length = content.len() * [6, 5, 8][coding as usize] / 10;
    mark.bytes().chain(content.iter().copied()).take(length).collect()
}

pub(crate) fn write(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Served {
    pub(crate) fn sealed(files: &[(&str, &[u8])], isolated: bool) -> Self {
        Self::site(files, |site| site.isolated = isolated)
    }

    /// A site of these files, as `edit` has its other settings.
    pub(crate) fn site(files: &[(&str, &[u8])], edit: impl FnOnce(&mut Site)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("site")).unwrap();
        let files = files.iter().map(|(path, content)| {
            write(&folder.path().join("site"), path, content);
            asset(path, content)
        });
        let mut site = Site { files: files.collect(), ..Site::default() };
        edit(&mut site);
        write(folder.path(), "wharf.json", &Manifest::new("test".into(), site).to_json());
        let code = HostCode::Image(CodeDir::new(folder.path().join("aot")));
        let source = AppSource::sealed(folder.path(), code).unwrap();
        Self::start(source, folder)
    }

    /// A project with this file under `public/`, which may change.
    pub(crate) fn live(path: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("public").join(path);
        write(folder.path(), &format!("public/{path}"), content);
        let site = Site { files: vec![asset(path, content)], ..Site::default() };
        let code = CodeDir::new(folder.path().join("code"));
        Self::start(
            AppSource::live(folder.path().to_owned(), Manifest::new("test".into(), site), vec![file], code),
            folder,
        )
    }

    /// A site of these files, all of which have all encoded forms.
    pub(crate) fn encoded(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        let files = files.iter().map(|(path, content)| {
            write(&site, path, content);
            let encodings = Coding::ALL.map(|coding| {
                let encoded = encoded(coding, content);
                write(&site, &coding.sibling(path), &encoded);
                Encoding { coding, size: encoded.len() as u64, sha256: Sha256::of(&encoded) }
            });
            Asset { encodings: encodings.into(), ..asset(path, content) }
        });
        let site = Site { files: files.collect(), ..Site::default() };
        write(folder.path(), "wharf.json", &Manifest::new("test".into(), site).to_json());
        let code = HostCode::Image(CodeDir::new(folder.path().join("aot")));
        let source = AppSource::sealed(folder.path(), code).unwrap();
        Self::start(source, folder)
    }

    pub(crate) fn start(source: AppSource, folder: tempfile::TempDir) -> Self {
        let app = Arc::new(App::load(&Runtime::new().unwrap(), source).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
                ready.send(server.address()).unwrap();
                let stop = async {
                    let _ = stopped.await;
                };
                server.serve(app, stop).await;
            });
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread), folder }
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str]) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let host = if headers.contains("host: ") { "" } else { "host: x\r\n" };
        let request = format!("{method} {path} HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
