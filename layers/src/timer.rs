//! One timer for a whole stack.
//!
//! To arm a timer costs more than most layers do, and a stack has several: for the call, for a second attempt, for each
//! attempt. Nearly all of them are dropped unused. So only the outermost one is armed, for the moment at which the first
//! of all is due: it wakes the task, and that polls its way down to the one whose moment has come.
//!
//! That is right as long as the inner timer is polled whenever the outer one wakes the task, which the contract of
//! [`Future`] sees to wherever both are polled with the same waker: whoever hands one waker to several futures cannot tell
//! which of them was meant, and has to poll them all. (Whoever polls a future inside a layer's future that is made anew for
//! that poll, and dropped after it, would take the timer along; nothing that is known does.) Where something in between has a waker of its own, as `FuturesUnordered`
//! or a spawned task, the inner timer is armed by itself.

use std::{
    cell::Cell,
    ptr,
    task::{Context, Poll, RawWakerVTable, Waker},
    time::Duration,
};

use crate::{clock::Instant, sleep::Sleep};

/// Costs nothing until it is first polled; then it is armed, or leaves its waking to a timer further out.
pub(crate) struct Timer {
    sleep: Option<Sleep>,
    // What the sleep was set to.
    armed_for: Option<Instant>,
    due: Option<Instant>,
    // When the first of the timers further in is due.
    inside: Option<Instant>,
}

/// When a timer is due, beside a recent reading of the clock.
pub(crate) struct Due {
    at: Instant,
    now: Instant,
}

impl Due {
    /// So long from now.
    #[inline]
    pub(crate) fn after(wait: Duration) -> Self {
        let now = Instant::now();
        Self { at: now + wait, now }
    }

    /// At a moment.
    #[inline]
    pub(crate) fn at(at: Instant) -> Self {
        Self { at, now: Instant::now() }
    }

    /// At a moment, where it was `now` before; how long ago does not matter.
    #[inline]
    pub(crate) const fn at_given(at: Instant, now: Instant) -> Self {
        Self { at, now }
    }
}

/// The timer further out that is being polled on this thread, if any, and when it was told to wake its task.
#[derive(Clone, Copy)]
struct Alarm {
    data: *const (),
    vtable: *const RawWakerVTable,
    earliest: Option<Instant>,
}

impl Alarm {
    const NONE: Self = Self { data: ptr::null(), vtable: ptr::null(), earliest: None };

    #[inline]
    fn of(waker: &Waker) -> Self {
        Self { data: waker.data(), vtable: waker.vtable(), earliest: None }
    }

    /// Whether it wakes the same task in the same way.
    #[inline]
    fn wakes(&self, waker: &Waker) -> bool {
        ptr::eq(self.data, waker.data()) && ptr::eq(self.vtable, waker.vtable())
    }
}

thread_local! {
    static ALARM: Cell<Alarm> = const { Cell::new(Alarm::NONE) };
}

/// Leaves it to a timer further out to wake the task at `at`. Tells whether there is one that does.
#[inline]
fn leave_to_outer(waker: &Waker, at: Instant) -> bool {
    let alarm = ALARM.get();
    let same = alarm.wakes(waker);
    if same {
        let earliest = Some(alarm.earliest.map_or(at, |earliest| earliest.min(at)));
        ALARM.set(Alarm { earliest, ..alarm });
    }
    same
}

/// Puts the alarm further out back in its place, also when the poll further in panics.
struct Restore(Alarm);

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        ALARM.set(self.0);
    }
}

impl Timer {
    #[inline]
    pub(crate) const fn unarmed() -> Self {
        Self { sleep: None, armed_for: None, due: None, inside: None }
    }

    /// Polls what this timer limits. Timers inside may leave their waking to this one, which has to be polled after
    /// this if the answer is pending.
    #[inline]
    pub(crate) fn inside<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let restore = Restore(ALARM.replace(Alarm::of(cx.waker())));
        let polled = poll(cx);
        self.inside = ALARM.get().earliest;
        drop(restore);
        polled
    }

    /// Ready at the moment that `due` tells at the first poll, beside a recent reading of the clock.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: impl FnOnce() -> Due) -> Poll<()> {
        let (due, now) = if let Some(due) = self.due {
            (due, Instant::now())
        } else {
            let Due { at, now } = due();
            self.due = Some(at);
            (at, now)
        };
        if due <= now {
            return Poll::Ready(());
        }
        let wake_at = self.inside.take().map_or(due, |inside| inside.min(due));
        if !leave_to_outer(cx.waker(), wake_at) {
            self.arm(cx, wake_at, now);
        }
        Poll::Pending
    }

    /// Sees to it that the task is woken at `wake_at`.
    #[inline]
    fn arm(&mut self, cx: &mut Context<'_>, wake_at: Instant, now: Instant) {
        let on_tokios_clock = |now| wake_at.on_tokios_clock(now).unwrap_or_else(tokio::time::Instant::now);
        let wait = wake_at.saturating_duration_since(now);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if self.armed_for != Some(wake_at) {
                    sleep.reset(on_tokios_clock(now), wait);
                }
                sleep
            }
            None => self.sleep.insert(Sleep::until(on_tokios_clock(now), wait)),
        };
        self.armed_for = Some(wake_at);
        if sleep.poll(cx).is_ready() {
            // It has fired, and yet the moment has not come by the clock that is read here, which may differ a little.
            sleep.reset(on_tokios_clock(Instant::now()), wait);
            if sleep.poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        pin::Pin,
        sync::{Arc, Mutex},
        task::Wake,
    };

    use pin_project_lite::pin_project;
    use tokio::time::{self, advance, timeout};

    use super::*;
    use crate::sync::lock;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    pin_project! {
        /// Ends when its own limit does, or what is inside.
        struct Limited<F> {
            #[pin]
            inner: F,
            timer: Timer,
            limit: Duration,
        }
    }

    impl<F: Future<Output = u64>> Future for Limited<F> {
        type Output = u64;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
            let this = self.project();
            if let Poll::Ready(limit) = this.timer.inside(cx, |cx| this.inner.poll(cx)) {
                return Poll::Ready(limit);
            }
            let limit = *this.limit;
            this.timer
                .poll(cx, || Due::after(limit))
                .map(|()| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
        }
    }

    fn limited<F>(millis: u64, inner: F) -> Limited<F> {
        Limited { inner, timer: Timer::unarmed(), limit: ms(millis) }
    }

    fn hang() -> std::future::Pending<u64> {
        std::future::pending()
    }

    /// Lets the inner future be polled with a waker of its own, and only when that was woken.
    struct OwnWaker<F> {
        inner: Pin<Box<F>>,
        woken: Arc<Woken>,
    }

    struct Woken(Mutex<(bool, Option<Waker>)>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let mut woken = lock(&self.0);
            woken.0 = true;
            if let Some(waker) = woken.1.take() {
                waker.wake();
            }
        }
    }

    impl<F> OwnWaker<F> {
        fn new(inner: F) -> Self {
            Self { inner: Box::pin(inner), woken: Arc::new(Woken(Mutex::new((true, None)))) }
        }
    }

    impl<F: Future> Future for OwnWaker<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            let woken = {
                let mut woken = lock(&self.woken.0);
                woken.1 = Some(cx.waker().clone());
                std::mem::take(&mut woken.0)
            };
            if !woken {
                return Poll::Pending;
            }
            let waker = Waker::from(Arc::clone(&self.woken));
            self.inner.as_mut().poll(&mut Context::from_waker(&waker))
        }
    }

    async fn ends_after<F: Future<Output = u64>>(future: F) -> (u64, Duration) {
        let began = time::Instant::now();
        let ended = timeout(Duration::from_secs(60), future).await.expect("it ends");
        (ended, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_moment_counts_wherever_it_stands() {
        for limits in [[30, 20, 10], [10, 20, 30], [20, 10, 30], [20, 20, 20]] {
            let stack = limited(limits[0], limited(limits[1], limited(limits[2], hang())));
            let first = *limits.iter().min().unwrap();
            assert_eq!(ends_after(stack).await, (first, ms(first)), "{limits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stack_arms_one_timer() {
        let mut stack = Box::pin(limited(30, limited(20, limited(10, hang()))));
        assert!(stack.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(stack.timer.sleep.is_some());
        assert!(stack.inner.timer.sleep.is_none() && stack.inner.inner.timer.sleep.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_further_in_that_ends_and_begins_again_is_seen() {
        let again = async {
            let mut sum = 0;
            for _ in 0..4 {
                sum += limited(10, hang()).await;
            }
            sum
        };
        assert_eq!(ends_after(limited(100, again)).await, (40, ms(40)));
        let endless = async {
            loop {
                limited(30, hang()).await;
            }
        };
        assert_eq!(ends_after(limited(100, endless)).await, (100, ms(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_a_waker_of_its_own_has_a_timer_of_its_own() {
        let stack = limited(100, OwnWaker::new(limited(50, OwnWaker::new(limited(10, hang())))));
        assert_eq!(ends_after(stack).await, (10, ms(10)));
        let stack = limited(10, OwnWaker::new(limited(50, hang())));
        assert_eq!(ends_after(stack).await, (10, ms(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_to_another_task_is_woken_there() {
        let mut inner = Some(Box::pin(limited(10, hang())));
        let moving = limited(
            100,
            std::future::poll_fn(move |cx| {
                if let Some(mut future) = inner.take() {
                    assert!(future.as_mut().poll(cx).is_pending());
                    tokio::spawn(async move { assert_eq!(ends_after(future).await, (10, ms(10))) });
                }
                Poll::Pending
            }),
        );
        assert_eq!(ends_after(moving).await, (100, ms(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_further_in_does_not_take_the_limit_with_it() {
        let given_up = async {
            let _ = timeout(ms(5), limited(10, hang())).await;
            hang().await
        };
        assert_eq!(ends_after(limited(20, given_up)).await, (20, ms(20)));
        let in_one_poll = async {
            let mut shorter = Box::pin(limited(10, hang()));
            std::future::poll_fn(|cx| {
                assert!(shorter.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(shorter);
            hang().await
        };
        assert_eq!(ends_after(limited(20, in_one_poll)).await, (20, ms(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_further_in_leaves_no_trace() {
        let mut panics = Box::pin(limited(10, std::future::poll_fn(|_| -> Poll<u64> { panic!("inside") })));
        let waker = Waker::noop();
        let caught = catch_unwind(AssertUnwindSafe(|| panics.as_mut().poll(&mut Context::from_waker(waker))));
        assert!(caught.is_err());
        assert!(ALARM.get().data.is_null() && ALARM.get().vtable.is_null());
        assert_eq!(ends_after(limited(10, hang())).await, (10, ms(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_wait_side_by_side_are_both_seen() {
        let both = async {
            let (one, other) = tokio::join!(limited(10, hang()), limited(25, hang()));
            one + other
        };
        assert_eq!(ends_after(limited(100, both)).await, (35, ms(25)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_has_passed_is_ready_at_once() {
        let mut timer = Timer::unarmed();
        advance(ms(10)).await;
        let mut cx = Context::from_waker(Waker::noop());
        assert!(timer.poll(&mut cx, || Due::at(Instant::now() - ms(1))).is_ready());
        assert!(timer.poll(&mut cx, || unreachable!("it is known")).is_ready());
    }

    /// By the clocks that production reads, which are two.
    #[test]
    fn on_real_clocks_a_stack_ends_in_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for _ in 0..20 {
                let (ended, took) = ends_after(limited(50, limited(20, limited(7, hang())))).await;
                assert!(ended == 7 && took >= ms(7) && took < ms(200), "{took:?}");
            }
        });
    }
}
