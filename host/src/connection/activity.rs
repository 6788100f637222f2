//! What a connection is doing, noted by its requests and its stream, and read by
//! its clock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ConnectionLimits;

/// Notes of one connection. All times are in milliseconds since it began, plus
/// one, so that 0 is "not".
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    requests: AtomicU32,
    /// Whether a first request has come.
    has_spoken: AtomicBool,
    is_http2: AtomicBool,
    /// Whether bytes of a head have come whose request has not.
    has_head: AtomicBool,
    /// Since when a head is not complete, if it was not at once.
    head_since: AtomicU64,
    idle_since: AtomicU64,
    /// Since when the client takes nothing.
    stuck_since: AtomicU64,
    /// Of each response of HTTP/2, since when what was handed over waits.
    streams: Mutex<Vec<u64>>,
}

/// Responses of an HTTP/2 connection that a client may leave where they are for
/// longer than the time to send, while it takes others: what a browser does with
/// videos that are paused.
const MOST_STALLED: usize = 8;

/// A response of HTTP/2: what is handed over waits for the client's window.
pub(crate) struct WaitingStream {
    activity: Arc<Activity>,
    /// Its place among the connection's, once it has waited.
    place: Option<usize>,
}

/// No stream's.
const FREE: u64 = u64::MAX;

/// Whose time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Header,
    Idle,
    Send,
}

/// What the clock does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ends(Ending),
    LooksAgainAt(Instant),
}

impl Activity {
    /// Of a connection that begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicU32::new(0),
            has_spoken: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            has_head: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            stuck_since: AtomicU64::new(0),
            streams: Mutex::default(),
        }
    }

    /// A request's head has come.
    pub(crate) fn request_began(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.has_spoken.store(true, Ordering::Relaxed);
        self.has_head.store(false, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// A response's last byte was handed to the connection, or it was given up,
    /// at `now`.
    pub(crate) fn request_ended(&self, now: std::time::Instant) {
        self.idle_since.store(self.millis(now.into()), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// The stream was read: something came, or nothing.
    pub(super) fn was_read(&self, something: bool) {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return;
        }
        if !self.has_head.load(Ordering::Relaxed) {
            self.has_head.store(something, Ordering::Relaxed);
        } else if self.head_since.load(Ordering::Relaxed) == 0 {
            // More is wanted of a head that has begun. Most come whole, and
            // for them no clock is read.
            self.head_since.store(self.millis(Instant::now()), Ordering::Relaxed);
        }
    }

    /// The stream was written to, and it took something, or nothing.
    pub(super) fn was_written(&self, something: bool) {
        if something && self.is_http2.load(Ordering::Relaxed) {
            self.is_on_its_way();
        }
        self.was_flushed(something);
    }

    /// The stream was flushed, or could not be. h2 does so whenever it is polled,
    /// also by the clock.
    pub(super) fn was_flushed(&self, something: bool) {
        let stuck = self.stuck_since.load(Ordering::Relaxed);
        if something && stuck != 0 {
            self.is_on_its_way();
        }
        if something && stuck != 0 {
            self.stuck_since.store(0, Ordering::Relaxed);
        } else if !something && stuck == 0 {
            self.stuck_since.store(self.millis(Instant::now()), Ordering::Relaxed);
        }
    }

    /// What was handed over before the last request ended is still being sent.
    fn is_on_its_way(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.idle_since.store(self.millis(Instant::now()), Ordering::Relaxed);
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// What the clock does at `now`. It need not be told of what happens until
    /// it looks again: nothing that begins later ends before.
    pub(super) fn verdict(&self, now: Instant, limits: &ConnectionLimits) -> Verdict {
        let at = |millis: u64| self.began + Duration::from_millis(millis.saturating_sub(1));
        let stuck = self.stuck_since.load(Ordering::Relaxed);
        let head = self.head_since.load(Ordering::Relaxed);
        let mut next = now + limits.send_timeout;
        if stuck != 0 {
            let deadline = at(stuck) + limits.send_timeout;
            if deadline <= now {
                return Verdict::Ends(Ending::Send);
            }
            next = deadline;
        }
        let requests = self.requests.load(Ordering::Relaxed);
        if requests > 0 {
            let limit = u64::try_from(limits.send_timeout.as_millis()).unwrap_or(u64::MAX);
            let since = self.millis(now).saturating_sub(limit);
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let stalled = streams.iter().filter(|waits| (1..=since).contains(*waits)).count();
            if stalled > MOST_STALLED || (stalled > 0 && stalled >= requests as usize) {
                return Verdict::Ends(Ending::Send);
            }
        }
        if requests > 0 || stuck != 0 {
            return Verdict::LooksAgainAt(
                next.min(now + limits.header_timeout).min(now + limits.idle_timeout),
            );
        }
        let (deadline, ending) = if !self.has_spoken.load(Ordering::Relaxed) {
            (self.began + limits.header_timeout, Ending::Header)
        } else if head != 0 && !self.is_http2.load(Ordering::Relaxed) {
            // Of HTTP/2 the bytes may be no head, but a PING.
            (at(head) + limits.header_timeout, Ending::Header)
        } else {
            (at(self.idle_since.load(Ordering::Relaxed)) + limits.idle_timeout, Ending::Idle)
        };
        if deadline <= now {
            return Verdict::Ends(ending);
        }
        Verdict::LooksAgainAt(next.min(deadline).min(now + limits.header_timeout))
    }
}

impl WaitingStream {
    /// Of a response that begins.
    pub(crate) const fn new(activity: Arc<Activity>) -> Self {
        Self { activity, place: None }
    }

    /// Something was handed over.
    pub(crate) fn waits(&mut self) {
        let now = self.activity.millis(Instant::now());
        let mut streams = self.streams();
        let place = self.place.or_else(|| streams.iter().position(|waits| *waits == FREE));
        match place {
            Some(place) => streams[place] = now,
            None => streams.push(now),
        }
        let last = streams.len() - 1;
        drop(streams);
        self.place = place.or(Some(last));
    }

    /// It was taken: more is asked for.
    pub(crate) fn was_taken(&mut self) {
        if let Some(place) = self.place {
            self.streams()[place] = 0;
        }
    }

    fn streams(&self) -> MutexGuard<'_, Vec<u64>> {
        self.activity.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaitingStream {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.streams()[place] = FREE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        handshake_timeout: Duration::from_secs(1),
        header_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(75),
        send_timeout: Duration::from_secs(60),
        header_size: 1 << 16,
        streams: 1,
    };

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// The ending that the clock comes to from `from` on if nothing else
    /// happens, and when.
    fn outlook(activity: &Activity, from: Instant) -> (Ending, Duration) {
        let mut now = from;
        for _ in 0..20 {
            match activity.verdict(now, &LIMITS) {
                Verdict::Ends(ending) => return (ending, now - activity.began),
                Verdict::LooksAgainAt(next) => {
                    assert!(next > now, "the clock would spin");
                    now = next;
                }
            }
        }
        panic!("no end");
    }

    #[test]
    fn who_never_asks_is_given_the_time_of_a_head() {
        let activity = Activity::new();
        assert_eq!(outlook(&activity, activity.began), (Ending::Header, seconds(30)));
        // Bytes alone don't help.
        activity.was_read(true);
        activity.was_read(true);
        assert_eq!(outlook(&activity, activity.began), (Ending::Header, seconds(30)));
    }

    #[test]
    fn between_requests_the_idle_time_counts_from_the_last_response() {
        let activity = Activity::new();
        activity.request_began();
        activity.request_ended((activity.began + seconds(100)).into());
        assert_eq!(outlook(&activity, activity.began + seconds(100)), (Ending::Idle, seconds(175)));
    }

    #[test]
    fn a_slow_head_is_given_its_time_wherever_the_clock_is() {
        let activity = Activity::new();
        activity.request_began();
        activity.request_ended(activity.began.into());
        activity.has_head.store(true, Ordering::Relaxed);
        for since in [1, 29, 31, 74] {
            activity.head_since.store(since * 1000 + 1, Ordering::Relaxed);
            let (ending, when) = outlook(&activity, activity.began + seconds(since));
            assert_eq!((ending, when), (Ending::Header, seconds(since + 30)));
        }
        activity.speaks_http2();
        assert_eq!(outlook(&activity, activity.began), (Ending::Idle, seconds(75)));
    }

    #[test]
    fn a_request_in_flight_lasts_as_long_as_it_takes_unless_the_client_takes_nothing() {
        let activity = Activity::new();
        activity.request_began();
        let hour = activity.began + seconds(3600);
        assert!(matches!(activity.verdict(hour, &LIMITS), Verdict::LooksAgainAt(next) if next > hour));
        activity.stuck_since.store(1001, Ordering::Relaxed);
        assert_eq!(outlook(&activity, activity.began), (Ending::Send, seconds(61)));
        activity.was_written(true);
        assert!(matches!(activity.verdict(hour, &LIMITS), Verdict::LooksAgainAt(_)));
    }

    #[test]
    fn streams_that_nothing_is_taken_of_end_the_connection_unless_others_go_on() {
        let activity = Arc::new(Activity::new());
        activity.speaks_http2();
        let mut streams: Vec<_> = (0..10).map(|_| WaitingStream::new(Arc::clone(&activity))).collect();
        streams.iter().for_each(|_| activity.request_began());
        let ends =
            |after| activity.verdict(activity.began + seconds(after), &LIMITS) == Verdict::Ends(Ending::Send);
        streams[0].waits();
        assert!(!ends(61), "nine others compute");
        streams[1..9].iter_mut().for_each(WaitingStream::waits);
        assert!(!ends(59));
        assert!(ends(61), "nine are stalled");
        streams[3].was_taken();
        assert!(!ends(61));
        streams.truncate(1);
        (0..9).for_each(|_| activity.request_ended(activity.began.into()));
        assert!(ends(61), "the only one is stalled");
        streams[0].was_taken();
        assert!(!ends(3600));
        drop(streams);
        assert!(activity.streams.lock().unwrap().iter().all(|waits| *waits == FREE));
    }

    #[test]
    fn idle_time_counts_from_the_last_byte_that_an_http2_client_took() {
        let activity = Activity::new();
        activity.speaks_http2();
        activity.request_began();
        activity.request_ended(activity.began.into());
        std::thread::sleep(Duration::from_millis(20));
        activity.was_written(true);
        let (ending, when) = outlook(&activity, activity.began + seconds(1));
        assert!(ending == Ending::Idle && when >= seconds(75) + Duration::from_millis(20), "{when:?}");
    }

    #[test]
    fn a_head_that_comes_whole_reads_no_clock() {
        let activity = Activity::new();
        activity.was_read(true);
        assert_eq!(activity.head_since.load(Ordering::Relaxed), 0);
        activity.request_began();
        activity.was_read(false);
        assert!(!activity.has_head.load(Ordering::Relaxed));
    }
}
