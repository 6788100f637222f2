//! What a process gives back while nobody asks for anything.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::metrics::{Count, Counters};

/// Time without a connection after which memory is given back. What is asked first
/// after that takes a little longer: its code is mapped again.
const REST: Duration = Duration::from_secs(2);

/// Gives memory back whenever no client was connected for a while, and wakes no
/// more until `accepted` says that one is. Never ends.
pub(crate) async fn rest(counters: Counters, accepted: &Notify) {
    loop {
        loop {
            let before = counters.get(Count::ConnectionsAccepted);
            sleep(REST).await;
            let is_quiet = counters.get(Count::ConnectionsAccepted) == before;
            if is_quiet && counters.get(Count::Connections) == 0 {
                break;
            }
        }
        wharf_sys::release_program();
        accepted.notified().await;
    }
}
