//! What tests of layers need: services that do as they are told, a clock that stands still, and the contract.
//!
//! For those who write a layer of their own; this crate's tests use it too. It comes with the feature `testkit`, which
//! belongs among the `dev-dependencies`:
//!
//! ```toml
//! [dev-dependencies]
//! palisade = { version = "0.1", features = ["testkit"] }
//! ```
//!
//! A [`Leaf`] stands at the bottom of a stack and follows a script. A [`Gated`] service is ready when its [`Gate`] is
//! open, and panics when it is called without having been asked. [`run_paused`] runs a test on a clock that jumps to
//! the next timer instead of waiting for it.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{RetryLayer, TimeoutLayer, testkit::{AMBIGUOUS, Leaf, Step, idempotent, run_paused}};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let leaf = Leaf::new([Step::Hang, Step::Fail(AMBIGUOUS), Step::Answer]);
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(TimeoutLayer::new(Duration::from_secs(60)))
//!     .service(leaf.clone());
//!
//! // A minute on this clock takes no time.
//! let answer = run_paused(service.oneshot(idempotent(7)));
//! assert_eq!(answer, Ok(7));
//! assert_eq!((leaf.call_count(), leaf.in_flight()), (3, 0));
//! ```
//!
//! What tower asks of every service, and this crate of every layer, is easily broken without anybody noticing before
//! it hurts in production: a clone that is called although only its original was ready, a permit that goes missing
//! when a call is dropped. [`Contract`] checks all of it, on any layer:
//!
//! ```
//! use std::time::Duration;
//! use palisade::{TimeoutLayer, testkit::Contract};
//! use tower::Layer;
//!
//! // In a test of your own: `#[test] fn it_keeps_the_contract() { ... }`.
//! Contract::new(|inner| TimeoutLayer::new(Duration::from_millis(100)).layer(inner)).check();
//! ```

mod contract;
mod error;
mod gate;
mod leaf;
mod paused;

pub use self::{
    contract::{Clause, Contract, Inner, Violation},
    error::{AMBIGUOUS, CALLER, Error, NOT_APPLIED},
    gate::{Gate, Gated, GatedFuture},
    leaf::{Leaf, LeafFuture, Request, Step, idempotent},
    paused::{Wakes, poll_once, run_paused, settle},
};
