//! The processes of one host: one while there is little to do, one a core
//! under load.
//!
//! Each is a single thread with an address space of its own, because what an
//! instance's end costs is telling other threads' cores of it (see
//! ARCHITECTURE.md). All accept from the same listening socket. Process 0 is
//! the one that was started from outside; it starts the others when they are
//! needed and lets them go when they are not.
//!
//! What they know of each other is on the [`Board`]. This module does not know
//! what is served.

mod board;
mod crew;
mod membership;

pub(crate) use board::Board;
pub(crate) use crew::publish;
pub use crew::{Crew, CrewError};
pub(crate) use membership::Leave;
pub use membership::{Membership, MembershipError};
