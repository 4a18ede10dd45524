//! What people do today: a timeout, and three attempts with backoff.

use std::{pin::Pin, time::Duration};

use tower::{ServiceBuilder, ServiceExt, retry::Policy};

use crate::{
    call::{ATTEMPT, Call, Error},
    load::Stack,
    run::World,
};

/// Three attempts, with exponential backoff and full jitter from 25 ms on: what the clients of cloud services and databases do
/// unless told otherwise, and what blog posts advise.
#[derive(Clone, Copy, Debug, Default)]
pub struct UsualRetry {
    failed: u32,
}

impl<Err> Policy<Call, (), Err> for UsualRetry {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(&mut self, _: &mut Call, result: &mut Result<(), Err>) -> Option<Self::Future> {
        if result.is_ok() || self.failed >= 2 {
            return None;
        }
        let longest = Duration::from_millis(25) * (1 << self.failed);
        self.failed += 1;
        Some(Box::pin(tokio::time::sleep(longest.mul_f64(fastrand::f64()))))
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(*call)
    }
}

/// A timeout for each attempt and three attempts: tower's own layers, over the only server.
pub fn usual(world: &mut World) -> Vec<Stack> {
    let stack = ServiceBuilder::new()
        .map_err(Error::unboxed)
        .retry(UsualRetry::default())
        .timeout(ATTEMPT)
        .service(world.server());
    vec![stack.boxed_clone()]
}
