//! Commands that end, and daemons that are ended.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long any one command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(600);

/// How long a daemon may take to be ready, and to end.
const DAEMON_DEADLINE: Duration = Duration::from_secs(300);

/// How often something that should come true is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    /// The exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    /// The most memory that it held, in bytes, without that of processes that it
    /// started (`VmHWM`, proc_pid_status(5)). What it took in its last two
    /// milliseconds may be missing.
    pub peak: u64,
}

impl Outcome {
    /// The trimmed stdout of a command that succeeded.
    ///
    /// # Panics
    /// If it did not exit with 0.
    #[track_caller]
    #[must_use = "use `succeeded` to only check"]
    pub fn output(self) -> String {
        self.exited(0).stdout.trim_end().to_owned()
    }

    /// Checks that the command exited with 0.
    #[track_caller]
    pub fn succeeded(self) {
        let _ = self.exited(0);
    }

    /// The outcome of a command that exited with `code`.
    ///
    /// # Panics
    /// If it exited otherwise.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}\n{}", self.report());
        self
    }

    /// The stderr of a command that failed as a command should: exit code 1 or
    /// 2, nothing on stdout, no panic.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn refusal(self) -> String {
        assert!(matches!(self.code, 1 | 2), "expected exit code 1 or 2\n{}", self.report());
        assert!(self.stderr.contains("error: "), "expected an `error:` line\n{}", self.report());
        assert!(!self.stderr.contains("panicked"), "expected an error, not a panic\n{}", self.report());
        self.stderr
    }

    /// Everything about the command, for a failure's message.
    #[must_use]
    pub fn report(&self) -> String {
        format!(
            "$ {}\nexit code {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it can't be started or doesn't end in time.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    Running::start(command).finish()
}

/// Runs a command to its end with `input` at its standard input.
///
/// # Panics
/// As [`run`].
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &str) -> Outcome {
    let mut file = tempfile::tempfile().expect("a file can be made");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("it can be written");
    Running::start_with(command, file.into()).finish()
}

/// The same command, but on a terminal of its own, by `script` of util-linux.
#[must_use]
pub fn on_terminal(command: &Command) -> Command {
    let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.collect::<Vec<_>>().join(" "), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
}

/// A command that was started and whose end is yet to come.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    since: Instant,
    peak: u64,
    stdout: thread::JoinHandle<String>,
    stderr: thread::JoinHandle<String>,
}

impl Running {
    /// Starts a command with its output captured and no stdin.
    ///
    /// # Panics
    /// If it can't be started.
    #[track_caller]
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    #[track_caller]
    fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let line = line(command);
        let since = Instant::now();
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Self { command: line, child, since, peak: 0, stdout, stderr }
    }

    /// Ends it where it stands (SIGKILL). Nothing happens if it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// The outcome, if the command has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Waits for the command's end.
    ///
    /// # Panics
    /// If it doesn't end in time.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let deadline = self.since + COMMAND_DEADLINE;
        let mut in_time = true;
        let status = loop {
            self.peak = most_held(self.child.id()).unwrap_or(self.peak);
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if in_time && Instant::now() > deadline {
                in_time = false;
                self.child.kill().expect("the child can be killed");
            }
            thread::sleep(POLL / 5);
        };
        let took = self.since.elapsed();
        let code = {
            use std::os::unix::process::ExitStatusExt;
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
        };
        let outcome = Outcome {
            command: self.command,
            code,
            stdout: self.stdout.join().expect("the reader ends"),
            stderr: self.stderr.join().expect("the reader ends"),
            took,
            peak: self.peak,
        };
        assert!(in_time, "expected an end within {COMMAND_DEADLINE:?}\n{}", outcome.report());
        outcome
    }
}

/// A process that runs until it is dropped, its output in a log file. The log's
/// end is printed when it is dropped because a test failed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, logging into `folder`.
    ///
    /// # Panics
    /// If it can't be started.
    #[track_caller]
    #[must_use]
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let line = line(command);
        let log = folder.join(format!("{name}.log"));
        let file = fs_err::File::create(&log).expect("the log can be made").into_parts().0;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log can be shared"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Waits until `ready` answers something.
    ///
    /// # Panics
    /// If the process ends first, or takes too long.
    #[track_caller]
    pub fn wait_until<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DAEMON_DEADLINE;
        loop {
            if let Some(answer) = ready(self) {
                return answer;
            }
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                panic!("{} ended before {what}: {status}\n{}", self.name, self.log());
            }
            assert!(Instant::now() < deadline, "{}: {what} took too long\n{}", self.name, self.log());
            thread::sleep(POLL);
        }
    }

    /// Everything that the process has written.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs_err::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The process' id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    /// If it can't be waited for.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Sends `signal` and waits for the end: the exit code, and how long it took.
    ///
    /// # Panics
    /// If the process doesn't end in time.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> (Option<i32>, Duration) {
        send(self.child.id(), signal);
        self.ended()
    }

    /// Waits for the end: the exit code, and how long it took from now.
    ///
    /// # Panics
    /// If the process doesn't end in time.
    #[track_caller]
    pub fn ended(&mut self) -> (Option<i32>, Duration) {
        let since = Instant::now();
        let child = &mut self.child;
        let status = wait_for(DAEMON_DEADLINE, || child.try_wait().expect("the child can be waited for"))
            .unwrap_or_else(|| panic!("{} does not end", self.name));
        (status.code(), since.elapsed())
    }
}

/// Of a daemon's log, what a failed test shows.
const LOG_LINES: usize = 40;
const LOG_COLUMNS: usize = 400;
const NOISE: [&str; 3] = ["loading plugin", "response completed\"", "HTTP/1.1\" 2"];

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "a failed test's log is for people")]
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            send(self.child.id(), Signal::SIGTERM);
            let child = &mut self.child;
            if wait_for(DAEMON_DEADLINE, || child.try_wait().ok().flatten()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            let log = self.log();
            // What containerd says of its plugins at each start is never the cause.
            // Nor is a request that a registry answered as it should.
            let lines: Vec<_> =
                log.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise))).collect();
            eprintln!("--- {} (last {LOG_LINES} lines)", self.name);
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                // Short, so that the panic's message is not lost far above.
                eprintln!("{}", line.chars().take(LOG_COLUMNS).collect::<String>());
            }
        }
    }
}

/// Looks again and again until `look` answers something; none if it never does.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// The processes whose command line contains `text`.
pub(crate) fn having(text: &str) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|process| {
            // A process may end while we look: then it is not of interest.
            std::fs::read(format!("/proc/{process}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

/// In bytes; none of a process that has ended.
fn most_held(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Sends a signal to a process, if it is still there.
pub fn send(process: u32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill(Pid::from_raw(process.cast_signed()), signal);
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("the output is piped");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}
