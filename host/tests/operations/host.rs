//! A `wharf-host` for a test: started with variables, watched by its log, ended
//! with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use wharf_app::{Asset, Manifest, Sha256, Site, media_type};

/// Longest that any event is waited for: a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of `/large.bin`: more than all buffers on the way hold.
pub(crate) const LARGE: usize = 64 << 20;

/// A running host. Its app has `/` ("hello") and `/large.bin`.
pub(crate) struct Host {
    child: Mutex<Child>,
    log: Arc<(Mutex<String>, Condvar)>,
    address: String,
    admin: Option<String>,
    _folder: tempfile::TempDir,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

fn app() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("index.html"), "hello").unwrap();
    // All holes: it takes no disk. Its hash is only a tag.
    std::fs::File::create(site.join("large.bin")).unwrap().set_len(LARGE as u64).unwrap();
    let asset = |path: &str, size: u64| Asset {
        path: path.into(),
        size,
        sha256: Sha256::of(path.as_bytes()),
        media_type: media_type::of(path),
        encodings: Vec::new(),
    };
    let files = vec![asset("index.html", 5), asset("large.bin", LARGE as u64)];
    let manifest = Manifest::new("test".into(), Site { files, ..Site::default() });
    std::fs::write(folder.path().join("wharf.json"), manifest.to_json()).unwrap();
    folder
}

fn command(folder: &tempfile::TempDir, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf-host"));
    command.env_clear().env("WHARF_APP", folder.path().join("wharf.json")).env("WHARF_ADDR", "127.0.0.1:0");
    command.envs(variables.iter().copied()).stderr(Stdio::piped());
    command
}

/// What a host prints that can't start.
pub(crate) fn failure(variables: &[(&str, &str)]) -> String {
    let output = command(&app(), variables).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

impl Host {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_with_stdin(variables, Stdio::null())
    }

    pub(crate) fn start_with_stdin(variables: &[(&str, &str)], stdin: Stdio) -> Self {
        let folder = app();
        let mut child = command(&folder, variables).stdin(stdin).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                written.0.lock().unwrap().push_str(&(line + "\n"));
                written.1.notify_all();
            }
        });
        let mut host =
            Self { child: Mutex::new(child), log, address: String::new(), admin: None, _folder: folder };
        let log = host.log_until(" listening");
        let address_after = |message: &str| {
            let line = log.lines().find(|line| line.contains(message))?;
            Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned())
        };
        host.address = address_after(" listening").unwrap();
        host.admin = address_after("admin listener");
        host
    }

    /// The log, once it has `text` in it.
    pub(crate) fn log_until(&self, text: &str) -> String {
        let (log, changed) = &*self.log;
        let guard = log.lock().unwrap();
        let wait = changed.wait_timeout_while(guard, PATIENCE, |log| {
            !log.split_inclusive('\n').any(|line| line.contains(text) && line.ends_with('\n'))
        });
        let (log, result) = wait.unwrap();
        assert!(!result.timed_out(), "no {text:?} in the log:\n{log}");
        log.clone()
    }

    /// What `find` finds, sooner or later.
    pub(crate) fn until<T>(&self, find: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "never; the log:\n{}", self.log.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn send(&self, request: &str) -> Answer {
        exchange(self.connect(), request)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&request(path, ""))
    }

    pub(crate) fn admin(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.admin.as_ref().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(stream, &request(path, ""))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.lock().unwrap().id()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// How it ended, once it has.
    pub(crate) fn wait(&self) -> ExitStatus {
        self.until(|| self.child.lock().unwrap().try_wait().unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A request after whose answer the connection ends.
pub(crate) fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

/// Sends a request and reads until the end.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    // Who refuses may do so before all is written.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let mut chunk = [0; 64 << 10];
    // A reset after an answer is no less of an answer.
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// The head and the body of a message with `content-length`.
pub(crate) fn read_message(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length =
        head.to_lowercase().split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse();
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

/// Type and payload of a frame of HTTP/2.
pub(crate) fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut body).unwrap();
    (head[3], body)
}

/// The settings that a server of HTTP/2 begins with.
pub(crate) fn read_settings(stream: &mut impl Read) -> Vec<(u16, u32)> {
    let (kind, body) = read_frame(stream);
    assert_eq!(kind, 4, "the first frame is SETTINGS");
    let settings = body.chunks_exact(6);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    settings.map(|setting| (number(&setting[..2]) as u16, number(&setting[2..]))).collect()
}
