//! Key-value stores on a real Redis server, by the program itself: the URL comes
//! from its environment, and what it logs is read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{GUEST, app, ask, get};

/// Longest that any event is waited for: a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A password as strong ones are; none of it may be seen anywhere.
const PASSWORD: &str = "hunter2/@:%";

/// As a URL has it.
const ENCODED: &str = "hunter2%2F%40%3A%25";

/// A server, until it is dropped.
struct Server {
    child: Child,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let mut said = String::new();
        for _ in 0..3 {
            // Somebody else may take it before the server does.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let folder = tempfile::tempdir().unwrap();
            match spawn(port, &options, folder.path()) {
                Ok(child) => return Self { child, port, options, folder },
                Err(text) => said = text,
            }
        }
        panic!("redis-server doesn't start:\n{said}");
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.port, &self.options, self.folder.path()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What the server answers to another program, as it does (RESP 2).
    fn answer(&self, command: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for command in [command, &[b"QUIT"]] {
            write!(stream, "*{}\r\n", command.len()).unwrap();
            for word in command {
                write!(stream, "${}\r\n", word.len()).unwrap();
                stream.write_all(word).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).strip_suffix("+OK\r\n").unwrap().to_owned()
    }

    fn says(&self, command: &str) -> String {
        let words: Vec<_> = command.split(' ').map(str::as_bytes).collect();
        self.answer(&words)
    }
}

/// A server that accepts connections.
///
/// # Errors
/// What it said before it ended.
fn spawn(port: u16, options: &[String], folder: &Path) -> Result<Child, String> {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    // Without a `--port` of their own, which TLS has.
    if !options.iter().any(|option| option == "--tls-cert-file") {
        command.args(["--port", &port]);
    } else {
        command.args(["--port", "0", "--tls-port", &port]);
    }
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(folder);
    let spawned = command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child =
        spawned.unwrap_or_else(|error| panic!("redis-server: {error}: run tests/testbed/packages.sh tests"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = String::new();
    loop {
        match lines.next() {
            Some(line) if line.contains("Ready to accept connections") => break,
            Some(line) => said += &(line + "\n"),
            None => {
                child.wait().unwrap();
                return Err(said);
            }
        }
    }
    // So that the server never waits for a reader.
    thread::spawn(move || lines.for_each(drop));
    Ok(child)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `wharf-host` whose worker has the default store at a URL from the
/// environment, until it is dropped.
struct Host {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Host {
    fn with(url: &str) -> Self {
        Self::start(url, 120_000, &[])
    }

    fn start(url: &str, timeout_ms: u64, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = app("kv = { default = { from = 'REDIS_URL' } }", &[]);
        manifest.workers[0].limits.timeout_ms = timeout_ms;
        std::fs::create_dir_all(folder.path().join("app/site")).unwrap();
        std::fs::write(folder.path().join("app/wharf.json"), manifest.to_json()).unwrap();
        let code = GUEST.cache.code_dir(&GUEST.compiler).path(&GUEST.sha256);
        std::os::unix::fs::symlink(code.parent().unwrap(), folder.path().join("app/aot")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf-host"));
        command.env_clear().env("WHARF_APP", folder.path().join("app/wharf.json")).envs(variables.to_vec());
        command.envs([("WHARF_ADDR", "127.0.0.1:0"), ("WHARF_PROCESSES", "1"), ("REDIS_URL", url)]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (written, (ready, address)) = (Arc::clone(&log), std::sync::mpsc::channel());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(address) = line.split("address=").nth(1) {
                    let _ = ready.send(address.split_whitespace().next().unwrap().parse().unwrap());
                }
                *written.lock().unwrap() += &(line + "\n");
            }
        });
        let address = address.recv_timeout(PATIENCE);
        let address = address.unwrap_or_else(|_| panic!("it doesn't start: {}", log.lock().unwrap()));
        Self { child, address, log, _folder: folder }
    }

    fn could(&self, target: &str) -> String {
        ask(self.address, target).unwrap_or_else(|error| panic!("{target}: {error}: {}", self.log()))
    }

    fn could_not(&self, target: &str) -> String {
        ask(self.address, target).map_or_else(|error| error, |answer| panic!("{target}: {answer}"))
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has `text` in it.
    fn log_until(&self, text: &str) -> String {
        until(|| Some(self.log()).filter(|log| log.contains(text)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `find` finds, sooner or later.
fn until<T>(find: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it never came");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_keeps_what_was_set_for_other_instances_hosts_and_programs() {
    let server = Server::start(&[]);
    let host = Host::with(&server.url());
    assert_eq!(host.could("/kv/get?key=a"), "none");
    host.could("/kv/set?key=a&value=1");
    assert_eq!(host.could("/kv/get?key=a&store=default"), "1");
    assert_eq!(Host::with(&server.url()).could("/kv/get?key=a"), "1");
    assert_eq!(server.says("GET a"), "$1\r\n1\r\n", "the key is the guest's own");
    server.says("SET theirs x");
    assert_eq!(host.could("/kv/get?key=theirs"), "x");
    host.could("/kv/set?key=empty&value=");
    assert_eq!(host.could("/kv/get?key=empty"), "", "nothing is not none");
    assert_eq!(host.could("/kv/many?key=a,unknown,empty"), "a=1\nempty=\nnone");
    assert_eq!(host.could("/kv/exists?key=a"), "true");
    host.could("/kv/delete?key=a");
    host.could("/kv/delete?key=a");
    assert_eq!(host.could("/kv/exists?key=a"), "false");
    host.could("/kv/delete-many?key=theirs,empty,unknown");
    host.could("/kv/fill?key=k&count=2500");
    // Keys that no guest can name are left out.
    server.answer(&[b"SET", b"\xff", b"x"]);
    server.answer(&[b"SET", &[b'k'; 1025], b"x"]);
    let listed = host.could("/kv/list");
    let mut keys: Vec<_> = listed.lines().collect();
    keys.dedup();
    assert_eq!(keys.len(), 2500);
    assert!(keys.iter().all(|key| key.starts_with('k')));
    host.could("/kv/fill?key=k&count=0");
    assert!(host.could_not("/kv/open?store=other").contains("NoSuchStore"));
}

#[test]
fn a_server_s_store_has_the_limits_of_an_embedded_one() {
    let server = Server::start(&[]);
    let host = Host::with(&server.url());
    assert!(host.could_not("/kv/get?key=").contains("key of 0 bytes"));
    assert!(host.could_not(&format!("/kv/get?key={}", "k".repeat(1025))).contains("key of 1025 bytes"));
    host.could("/kv/large?key=l&length=26214400");
    assert_eq!(server.says("STRLEN l"), ":26214400\r\n");
    assert!(host.could_not("/kv/large?key=l&length=26214401").contains("at most 26214400"));
    assert!(host.could_not("/kv/fill?key=k&count=10001").contains("at most 10000"));
    host.could("/kv/fill?key=k&count=10000");
    assert_eq!(server.says("DBSIZE"), ":10001\r\n");
    // What other programs set may be anything.
    server.says("SETRANGE large 26214400 x");
    assert!(host.could_not("/kv/get?key=large").contains("value of more than 26214400 bytes"));
    for key in ["l1", "l2"] {
        server.says(&format!("SETRANGE {key} 26214399 x"));
    }
    assert!(host.could_not("/kv/many?key=l,l1,l2").contains("ask for fewer keys"));
    server.says("RPUSH list x");
    for call in ["get?key=list", "increment?key=list", "many?key=k0,list"] {
        assert!(host.could_not(&format!("/kv/{call}")).contains("another type"), "{call}");
    }
    assert!(!host.log().contains("key-value store failed"), "guests' own errors are not the log's");
}

#[test]
fn increments_of_instances_and_hosts_at_a_server_are_all_counted() {
    let server = Server::start(&[]);
    let hosts = [Host::with(&server.url()), Host::with(&server.url())];
    thread::scope(|scope| {
        for host in hosts.iter().cycle().take(8) {
            scope.spawn(|| host.could("/kv/increment?key=n&delta=3&times=10"));
        }
    });
    assert_eq!(hosts[0].could("/kv/get?key=n"), "240");
    let clients = server.says("CLIENT LIST TYPE normal");
    assert_eq!(clients.matches("cmd=eval").count(), 2, "one connection a host: {clients}");
    let most = i64::MAX.to_string();
    server.says(&format!("SET most {most}"));
    assert_eq!(hosts[0].could("/kv/increment?key=most&delta=0"), most, "no digit is lost");
    for (key, value, delta, expected) in [
        ("most", most.as_str(), "1", "the sum is more than"),
        ("most", most.as_str(), "9223372036854775808", "the sum is more than"),
        ("word", "x", "1", "not a decimal number"),
        ("below", "-5", "7", "not a decimal number"),
    ] {
        server.says(&format!("SET {key} {value}"));
        let error = hosts[1].could_not(&format!("/kv/increment?key={key}&delta={delta}"));
        assert!(error.contains(expected), "{key}: {error}");
        assert!(server.says(&format!("GET {key}")).contains(&format!("\n{value}\r")), "it is unchanged");
    }
}

#[test]
fn stores_with_prefixes_and_databases_of_their_own_share_a_server() {
    let server = Server::start(&[]);
    let of = |rest: &str| Host::with(&format!("{}{rest}", server.url()));
    let (plain, starred, other) = (of(""), of("/0?prefix=a%2A%3A"), of("/7"));
    starred.could("/kv/fill?key=k&count=3");
    starred.could("/kv/increment?key=n");
    plain.could("/kv/set?key=ab:k&value=x");
    other.could("/kv/set?key=mine&value=y");
    assert_eq!(starred.could("/kv/list"), "k0\nk1\nk2\nn", "not of \"ab:\", which is like the pattern");
    assert_eq!(starred.could("/kv/many?key=k1,n,ab:k"), "k1=1\nn=1\nnone");
    assert_eq!(plain.could("/kv/list"), "a*:k0\na*:k1\na*:k2\na*:n\nab:k");
    assert_eq!(other.could("/kv/list"), "mine");
    // A listing finds the few among the many.
    plain.could("/kv/fill?key=x&count=10000");
    assert_eq!(starred.could("/kv/list").lines().count(), 4);
    starred.could("/kv/delete-many?key=k0,k1,k2");
    starred.could("/kv/delete?key=n");
    assert_eq!(starred.could("/kv/list"), "");
    assert_eq!(server.says("DBSIZE"), ":10001\r\n");
}

#[test]
fn a_password_is_the_server_s_to_know_and_nobody_else_s() {
    let less = ["--user", "w", "on", ">hunter2", "~*", "-@all", "+set"];
    // As docs/operations.md has it.
    let enough = "--user ok on >x ~* -@all +eval +get +strlen +mset +del +exists +scan +incrby +select";
    let enough: Vec<_> = enough.split(' ').collect();
    let server = Server::start(&[&["--requirepass", PASSWORD], less.as_slice(), &enough].concat());
    let place = format!("127.0.0.1:{}", server.port);
    let host = Host::with(&format!("redis://:{ENCODED}@{place}"));
    host.could("/kv/set?key=secret-key&value=secret-value");
    assert_eq!(host.could("/kv/get?key=secret-key"), "secret-value");
    let host = Host::with(&format!("redis://ok:x@{place}/1"));
    for call in ["set?key=a&value=1", "increment?key=a", "fill?key=k&count=3", "exists?key=a", "list"] {
        host.could(&format!("/kv/{call}"));
    }
    assert_eq!(host.could("/kv/many?key=a,k1,none"), "a=2\nk1=1\nnone");
    host.could("/kv/delete-many?key=a,k1");
    for (user, expected) in [
        ("", "NOAUTH"),
        (":hunter2%2F%40@", "refuses user or password"),
        ("hunter2:hunter2@", "refuses user or password"),
        ("w:hunter2@", "NOPERM"),
    ] {
        let host = Host::with(&format!("redis://{user}{place}"));
        let error = host.could_not("/kv/get?key=secret-key");
        assert!(error.contains("the host's log says why"), "{error}");
        let log = host.log_until(expected);
        assert!(log.contains(&format!("store=redis://{place}/0")), "{log}");
        for secret in ["hunter2", "secret-"] {
            assert!(!log.contains(secret) && !error.contains(secret), "{user}: {error}\n{log}");
        }
    }
}

#[test]
fn a_command_that_the_server_does_not_know_is_logged_without_what_it_had() {
    let server = Server::start(&["--rename-command", "EVAL", "", "--rename-command", "MSET", ""]);
    let host = Host::with(&server.url());
    assert!(host.could_not("/kv/set?key=secret-key&value=secret-value").contains("log says why"));
    let log = host.log_until("unknown command 'MSET'");
    assert!(!log.contains("secret-"), "{log}");
}

#[test]
fn a_server_is_spoken_to_by_tls_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("crt"), pair.cert.pem()).unwrap();
    std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    let files = [("--tls-cert-file", "crt"), ("--tls-key-file", "key"), ("--tls-ca-cert-file", "crt")];
    let files: Vec<_> = files.map(|(option, name)| [option.to_owned(), path(name)]).concat();
    let mut options: Vec<_> = files.iter().map(String::as_str).collect();
    options.extend(["--tls-auth-clients", "no", "--requirepass", PASSWORD]);
    let server = Server::start(&options);
    let url = |host: &str| format!("rediss://:{ENCODED}@{host}:{}/2", server.port);
    let trusting = Host::start(&url("localhost"), 120_000, &[("SSL_CERT_FILE", &path("crt"))]);
    trusting.could("/kv/set?key=a&value=1");
    assert_eq!(trusting.could("/kv/get?key=a"), "1");
    for (name, variables) in [("localhost", vec![]), ("127.0.0.1", vec![("SSL_CERT_FILE", path("crt"))])] {
        let variables: Vec<_> = variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let host = Host::start(&url(name), 120_000, &variables);
        assert!(host.could_not("/kv/get?key=a").contains("can't be reached"));
        host.log_until("TLS certificate error");
    }
    let plain = Host::with(&format!("redis://localhost:{}", server.port));
    assert!(plain.could_not("/kv/get?key=a").contains("the host's log says why"));
}

#[test]
fn a_server_that_is_away_is_told_of_and_found_again() {
    let mut server = Server::start(&[]);
    server.stop();
    let host = Host::with(&server.url());
    let started = Instant::now();
    let mut failed = 0;
    // Long enough for more than one try to connect.
    while started.elapsed() < Duration::from_secs(3) || failed < 20 {
        let error = host.could_not("/kv/get?key=a");
        assert!(error.contains("can't be reached; the host's log says why"), "{error}");
        assert!(!error.contains("127.0.0.1"), "{error}");
        failed += 1;
    }
    let log = host.log_until("connection refused");
    let most = 1 + started.elapsed().as_secs() / 10;
    assert!(log.matches("key-value store failed").count() as u64 <= most, "{log}");
    server.start_again();
    until(|| ask(host.address, "/kv/set?key=a&value=1").ok());
    for _ in 0..2 {
        server.stop();
        host.could_not("/kv/get?key=a");
        server.start_again();
        assert_eq!(until(|| ask(host.address, "/kv/get?key=a").ok()), "none");
    }
    // Closed by a server that lives: no call fails, once the connection is not
    // a new one.
    thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        server.says("CLIENT KILL TYPE normal SKIPME yes");
        assert_eq!(host.could("/kv/get?key=a"), "none");
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_server_that_hangs_holds_up_no_request_past_its_deadline() {
    let server = Server::start(&[]);
    let host = Host::start(&server.url(), 2_000, &[]);
    host.could("/kv/set?key=a&value=1");
    server.signal(Signal::STOP);
    let started = Instant::now();
    let (status, ..) = get(host.address, "/kv/get?key=a");
    assert_eq!(status, 504);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    server.signal(Signal::CONT);
    assert_eq!(host.could("/kv/get?key=a"), "1");
}
