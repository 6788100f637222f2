//! Many containers: how fast they start, and what each holds, alone and in one
//! pod. Through containerd's own shim and ours.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use wharf_tests::family::Family;

use crate::container::{Bench, NGINX, PEER, REST, Runtime, WHARF};
use crate::sample::{Comparison, MEBIBYTE};

/// Containers that are started for their rate.
const STARTED: usize = 100;

/// At a time.
const AT_A_TIME: usize = 8;

/// Containers whose memory is shared out.
const HELD: usize = 50;

/// Names the pod of a container to both shims.
const POD: &str = "io.kubernetes.cri.sandbox-id";

impl Bench {
    /// Containers started by several at a time, in containers a second.
    pub(crate) fn rate(&self, rounds: usize) -> Comparison {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (runtime, figures) in [(WHARF, &mut ours), (NGINX, &mut theirs)] {
                let since = Instant::now();
                self.start_many(runtime, STARTED, None);
                figures.push(STARTED as f64 / since.elapsed().as_secs_f64());
                self.remove_many(runtime, STARTED);
            }
        }
        Comparison {
            name: "100 containers, 8 at a time (≥ 1.7)",
            unit: "/s",
            wharf: ours,
            peer: Some((PEER, theirs)),
        }
    }

    /// What each of many idle containers holds with its part of a shim.
    pub(crate) fn shares(&self) -> [Comparison; 2] {
        let share = |runtime: Runtime, pod: Option<&str>| {
            self.start_many(runtime, HELD, pod);
            thread::sleep(REST);
            let held = Family::of_all(&self.shims()).pss() as f64 / MEBIBYTE / HELD as f64;
            self.remove_many(runtime, HELD);
            vec![held]
        };
        let compare = |name, pod| Comparison {
            name,
            unit: "MiB",
            wharf: share(WHARF, pod),
            peer: Some((PEER, share(NGINX, pod))),
        };
        [
            compare("idle PSS each of 50 in one pod (≤ 0.3)", Some("pod")),
            compare("idle PSS each of 50 in 50 pods (≤ 0.3)", None),
        ]
    }

    /// What a shim alone holds beside an idle container.
    pub(crate) fn shim(&self, rounds: usize) -> Comparison {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (runtime, figures) in [(WHARF, &mut ours), (NGINX, &mut theirs)] {
                self.start_many(runtime, 1, None);
                thread::sleep(REST);
                let shims = self.shims();
                let alone: u64 = shims.iter().map(|shim| Family::alone(*shim).pss()).sum();
                figures.push(alone as f64 / MEBIBYTE);
                self.remove_many(runtime, 1);
            }
        }
        Comparison {
            name: "idle PSS of the shim alone (≤ 0.3, ≤ 2.6 MiB)",
            unit: "MiB",
            wharf: ours,
            peer: Some((PEER, theirs)),
        }
    }

    /// Each in a network of its own: nobody asks them anything.
    fn start_many(&self, runtime: Runtime, count: usize, pod: Option<&str>) {
        self.each(count, |number| {
            let id = id(runtime, number);
            let mut run = vec!["run", "--detach", "--runtime", runtime.name];
            let annotation = pod.map(|pod| format!("{POD}={pod}"));
            run.extend(annotation.iter().flat_map(|annotation| ["--annotation", annotation]));
            run.extend([runtime.image, &id]);
            self.ctr(&run).succeeded();
        });
    }

    fn remove_many(&self, runtime: Runtime, count: usize) {
        self.each(count, |number| {
            let id = id(runtime, number);
            let _ = self.ctr(&["tasks", "delete", "--force", &id]);
            self.ctr(&["containers", "delete", &id]).succeeded();
        });
    }

    /// `work` for each number, by several threads.
    fn each(&self, count: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        work(number);
                    }
                });
            }
        });
    }
}

fn id(runtime: Runtime, number: usize) -> String {
    format!("{}-{number}", runtime.container)
}
