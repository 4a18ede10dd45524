//! The stack under test.

use std::time::Duration;

use palisade::{Budget, CircuitBreakerLayer, DeadlineLayer, HedgeLayer, RetryLayer, TimeoutLayer};
use tower::ServiceBuilder;
use tower_cassandra::{BoxClient, Cassandra, Client, Error, Timeouts};

use crate::clients::Site;

/// Connects as an application would.
pub(crate) async fn stack(points: &[String], site: Option<Site>) -> Result<BoxClient, Error> {
    let mut builder = Cassandra::builder().contact_points(points);
    if let Some(site) = site {
        builder = builder.datacenter(site.local);
    }
    let budget = Budget::default();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
        .layer(RetryLayer::within(&budget))
        .layer(HedgeLayer::within(&budget))
        .layer(CircuitBreakerLayer::default())
        .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(500))))
        .service(builder.connect().await?);
    Ok(Client::new(stack).boxed())
}
