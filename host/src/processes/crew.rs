//! Process 0's part: starting further processes, and letting them go.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Board;
use super::membership::{Ticket, VARIABLE};
use crate::metrics::Metrics;
use crate::shared_memory::SharedMemory;

/// How often the processes look at what they do, while they do something.
const TICK: Duration = Duration::from_millis(100);

/// Share of a core's time above which a process counts as busy, in percent.
const BUSY: u32 = 60;

/// Share of the time of all processes but one under which one is too many.
const SPARE: u32 = 50;

/// How long there must be too many before one goes.
const LINGER: Duration = Duration::from_secs(30);

/// Pause after a process could not be started, or failed again and again.
const RETRY: Duration = Duration::from_secs(60);

/// Pause after a process ended unasked, doubled each time until one serves.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether a process that says no more has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Processes of a host at most, whatever the number of cores.
const MOST: usize = 64;

/// The processes that process 0 starts, and itself.
#[derive(Debug)]
pub struct Crew {
    board: Board,
    memory: SharedMemory,
    limit: usize,
    others: Vec<Other>,
    events: mpsc::UnboundedReceiver<(usize, Event)>,
    sender: mpsc::UnboundedSender<(usize, Event)>,
    reload: Arc<Notify>,
    /// No other process before that.
    next_start: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Other {
    index: usize,
    child: Child,
    /// Closed, it tells the process to go.
    _control: tokio::task::JoinHandle<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Ready,
    Gone,
}

/// There is no memory for what processes share.
#[derive(Debug, thiserror::Error)]
#[error("cannot create memory for the processes to share")]
pub struct CrewError(#[source] io::Error);

impl Crew {
    /// A host of this process alone, which may start others until there are
    /// `limit`, and `metrics` words of memory that all of them see.
    ///
    /// # Errors
    /// [`CrewError`]: there is no memory to share.
    pub fn new(limit: usize, metrics: usize) -> Result<Self, CrewError> {
        let memory = SharedMemory::create(Board::words(limit) + metrics).map_err(CrewError)?;
        let board = Board::new(&memory.words()[..Board::words(limit)], 0);
        let (sender, events) = mpsc::unbounded_channel();
        Ok(Self {
            board,
            memory,
            limit,
            others: Vec::new(),
            events,
            sender,
            reload: Arc::default(),
            next_start: Instant::now(),
            pause: PAUSE,
        })
    }

    /// How many processes to have at most, where the user wants `wanted`;
    /// `None`: as many as the cores that this process may use.
    #[must_use]
    pub fn limit(wanted: Option<usize>) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        wanted.unwrap_or_else(cores).clamp(1, MOST)
    }

    /// Memory for the counters of all processes.
    #[must_use]
    pub fn metrics_memory(&self) -> &'static [AtomicU64] {
        &self.memory.words()[Board::words(self.limit)..]
    }

    /// Notified, it lets the other processes reload what they read from files.
    #[must_use]
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    pub(crate) fn board(&self) -> Board {
        self.board.clone()
    }

    /// Starts processes and lets them go, as the load asks. Never returns.
    pub(crate) async fn manage(&mut self, listener: &impl AsFd, metrics: &Metrics) {
        let mut orphans = Orphans::watch();
        let mut last = Sample::take(&self.board);
        let mut spare_since: Option<Instant> = None;
        loop {
            // Idle, nothing wakes up: neither the timer nor this task.
            let idle = last.is_idle && self.others.is_empty() || self.limit == 1;
            tokio::select! {
                Some((index, event)) = self.events.recv() => {
                    self.heed(index, event, metrics);
                    orphans.reap(&self.others);
                }
                () = orphans.died() => orphans.reap(&self.others),
                () = self.reload.notified() => self.hang_up(),
                () = self.board.stirred(), if idle && self.limit > 1 => last = Sample::take(&self.board),
                () = sleep(TICK), if !idle => {
                    let (now, busy) = last.until_now(&self.board);
                    last = now;
                    let serving = self.board.serving();
                    let staying = self.others.iter().filter(|other| other.stop.is_some()).count();
                    let starting = staying + 1 > serving;
                    let may_start = serving < self.limit && !starting && Instant::now() >= self.next_start;
                    if may_start
                        && busy > percent(serving, BUSY)
                        && let Err(error) = self.start(listener)
                    {
                        warn!(%error, "another process can't be started");
                        self.next_start = Instant::now() + RETRY;
                    }
                    let is_spare = staying > 0 && !starting && busy < percent(serving.saturating_sub(1), SPARE);
                    if !is_spare {
                        spare_since = None;
                    } else if spare_since.get_or_insert_with(Instant::now).elapsed() > LINGER {
                        spare_since = None;
                        self.dismiss();
                    }
                }
            }
        }
    }

    /// Tells the other processes what SIGHUP told this one.
    fn hang_up(&self) {
        for other in &self.others {
            // It was not waited for, so the number is still its own.
            if let Ok(id) = i32::try_from(other.child.id())
                && let Some(process) = Pid::from_raw(id)
            {
                let _ = kill_process(process, Signal::HUP);
            }
        }
    }

    fn heed(&mut self, index: usize, event: Event, metrics: &Metrics) {
        match event {
            Event::Ready => {
                self.pause = PAUSE;
                self.board.rebalance();
                info!(process = index, processes = self.board.serving(), "serving with one process more");
            }
            Event::Gone => {
                if let Some(at) = self.others.iter().position(|other| other.index == index) {
                    let mut other = self.others.swap_remove(at);
                    let status = other.child.wait();
                    debug!(process = index, ?status, "process ended");
                    if other.stop.is_some() {
                        warn!(process = index, ?status, "process ended unasked");
                        self.next_start = Instant::now() + self.pause;
                        self.pause = (self.pause * 2).min(RETRY);
                    }
                }
                self.board.clear(index);
                metrics.process_ended(index);
            }
        }
    }

    /// Starts another process, of this same program.
    fn start(&mut self, listener: &impl AsFd) -> io::Result<()> {
        let taken = |index: &usize| self.others.iter().any(|other| other.index == *index);
        let Some(index) = (1..self.limit).find(|index| !taken(index)) else { return Ok(()) };
        self.board.clear(index);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // Duplicates without CLOEXEC, open until the process has its own.
        let listener = rustix::io::dup(listener)?;
        let memory = rustix::io::dup(self.memory.as_fd())?;
        let control = rustix::io::dup(&theirs)?;
        let ticket = Ticket {
            index,
            processes: self.limit,
            listener: listener.as_raw_fd(),
            memory: memory.as_raw_fd(),
            control: control.as_raw_fd(),
        };
        let child = Command::new("/proc/self/exe")
            .arg0("wharf-host")
            .env(VARIABLE, ticket.text())
            .stdin(Stdio::null())
            .spawn()?;
        ours.set_nonblocking(true)?;
        let control = UnixStream::from_std(ours)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let task = tokio::spawn(follow((index, id), control, stopped, self.sender.clone()));
        self.others.push(Other { index, child, _control: task, stop: Some(stop) });
        Ok(())
    }

    /// Tells the youngest process to go.
    fn dismiss(&mut self) {
        let asked = self.others.iter_mut().rev().find_map(|other| Some((other.index, other.stop.take()?)));
        if let Some((index, stop)) = asked {
            info!(process = index, "serving with one process less");
            drop(stop);
        }
    }

    /// Tells all other processes to go and waits until they have, killing
    /// those that are still there after `patience`.
    pub(crate) async fn disband(mut self, patience: Duration, metrics: &Metrics) {
        for other in &mut self.others {
            other.stop = None;
        }
        let all_gone = async {
            while !self.others.is_empty() {
                match self.events.recv().await {
                    Some((index, event)) => self.heed(index, event, metrics),
                    None => break,
                }
            }
        };
        if timeout(patience, all_gone).await.is_err() {
            for other in &mut self.others {
                warn!(process = other.index, "process killed: it did not end in time");
                // It was not waited for, so the number is still its own.
                let _ = other.child.kill();
                let _ = other.child.wait();
            }
        }
    }
}

/// Processes that nobody else waits for: as process 1, this one must.
struct Orphans(Option<tokio::signal::unix::Signal>);

impl Orphans {
    fn watch() -> Self {
        let is_first = rustix::process::getpid().as_raw_nonzero().get() == 1;
        let child = tokio::signal::unix::SignalKind::child();
        Self(is_first.then(|| tokio::signal::unix::signal(child).ok()).flatten())
    }

    async fn died(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Waits for all that have died, but for `others`: whoever started those
    /// waits for them.
    fn reap(&self, others: &[Other]) {
        if self.0.is_none() {
            return;
        }
        let Ok(children) = std::fs::read_to_string("/proc/self/task/1/children") else { return };
        let children = children.split_ascii_whitespace().filter_map(|id| id.parse::<i32>().ok());
        for process in children.filter_map(Pid::from_raw) {
            let id = u32::try_from(process.as_raw_nonzero().get()).unwrap_or_default();
            if !others.iter().any(|other| other.child.id() == id) {
                let _ = waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
    }
}

/// Reads what process `index` says until it ends, or has to.
async fn follow(
    (index, id): (usize, Option<Pid>),
    mut control: UnixStream,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
    events: mpsc::UnboundedSender<(usize, Event)>,
) {
    let mut byte = [0];
    let mut asked = false;
    loop {
        tokio::select! {
            read = control.read(&mut byte) => match read {
                Ok(1) => _ = events.send((index, Event::Ready)),
                _ => break,
            },
            _ = &mut stopped, if !asked => {
                asked = true;
                // Half of it: that the process has ended is still to be seen.
                let _ = rustix::net::shutdown(control.as_fd(), rustix::net::Shutdown::Write);
            }
        }
    }
    // It says no more when it is about to end, but to wait for that would hold
    // up all that this process does.
    while let Some(id) = id
        && let Ok(None) =
            waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    {
        sleep(LOOK).await;
    }
    let _ = events.send((index, Event::Gone));
}

/// Of `count` processes' time, this share in thousandths of a core.
fn percent(count: usize, percent: u32) -> u128 {
    count as u128 * u128::from(percent) * 10
}

/// What the processes had done at a moment.
struct Sample {
    at: Instant,
    cpu: Duration,
    is_idle: bool,
}

impl Sample {
    fn take(board: &Board) -> Self {
        board.publish_cpu_time();
        Self { at: Instant::now(), cpu: board.cpu_time(), is_idle: false }
    }

    /// The sample of now, and the cores that were busy since this one, in
    /// thousandths.
    fn until_now(&self, board: &Board) -> (Self, u128) {
        let mut now = Self::take(board);
        let elapsed = now.at.duration_since(self.at).as_nanos().max(1);
        let busy = now.cpu.saturating_sub(self.cpu).as_nanos() * 1000 / elapsed;
        // Looking at it costs a little, too.
        now.is_idle = busy < 10;
        (now, busy)
    }
}

/// Writes down the CPU time of a process that another one started, for that
/// one to see. Never returns.
pub(crate) async fn publish(board: &Board) {
    let mut last = Sample::take(board);
    let mut serving = board.serving();
    loop {
        if last.is_idle {
            board.stirred().await;
            last = Sample::take(board);
        }
        sleep(TICK).await;
        last = last.until_now(board).0;
        let now = board.serving();
        if now > serving {
            board.rebalance();
        }
        serving = now;
    }
}
