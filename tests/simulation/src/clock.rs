//! The time in a simulation: seconds since it began.

use tokio::time::Instant;

use crate::speed::{Nanos, seconds};

/// The moment at which a simulation began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    palisades: palisade::Instant,
}

impl Clock {
    /// Begins now, for palisade too.
    pub fn begin() -> Self {
        palisade::clock::begin_here();
        Self { began: Instant::now(), palisades: palisade::Instant::now() }
    }

    /// Nanoseconds since the beginning.
    #[allow(clippy::cast_possible_truncation, reason = "simulations last minutes")]
    pub fn nanos(&self) -> Nanos {
        self.began.elapsed().as_nanos() as Nanos
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        seconds(self.nanos())
    }

    /// A moment on tokio's clock.
    pub fn at(&self, nanos: Nanos) -> Instant {
        self.began + std::time::Duration::from_nanos(nanos)
    }

    /// A moment that palisade tells.
    #[allow(clippy::cast_possible_truncation, reason = "simulations last minutes")]
    pub fn nanos_of(&self, at: palisade::Instant) -> Nanos {
        at.saturating_duration_since(self.palisades).as_nanos() as Nanos
    }
}
