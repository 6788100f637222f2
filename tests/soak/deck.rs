//! Which requests are made, and how many of each in a thousand.

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A file of 1 KB.
    Small,
    /// A file with a compressed sibling.
    Compressed,
    /// A part of a file of 1 MB.
    Range,
    /// A name that nothing has.
    Missing,
    /// A worker in Rust.
    Rust,
    /// One that echoes what it gets.
    Echo,
    /// A worker in JavaScript.
    Js,
    /// A worker in Python.
    Python,
    /// A worker that traps.
    Trap,
    /// A worker that waits for longer than it may.
    Sleep,
    /// A worker that computes for longer than it may.
    Spin,
    /// A client that is gone before the answer.
    Leave,
    /// A client that is gone amid its request.
    LeaveRequest,
    /// A client that is gone amid the answer.
    LeaveAnswer,
    /// A client that is gone while its worker waits.
    LeaveWorker,
}

/// Cards of the deck.
pub(crate) const SIZE: u64 = 1000;

/// How many of each: 1% trap, 1% run out of time, 1% leave.
const CARDS: [(Kind, usize); 15] = [
    (Kind::Small, 400),
    (Kind::Compressed, 100),
    (Kind::Range, 40),
    (Kind::Missing, 10),
    (Kind::Rust, 250),
    (Kind::Echo, 60),
    (Kind::Js, 70),
    (Kind::Python, 40),
    (Kind::Trap, 10),
    (Kind::Sleep, 9),
    (Kind::Spin, 1),
    (Kind::Leave, 3),
    (Kind::LeaveRequest, 3),
    (Kind::LeaveAnswer, 2),
    (Kind::LeaveWorker, 2),
];

const _: () = {
    let (mut cards, mut at) = (0, 0);
    while at < CARDS.len() {
        cards += CARDS[at].1;
        at += 1;
    }
    assert!(cards as u64 == SIZE, "the deck has as many cards as it says");
};

/// The same order in every run.
pub(crate) fn shuffled() -> Vec<Kind> {
    let mut deck: Vec<Kind> =
        CARDS.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut deck);
    deck
}

impl Kind {
    /// For the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "file of 1 KB",
            Self::Compressed => "compressed file",
            Self::Range => "range of 1 MB",
            Self::Missing => "no such file",
            Self::Rust => "Rust",
            Self::Echo => "Rust, echo",
            Self::Js => "JavaScript",
            Self::Python => "Python",
            Self::Trap => "trap",
            Self::Sleep => "timeout, waiting",
            Self::Spin => "timeout, computing",
            Self::Leave => "left before the answer",
            Self::LeaveRequest => "left amid the request",
            Self::LeaveAnswer => "left amid the answer",
            Self::LeaveWorker => "left a waiting worker",
        }
    }

    /// The status that is expected; none where the client has gone by then.
    pub(crate) const fn status(self) -> Option<u16> {
        match self {
            Self::Small | Self::Compressed | Self::Rust | Self::Echo | Self::Js | Self::Python => Some(200),
            Self::Range => Some(206),
            Self::Missing => Some(404),
            Self::Trap => Some(500),
            Self::Sleep | Self::Spin => Some(504),
            Self::Leave | Self::LeaveRequest | Self::LeaveAnswer | Self::LeaveWorker => None,
        }
    }
}
