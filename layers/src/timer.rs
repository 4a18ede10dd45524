//! A timer that is armed only once something has to be waited for.

use std::{
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::{has_budget_remaining, unconstrained},
    time::{Instant, Sleep, sleep_until},
};

pin_project! {
    /// Costs nothing until it is first polled, and arms a tokio timer then.
    ///
    /// It is exempt from tokio's cooperative budget: a future that uses up the budget at each poll could
    /// otherwise keep its own time limit from ever firing.
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

/// What a timer is set to until it is known when it is due.
static LATER: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(86_400));

impl Timer {
    pub(crate) const fn unarmed() -> Self {
        Self { sleep: None }
    }

    /// Ready at the moment that `due` tells at the first poll, or at once if it tells none.
    #[inline]
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        due: impl FnOnce() -> Option<Instant>,
    ) -> Poll<()> {
        let mut this = self.project();
        if this.sleep.is_none() {
            // A value that is moved right after it was written makes the processor wait until all of it has been
            // stored, for longer than it takes to learn when the timer is due. So it is made first, and moved after.
            let sleep = sleep_until(*LATER);
            let Some(due) = due() else {
                return Poll::Ready(());
            };
            this.sleep.set(Some(sleep));
            if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                sleep.reset(due);
            }
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) if has_budget_remaining() => sleep.poll(cx),
            Some(sleep) => pin!(unconstrained(sleep)).poll(cx),
            None => Poll::Pending,
        }
    }
}
