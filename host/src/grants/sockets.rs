//! Outbound TCP (`wasi:sockets`): which connections may be made, by entries of
//! `outbound` such as `tcp://db.internal:5432`.
//!
//! A guest resolves a name first, and then connects to an address. So a name is
//! resolved only if an entry has it, its addresses are remembered, and one of them
//! is connected to only at a port that an entry has with that name. An address that
//! is not the public internet's needs an entry by address too, as with HTTP. There
//! is neither listening nor UDP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi::sockets::SocketAddrUse;
use wharf_app::{HostName, Outbound, OutboundRequest, OutboundScheme};

use super::address::special;
use super::resolver::Resolver;
use super::{DENIALS_TOLD, GrantsView};

/// The interface as wasmtime's own linker has it.
const NAME_LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// How long the addresses of a name may be connected to.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Names whose addresses are remembered at a time, at most.
const MOST_NAMES: usize = 256;

/// Connections that one instance may begin.
const MOST_CONNECTIONS: u32 = 128;

/// One worker's outbound TCP.
pub(super) struct Sockets {
    worker: String,
    entries: Vec<Outbound>,
    resolver: Arc<Resolver>,
    names: Mutex<HashMap<String, Remembered>>,
}

/// What a name was resolved to, and when.
struct Remembered {
    addresses: Vec<IpAddr>,
    since: Instant,
}

impl Sockets {
    /// For connections that one of `entries` covers; none if none is by TCP.
    pub(super) fn new(worker: &str, entries: &[Outbound], resolver: &Arc<Resolver>) -> Option<Arc<Self>> {
        let entries: Vec<Outbound> = entries.iter().filter(|entry| entry.is_tcp()).cloned().collect();
        (!entries.is_empty()).then(|| {
            let (worker, resolver) = (worker.to_owned(), Arc::clone(resolver));
            Arc::new(Self { worker, entries, resolver, names: Mutex::default() })
        })
    }

    /// Lets the guest of one instance connect.
    pub(super) fn allow(self: &Arc<Self>, builder: &mut WasiCtxBuilder) {
        let sockets = Arc::clone(self);
        let begun = AtomicU32::new(0);
        builder.allow_tcp(true).allow_udp(false).socket_addr_check(move |address, of| {
            let granted = match of {
                SocketAddrUse::TcpConnect => {
                    let begun = begun.fetch_add(1, Ordering::Relaxed);
                    sockets.may_connect(address, begun)
                }
                // As part of a connection: the system chooses address and port. Nothing
                // can come in by it, as nobody may listen.
                SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
                _ => false,
            };
            Box::pin(std::future::ready(granted))
        });
    }

    /// Whether the guest may connect to `address`, as the one that it begins after
    /// `begun` others. The log says why not.
    fn may_connect(&self, address: SocketAddr, begun: u32) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let reason = if begun >= MOST_CONNECTIONS {
            "the instance has begun too many connections".to_owned()
        } else if !self.is_granted(ip, port) {
            "no entry of `outbound` covers it".to_owned()
        } else {
            match self.prohibits(ip, port) {
                None => return true,
                Some(kind) => format!("{ip} is {kind}: add \"tcp://{address}\" to `outbound` to allow it"),
            }
        };
        if begun < u32::from(DENIALS_TOLD) || begun == MOST_CONNECTIONS {
            warn!(worker = self.worker, %address, reason, "outbound connection denied");
        }
        false
    }

    /// Whether an entry has the address, or a name that was resolved to it.
    fn is_granted(&self, ip: IpAddr, port: u16) -> bool {
        if self.covers(&HostName::Address(ip), port) {
            return true;
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().any(|(name, known)| {
            known.since.elapsed() < REMEMBERED
                && known.addresses.contains(&ip)
                && self.covers(&HostName::Name(name.clone()), port)
        })
    }

    fn covers(&self, host: &HostName, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.covers(&asked(host, port)))
    }

    /// What the address is, if that needs an entry by address and has none.
    fn prohibits(&self, ip: IpAddr, port: u16) -> Option<&'static str> {
        let special = special(ip)?;
        let host = HostName::Address(ip);
        let mut bits = self.entries.iter().filter_map(|entry| entry.covers_address(&asked(&host, port), ip));
        (!bits.any(|bits| bits >= special.bits)).then_some(special.kind)
    }

    /// The addresses of `name`, which may be connected to from now on.
    async fn resolve(self: Arc<Self>, name: String) -> Result<Vec<IpAddr>, ErrorCode> {
        let name = match name.parse::<HostName>() {
            Ok(HostName::Name(name)) => name,
            Ok(HostName::Address(address)) => return Ok(vec![address]),
            Err(_) => match name.parse() {
                Ok(address) => return Ok(vec![IpAddr::V6(address)]),
                Err(_) => return Err(ErrorCode::InvalidArgument),
            },
        };
        let host = HostName::Name(name.clone());
        if !self.entries.iter().any(|entry| entry.names(&host)) {
            warn!(
                worker = self.worker,
                name, "look-up of a name denied: no entry of `outbound` has it by tcp"
            );
            return Err(ErrorCode::AccessDenied);
        }
        let found = self.resolver.addresses(&name).await.map_err(|_| ErrorCode::NameUnresolvable)?;
        let addresses: Vec<IpAddr> = found.into_iter().map(|address| address.to_canonical()).collect();
        let known = Remembered { addresses: addresses.clone(), since: Instant::now() };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, known| known.since.elapsed() < REMEMBERED);
        if names.len() >= MOST_NAMES && !names.contains_key(&name) {
            return Err(ErrorCode::TemporaryResolverFailure);
        }
        names.insert(name, known);
        Ok(addresses)
    }
}

fn asked(host: &HostName, port: u16) -> OutboundRequest<'_> {
    OutboundRequest { method: "", scheme: OutboundScheme::Tcp, host, port }
}

/// A look-up that a guest has begun.
enum Lookup {
    Running(AbortOnDropJoinHandle<Result<Vec<IpAddr>, ErrorCode>>),
    Done(Result<std::vec::IntoIter<IpAddr>, ErrorCode>),
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Self::Running(running) = self {
            *self = Self::Done(running.await.map(Vec::into_iter));
        }
    }
}

/// Replaces the look-up of names that wasmtime has: by `getaddrinfo`, which a static
/// program lacks, and for any name.
pub(super) fn add_to_linker<T: GrantsView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(NAME_LOOKUP)?;
    interface.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, id| {
        store.data_mut().granted().1.delete(Resource::<Lookup>::new_own(id))?;
        Ok(())
    })?;
    interface.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, T>, (network, name): (Resource<Network>, String)| {
            let (granted, table) = store.data_mut().granted();
            table.get(&network)?;
            let Some(sockets) = &granted.grants.sockets else {
                return Ok((Err(ErrorCode::AccessDenied),));
            };
            let running = wasmtime_wasi::runtime::spawn(Arc::clone(sockets).resolve(name));
            Ok((Ok(table.push(Lookup::Running(running))?),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, T>, (lookup,): (Resource<Lookup>,)| {
            let next = match store.data_mut().granted().1.get_mut(&lookup)? {
                Lookup::Running(_) => Err(ErrorCode::WouldBlock),
                Lookup::Done(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
                Lookup::Done(Err(code)) => Err(*code),
            };
            Ok((next,))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, T>, (lookup,): (Resource<Lookup>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().granted().1, lookup)?;
            Ok((pollable,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(entries: &[&str]) -> Arc<Sockets> {
        let entries: Vec<Outbound> = entries.iter().map(|entry| entry.parse().unwrap()).collect();
        Sockets::new("x", &entries, &Arc::default()).unwrap()
    }

    fn may(sockets: &Sockets, address: &str) -> bool {
        sockets.may_connect(address.parse().unwrap(), 0)
    }

    #[test]
    fn only_addresses_and_ports_of_entries_are_connected_to() {
        let sockets = sockets(&["tcp://9.9.9.9:53", "tcp://10.0.0.0/8:5432", "https://1.1.1.1"]);
        assert!(may(&sockets, "9.9.9.9:53"));
        assert!(may(&sockets, "[::ffff:9.9.9.9]:53"));
        assert!(may(&sockets, "10.1.2.3:5432"));
        for address in ["9.9.9.9:54", "10.1.2.3:22", "1.1.1.1:443", "127.0.0.1:5432", "169.254.169.254:80"] {
            assert!(!may(&sockets, address), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_connected_to_where_it_leads_and_by_its_own_port_alone() {
        let by_name = sockets(&["tcp://localhost:5432"]);
        assert!(!may(&by_name, "127.0.0.1:5432"), "nobody asked for the name");
        let found = Arc::clone(&by_name).resolve("LOCALHOST".into()).await.unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(!may(&by_name, "127.0.0.1:5432"), "loopback needs an entry by address");
        let by_both = sockets(&["tcp://localhost:5432", "tcp://127.0.0.1:5432"]);
        Arc::clone(&by_both).resolve("localhost".into()).await.unwrap();
        assert!(may(&by_both, "127.0.0.1:5432"));
        assert!(!may(&by_both, "127.0.0.1:5433"));
        let other = Arc::clone(&by_both).resolve("example.com".into()).await.unwrap_err();
        assert!(matches!(other, ErrorCode::AccessDenied));
    }

    #[test]
    fn an_instance_begins_so_many_connections_and_no_more() {
        let sockets = sockets(&["tcp://9.9.9.9:53"]);
        let address = "9.9.9.9:53".parse().unwrap();
        assert!(sockets.may_connect(address, MOST_CONNECTIONS - 1));
        assert!(!sockets.may_connect(address, MOST_CONNECTIONS));
    }

    #[test]
    fn without_an_entry_by_tcp_there_are_no_sockets() {
        assert!(Sockets::new("x", &["https://example.com".parse().unwrap()], &Arc::default()).is_none());
    }
}
