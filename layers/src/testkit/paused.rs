use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Runs a future to its end on a clock that stands still, and jumps to the next timer whenever there is nothing else
/// to do.
///
/// It is `#[tokio::test(start_paused = true)]` for a plain `#[test]`, and for doc examples. `tokio::time::advance`
/// moves the clock inside it.
///
/// # Panics
///
/// If it is called inside a runtime.
pub fn run_paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no runtime to run the test in: {error}"),
    }
}

/// Polls a future once, with a waker that does nothing.
///
/// ```
/// use std::pin::pin;
/// use palisade::testkit::{Leaf, Request, Step, poll_once, run_paused};
/// use tower::Service;
///
/// run_paused(async {
///     let mut leaf = Leaf::new([Step::Hang]);
///     assert!(poll_once(pin!(leaf.call(Request::new(7)))).is_pending());
/// });
/// ```
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets all other tasks of a current-thread runtime run until they wait for something. The clock does not move.
pub async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// Counts how often its waker is woken.
///
/// ```
/// use palisade::testkit::Wakes;
///
/// let wakes = Wakes::new();
/// wakes.waker().wake();
/// assert_eq!(wakes.count(), 1);
/// ```
#[derive(Clone, Default)]
pub struct Wakes(Arc<Count>);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Wakes {
    /// A count of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A waker that is counted here.
    pub fn waker(&self) -> Waker {
        Arc::clone(&self.0).into()
    }

    /// How often it was woken.
    pub fn count(&self) -> usize {
        self.0.0.load(SeqCst)
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wakes").field(&self.count()).finish()
    }
}
