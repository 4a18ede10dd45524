//! The futures of those who wait for a drain.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    Drain, DrainReport,
    shared::{Shared, Watcher},
    state::Moment,
};
use crate::{
    clock::Instant,
    timer::{Due, Timer},
};

/// Ends when a drain begins. See [`Drain::started`].
#[must_use = "a future does nothing unless it is polled"]
pub struct Started {
    watcher: Watcher,
}

impl Started {
    pub(super) fn new(drain: &Drain) -> Self {
        Self { watcher: Watcher::new(drain) }
    }
}

impl Future for Started {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.watcher.watch(cx.waker(), Moment::Begun) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ends when a drain refuses new calls. See [`Drain::refusing`].
#[must_use = "a future does nothing unless it is polled"]
pub struct Refusing {
    watcher: Watcher,
    grace: Timer,
}

impl Refusing {
    pub(super) fn new(drain: &Drain) -> Self {
        Self { watcher: Watcher::new(drain), grace: Timer::unarmed() }
    }
}

impl Future for Refusing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { watcher, grace } = self.get_mut();
        // First, so that a drain that begins after this wakes the task.
        if watcher.watch(cx.waker(), Moment::Closed) {
            return Poll::Ready(());
        }
        ready!(end_grace(watcher.drain(), grace, cx));
        if watcher.watch(cx.waker(), Moment::Closed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Waits for the end of the grace of a drain that has begun, and closes the door then.
fn end_grace(drain: &Shared, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
    let Some(begun) = drain.core.begun() else {
        return Poll::Pending;
    };
    if !drain.core.is_closed() {
        ready!(timer.poll(cx, || Due::at(begun.closes_at)));
        drain.close_if_due(Instant::now());
    }
    Poll::Ready(())
}

/// Ends when a drain has come to its end, or its time has run out. See [`Drain::finish`].
#[must_use = "a future does nothing unless it is polled"]
pub struct Finish {
    watcher: Watcher,
    within: Option<Duration>,
    grace: Timer,
    limit: Timer,
}

impl Finish {
    pub(super) fn new(drain: &Drain, within: Option<Duration>) -> Self {
        Self { watcher: Watcher::new(drain), within, grace: Timer::unarmed(), limit: Timer::unarmed() }
    }
}

impl Future for Finish {
    type Output = DrainReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainReport> {
        let Self { watcher, within, grace, limit } = self.get_mut();
        if watcher.drain().core.begun().is_none() {
            watcher.drain().start();
        }
        // Whether it is over or not, what follows tells when to look again.
        let _ = end_grace(watcher.drain(), grace, cx);
        if watcher.watch(cx.waker(), Moment::Ended) {
            return Poll::Ready(watcher.drain().report());
        }
        let drain = watcher.drain();
        ready!(limit.poll(cx, || {
            let now = Instant::now();
            let since = drain.core.begun().map_or(now, |begun| begun.at);
            Due::at_given(within.map_or(since + drain.timeout, |within| now + within), now)
        }));
        let report = drain.report();
        let DrainReport { finished, in_flight, took } = report;
        if !finished && drain.core.note_timeout() {
            tracing::warn!(
                layer = drain.name,
                in_flight,
                ?took,
                "the drain has timed out; what is in flight goes on"
            );
        }
        Poll::Ready(report)
    }
}

macro_rules! debug {
    ($($name:ident)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("name", &self.watcher.drain().name).finish_non_exhaustive()
            }
        })*
    };
}

debug!(Started Refusing Finish);
