//! A call that has begun: how it ends, and for how long it lasts.

use std::{fmt, sync::Arc};

use palisade::Instant;

use super::{series::Series, span::Recording};
use crate::{error::HasErrorKind, response::Response};

/// The `error.type` of a call whose future was dropped before its end.
const CANCELLED: &str = "cancelled";

/// That of a call whose inner service has panicked.
const PANICKED: &str = "panicked";

/// A call that has begun. It is counted when it ends, or when this is dropped.
pub(super) struct Call {
    // None once it has been counted.
    series: Option<Arc<Series>>,
    since: Instant,
    // None where nobody wants the span: it is rare that somebody does, and large.
    recording: Option<Box<Recording>>,
    // Still set when it is dropped only if the inner service has panicked.
    inside: bool,
}

impl Call {
    #[inline]
    pub(super) fn begin(series: Arc<Series>, recording: Option<Box<Recording>>) -> Self {
        series.begin();
        Self { series: Some(series), since: Instant::now(), recording, inside: false }
    }

    /// Runs code of the inner service, which may panic, in the span.
    #[inline]
    pub(super) fn inside<T>(&mut self, inner: impl FnOnce() -> T) -> T {
        self.inside = true;
        let output = self.leave(inner);
        self.inside = false;
        output
    }

    /// Drops what is of the inner service, in the span.
    #[inline]
    pub(super) fn leave<T>(&self, inner: impl FnOnce() -> T) -> T {
        match &self.recording {
            None => inner(),
            Some(recording) => recording.in_scope(inner),
        }
    }

    #[inline]
    pub(super) fn end<E: HasErrorKind>(&mut self, outcome: Result<&Response, &E>) {
        match outcome {
            Ok(response) => self.succeeded(response),
            Err(error) => {
                // What the error tells is not ours either.
                self.inside = true;
                let error_type = error.error_kind().as_str();
                let code = self.recording.as_ref().and_then(|_| error.server_code());
                self.inside = false;
                self.failed(error_type, code);
            }
        }
    }

    #[inline]
    fn succeeded(&mut self, response: &Response) {
        if let Some(series) = self.series.take() {
            series.succeeded(self.since.elapsed());
            if response.is_rows() {
                series.returned(response.rows_num());
            }
        }
        if let Some(recording) = self.recording.take() {
            recording.succeeded(self.since, response);
        }
    }

    fn failed(&mut self, error_type: &'static str, server_code: Option<i32>) {
        if let Some(series) = self.series.take() {
            series.failed(error_type, self.since.elapsed());
        }
        if let Some(recording) = self.recording.take() {
            recording.failed(self.since, error_type, server_code);
        }
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if self.series.is_some() {
            self.failed(if self.inside { PANICKED } else { CANCELLED }, None);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("since", &self.since).finish_non_exhaustive()
    }
}
