//! An instance of a worker's component, and the host's side of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wharf_app::{Limits, Worker as Description};

use super::budget::{Budget, CpuTime, Left};
use super::handler::{Guest, Handler};
use super::{GuestResponse, Shared};
use crate::engine::MAX_IDLE_INSTANCES;
use crate::grants::{Granted, Grants, GrantsView};
use crate::log::GuestLog;

/// How long an instance that may serve again is kept without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The host's side of one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    granted: Granted,
    budget: Budget,
}

/// An instance that answers requests, one at a time.
pub(super) struct Instance {
    store: Store<State>,
    guest: Guest,
    log: GuestLog,
    description: Arc<Description>,
    /// Requests that it may still answer.
    left: u32,
}

impl Instance {
    /// A fresh instance.
    pub(super) async fn new(
        handler: &Handler,
        description: &Arc<Description>,
        grants: &Arc<Grants>,
    ) -> wasmtime::Result<Self> {
        let limits = &description.limits;
        let log = GuestLog::new(limits.log);
        let wasi = grants.context(WasiCtx::builder().stdout(log.clone()).stderr(log.clone()));
        let mut store = store(handler.engine(), limits, grants, wasi);
        let cpu_time = store.data().cpu_time();
        let guest = cpu_time.measure(handler.instantiate(&mut store)).await?;
        Ok(Self { store, guest, log, description: Arc::clone(description), left: description.reuse.max(1) })
    }

    /// Lets the guest answer `request`. It gives its response to `sender`
    /// before it returns.
    pub(super) async fn handle(
        &mut self,
        scheme: Scheme,
        request: Request<WasiBody>,
        sender: oneshot::Sender<GuestResponse>,
    ) -> wasmtime::Result<()> {
        let is_first = self.left == self.description.reuse.max(1);
        self.left = self.left.saturating_sub(1);
        let limits = &self.description.limits;
        self.log.renew(limits.log);
        let store = &mut self.store;
        // The first request's time began with the instance.
        if !is_first {
            store.data_mut().budget.renew_cpu_time(limits);
        }
        store.set_epoch_deadline(1);
        let cpu_time = store.data().cpu_time();
        cpu_time.measure(self.guest.handle(store, scheme, request, sender)).await
    }

    pub(super) const fn may_serve_again(&self) -> bool {
        self.left > 0
    }
}

impl State {
    /// What measures its guest.
    pub(super) fn cpu_time(&self) -> Arc<CpuTime> {
        self.budget.cpu_time()
    }
}

/// What has a budget.
pub(super) trait Budgeted: Send + 'static {
    fn budget(&self) -> &Budget;
    fn budget_mut(&mut self) -> &mut Budget;
}

impl Budgeted for State {
    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn budget_mut(&mut self) -> &mut Budget {
        &mut self.budget
    }
}

/// What holds an instance, with these limits and grants.
pub(super) fn store(engine: &Engine, limits: &Limits, grants: &Arc<Grants>, wasi: WasiCtx) -> Store<State> {
    let state = State {
        wasi,
        http: WasiHttpCtx::new(),
        table: ResourceTable::new(),
        granted: grants.granted(),
        budget: Budget::new(limits),
    };
    bounded(engine, state)
}

/// A store whose guest keeps to the budget of `state`.
pub(super) fn bounded<T: Budgeted>(engine: &Engine, state: T) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.budget_mut());
    store.set_epoch_deadline(1);
    // All others of this thread have their turn: tasks, and by way of tokio's
    // own yielding the sockets and timers, the deadline's among them.
    store.epoch_deadline_callback(|store| {
        Ok(match store.data().budget().cpu_time_left() {
            Left::None => UpdateDeadline::Interrupt,
            // It began in the middle of a tick, or long after the last one
            // that it saw. Most guests end within a tick: to begin all of them
            // before any ends would take more memory than caches have.
            Left::Turn => UpdateDeadline::Continue(1),
            Left::AfterOthers => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
        })
    });
    store
}

/// Instances that have answered and may answer again, of all workers.
#[derive(Default)]
pub(super) struct Idle(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The longest idle first.
    waiting: Vec<Waiting>,
    /// A task sees to it that they are not kept for ever.
    is_watched: bool,
}

struct Waiting {
    worker: usize,
    since: Instant,
    instance: Instance,
}

impl Idle {
    /// An instance of the worker: the one that served last, its memory being
    /// the warmest.
    pub(super) fn take(&self, worker: usize) -> Option<Instance> {
        let waiting = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting;
        let at = waiting.iter().rposition(|waiting| waiting.worker == worker)?;
        Some(waiting.remove(at).instance)
    }

    /// Keeps an instance for a while; the longest idle goes if there are too
    /// many.
    pub(super) fn put(shared: &Arc<Shared>, worker: usize, instance: Instance) {
        let mut kept = shared.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_watched = std::mem::replace(&mut kept.is_watched, true);
        let waiting = &mut kept.waiting;
        let too_many = waiting.len() >= MAX_IDLE_INSTANCES as usize;
        let oldest = too_many.then(|| waiting.remove(0));
        waiting.push(Waiting { worker, since: Instant::now(), instance });
        drop(kept);
        drop(oldest);
        if !was_watched {
            tokio::spawn(expire(Arc::clone(shared)));
        }
    }
}

/// Drops instances as their time comes, until there are none.
async fn expire(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        let mut kept = shared.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut kept.waiting;
        let expired: Vec<Waiting> = {
            let fresh = waiting.iter().position(|waiting| waiting.since.elapsed() < IDLE_TIMEOUT);
            let count = fresh.unwrap_or(waiting.len());
            waiting.drain(..count).collect()
        };
        let none_left = waiting.is_empty();
        kept.is_watched = !none_left;
        drop(kept);
        drop(expired);
        if none_left {
            // What they leave behind is given back as well.
            drop(shared.ticker.run());
            return;
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.granted }
    }
}

impl GrantsView for State {
    fn granted(&mut self) -> (&mut Granted, &mut ResourceTable) {
        (&mut self.granted, &mut self.table)
    }
}
