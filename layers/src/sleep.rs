//! tokio's sleeps, used again.
//!
//! To make a sleep costs a lock of the runtime's timers and a place among them, and so does it to drop one that has not fired,
//! which nearly all do. One that is put off costs neither: it keeps its place, and the runtime finds when it gets there
//! that there is more to wait for. So each thread keeps a few that were not needed, and puts them off for the next
//! calls. Nor does a future have to carry a hundred bytes for each timer that it might arm.
//!
//! What is kept is bounded, belongs to one runtime, and goes when the thread asks on behalf of another runtime or ends. A sleep
//! that is kept may fire; whoever had it last is woken once more then, which does no harm. Until then it holds that task's
//! waker, and so what a runtime needs to remember a task that has ended; one that is due in more than a minute is not kept.
//!
//! Tests on tokio's clock do not keep sleeps: a paused clock would stop at them.

use std::{
    cell::RefCell,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    task::coop::{has_budget_remaining, unconstrained},
    time::{Instant, Sleep as TokioSleep, sleep_until},
};

use crate::clock;

/// How many sleeps a thread keeps. A burst that needs more makes more.
const KEPT: usize = 64;

/// One that is due later is not kept.
const LONGEST: Duration = Duration::from_secs(60);

struct Kept {
    runtime: Option<runtime::Id>,
    sleeps: Vec<Pin<Box<TokioSleep>>>,
}

thread_local! {
    static KEPT_HERE: RefCell<Kept> = const { RefCell::new(Kept { runtime: None, sleeps: Vec::new() }) };
}

/// A sleep, which goes back to where it may be used again when it is dropped.
pub(crate) struct Sleep {
    // None only while it is being dropped.
    sleep: Option<Pin<Box<TokioSleep>>>,
    // None for one that is not to be kept.
    runtime: Option<runtime::Id>,
}

impl Sleep {
    /// Ends at `due`, which is `wait` from now.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time enabled, as tokio's own.
    pub(crate) fn until(due: Instant, wait: Duration) -> Self {
        if clock::is_tokios() || wait > LONGEST {
            return Self { sleep: Some(Box::pin(sleep_until(due))), runtime: None };
        }
        Self::kept_until(due)
    }

    fn kept_until(due: Instant) -> Self {
        let runtime = Handle::current().id();
        let sleep = match take(runtime) {
            Some(mut kept) => {
                kept.as_mut().reset(due);
                kept
            }
            None => Box::pin(sleep_until(due)),
        };
        Self { sleep: Some(sleep), runtime: Some(runtime) }
    }

    /// Puts it off, or brings it forward.
    #[inline]
    pub(crate) fn reset(&mut self, due: Instant, wait: Duration) {
        if wait > LONGEST {
            self.runtime = None;
        }
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(due);
        }
    }

    /// Ready when it is over. Exempt from tokio's cooperative budget: a future that uses up the budget at each poll could
    /// otherwise keep its own time limit from ever firing.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) if has_budget_remaining() => sleep.as_mut().poll(cx),
            Some(sleep) => pin!(unconstrained(sleep.as_mut())).poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(sleep), Some(runtime)) = (self.sleep.take(), self.runtime) {
            // Where it cannot be kept it is dropped, after the borrow has ended: that may run code of others.
            drop(keep(sleep, runtime));
        }
    }
}

/// One that this thread has kept.
fn take(runtime: runtime::Id) -> Option<Pin<Box<TokioSleep>>> {
    let (taken, old) = KEPT_HERE
        .try_with(|kept| {
            let mut kept = kept.try_borrow_mut().ok()?;
            if kept.runtime == Some(runtime) {
                return Some((kept.sleeps.pop(), Vec::new()));
            }
            kept.runtime = Some(runtime);
            Some((None, std::mem::take(&mut kept.sleeps)))
        })
        .ok()??;
    // Those of another runtime.
    drop(old);
    taken
}

/// Keeps it, or gives it back where there is no room, or no use.
fn keep(sleep: Pin<Box<TokioSleep>>, runtime: runtime::Id) -> Option<Pin<Box<TokioSleep>>> {
    let mut sleep = Some(sleep);
    let _ = KEPT_HERE.try_with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut()
            && kept.runtime == Some(runtime)
            && kept.sleeps.len() < KEPT
        {
            kept.sleeps.extend(sleep.take());
        }
    });
    sleep
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::task::Waker;

    use super::*;

    fn kept() -> usize {
        KEPT_HERE.with(|kept| kept.borrow().sleeps.len())
    }

    /// As in production, where time is not tokio's.
    fn make(millis: u64) -> Sleep {
        Sleep::kept_until(Instant::now() + Duration::from_millis(millis))
    }

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    async fn over(sleep: &mut Sleep) {
        std::future::poll_fn(|cx| sleep.poll(cx)).await;
    }

    #[test]
    fn a_sleep_that_is_used_again_ends_when_it_should_whether_sooner_or_later() {
        runtime().block_on(async {
            for millis in [200, 20, 1, 20, 40, 5, 0, 30] {
                let began = Instant::now();
                over(&mut make(millis)).await;
                let (took, asked) = (began.elapsed(), Duration::from_millis(millis));
                assert!(took >= asked && took < asked + Duration::from_millis(100), "{took:?} of {asked:?}");
                assert_eq!(kept(), 1);
                // One that has begun, and was not needed.
                let mut unneeded = make(50_000);
                assert!(unneeded.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        });
    }

    #[test]
    fn one_that_is_due_much_later_is_not_kept() {
        runtime().block_on(async {
            let mut long = make(10);
            long.reset(Instant::now() + Duration::from_secs(3_600), Duration::from_secs(3_600));
            drop(long);
            assert_eq!(kept(), 0);
        });
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        runtime().block_on(async {
            let many: Vec<_> = (0..200).map(|_| make(10)).collect();
            drop(many);
            assert_eq!(kept(), KEPT);
        });
    }

    #[test]
    fn what_one_runtime_leaves_is_not_used_by_another() {
        let first = runtime();
        let left = first.block_on(async { make(10) });
        drop(left);
        assert_eq!(kept(), 1);
        drop(first);
        runtime().block_on(async {
            let mut sleep = make(1);
            assert_eq!(kept(), 0);
            over(&mut sleep).await;
        });
    }

    #[test]
    fn one_that_outlives_its_runtime_or_its_thread_is_dropped_quietly() {
        let first = runtime();
        let (mut left, other) = first.block_on(async { (make(10), make(10)) });
        assert!(first.block_on(async { left.poll(&mut Context::from_waker(Waker::noop())) }).is_pending());
        drop(first);
        std::thread::spawn(move || drop(other)).join().unwrap();
        drop(left);
    }

    #[test]
    fn one_that_is_dropped_on_another_thread_is_not_kept_where_nobody_asks() {
        runtime().block_on(async {
            let sleep = make(10);
            let kept_there = std::thread::spawn(move || {
                drop(sleep);
                kept()
            });
            assert_eq!(kept_there.join().unwrap(), 0);
        });
    }
}
