//! A timer that is armed only once something has to be waited for.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::{Unconstrained, unconstrained},
    time::{Sleep, sleep},
};

pin_project! {
    /// Costs nothing until it is first polled, and arms a tokio timer then.
    ///
    /// It is exempt from tokio's cooperative budget: a future that uses up the budget at each poll could
    /// otherwise keep its own time limit from ever firing.
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Unconstrained<Sleep>>,
    }
}

impl Timer {
    pub(crate) const fn unarmed() -> Self {
        Self { sleep: None }
    }

    /// Ready once `wait()` has passed since the first poll. A wait of zero is ready at once.
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wait: impl FnOnce() -> Duration,
    ) -> Poll<()> {
        let mut this = self.project();
        if this.sleep.is_none() {
            let wait = wait();
            if wait.is_zero() {
                return Poll::Ready(());
            }
            this.sleep.set(Some(unconstrained(sleep(wait))));
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}
