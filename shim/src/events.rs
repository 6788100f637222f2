//! Events to containerd, in the order in which they happened.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::cleanup::timestamp;
use crate::metrics::pack;

/// Time for containerd to take one event.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pauses between attempts: a containerd that restarts is back by then.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// An event of a task, which has a topic.
pub(crate) trait Event: Message {
    /// The message's full name.
    const TYPE: &'static str;

    /// containerd's name for this kind of event.
    const TOPIC: &'static str;
}

impl Event for task::TaskCreate {
    const TYPE: &'static str = "containerd.events.TaskCreate";
    const TOPIC: &'static str = "/tasks/create";
}

impl Event for task::TaskStart {
    const TYPE: &'static str = "containerd.events.TaskStart";
    const TOPIC: &'static str = "/tasks/start";
}

impl Event for task::TaskExit {
    const TYPE: &'static str = "containerd.events.TaskExit";
    const TOPIC: &'static str = "/tasks/exit";
}

impl Event for task::TaskDelete {
    const TYPE: &'static str = "containerd.events.TaskDelete";
    const TOPIC: &'static str = "/tasks/delete";
}

impl Event for task::TaskOOM {
    const TYPE: &'static str = "containerd.events.TaskOOM";
    const TOPIC: &'static str = "/tasks/oom";
}

impl Event for task::TaskExecAdded {
    const TYPE: &'static str = "containerd.events.TaskExecAdded";
    const TOPIC: &'static str = "/tasks/exec-added";
}

impl Event for task::TaskExecStarted {
    const TYPE: &'static str = "containerd.events.TaskExecStarted";
    const TOPIC: &'static str = "/tasks/exec-started";
}

impl Event for task::TaskPaused {
    const TYPE: &'static str = "containerd.events.TaskPaused";
    const TOPIC: &'static str = "/tasks/paused";
}

impl Event for task::TaskResumed {
    const TYPE: &'static str = "containerd.events.TaskResumed";
    const TOPIC: &'static str = "/tasks/resumed";
}

enum Entry {
    Event(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

/// Takes events without waiting and sends them one after the other.
#[derive(Clone)]
pub(crate) struct Publisher {
    namespace: String,
    queue: mpsc::UnboundedSender<Entry>,
}

impl Publisher {
    /// Sends the events of `namespace` to containerd's socket at `address`.
    pub(crate) fn start(address: &str, namespace: &str) -> Self {
        let (queue, entries) = mpsc::unbounded_channel();
        tokio::spawn(send_all(address.to_owned(), entries));
        Self { namespace: namespace.to_owned(), queue }
    }

    /// Queues `event`.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let envelope = match pack(E::TYPE, event) {
            Ok(event) => Envelope {
                timestamp: MessageField::some(timestamp(SystemTime::now())),
                namespace: self.namespace.clone(),
                topic: E::TOPIC.to_owned(),
                event: MessageField::some(event),
                ..Envelope::default()
            },
            Err(error) => {
                tracing::error!(topic = E::TOPIC, %error, "cannot encode event");
                return;
            }
        };
        // Fails only while the server ends, when nobody listens.
        let _ = self.queue.send(Entry::Event(Box::new(envelope)));
    }

    /// Waits until all events so far are sent, or given up.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Entry::Flush(done)).is_ok() {
            let _ = timeout(PATIENCE, flushed).await;
        }
    }
}

async fn send_all(address: String, mut entries: mpsc::UnboundedReceiver<Entry>) {
    let mut connection = None;
    while let Some(entry) = entries.recv().await {
        match entry {
            Entry::Flush(done) => drop(done.send(())),
            Entry::Event(envelope) => send(&address, &mut connection, *envelope).await,
        }
    }
}

/// Sends one event, and tries again, or a later event would overtake it.
async fn send(address: &str, connection: &mut Option<EventsClient>, envelope: Envelope) {
    let topic = envelope.topic.clone();
    let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    let mut pauses = PAUSES.into_iter();
    loop {
        let error = match try_send(address, connection, &request).await {
            Ok(()) => return,
            Err(error) => error,
        };
        *connection = None;
        let Some(pause) = pauses.next() else {
            tracing::error!(topic, error, "cannot send event");
            return;
        };
        sleep(pause).await;
    }
}

async fn try_send(
    address: &str,
    connection: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<(), String> {
    let client = match connection {
        Some(client) => client,
        None => {
            let path = address.strip_prefix("unix://").unwrap_or(address);
            let socket = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            connection.insert(EventsClient::new(Client::new(socket.into())))
        }
    };
    let sent = client.forward(context::with_duration(PATIENCE), request).await;
    sent.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::MessageFull;

    fn assert_named<E: Event + MessageFull>() {
        assert_eq!(E::TYPE, E::descriptor().full_name());
    }

    #[test]
    fn events_have_the_names_of_their_messages() {
        assert_named::<task::TaskCreate>();
        assert_named::<task::TaskStart>();
        assert_named::<task::TaskExit>();
        assert_named::<task::TaskDelete>();
        assert_named::<task::TaskOOM>();
        assert_named::<task::TaskExecAdded>();
        assert_named::<task::TaskExecStarted>();
        assert_named::<task::TaskPaused>();
        assert_named::<task::TaskResumed>();
    }
}
