//! What bounds an attempt where neither a deadline nor a layer does, and what a session keeps.

use std::time::Duration;

use crate::request::Kind;

/// What a session is limited to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) request: Duration,
    pub(crate) schema: Duration,
    pub(crate) prepare: Duration,
    pub(crate) await_agreement: bool,
    pub(crate) statements: usize,
    /// What the driver is told of its own limit on time: that there is none. `None` leaves it to the session's profile,
    /// which says so in a session of our making; in another's it has to be said, at the price of a timer.
    pub(crate) driver: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            schema: Duration::from_secs(60),
            prepare: Duration::from_secs(30),
            await_agreement: true,
            statements: 1_024,
            driver: Some(Duration::MAX),
        }
    }
}

impl Limits {
    /// What bounds an attempt of this kind where nothing else does.
    pub(crate) fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Schema | Kind::Truncate => self.schema,
            _ => self.request,
        }
    }
}
