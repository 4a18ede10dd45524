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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            schema: Duration::from_secs(60),
            prepare: Duration::from_secs(30),
            await_agreement: true,
            statements: 1_024,
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
