//! A call that was let through or refused by one who wants to know what becomes of it.
//!
//! The futures of the layers that decide by outcomes, and wait inside for the service, are this one; they differ in what they make
//! of an outcome.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Rejection,
    class::{Class, Classify},
    readiness::ReadyCall,
};

/// Who let a call through. Dropped before it has judged, it sees that the caller has given up.
pub(crate) trait Judge {
    /// What the call has come to.
    fn judge(&mut self, class: &Class);

    /// What a call is told that was refused.
    fn refusal(retry_after: Option<Duration>) -> Rejection;
}

pin_project! {
    /// The call.
    pub(crate) struct JudgedCall<S, Req, C, J>
    where
        S: Service<Req>,
    {
        // Before the judge, so that a call which is dropped is over before that is counted.
        #[pin]
        call: ReadyCall<S, Req>,
        fate: Fate<J>,
        classifier: C,
    }
}

enum Fate<J> {
    Passed(J),
    Refused(Option<Duration>),
}

impl<S, Req, C, J> JudgedCall<S, Req, C, J>
where
    S: Service<Req>,
{
    #[inline]
    pub(crate) const fn passed(call: ReadyCall<S, Req>, judge: J, classifier: C) -> Self {
        Self { call, fate: Fate::Passed(judge), classifier }
    }

    pub(crate) const fn refused(retry_after: Option<Duration>, classifier: C) -> Self {
        Self { call: ReadyCall::Ended, fate: Fate::Refused(retry_after), classifier }
    }

    /// For a reader.
    pub(crate) const fn has_passed(&self) -> bool {
        matches!(self.fate, Fate::Passed(_))
    }
}

impl<S, Req, C, J> Future for JudgedCall<S, Req, C, J>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error>,
    J: Judge,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.fate {
            Fate::Passed(judge) => {
                let answer = ready!(this.call.poll(cx));
                judge.judge(&this.classifier.classify(answer.as_ref()));
                Poll::Ready(answer)
            }
            Fate::Refused(retry_after) => Poll::Ready(Err(J::refusal(*retry_after).into())),
        }
    }
}
