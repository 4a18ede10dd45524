//! Who is told that a node's state has changed: a stream, and callbacks.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_util::sync::ReusableBoxFuture;
use uuid::Uuid;

use super::state::{Cause, NodeState};

/// How many transitions a reader of the stream may be behind, and how many may wait for a callback.
pub(super) const KEPT: usize = 256;

/// A change of a node's state.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The node's address.
    pub node: SocketAddr,
    /// Its host id.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::report::as_text"))]
    pub host_id: Uuid,
    /// Its datacenter.
    pub datacenter: Option<Arc<str>>,
    /// The state before.
    pub from: NodeState,
    /// The state now.
    pub to: NodeState,
    /// Why.
    pub cause: Cause,
    /// How long the state before has lasted.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::report::as_seconds"))]
    pub lasted: Duration,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, after {:?} {}: {}", self.node, self.to, self.lasted, self.from, self.cause)
    }
}

/// So many transitions came while nobody read that the oldest were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(pub u64);

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transitions were missed: read faster, or look at the report for how things are now",
            self.0
        )
    }
}

impl std::error::Error for Missed {}

/// The transitions of all nodes, from [`HealthMonitor::transitions`](super::HealthMonitor::transitions) on. A reader that is slow
/// misses the oldest and is told how many. It ends when the monitor does.
pub struct Transitions {
    next: ReusableBoxFuture<'static, (Result<Transition, RecvError>, broadcast::Receiver<Transition>)>,
}

impl Transitions {
    pub(super) fn new(channel: broadcast::Receiver<Transition>) -> Self {
        Self { next: ReusableBoxFuture::new(receive(channel)) }
    }

    /// The next transition, or how many were missed; `None` when the monitor has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Transition, Missed>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

async fn receive(
    mut channel: broadcast::Receiver<Transition>,
) -> (Result<Transition, RecvError>, broadcast::Receiver<Transition>) {
    let received = channel.recv().await;
    (received, channel)
}

impl Stream for Transitions {
    type Item = Result<Transition, Missed>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (received, channel) = ready!(this.next.poll(cx));
        this.next.set(receive(channel));
        Poll::Ready(match received {
            Ok(transition) => Some(Ok(transition)),
            Err(RecvError::Lagged(missed)) => Some(Err(Missed(missed))),
            Err(RecvError::Closed) => None,
        })
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transitions").finish_non_exhaustive()
    }
}

/// Is told of each transition.
pub(super) type Callback = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The callbacks, each with a queue of its own. They run one at a time on threads that may block.
#[derive(Debug)]
pub(super) struct Callbacks {
    queues: Vec<mpsc::Sender<Transition>>,
    dropped: Arc<AtomicU64>,
}

impl Callbacks {
    /// Starts a task for each, which ends when this is dropped and what waits is told.
    pub(super) fn start(callbacks: &[Callback], dropped: &Arc<AtomicU64>) -> Self {
        let start = |callback: &Callback| {
            let (queue, waiting) = mpsc::channel(KEPT);
            tokio::spawn(tell(Arc::clone(callback), waiting));
            queue
        };
        Self { queues: callbacks.iter().map(start).collect(), dropped: Arc::clone(dropped) }
    }

    pub(super) fn tell(&self, transition: &Transition) {
        for queue in &self.queues {
            if queue.try_send(transition.clone()).is_err() {
                self.dropped.fetch_add(1, Relaxed);
                tracing::warn!(%transition, "a callback of the health monitor is so slow that it is not told of this");
            }
        }
    }
}

async fn tell(callback: Callback, mut waiting: mpsc::Receiver<Transition>) {
    while let Some(transition) = waiting.recv().await {
        let callback = Arc::clone(&callback);
        let told = tokio::task::spawn_blocking(move || callback(&transition)).await;
        if told.is_err_and(|error| error.is_panic()) {
            tracing::error!(
                "a callback of the health monitor has panicked; it is told of the next transition"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize, mpsc as blocking};

    use super::*;

    fn transition(number: u16) -> Transition {
        Transition {
            node: SocketAddr::from(([127, 0, 0, 1], number)),
            host_id: Uuid::nil(),
            datacenter: None,
            from: NodeState::Up,
            to: NodeState::Down,
            cause: Cause::Disconnected,
            lasted: Duration::from_secs(3),
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_missed() {
        let (sender, receiver) = broadcast::channel(4);
        let mut transitions = Transitions::new(receiver);
        for number in 0..7 {
            sender.send(transition(number)).unwrap();
        }
        drop(sender);
        assert_eq!(transitions.next().await, Some(Err(Missed(3))));
        for number in 3..7 {
            assert_eq!(transitions.next().await, Some(Ok(transition(number))));
        }
        assert_eq!(transitions.next().await, None);
        assert_eq!(transitions.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_waiting_loses_nothing() {
        let (sender, receiver) = broadcast::channel(4);
        let mut transitions = Transitions::new(receiver);
        for number in 0..3 {
            assert!(tokio::time::timeout(Duration::ZERO, transitions.next()).await.is_err());
            sender.send(transition(number)).unwrap();
            assert_eq!(transitions.next().await, Some(Ok(transition(number))));
        }
    }

    #[tokio::test]
    async fn a_callback_that_panics_is_told_of_the_next() {
        let (told, heard) = blocking::channel();
        let told = Mutex::new(told);
        let callback: Callback = Arc::new(move |transition| {
            told.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .send(transition.node.port())
                .unwrap();
            assert_ne!(transition.node.port(), 1, "on purpose");
        });
        let callbacks = Callbacks::start(&[callback], &Arc::default());
        for number in 1..=3 {
            callbacks.tell(&transition(number));
        }
        drop(callbacks);
        let heard = tokio::task::spawn_blocking(move || heard.iter().collect::<Vec<_>>());
        assert_eq!(heard.await.unwrap(), [1, 2, 3], "in order, and to the end");
    }

    #[tokio::test]
    async fn a_callback_that_blocks_holds_up_nobody_and_what_it_misses_is_counted() {
        let (go_on, wait) = blocking::channel::<()>();
        let wait = Mutex::new(wait);
        let stuck: Callback = Arc::new(move |_| {
            let _ = wait.lock().unwrap().recv();
        });
        let count = Arc::new(AtomicUsize::new(0));
        let counting: Callback = Arc::new({
            let count = Arc::clone(&count);
            move |_| {
                count.fetch_add(1, Relaxed);
            }
        });
        let dropped = Arc::default();
        let callbacks = Callbacks::start(&[stuck, counting], &dropped);
        let many = 4 * KEPT;
        for number in 0..many {
            callbacks.tell(&transition(0));
            while count.load(Relaxed) <= number {
                tokio::task::yield_now().await;
            }
        }
        // One of them is with the callback, and so many wait.
        assert_eq!(dropped.load(Relaxed), (many - KEPT - 1) as u64);
        drop(go_on);
    }

    #[test]
    fn a_transition_reads_as_a_sentence() {
        assert_eq!(
            transition(9042).to_string(),
            "127.0.0.1:9042 is down, after 3s up: no connection to it is left"
        );
    }
}
